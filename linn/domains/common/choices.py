"""Rows of questions with options: NeMo-Gym's, and those of published benchmarks."""

from __future__ import annotations

import itertools
import string
from collections.abc import Mapping, Sequence
from typing import Any

from linn.chat.request import Request, request_of
from linn.errors import UserError

_ANSWERS = ("expected_answer", "answer", "answerKey", "answer_index")
_ASK = "Put the letter of the right option, and nothing else, in \\boxed{}."


def read_choices(row: Mapping[str, Any], where: str) -> tuple[dict[str, str], str]:
    """(the words of the options by letter, the right letter); UserError names what is wrong."""
    names = [key for key in _ANSWERS if row.get(key) is not None] or [_ANSWERS[0]]
    options, labels = _options_of(row, where)
    letters = {name: _letter_of(row.get(name), options, labels) for name in names}
    name, letter = next(iter(letters.items()))
    # NeMo-Gym's rows may name only some of the options; where linn lists them, they are all.
    is_listed = letter in options or not _asks_by_options(row)
    if letter is None or not is_listed:
        allowed = "a letter"
        if options and "choices" in row:
            allowed = "a letter, the words of an option, or its place from 0 on"
        if not options:
            allowed = "a letter, with options or choices beside it"
        raise UserError(f"{where}: {name} is {row.get(name)!r}; allowed: {allowed}")
    for other, second in letters.items():
        if second not in (None, letter):
            raise UserError(f"{where}: {name} means {letter}, but {other} means {second}")
    return options, letter


def _asks_by_options(row: Mapping[str, Any]) -> bool:
    """Whether linn writes the prompt, of the row's question and its options."""
    has_turns = any(row.get(key) for key in ("responses_create_params", "messages", "prompt"))
    return isinstance(row.get("question"), str) and not has_turns


def _options_of(row: Mapping[str, Any], where: str) -> tuple[dict[str, str], Sequence[str]]:
    """(the words of the options by letter, their labels where the row has its own)."""
    name = "options" if row.get("options") is not None else "choices"
    value = row.get(name) or _columns(row)
    labels: Sequence[str] = ()
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        labels = [str(label) for label in value.get("label") or ()]
        value = value["text"]
    elif isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise UserError(
            f"{where}: {name} is {type(value).__name__}; "
            "allowed: a list of texts or of one-key objects"
        )
    if value and all(isinstance(words, str) for words in value):
        if len(value) > len(string.ascii_uppercase):
            raise UserError(f"{where}: {name} has {len(value)} options; allowed: up to 26")
        return dict(zip(string.ascii_uppercase, value, strict=False)), labels
    if not all(isinstance(entry, Mapping) for entry in value):
        kinds = {type(entry).__name__ for entry in value}
        raise UserError(
            f"{where}: {name} holds {' and '.join(sorted(kinds))}; "
            "allowed: a list of texts or of one-key objects"
        )

    options = {}
    for key, words in itertools.chain.from_iterable(entry.items() for entry in value):
        # Keys that are not one letter are passed over.
        if len(key) == 1 and key.isalpha() and words is not None:
            options[key.upper()] = str(words)
    return options, labels


def _columns(row: Mapping[str, Any]) -> dict[str, str]:
    """The options of a table that has a column of each, as MMLU's has."""
    columns = {}
    for letter in string.ascii_uppercase:
        if row.get(letter) is None:
            break
        columns[letter] = str(row[letter])
    return columns


def _letter_of(answer: object, options: Mapping[str, str], labels: Sequence[str]) -> str | None:
    """The letter that a row's answer means; None where it means none."""
    letters = list(options)
    if isinstance(answer, int) and not isinstance(answer, bool):
        return letters[answer] if 0 <= answer < len(letters) else None
    if not isinstance(answer, str) or not answer.strip():
        return None
    text = answer.strip()
    if text in labels and len(labels) == len(letters):
        return letters[labels.index(text)]
    if len(text) == 1 and text.isalpha():
        return text.upper()
    same = [letter for letter, words in options.items() if words.strip() == text]
    return same[0] if len(same) == 1 else None


def request_of_question(row: Mapping[str, Any], options: Mapping[str, str], index: int) -> Request:
    """What a row shows the model: its turns, or its question with the options below."""
    if not _asks_by_options(row):
        return request_of(row, index)
    question = row["question"]
    listing = "\n".join(f"{letter}: {words}" for letter, words in options.items())
    return request_of({**row, "messages": f"{question}\n{listing}\n\n{_ASK}"}, index)
