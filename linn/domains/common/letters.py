"""Which option an answer names: a letter in a box, or in a line of prose."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence

from linn.domains.common.typesetting import unset

_LONGEST = 2_000
"""Characters; a longer box or line names no option."""
_ONE = re.compile(r"(?P<before>[\W_]*)(?P<letter>[A-Za-z])(?P<after>[\W_]*)")
_TURNING = frozenset("¬~≠≁≢×✗✘✖❌🚫⛔👎−+=^_*/|&?%…\\≤≥÷°∪∩⊕∧∨")
"""Signs that make a formula of a letter beside them, or deny or doubt it. Digits do so too."""
_DASHES = "-–—"
_APOSTROPHES = ("'", "‘", "’")
_ESCAPED = re.compile(r"\\([{}()\[\]$#])")
_ARROW = re.compile(r"[-=]+>|\\(?:to|rightarrow|Rightarrow|implies)(?![A-Za-z])|[⇒⟶⟹➡]\ufe0f?")

_LABEL = re.compile(
    r"[\s($\[]*([A-Z])[$]*\s*(?:(?P<sure>[:)\].,;]|\s[-–—]\s|[–—])|[=→(])[$]*(?P<rest>.*)",
    re.DOTALL,
)
_NEXT_LABEL = re.compile(r"[\n,;|&]\s*[*_`$(\[]*([A-Z])[*_`$]*\s*[:)\].]")
"""A label further on in a listing of options."""
_CALLED = re.compile(
    r"(?:the\s+)?(?:(?:correct|right|best|final)\s+)?(?:option|choice|letter|answer)"
    r"(?:\s+is)?\s*:?\s*",
    re.IGNORECASE,
)
"""Words that say no more than that a letter follows."""

_WORD = re.compile(r"(?<![A-Za-z0-9_^\\'’=+])([A-Za-z])(?![A-Za-z0-9_^'’=+])")
_BETWEEN = re.compile(
    r"[\s*_`$)\]]*"
    r"(?:[/|&]|[,;](?:\s*(?:or|and)\b)?|\b(?:or|and)\b(?:\s+(?:maybe|perhaps|possibly|else|even))?"
    r"|\.{2,}|…|\?|\s|(?<=[^\s])-(?=[^\s]))"
    r"[\s*_`$(\[]*",
    re.IGNORECASE,
)
"""What stands between two letters that are named side by side."""
_VERBS = frozenset(
    "is are was because since as and or due would seems appears fits which with for by so not "
    "matches must should can will has looks describes works".split()
)
"""Words after which the `A` before them is an option; after others it is an article."""
_REJECTED = re.compile(
    r"(?:\bnot|n[’']t(?: be)?|\bcannot(?: be)?|\bnever|\brather than|\binstead of|\bunlike"
    r"|\bexcept(?: for)?|\b(?:anything|everything|all) but|\b(?:other than|apart from|aside from)"
    r"|\bnor|\bneither|\bnone of|\bover|\bexclud\w*|\beliminat\w*|\brul(?:ed|ing|e) out|\bversus"
    r"|\bvs\.?|\b(?:wrong|incorrect|false)\s+(?:(?:one|answer|option|choice)\s+)?(?:is|was))"
    r"\s+(?:be\s+|options?\s+|choices?\s+|the\s+|answers?\s+|either\s+|both\s+)*[\s($\[*_`]*$",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"[\s)$\]*_`]*(?:"
    r"(?:is|was|are|were|can|could|would|does|do|did|must)\s*(?:n[’']t\b|"
    r"(?:(?:all|both|clearly|just|simply|also)\s+)*"
    r"(?:not|never|wrong|incorrect|false|out|excluded|eliminated|impossible|ruled\s+out)\b)"
    r"|(?:isn|can)[’']t\b|cannot\b|(?:excluded|eliminated|wrong|incorrect|false|ruled\s+out)\b)",
    re.IGNORECASE,
)
_CHOSEN = re.compile(
    r"(?:\b(?:is|be|it[’']s|option|choice|answer|choose|chose|pick|select|say|so|thus|hence|"
    r"therefore|means|gives|with|mark)\b|:|→|=>)[\s:($\[*_`]*$",
    re.IGNORECASE,
)
_OFFERED = re.compile(
    r"(?:\b(?:or|and|also|plus|then|else|otherwise|unless|as well as|maybe|perhaps|possibly|no|wait"
    r"|alternatively|actually|rather|correction|either|second thoughts?"
    r"|but(?=\s+(?:it|the\s+answer)\b))\b|→)[\s,:;.–—-]*"
    r"(?:(?:is\s+)?it(?:[’']s|\s+is|\s+(?:could|may|might)\s+be)?\s+"
    r"|(?:the\s+)?(?:(?:correct|right)\s+)?(?:option|answer|choice)\s+(?:is\s+)?)*[\s($\[*_`]*$",
    re.IGNORECASE,
)
"""What takes an answer back that stands before it, or names another beside it."""


_Run = list[re.Match[str]]
"""Letters side by side."""


def boxed_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a box names: a capital alone, or one that labels words (`E: words`)."""
    bare = _bare(text)
    lone = _lone(bare)
    if lone is not None:
        return lone if lone in options else None
    return _labelled(bare, options)


