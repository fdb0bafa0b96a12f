"""Multiple choice: one letter out of several options, read as the row asks (see `MODES`)."""

from __future__ import annotations

import itertools
import random
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from linn.domains.base import Domain
from linn.domains.common import letters
from linn.domains.common.boxes import last_box, outer_boxes
from linn.domains.common.choices import read_choices, request_of_question
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

Mode = Literal[
    "strict_single_letter_boxed",
    "lenient_boxed",
    "lenient_answer_colon",
    "lenient_answer_colon_md",
]
MODES: tuple[Mode, ...] = get_args(Mode)
"""How a letter is read: a letter in the last box; or an option's words in it; or a line `Answer:`;
or the last such line, in Markdown or after the row's own prefix."""

_TAIL = 20_000
"""A row's own pattern sees only this many last characters: an answer ends a reply."""
_LONGEST_BOX = 2_000
"""Characters; `\\text{}` around a longer box is not taken away."""
_REGEX_SECONDS = 0.2
"""Time limit of a row's own pattern; a reply that drives it over the limit has no answer."""

_ALONE = re.compile(r"[^A-Za-z]*([A-Z])[^A-Za-z]*")
_LABELLED = re.compile(r"\s*([A-Z])\s*[:).-]")
_COLON = re.compile(r"answer\s*:\s*(.+)", re.IGNORECASE)
_COLON_MD = re.compile(r"answer[*_]{0,2}\s*:[*_\s]{0,2}(.+)", re.IGNORECASE)
_LONE = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])")
_FIRST = re.compile(r"[A-Za-z](?![A-Za-z0-9])")
_CAPITAL = re.compile(r"\b[A-Z]\b")
_LISTED = re.compile(r"\s*[/|&,;]\s*|\s+(?:(?:or|and)\s+)?", re.IGNORECASE)
"""What stands between two letters that are named side by side."""
_FOREIGN = str.maketrans(
    {foreign: f" {letter}" for foreign, letter in zip("أبجدঅবডঢ", "ABCD" * 2, strict=True)}
)
"""Letters of other scripts that stand for A to D in the released multilingual rows."""


@dataclass(frozen=True)
class Choice:
    """What the grader knows of a question: `Prompt.hidden` of this domain."""

    options: Mapping[str, str]
    """The words of each option by its letter; rows may name only some."""
    expected: str
    """The right letter."""
    mode: Mode = "strict_single_letter_boxed"
    """How the letter is read."""
    patterns: Sequence[str] = ()
    """The row's own regular expressions, tried before the mode."""
    prefix: str = ""
    """The row's own words for `Answer:`, in the mode `lenient_answer_colon_md`."""
    reference: bool = False
    """Whether a letter is read as nemo-gym reads it."""


