"""Multiple choice: one letter out of several options, graded as the released rows ask (strict box, lenient, `Answer:`, own regex)."""

from __future__ import annotations

import itertools
import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from linn.chat.request import request_of
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

_MODES = (
    "strict_single_letter_boxed",
    "lenient_boxed",
    "lenient_answer_colon",
    "lenient_answer_colon_md",
)
_TAIL = 20_000
"""A row's own pattern sees only this many last characters of an answer: an answer stands at the end, and patterns stay fast."""
_LONGEST_BOX = 2_000
"""Characters; `\\text{}` around a longer box is not taken away."""
_REGEX_SECONDS = 0.2
"""Time limit of a row's own pattern; a reply that drives it over the limit has no answer."""

_BOX = "\\boxed{"
_ALONE = re.compile(r"[^A-Za-z]*([A-Z])[^A-Za-z]*")
_LABELLED = re.compile(r"\s*([A-Z])\s*[:).-]")
_COLON = re.compile(r"answer\s*:\s*(.+)", re.IGNORECASE)
_COLON_MD = re.compile(r"answer[*_]{0,2}\s*:[*_\s]{0,2}(.+)", re.IGNORECASE)
_LONE = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])")
_LISTED = re.compile(r"\s*[/|&,;]\s*|\s+(?:(?:or|and)\s+)?", re.IGNORECASE)
"""What stands between two letters that are named side by side."""
# Letters of other scripts that stand for A to D in the released multilingual rows.
_FOREIGN = str.maketrans(
    {foreign: f" {letter}" for foreign, letter in zip("أبجدঅবডঢ", "ABCD" * 2, strict=True)}
)


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
        hidden = {
            "options": options,
            "expected": "ABCD"[right],
            "mode": _MODES[0],
            "patterns": [],
            "prefix": "",
        }
        return Prompt(self.name, "", (question,), hidden=hidden)

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """A row's own pattern is asked first; where it finds nothing, the row's grading mode decides."""
        text = reply.text.strip()
        hidden = prompt.hidden
        letter = _by_patterns(text[-_TAIL:], hidden["patterns"], hidden["options"]) or _by_mode(
            text, hidden
        )
        if letter is None:
            return Verdict(0.0, f"no letter can be read ({hidden['mode']})")
        right = letter == hidden["expected"]
        return Verdict(
            float(right), "" if right else f"the letter is {letter}, not {hidden['expected']}"
        )

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
        return next(
            (a for a in answers if self.verify(prompt, a).reward == 1.0),
            Reply(usual[0], _thought(prompt)),
        )

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: the letter stands without its box."""
        letter = prompt.hidden["expected"]
        return (
            Message(
                "assistant",
                letter if faulty else f"\\boxed{{{letter}}}",
                reasoning=_thought(prompt),
            ),
        )

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`options`, `expected_answer`, `grading_mode`, `template_metadata` (`output_regex`, `answer_prefix`); nulls in options are dropped."""
        expected = row.get("expected_answer")
        if not isinstance(expected, str) or not expected.strip():
            raise UserError(f"row {index}: expected_answer is {expected!r}; allowed: a letter")
        entries = row.get("options") or []
        if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
            raise UserError(
                f"row {index}: options is {type(entries).__name__}; allowed: a list of one-key objects"
            )
        pairs = [(k, v) for entry in entries for k, v in entry.items()]
        options = {
            k.upper(): str(v) for k, v in pairs if len(k) == 1 and k.isalpha() and v is not None
        }
        mode = row.get("grading_mode") or _MODES[0]
        if mode not in _MODES:
            raise UserError(f"row {index}: grading_mode is {mode!r}; allowed: {', '.join(_MODES)}")
        template = row.get("template_metadata") or {}
        if not isinstance(template, Mapping):
            raise UserError(
                f"row {index}: template_metadata is {type(template).__name__}; allowed: an object"
            )
        patterns = template.get("output_regex") or []
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
            raise UserError(
                f"row {index}: template_metadata.output_regex must be text or a list of texts"
            )
        prefix = template.get("answer_prefix") or ""
        if not isinstance(prefix, str):
            raise UserError(
                f"row {index}: template_metadata.answer_prefix is {type(prefix).__name__}; allowed: text"
            )
        hidden = {
            "options": options,
            "expected": expected.strip().upper(),
            "mode": mode,
            "patterns": patterns,
            "prefix": prefix,
        }
        request = request_of(row, index)
        return Prompt(
            self.name,
            str(row.get("uuid") or index),
            request.messages,
            request.thinking,
            request.tools,
            hidden,
        )