def lone_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a text names with nothing but its letter, small or large."""
    lone = _lone(_bare(text))
    return lone.upper() if lone is not None and lone.upper() in options else None


def line_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The option that all of a line is: its letter, its words, or both."""
    bare = _bare(text)
    letter = lone_letter(_CALLED.sub("", bare, count=1), options)
    return letter or _worded(bare, options) or _labelled(bare, options)


def prose_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a line after `Answer:` names; None where it names none, empty for several.

    A letter alone; the words of one option; a letter that labels what follows; else a letter in
    the prose. `I` and `A` are words there, unless they cannot be; letters that the line rejects
    (`not B`, `A and C are wrong`) are not named.
    """
    bare = _bare(text)
    letter = lone_letter(bare, options) or _worded(bare, options) or _with_words(bare, options)
    if letter is not None:
        return letter

    runs = [run for run in _runs(bare, options) if not _is_rejected(run, bare)]
    if not runs:
        return None
    named = [match for run in runs for match in run]

    # A line begins with its answer (`B because …`), says it (`the answer is C`), or ends with it.
    first = named[0]
    if not bare[: first.start()].strip(" \t($[*_`") and not _is_several(runs[0]):
        letter = first[1].upper()
        return "" if _offers_other(letter, runs, bare) or _lists(bare, options) else letter
    # A line that neither begins with its answer nor says one letter alone names none.
    if any(map(_is_several, runs)):
        return ""
    capitals = [match for match in named if match[1].isupper()]
    said = [match for match in capitals if _CHOSEN.search(bare, 0, match.start())]
    chosen = said or capitals
    return chosen[-1][1] if chosen else None


def denies(before: str) -> bool:
    """Whether the words before a name reject it (`not`, `anything but`)."""
    return _REJECTED.search(f"{before[-60:].rstrip()} ") is not None


# ---------------------------------------------------------------- a letter alone, or with its words


def _lone(bare: str) -> str | None:
    """The one letter of a text, where the signs around it say nothing; None else."""
    one = _ONE.fullmatch(bare)
    if one is None:
        return None
    before, after = one["before"], one["after"]
    if "!" in before or before.endswith(tuple(_DASHES)):
        return None
    # `'B'` is quoted, `B'` is another thing than B.
    if after.startswith(_APOSTROPHES) and not before.endswith(_APOSTROPHES):
        return None
    signs = before + after
    return one["letter"] if all(map(_says_nothing, signs)) else None


def _says_nothing(sign: str) -> bool:
    """Whether a sign beside a letter leaves it what it is: brackets, stops, arrows, ticks."""
    if sign.isspace() or sign == "\ufe0f":
        return True
    # A mark that combines may strike the letter out; a control may turn the text around.
    return unicodedata.category(sign)[0] in "PSZ" and sign not in _TURNING


def _worded(bare: str, options: Mapping[str, str]) -> str | None:
    """The option whose words a text is."""
    return next((letter for letter, words in options.items() if _worded_as(words, bare)), None)


def _with_words(bare: str, options: Mapping[str, str]) -> str | None:
    """The capital that labels the words of its own option, and nothing else."""
    label = _LABEL.match(bare)
    if label is None or label[1] not in options:
        return None
    rest = label["rest"].strip()
    return label[1] if _worded_as(options[label[1]], rest, rest.removesuffix(")")) else None


def _worded_as(words: str, *texts: str) -> bool:
    """Whether one of some texts has an option's words."""
    wanted = {_plain(words), _plain(unset(words))} - {""}
    return any(_plain(text) in wanted for text in texts)