class MultipleChoice(Domain):
    """Which word is of a kind? Four options, ten kinds of twelve words.

    Reward 1 iff the expected letter is read from the answer.
    """

    name: ClassVar[str] = "mcqa"

    def __init__(
        self, level: str = "tiny", rows: str | Path | None = None, reference: bool = False
    ) -> None:
        """`reference`: letters are read as nemo-gym does, which takes `I think it is C` for I."""
        super().__init__(level, rows)
        self.reference = reference

    # -------------------------------------------------- prompts

    def make(self, rng: random.Random) -> Prompt:
        """The distractors come from three other kinds, one each."""
        kinds = rng.sample(list(_WORDS), 4)
        words = [rng.choice(_WORDS[kind].split()) for kind in kinds]
        right = rng.randrange(4)
        expected = "ABCD"[right]

        options = dict(zip("ABCD", words, strict=True))
        listing = "\n".join(f"{letter}: {word}" for letter, word in options.items())
        text = f"which is a kind of {kinds[right]}? box the letter.\n{listing}"
        return Prompt(
            self.name,
            "",
            (Message("user", text),),
            hidden=Choice(options, expected),
        )

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`options`, `expected_answer`, `grading_mode`, `template_metadata`.

        Benchmarks' own rows hold `question`, `choices` (or `options`) and `answer` (or `answerKey`,
        `answer_index`): linn then writes the question with its options, and asks for the letter.
        Of `template_metadata`, `output_regex` and `answer_prefix` are read. Nulls in options are
        dropped.
        """
        where = f"row {index}"
        options, expected = read_choices(row, where)
        mode = row.get("grading_mode") or MODES[0]
        if mode not in MODES:
            raise UserError(f"{where}: grading_mode is {mode!r}; allowed: {', '.join(MODES)}")
        patterns, prefix = _read_template(row.get("template_metadata") or {}, where)

        choice = Choice(
            options=options,
            expected=expected,
            mode=mode,
            patterns=patterns,
            prefix=prefix,
            reference=self.reference,
        )
        request = request_of_question(row, options, index)
        return request.prompt(self.name, str(row.get("uuid") or index), choice)

    # -------------------------------------------------- grading

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """A row's own patterns go first; where they read nothing, its grading mode decides."""
        choice = _choice(prompt)
        text = reply.text.strip()
        letter = by_patterns(text[-_TAIL:], choice.patterns, choice.options)
        if letter is None:
            letter = by_mode(text, choice)

        # The note says what was read: a person can then tell a wrong answer from a wrong form.
        if letter is None:
            return Verdict(0.0, f"no letter can be read ({choice.mode})")
        if letter != choice.expected:
            return Verdict(0.0, f"the letter is {letter}, not {choice.expected}")
        return Verdict(1.0)

    def gold(self, prompt: Prompt) -> Reply:
        """The boxed letter; for a row with its own way of reading, the first usual one it reads."""
        letter = _choice(prompt).expected
        usual = (
            f"\\boxed{{{letter}}}",
            f"Answer: {letter}",
            f"Option Selected: {letter}",
            f"Final Choice: {letter}",
            f"ANSWER IS {letter}",
        )
        replies = [Reply(text, _thought(prompt)) for text in usual]
        for reply in replies:
            if self.verify(prompt, reply).reward == 1.0:
                return reply
        return replies[0]

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: the letter stands without its box."""
        letter = _choice(prompt).expected
        text = letter if faulty else f"\\boxed{{{letter}}}"
        return (Message("assistant", text, reasoning=_thought(prompt)),)


def _choice(prompt: Prompt) -> Choice:
    assert isinstance(prompt.hidden, Choice), type(prompt.hidden)
    return prompt.hidden


def _thought(prompt: Prompt) -> str:
    """Each option's kind beside its letter, then the kind in question, which leads to its letter.

    Empty for a released row: its words are not in our list.
    """
    choice = _choice(prompt)
    if choice.expected not in choice.options:
        return ""
    if not all(word in _KINDS for word in choice.options.values()):
        return ""

    kinds = {letter: _KINDS[word] for letter, word in choice.options.items()}
    steps = [f"{kind} {letter}" for letter, kind in kinds.items()]
    steps.append(f"so {kinds[choice.expected]} {choice.expected}")
    return ", ".join(steps)


# ---------------------------------------------------------------- fields of rows


def _read_template(template: Any, where: str) -> tuple[list[str], str]:
    """The row's own patterns and its answer prefix; empty where it has none."""
    if not isinstance(template, Mapping):
        raise UserError(
            f"{where}: template_metadata is {type(template).__name__}; allowed: an object"
        )

    # One pattern may stand without its list.
    patterns = template.get("output_regex") or []
    if isinstance(patterns, str):
        patterns = [patterns]
    if not isinstance(patterns, list) or not all(isinstance(text, str) for text in patterns):
        raise UserError(f"{where}: template_metadata.output_regex must be text or a list of texts")

    prefix = template.get("answer_prefix") or ""
    if not isinstance(prefix, str):
        raise UserError(
            f"{where}: template_metadata.answer_prefix is {type(prefix).__name__}; allowed: text"
        )
    return patterns, prefix


# ---------------------------------------------------------------- reading a letter


def by_mode(text: str, choice: Choice) -> str | None:
    """The letter that the prompt's mode reads from an answer."""
    match choice.mode:
        case "lenient_answer_colon":
            return _after_colon(text, choice)
        case "lenient_answer_colon_md":
            letter = _after_last_colon(text, choice)
            # A row with its own prefix may ask for a box after it.
            if letter is None and choice.prefix:
                return _boxed_letter(_boxed(text, choice), choice)
            return letter or None
        case "strict_single_letter_boxed":
            return _boxed_letter(_boxed(text, choice), choice)
        case "lenient_boxed":
            inner = _boxed(text, choice)
            return _boxed_letter(inner, choice) or _boxed_words(inner, choice)


def _boxed(text: str, choice: Choice) -> str:
    """What the last box holds; empty where there is no box or it never closes.

    A box inside another is part of it; the reference takes the box that begins last.
    """
    box = last_box(text)
    if box is None:
        return ""
    around = outer_boxes(text)[-1:]
    if around and around[0].end >= box.end and not choice.reference:
        box = around[0]
    return box.inner.strip()


def _boxed_letter(inner: str, choice: Choice) -> str | None:
    """A capital alone among signs, or one before a colon, bracket, point or dash (`E: words`)."""
    options = choice.options
    if not choice.reference:
        return letters.boxed_letter(inner, options)
    inner = _unwrapped(inner)
    match = _ALONE.fullmatch(inner) or _LABELLED.match(inner)
    return match[1] if match is not None and match[1] in options else None


