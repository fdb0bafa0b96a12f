"""Multiple choice: one letter out of several options, graded as the released rows ask (strict box, lenient, `Answer:`, own regex)."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from linn.data.request import request_messages
from linn.domains.base import Domain
from linn.errors import UserError
from linn.types import Message, Prompt, Reply, Verdict

_WORDS = {
    "animal": "otter horse tiger mouse sheep whale eagle snake rabbit camel goat duck",
    "fruit": "apple pear plum grape lemon mango peach cherry melon banana fig kiwi",
    "color": "blue green red yellow purple black white brown pink gray cyan teal",
    "tool": "hammer saw drill wrench shovel axe rake pliers ladder knife brush screw",
    "metal": "iron copper silver gold tin zinc lead steel nickel brass bronze chrome",
    "number": "one two three four five six seven eight nine ten eleven twelve",
    "cloth": "shirt coat hat scarf glove sock dress skirt belt boot cap jacket",
    "place": "school market park beach farm church bank hotel museum harbor castle village",
    "food": "bread cheese rice soup pasta butter honey salad cake pie stew toast",
    "job": "doctor teacher farmer baker pilot singer nurse judge sailor painter miner tailor",
}
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words.split()}

_MODES = ("strict_single_letter_boxed", "lenient_boxed", "lenient_answer_colon", "lenient_answer_colon_md")
_TAIL = 20_000
"""Only this many last characters of an answer are searched: an answer stands at the end, and patterns stay fast."""
_LONGEST_BOX = 2_000
"""Characters; wrappers in a longer box are not unwrapped."""
_REGEX_SECONDS = 0.2
"""Time limit of a row's own pattern; a reply that drives it over the limit has no answer."""

_BOX = re.compile(r"\\boxed\s*\{")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_ALONE = re.compile(r"[^A-Za-z]*([A-Z])[^A-Za-z]*")
_LABELLED = re.compile(r"[(*\s]*([A-Z])\s*\)?\s*[:.)]\s*\S.*", re.DOTALL)
_COLON = re.compile(r"answer\s*:\s*([^\n]+)", re.IGNORECASE)
_COLON_MD = re.compile(r"[*_]{0,2}answer[*_]{0,2}\s*:[*_\s]{0,2}\s*([A-Z])(?![a-zA-Z0-9])", re.IGNORECASE)
# Letters of other scripts that stand for A to D in the released multilingual rows.
_FOREIGN = str.maketrans(dict(zip("أبجدঅবডঢＡＢＣＤ", "ABCD" * 3, strict=True)))


class MultipleChoice(Domain):
    """Which word is of a kind? Four options, ten kinds of twelve words. Reward 1 iff the expected letter is read from the answer."""

    name: ClassVar[str] = "mcqa"

    def make(self, rng: random.Random) -> Prompt:
        """The distractors come from three other kinds, one each."""
        kinds = rng.sample(list(_WORDS), 4)
        words = [rng.choice(_WORDS[kind].split()) for kind in kinds]
        right = rng.randrange(4)
        options = dict(zip("ABCD", words, strict=True))
        lines = "\n".join(f"{letter}: {word}" for letter, word in options.items())
        question = Message("user", f"which is a kind of {kinds[right]}? box the letter.\n{lines}")
        hidden = {"options": options, "expected": "ABCD"[right], "mode": _MODES[0], "patterns": []}
        return Prompt(self.name, "", (question,), hidden=hidden)

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """A row's own pattern is asked first; where it finds nothing, the row's grading mode decides."""
        text = reply.text.strip()[-_TAIL:]
        hidden = prompt.hidden
        letter = _by_patterns(text, hidden["patterns"], hidden["options"]) or _by_mode(text, hidden["mode"], hidden["options"])
        if letter is None:
            return Verdict(0.0, f"no letter can be read ({hidden['mode']})")
        right = letter == hidden["expected"]
        return Verdict(float(right), "" if right else f"the letter is {letter}, not {hidden['expected']}")

    def gold(self, prompt: Prompt) -> Reply:
        """The boxed letter; for a row with its own pattern or mode, the first usual way of answering that it reads."""
        letter = prompt.hidden["expected"]
        usual = [
            f"\\boxed{{{letter}}}",
            f"Answer: {letter}",
            f"Option Selected: {letter}",
            f"Final Choice: {letter}",
            f"ANSWER IS {letter}",
        ]
        answers = (Reply(text, _thought(prompt)) for text in usual)
        return next((a for a in answers if self.verify(prompt, a).reward == 1.0), Reply(usual[0], _thought(prompt)))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: the letter stands without its box."""
        letter = prompt.hidden["expected"]
        return (Message("assistant", letter if faulty else f"\\boxed{{{letter}}}", reasoning=_thought(prompt)),)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`options`, `expected_answer`, `grading_mode`, `template_metadata.output_regex`, `uuid`; nulls in options are dropped."""
        expected = row.get("expected_answer")
        if not isinstance(expected, str) or not expected.strip():
            raise UserError(f"row {index}: expected_answer is {expected!r}; allowed: a letter")
        entries = row.get("options") or []
        if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
            raise UserError(f"row {index}: options is {type(entries).__name__}; allowed: a list of one-key objects")
        pairs = [(k, v) for entry in entries for k, v in entry.items()]
        options = {k.upper(): str(v) for k, v in pairs if len(k) == 1 and k.isalpha() and v is not None}
        mode = row.get("grading_mode") or _MODES[0]
        if mode not in _MODES:
            raise UserError(f"row {index}: grading_mode is {mode!r}; allowed: {', '.join(_MODES)}")
        template = row.get("template_metadata") or {}
        if not isinstance(template, Mapping):
            raise UserError(f"row {index}: template_metadata is {type(template).__name__}; allowed: an object")
        patterns = template.get("output_regex") or []
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
            raise UserError(f"row {index}: template_metadata.output_regex must be text or a list of texts")
        hidden = {"options": options, "expected": expected.strip().upper(), "mode": mode, "patterns": patterns}
        return Prompt(self.name, str(row.get("uuid") or index), request_messages(row, index), hidden=hidden)


