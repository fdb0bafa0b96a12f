"""Lean 4 text: statements, the code of an answer, and which proofs may be given to Lean."""

from __future__ import annotations

import re
import textwrap

from linn.domains.common.fences import FenceRule, blocks
from linn.errors import UserError

_FENCE = FenceRule(
    opening=re.compile(r"[ \t]*(?P<ticks>```)(?P<mark>[^`]*)"),
    closing=re.compile(r"[ \t]*(?P<ticks>```)[ \t]*"),
)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_NAME = re.compile(r"\b(?:theorem|lemma)\s+([^\s:({\[⦃]+)")
_STATES = re.compile(r"^\s*(?:theorem|lemma|example)\b", re.MULTILINE)
_BY = re.compile(r"\s*by\b")
_HOLE = re.compile(r"\s*(?::=\s*(?:by\b\s*)?(?:sorry\b\s*)?)?\Z")
_TACTICS = re.compile(r"\bby\s*(?:sorry\s*)?\Z")
_WORD = re.compile(r"[^\W\d][\w.!?']*")

_REFUSED = frozenset(
    # what leaves the proof open
    "sorry admit axiom native_decide unsafe "
    # what changes how text is read
    "macro macro_rules syntax notation infix infixl infixr prefix postfix elab elab_rules "
    "declare_syntax_cat binder_predicate simproc "
    # what runs programs or reports
    "run_tac run_cmd run_elab run_meta by_elab dbg_trace set_option import "
    # what ends the proof and begins something else
    "namespace section end export theorem lemma example def abbrev instance class structure "
    "inductive opaque attribute local scoped private protected noncomputable partial mutual "
    "variable universe deriving initialize builtin_initialize extern implemented_by csimp".split()
)
"""Words that a proof may not hold: with them it could change what Lean proves or reports."""
_REFUSED_PARTS = frozenset(
    "Lean IO System sorryAx ofReduceBool reduceBool ofReduceNat reduceNat trustCompiler lcProof "
    "unsafeIO unsafeCast".split()
)
"""The same as parts of dotted names."""
_REFUSED_SIGNS = ("#", "@[", "«", "eval%")


# ---------------------------------------------------------------- statements


def check_statement(statement: str, where: str) -> None:
    """UserError where a row's statement names no theorem."""
    if _NAME.search(bare(statement)) is None:
        raise UserError(
            f"{where} holds no `theorem NAME`; "
            "allowed: Lean text that ends in one theorem, its proof left out"
        )


def name_of(statement: str) -> str:
    """The name of the theorem that is to be proved: the last one stated."""
    return str(_NAME.findall(bare(statement))[-1])


def core(statement: str) -> str:
    """The statement up to its `:=`."""
    return _HOLE.sub("", statement.rstrip())


# ---------------------------------------------------------------- answers


def code_of(answer: str) -> str:
    """The last fenced block of an answer, or all of it."""
    fenced = list(blocks(answer, _FENCE))
    return fenced[-1].text if fenced else answer


def proof_of(code: str, header: str, statement: str) -> tuple[str, str]:
    """(what follows the statement's `:=`, "") of a reply's code, or ("", why it is refused).

    The code is a body (with or without `by`), or repeats our header and our statement word for word
    before its body. The result is exactly what was checked: it holds no comments in which something
    could hide.
    """
    plain = bare(code)
    places = _places_of(bare(core(statement)), plain)
    if places:
        proof = _after_statement(plain, places, bare(header))
        if proof is None:
            return "", "only the proof's body may be given, after the statement word for word"
    elif _STATES.search(plain):
        return "", "the statement was changed, or another was proved"
    elif _BY.match(plain) or not _TACTICS.search(bare(statement)):
        proof = " " + plain.lstrip()
    else:
        # The row's statement ends in `by`: the reply gives the tactics alone.
        tactics = textwrap.indent(textwrap.dedent(plain), "  ")
        proof = f" by\n{tactics}"

    fault = refused(proof)
    if fault:
        return "", fault
    return proof.rstrip(), ""


def _places_of(statement: str, code: str) -> list[re.Match[str]]:
    """Where a statement stands in code, whatever the space between its words."""
    words = map(re.escape, statement.split())
    return list(re.finditer(r"\s+".join(words), code))


def _after_statement(code: str, places: list[re.Match[str]], header: str) -> str | None:
    """What follows the statement's `:=`.

    None where the statement is repeated, or where something besides our header stands before it.
    """
    if len(places) > 1:
        return None

    (place,) = places
    allowed = {"", *map(_one_spaced, header.splitlines())}
    for line in code[: place.start()].splitlines():
        if _one_spaced(line) not in allowed:
            return None

    rest = code[place.end() :].lstrip()
    return rest.removeprefix(":=") if rest.startswith(":=") else None


def _one_spaced(line: str) -> str:
    return " ".join(line.split())


def refused(proof: str) -> str:
    """Why a proof may not be tried; empty where it may.

    It could change what Lean proves or reports, or run programs.
    """
    if not re.sub(r"\bby\b", "", proof).strip():
        return "the proof is empty"
    for sign in _REFUSED_SIGNS:
        if sign in proof:
            return f"{sign} is not allowed in a proof"
    for word in _WORD.findall(proof):
        if word in _REFUSED or not _REFUSED_PARTS.isdisjoint(word.split(".")):
            return f"{word} is not allowed in a proof"
    return ""


def bare(code: str) -> str:
    """Lean text without its comments (blocks nest); one left open takes all that follows."""
    parts: list[str] = []
    depth = 0
    place = 0
    while place < len(code):
        two = code[place : place + 2]
        if two == "/-":
            if depth == 0:
                parts.append(" ")  # a comment parts words
            depth += 1
            place += 2
        elif depth and two == "-/":
            depth -= 1
            place += 2
        elif depth:
            place += 1
        elif two == "--":
            end = code.find("\n", place)
            place = len(code) if end < 0 else end
        elif code[place] == '"':
            # What looks like a comment inside a string is none.
            literal = _STRING.match(code, place)
            assert literal is not None
            parts.append(literal[0])
            place = literal.end()
        else:
            parts.append(code[place])
            place += 1
    return "".join(parts)