def _boxed_words(inner: str, choice: Choice) -> str | None:
    """The one option whose words stand in a box; None where several do."""
    options = choice.options
    inner = _plain(inner)
    found = []
    for letter, words in options.items():
        # As whole words: `lead` does not stand in `leading`, nor `1.5` in `-1.5` and `1.55`.
        begin, end = r"(?<!\w)(?<![-−.](?=\d))", r"(?!\w|\.\d)"
        if choice.reference:
            begin = end = ""
        pattern = begin + re.escape(_plain(words)) + end
        stands = re.search(pattern, inner) if _plain(words) else None
        if stands is not None and (choice.reference or not letters.denies(inner[: stands.start()])):
            found.append(letter)
    same = [letter for letter in found if _plain(options[letter]) == inner]
    if len(same) == 1 and not choice.reference:
        return same[0]
    return found[0] if len(found) == 1 else None


def _unwrapped(text: str) -> str:
    """Without the `\\text{}` that stand around the whole."""
    while len(text) <= _LONGEST_BOX and text.startswith("\\text{") and text.endswith("}"):
        text = text[6:-1].strip()
    return text


def _after_colon(text: str, choice: Choice) -> str | None:
    """The first `Answer:` line, all of which is a letter or the words of an option."""
    options = choice.options
    line = (_COLON if choice.reference else _COLON_MD).search(text)
    if line is None:
        return None
    if not choice.reference:
        return letters.line_letter(line[1], options) or _letter_of(line[1], options)
    candidate = _unwrapped(line[1]).strip()
    if len(candidate) == 1 and candidate.upper() in options:
        return candidate.upper()
    return _letter_of(candidate, options)


def _after_last_colon(text: str, choice: Choice) -> str | None:
    """The letter of the last line after `Answer:`, or the row's own prefix, that holds one."""
    prefix, options = choice.prefix, choice.options
    text = unicodedata.normalize("NFKC", text)
    matches = list(_COLON_MD.finditer(text))
    if prefix:
        # The look-ahead lets a prefix that stands in another's line be found as well.
        words = re.escape(unicodedata.normalize("NFKC", prefix))
        own = re.compile(words + r"\s*(?=(.*))", re.IGNORECASE)
        matches += own.finditer(text)
        matches.sort(key=lambda match: match.start())

    # A last line without a letter ("Answer: unsure") leaves it to the line before.
    for match in reversed(matches):
        if choice.reference:
            letter = _letter_in(match[1], options)
        else:
            letter = letters.prose_letter(match[1].translate(_FOREIGN), options)
        if letter is not None:
            return letter
    return None


def _letter_in(line: str, options: Mapping[str, str]) -> str | None:
    """The letter that a line begins with, else its last capital that stands alone.

    None where it names several letters side by side.
    """
    line = line.translate(_FOREIGN).strip().strip("*_` \t\n\r.,;:")
    if _names_several(line, options):
        return None

    # A small letter counts at the beginning alone: elsewhere it may be the word "a".
    first = _FIRST.match(line)
    if first is not None:
        letter = first[0].upper()
    else:
        letter = next(reversed(_CAPITAL.findall(line)), "")
    return letter if letter in options else None


def _names_several(line: str, options: Mapping[str, str]) -> bool:
    """Whether two different letters stand side by side, as in `A or B`."""
    lone = [match for match in _LONE.finditer(line) if match[0].upper() in options]
    for left, right in itertools.pairwise(lone):
        differ = left[0].upper() != right[0].upper()
        if differ and _LISTED.fullmatch(line, left.end(), right.start()):
            return True
    return False


def by_patterns(text: str, patterns: Sequence[str], options: Mapping[str, str]) -> str | None:
    """The last match of the first of a row's patterns that yields a letter."""
    for capture in _captures(text, patterns):
        normal = unicodedata.normalize("NFKC", capture.strip())
        words = normal.translate(_FOREIGN).strip()

        # Options may be incomplete, so a letter that the pattern captures is trusted.
        if len(words) == 1 and words.isalpha():
            return words.upper()
        letter = _letter_of(words, options)
        if letter is not None:
            return letter
    return None


def _captures(text: str, patterns: Sequence[str]) -> Iterator[str]:
    """What each pattern that matches captures in its last match."""
    if not patterns:
        return
    import regex  # has a time limit, which the standard library's lacks

    seconds = _REGEX_SECONDS / len(patterns)
    for pattern in patterns:
        # A row's pattern can be anything: one that breaks or overruns reads nothing.
        try:
            matches = list(regex.finditer(pattern, text, regex.IGNORECASE, timeout=seconds))
        except (regex.error, TimeoutError, RecursionError, OverflowError, MemoryError):
            continue
        if not matches:
            continue

        # Alternatives have a group each, of which one holds something.
        last = matches[-1]
        groups = last.groups()
        if groups:
            yield next(filter(None, groups), "")
        else:
            yield last[0]


def _letter_of(words: str, options: Mapping[str, str]) -> str | None:
    """The first option that has these words."""
    for letter, option in options.items():
        if _plain(option) == _plain(words):
            return letter
    return None


def _plain(text: str) -> str:
    """Lower case, words apart by one space."""
    return " ".join(text.lower().split())