def _thought(prompt: Prompt) -> str:
    """Each option's kind beside its letter, then the kind asked for, which leads to its letter."""
    words, expected = prompt.hidden["options"], prompt.hidden["expected"]
    if any(word not in _KINDS for word in words.values()):
        return ""  # a released row: there is no stored knowledge to show
    steps = [f"{_KINDS[word]} {letter}" for letter, word in words.items()]
    return ", ".join([*steps, f"so {_KINDS[words[expected]]} {expected}"])


def _by_mode(text: str, mode: str, options: Mapping[str, str]) -> str | None:
    if mode == "lenient_answer_colon":
        return _after_colon(text, options)
    if mode == "lenient_answer_colon_md":
        found = _COLON_MD.findall(text)
        return found[-1].upper() if found and found[-1].upper() in options else None
    inner = _last_box(text)
    if inner is None:
        return None
    match = _ALONE.fullmatch(inner) or _LABELLED.fullmatch(inner)
    if match is not None and match[1] in options:
        return match[1]
    if mode == "lenient_boxed":
        hits = {letter for letter, words in options.items() if _plain(words) and _plain(words) in _plain(inner)}
        return hits.pop() if len(hits) == 1 else None
    return None


def _last_box(text: str) -> str | None:
    """What the last box holds, `\\text{}` and its like unwrapped; None where there is no box or it never closes."""
    starts = list(_BOX.finditer(text))
    if not starts:
        return None
    begin, depth = starts[-1].end(), 1
    for place in range(begin, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            inner, count = text[begin:place].strip(), 1
            while count and len(inner) <= _LONGEST_BOX:
                inner, count = _WRAPPED.subn(r"\1", inner)
            return inner.strip()
    return None


def _after_colon(text: str, options: Mapping[str, str]) -> str | None:
    """`Answer: B`, or the words of an option; the last such line counts."""
    lines = _COLON.findall(text)
    if not lines:
        return None
    candidate = _WRAPPED.sub(r"\1", lines[-1]).strip()
    if len(candidate) == 1 and candidate.upper() in options:
        return candidate.upper()
    return next((letter for letter, words in options.items() if _plain(words) == _plain(candidate)), None)


def _by_patterns(text: str, patterns: Sequence[str], options: Mapping[str, str]) -> str | None:
    """The last match of the first of a row's patterns that yields a letter; options may be incomplete, so the pattern is trusted."""
    if not patterns:
        return None
    import regex  # has a time limit, which the standard library's lacks

    for pattern in patterns:
        try:
            found = list(regex.finditer(pattern, text, regex.IGNORECASE, timeout=_REGEX_SECONDS / len(patterns)))
        except (regex.error, TimeoutError, RecursionError, OverflowError, MemoryError):
            continue
        if not found:
            continue
        captured: str = next((g for g in found[-1].groups() if g), found[-1][0]).translate(_FOREIGN).strip()
        if len(captured) == 1 and captured.isascii() and captured.isalpha():
            return captured.upper()
        for letter, words in options.items():
            if _plain(words) == _plain(captured):
                return letter
    return None


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