def _labelled(bare: str, options: Mapping[str, str]) -> str | None:
    """The capital that labels the words behind it."""
    label = _LABEL.match(bare)
    if label is None or label[1] not in options:
        return None
    letter, rest = label[1], label["rest"]
    # `E. coli` may be the words of another option, and `A, B` are two letters.
    others = [other for other, words in options.items() if _plain(words) == _plain(bare)]
    if others and letter not in others:
        return None
    if _with_words(bare, options) == letter:
        return letter
    # `B (…)` and `B = …` are labels of their own words alone; else they are prose and formulas.
    if not label["sure"]:
        return None
    lone = lone_letter(rest, options)
    if lone is not None and lone != letter:
        return None

    # Who writes all options down has chosen none, nor has who offers two.
    further = {other for other in _NEXT_LABEL.findall(rest) if other in options}
    if further - {letter}:
        return None
    runs = [run for run in _runs(bare, options) if not _is_rejected(run, bare)]
    is_hedged = any(map(_is_several, runs)) or _offers_other(letter, runs, bare)
    return None if is_hedged or not runs else letter


def _bare(text: str) -> str:
    """The beginning of a text without what sets a letter in another type."""
    bare = unset(_ESCAPED.sub(r"\1", text[:_LONGEST].replace("\\\\", "\n")))
    return _ARROW.sub(" → ", bare).strip(" \t\n\r*_`").rstrip("\\ ")


# ---------------------------------------------------------------- letters in prose


def _runs(text: str, options: Mapping[str, str]) -> list[_Run]:
    """The lone letters of a text that can be meant as options, those side by side together."""
    runs: list[_Run] = []
    for match in _WORD.finditer(text):
        if not _can_be_option(match, text, options):
            continue
        if runs and _stand_side_by_side(runs[-1][-1], match, text):
            runs[-1].append(match)
        else:
            runs.append([match])
    return runs


def _stand_side_by_side(left: re.Match[str], right: re.Match[str], text: str) -> bool:
    """Whether nothing but a comma, a stroke, `or` and the like stands between two letters."""
    if _BETWEEN.fullmatch(text, left.end(), right.start()) is None:
        return False
    # `B (A and C are wrong)`: a bracket that opens behind a letter begins a remark.
    between = text[left.end() : right.start()]
    begins_remark = "(" in between and ")" not in between
    return not begins_remark or _is_in_bracket(left, text)


def _is_in_bracket(match: re.Match[str], text: str) -> bool:
    return text[: match.start()].count("(") > text[: match.start()].count(")")


def _can_be_option(match: re.Match[str], text: str, options: Mapping[str, str]) -> bool:
    """Whether a lone letter of a line can be meant as an option."""
    letter = match[1]
    if letter.upper() not in options:
        return False
    before, after = text[: match.start()], text[match.end() :]

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


def _is_rejected(run: _Run, text: str) -> bool:
    """Whether the line says that the letters of a run are wrong: `not A or C`, `A is wrong`."""
    before = text[: run[0].start()]
    return bool(_REJECTED.search(before[-60:])) or bool(_DENIED.match(text, run[-1].end()))


def _is_several(run: _Run) -> bool:
    """Whether two different letters stand side by side, as in `A or B`."""
    pairs = itertools.pairwise(match[1].upper() for match in run)
    return any(left != right for left, right in pairs)


def _offers_other(letter: str, runs: Sequence[_Run], text: str) -> bool:
    """Whether a text names another letter beside its first, or in its place."""
    others = [run[0] for run in runs if run[0][1].upper() != letter]
    return any(_OFFERED.search(text[: match.start()][-60:]) for match in others)


def _lists(text: str, options: Mapping[str, str]) -> bool:
    """Whether a text writes down two options, each with its words."""
    plain = _plain(text)
    written = 0
    for letter, words in options.items():
        label = re.escape(letter.lower()) + r"\W{1,3}" + re.escape(_plain(words))
        written += bool(_plain(words)) and re.search(rf"(?<!\w){label}(?!\w)", plain) is not None
    return written > 1


def _plain(text: str) -> str:
    """Lower case, words apart by one space, no full stop, bracket or quotation mark around."""
    return " ".join(text.lower().split()).removesuffix(".").strip("\"“”'‘’ ")