def _thought(prompt: Prompt) -> str:
    """Each option's kind beside its letter, then the kind asked for, which leads to its letter."""
    words, expected = prompt.hidden["options"], prompt.hidden["expected"]
    if any(word not in _KINDS for word in words.values()):
        return ""  # a released row: there is no stored knowledge to show
    steps = [f"{_KINDS[word]} {letter}" for letter, word in words.items()]
    return ", ".join([*steps, f"so {_KINDS[words[expected]]} {expected}"])


def _by_mode(text: str, hidden: Mapping[str, Any]) -> str | None:
    mode, options = hidden["mode"], hidden["options"]
    if mode == "lenient_answer_colon":
        return _after_colon(text, options)
    if mode == "lenient_answer_colon_md":
        letter = _after_last_colon(text, options, hidden["prefix"])
        return letter or (_boxed(_last_box(text), options) if hidden["prefix"] else None)
    inner = _last_box(text)
    letter = _boxed(inner, options)
    if letter is None and mode == "lenient_boxed":
        hits = {
            letter
            for letter, words in options.items()
            if _plain(words) and _plain(words) in _plain(inner)
        }
        return hits.pop() if len(hits) == 1 else None
    return letter


def _last_box(text: str) -> str:
    """What the last box holds; empty where there is no box or it never closes."""
    start = text.rfind(_BOX)
    begin, depth = start + len(_BOX), 1
    for place in range(begin, len(text) if start >= 0 else 0):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[begin:place].strip()
    return ""


def _boxed(inner: str, options: Mapping[str, str]) -> str | None:
    """A capital alone among signs, or before a colon, bracket, point or dash and words (`E: words`)."""
    inner = _unwrapped(inner)
    match = _ALONE.fullmatch(inner) or _LABELLED.match(inner)
    return match[1] if match is not None and match[1] in options else None


def _unwrapped(text: str) -> str:
    """Without the `\\text{}` that stand around the whole."""
    while len(text) <= _LONGEST_BOX and text.startswith("\\text{") and text.endswith("}"):
        text = text[6:-1].strip()
    return text


def _after_colon(text: str, options: Mapping[str, str]) -> str | None:
    """The first `Answer:` line, all of which is a letter or the words of an option."""
    line = _COLON.search(text)
    if line is None:
        return None
    candidate = _unwrapped(line[1]).strip()
    if len(candidate) == 1 and candidate.upper() in options:
        return candidate.upper()
    return next(
        (letter for letter, words in options.items() if _plain(words) == _plain(candidate)), None
    )


def _after_last_colon(text: str, options: Mapping[str, str], prefix: str) -> str | None:
    """The letter of the last `Answer:` line, or line that begins with the row's own prefix, that has one."""
    text = unicodedata.normalize("NFKC", text)
    found = [(match.start(), match[1]) for match in _COLON_MD.finditer(text)]
    if prefix:
        own = re.compile(
            re.escape(unicodedata.normalize("NFKC", prefix)) + r"\s*(?=(.*))", re.IGNORECASE
        )
        found = sorted(
            [*found, *((match.start(), match[1]) for match in own.finditer(text))],
            key=lambda each: each[0],
        )
    return next((letter for _, said in reversed(found) if (letter := _chosen(said, options))), None)


def _chosen(said: str, options: Mapping[str, str]) -> str | None:
    """The letter that a line begins with, else its last capital that stands alone; None where it names several side by side."""
    said = said.translate(_FOREIGN).strip().strip("*_` \t\n\r.,;:")
    lone = [match for match in _LONE.finditer(said) if match[0].upper() in options]
    for left, right in itertools.pairwise(lone):
        if left[0].upper() != right[0].upper() and _LISTED.fullmatch(
            said, left.end(), right.start()
        ):
            return None
    first, alone = re.match(r"[A-Za-z](?![A-Za-z0-9])", said), re.findall(r"\b[A-Z]\b", said)
    letter = first[0].upper() if first else alone[-1] if alone else ""
    return letter if letter in options else None


def _by_patterns(text: str, patterns: Sequence[str], options: Mapping[str, str]) -> str | None:
    """The last match of the first of a row's patterns that yields a letter; options may be incomplete, so the pattern is trusted."""
    if not patterns:
        return None
    import regex  # has a time limit, which the standard library's lacks

    for pattern in patterns:
        try:
            found = list(
                regex.finditer(
                    pattern, text, regex.IGNORECASE, timeout=_REGEX_SECONDS / len(patterns)
                )
            )
        except (regex.error, TimeoutError, RecursionError, OverflowError, MemoryError):
            continue
        if not found:
            continue
        groups = found[-1].groups()
        captured = next((group for group in groups if group), "") if groups else found[-1][0]
        captured = unicodedata.normalize("NFKC", captured.strip()).translate(_FOREIGN).strip()
        if len(captured) == 1 and captured.isalpha():
            return captured.upper()
        for letter, words in options.items():
            if _plain(words) == _plain(captured):
                return letter
    return None


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
