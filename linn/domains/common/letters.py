"""Which option an answer names: a letter in a box, or in a line of prose."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

_WRAPPER = re.compile(
    r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mathsf|mathit|rm|bf|boxed|operatorname)"
    r"\s*\{(?P<inner>[^{}]*)\}"
)
_MOST_WRAPPERS = 8
_LONGEST = 2_000
"""Characters; a longer box or line names no option."""
_SIGNS = r"[\s()\[\]{}$.,:;\"'‘’“”]*"
"""What may stand around a lone letter. Digits, `_`, `^` and `=` make a formula of it."""
_LONE = re.compile(rf"{_SIGNS}(?P<marks>[*_`]*){_SIGNS}([A-Za-z]){_SIGNS}(?P=marks){_SIGNS}")
_LABEL = re.compile(
    r"[\s($\[*_`]*([A-Z])[*_`$]*\s*(?:[:)\].,;]|\s[-–—]\s|[–—])[*_`$]*(.*)", re.DOTALL
)
_NEXT_LABEL = re.compile(r"[\n,;|&]\s*[*_`$(\[]*([A-Z])[*_`$]*\s*[:)\].]")
"""A label further on in a listing of options."""
_WORD = re.compile(r"(?<![A-Za-z0-9_^\\'’=+])([A-Za-z])(?![A-Za-z0-9_^'’=+])")
_BETWEEN = re.compile(
    r"[\s*_`$()\[\]]*"
    r"(?:[/|&,;]|\b(?:or|and)\b(?:\s+(?:maybe|perhaps|possibly|else|even))?|\s)"
    r"[\s*_`$()\[\]]*",
    re.IGNORECASE,
)
"""What stands between two letters that are named side by side."""
_VERBS = frozenset(
    "is are was because since as and or due would seems appears fits which with for by so not "
    "matches must should can will has looks describes works".split()
)
"""Words after which the `A` before them is an option; after others it is an article."""
_REJECTED = re.compile(
    r"(?:\bnot|n[’']t(?: be)?|\brather than|\binstead of|\bunlike|\bexcept|\bnor|\bneither|\bover"
    r"|\bexclud\w*|\bruled? out|\bversus|\bvs\.?)"
    r"\s+(?:be\s+|options?\s+|choices?\s+|the\s+|answers?\s+)*[\s($\[*_`]*$",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"[\s)$\]*_`]*(?:is|was|are|can|would|does|must)\s*(?:n[’']t\b|(?:clearly\s+|just\s+)?"
    r"(?:not|wrong|incorrect|false|out|excluded|impossible)\b)|[\s)]*(?:isn|can)[’']t\b",
    re.IGNORECASE,
)
_CHOSEN = re.compile(
    r"(?:\b(?:is|be|it[’']s|option|choice|answer|choose|chose|pick|select|say|so|thus|hence|"
    r"therefore|means|gives|with|mark)\b|:|→|=>)[\s:($\[*_`]*$",
    re.IGNORECASE,
)


def boxed_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a box names: a capital alone, or one that labels words (`E: words`)."""
    bare = _bare(text)
    lone = _LONE.fullmatch(bare)
    if lone is not None:
        return lone[2] if lone[2] in options else None
    return _labelled(bare, options)


def lone_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a text names with nothing but its letter, small or large."""
    lone = _LONE.fullmatch(_bare(text))
    return lone[2].upper() if lone is not None and lone[2].upper() in options else None


def prose_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a line after `Answer:` names; None where it names none, empty for several.

    A letter alone; the words of one option; a letter that labels what follows; else a letter in
    the prose. `I` and `A` are words there, unless they cannot be; letters that the line rejects
    (`not B`) are not named.
    """
    bare = _bare(text)[:_LONGEST].strip()
    letter = lone_letter(bare, options)
    if letter is not None:
        return letter
    for letter, words in options.items():
        if _plain(words) and _plain(words) == _plain(bare):
            return letter

    found = [match for match in _WORD.finditer(bare) if _is_named(match, bare, options)]
    if _side_by_side(found, bare):
        return ""
    if not found:
        return None

    # A line begins with its answer (`B because …`), says it (`the answer is C`), or ends with it.
    first = found[0]
    if not bare[: first.start()].strip(" \t($[*_`"):
        return first[1].upper()
    capitals = [match for match in found if match[1].isupper()]
    said = [match for match in capitals if _CHOSEN.search(bare, 0, match.start())]
    named = said or capitals
    return named[-1][1] if named else None


def _labelled(bare: str, options: Mapping[str, str]) -> str | None:
    """The capital that labels the words behind it."""
    label = _LABEL.match(bare)
    if label is None or label[1] not in options:
        return None
    # `E. coli` may be the words of another option, and `A, B` are two letters.
    others = [letter for letter, words in options.items() if _plain(words) == _plain(bare)]
    rest = lone_letter(label[2], options)
    if (others and label[1] not in others) or (rest is not None and rest != label[1]):
        return None
    # Who writes all options down has chosen none.
    further = {letter for letter in _NEXT_LABEL.findall(label[2]) if letter in options}
    if further - {label[1]}:
        return None
    letters = [match for match in _WORD.finditer(bare) if match[1] in options]
    return None if _side_by_side(letters, bare) else label[1]


def _bare(text: str) -> str:
    """A text without the commands that set a letter in another type."""
    for _ in range(_MOST_WRAPPERS):
        text, count = _WRAPPER.subn(lambda match: match["inner"], text[:_LONGEST])
        if not count:
            break
    return text.strip()


def _is_named(match: re.Match[str], text: str, options: Mapping[str, str]) -> bool:
    """Whether a lone letter of a line can be meant as an option."""
    letter = match[1]
    if letter.upper() not in options:
        return False
    before, after = text[: match.start()], text[match.end() :]
    if _REJECTED.search(before[-60:]) or _DENIED.match(after):
        return False

    # A small letter counts where the line begins with it: elsewhere it may be the word `a`.
    is_first = not before.strip(" \t($[*_`")
    if letter.islower() and not is_first:
        return False
    follows = re.match(r"\s+([a-z][A-Za-z’']*)", after)
    if follows is None:
        return True
    if letter in "Ii":
        return follows[1] in ("is", "because", "since", "as")
    if letter in "Aa":
        return follows[1] in _VERBS or _plain(options["A"]) == _plain(after)
    return True


def _side_by_side(found: list[re.Match[str]], text: str) -> bool:
    """Whether two different letters stand side by side, as in `A or B`."""
    for left, right in itertools.pairwise(found):
        differ = left[1].upper() != right[1].upper()
        if differ and _BETWEEN.fullmatch(text, left.end(), right.start()):
            return True
    return False


def _plain(text: str) -> str:
    """Lower case, words apart by one space, no full stop at the end."""
    return " ".join(text.lower().split()).removesuffix(".")
