"""Instruction following (IF-RL): replies that must keep verifiable constraints; the checkers are in
`checkers/`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from linn.chat.request import request_of
from linn.domains.base import Domain
from linn.domains.instruct.checkers import follows
from linn.errors import UserError
from linn.types import Message, Prompt, Reply, Verdict

_TOPICS = (
    "river house garden boat train bird horse dog cat tree lake hill road bridge tower school "
    "market farm forest island ship bus car bike clock chair table door window kitchen bread "
    "apple cake song book letter drum coat shoe moon"
).split()
_KEYWORDS = (
    "lamp stone cup fish cloud spoon ring flag ball brush candle ladder mirror pencil rope shell"
).split()
_ENDINGS = ("good day", "thank you", "bye for now", "over and out", "see you soon", "more to come")


@dataclass(frozen=True)
class _Constraint:
    """One constraint of the tiny generator."""

    id: str
    """The instruction's id."""
    ask: str
    """The sentence that asks for it."""
    word: str
    """What the thought calls it."""
    kwargs: Mapping[str, Any]
    """The checker's arguments."""


@dataclass(frozen=True)
class Instructions:
    """What the grader knows of a prompt."""

    ids: tuple[str, ...]
    """Instruction ids."""
    kwargs: tuple[Mapping[str, Any], ...]
    """Arguments of each instruction's checker."""
    grading_mode: str = "binary"
    """`binary`: all must be followed; `fraction`: the share that is."""
    detect_language: bool = True
    """False: letter case alone is checked, for texts too short to tell a language by."""
    topic: str = ""
    """Of the tiny generator: what to write about; empty for rows."""
    words: tuple[str, ...] = ()
    """Of the tiny generator: what a thought calls each constraint."""


class Instruct(Domain):
    """Write a short text that keeps one or two constraints (tiny), or the released IF-RL rows."""

    name: ClassVar[str] = "instruct"

    def __init__(
        self, level: str = "tiny", rows: str | Path | None = None, reference: bool = False
    ) -> None:
        """`reference`: instructions are checked as by the graders of the released rows, IFBench's
        of 2025, where linn reads them as the project's head does or as they are meant.
        """
        super().__init__(level, rows)
        self.reference = reference

    def make(self, rng: random.Random) -> Prompt:
        """`write about the river. use no commas. end with good day.`: one or two constraints."""
        topic = rng.choice(_TOPICS)
        constraints = _choose(rng)
        asks = " ".join(constraint.ask for constraint in constraints)

        return Prompt(
            domain=self.name,
            id="",
            messages=(Message("user", f"write about the {topic}. {asks}"),),
            thinking=True,
            hidden=Instructions(
                ids=tuple(constraint.id for constraint in constraints),
                kwargs=tuple(constraint.kwargs for constraint in constraints),
                # A dozen words are too few to detect a language from.
                detect_language=False,
                topic=topic,
                words=tuple(constraint.word for constraint in constraints),
            ),
        )

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """All instructions followed (`binary`), or the share that is (`fraction`).

        The metric `checker_errors` counts instructions that could not be checked. Raises
        InfrastructureError where a checker's library is absent.
        """
        task = _instructions(prompt)
        results = [
            follows(id_, kwargs, reply.text, task.detect_language, self.reference)
            for id_, kwargs in zip(task.ids, task.kwargs, strict=True)
        ]
        share = sum(result.followed for result in results) / len(results)
        reward = share if task.grading_mode == "fraction" else float(share == 1)
        notes = [result.note for result in results if result.note]
        errors = sum(result.error for result in results)

        return Verdict(
            reward=reward,
            note="; ".join(notes) or "every instruction followed",
            metrics={"instructions": share, "checker_errors": float(errors)},
        )

    def gold(self, prompt: Prompt) -> Reply:
        """A text that keeps every constraint (tiny level only)."""
        if not _instructions(prompt).topic:
            raise UserError("domain instruct: rows hold no gold replies")
        (message,) = self.demonstrate(prompt, random.Random(0), faulty=False)
        return Reply(
            text=message.content,
            reasoning=message.reasoning or "",
            messages=(message,),
        )

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The thought lists the constraints, the answer keeps them.

        The fault: the last constraint is forgotten.
        """
        task = _instructions(prompt)
        count = len(task.words) - faulty
        arguments = dict(zip(task.ids[:count], task.kwargs[:count], strict=True))
        thought = ", ".join(task.words[:count]) or "plain"
        return (Message("assistant", _write(task.topic, arguments), reasoning=thought),)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """A released IF-RL row: `instruction_id_list`, `kwargs` and `grading_mode`.

        They stand at the top or, in newer rows, in `verifier_metadata`.
        """
        where = f"row {index} (domain instruct)"
        fields = dict(row)
        if isinstance(row.get("verifier_metadata"), Mapping):
            fields |= row["verifier_metadata"]
        ids = _check_ids(where, fields.get("instruction_id_list"))
        kwargs = _check_kwargs(where, fields.get("kwargs"), len(ids))
        mode = fields.get("grading_mode") or "binary"
        if mode not in ("binary", "fraction"):
            raise UserError(f"{where}: grading_mode is {mode!r}; allowed: binary, fraction")
        request = request_of(row, index)

        return request.prompt(
            self.name, str(row.get("id", index)), Instructions(tuple(ids), kwargs, mode)
        )


def _instructions(prompt: Prompt) -> Instructions:
    assert isinstance(prompt.hidden, Instructions), prompt.hidden
    return prompt.hidden


def _check_ids(where: str, ids: object) -> list[str]:
    if not isinstance(ids, list) or not ids or not all(isinstance(id_, str) for id_ in ids):
        raise UserError(
            f"{where}: instruction_id_list must be a list of instruction ids, "
            f"found {json.dumps(ids)[:80]}"
        )
    return ids


def _check_kwargs(where: str, kwargs: object, count: int) -> tuple[Mapping[str, Any], ...]:
    """Arguments per instruction; null stands for none."""
    if (
        not isinstance(kwargs, list)
        or len(kwargs) != count
        or not all(entry is None or isinstance(entry, Mapping) for entry in kwargs)
    ):
        raise UserError(
            f"{where}: kwargs must be a list of {count} objects or nulls, one per instruction, "
            f"found {json.dumps(kwargs)[:80]}"
        )

    return tuple(dict(entry or {}) for entry in kwargs)


# ---------------------------------------------------------------- the tiny generator


_FIXED = {
    "lower": _Constraint("change_case:english_lowercase", "use only small letters.", "lower", {}),
    "capital": _Constraint(
        "change_case:english_capital", "use only capital letters.", "capital", {}
    ),
    "no comma": _Constraint("punctuation:no_comma", "use no commas.", "no comma", {}),
    "quotes": _Constraint("startend:quotation", "put it in quotes.", "quotes", {}),
    "title": _Constraint("detectable_format:title", "add a title.", "title", {}),
}
"""Constraints without an argument."""


def _choose(rng: random.Random) -> Sequence[_Constraint]:
    """One or two constraints that can hold together."""
    kinds = ["lower", "capital", "no comma", "quotes", "title", "end", "word", "bullets"]
    first, second = rng.sample(kinds, 2)
    clash = {first, second} in ({"lower", "capital"}, {"quotes", "bullets"})
    chosen = [first] if clash or rng.random() < 0.3 else [first, second]
    return [_constraint(kind, rng) for kind in chosen]


def _constraint(kind: str, rng: random.Random) -> _Constraint:
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return fixed
    if kind == "end":
        phrase = rng.choice(_ENDINGS)
        return _Constraint(
            id="startend:end_checker",
            ask=f"end with {phrase}.",
            word=f"end {phrase}",
            kwargs={"end_phrase": phrase},
        )

    if kind == "word":
        keyword = rng.choice(_KEYWORDS)
        return _Constraint(
            id="keywords:existence",
            ask=f"use the word {keyword}.",
            word=f"word {keyword}",
            kwargs={"keywords": [keyword]},
        )

    count = rng.choice((2, 3))

    return _Constraint(
        id="detectable_format:number_bullet_lists",
        ask=f"give {count} points.",
        word=f"points {count}",
        kwargs={"num_bullets": count},
    )


def _write(topic: str, arguments: Mapping[str, Mapping[str, Any]]) -> str:
    """The one canonical text about a topic that keeps these constraints.

    It breaks every other one: it has a comma, letters of both cases, and no marks.
    """
    lines = [f"The {topic} is big, and I like it."]
    bullets = arguments.get("detectable_format:number_bullet_lists")

    if bullets:
        points = [*lines, "It is old.", "It is good."][: bullets["num_bullets"]]
        lines = [f"* {point}" for point in points]

    keyword = arguments.get("keywords:existence")
    if keyword:
        lines[-1] += f" I see the {keyword['keywords'][0]}."
    ending = arguments.get("startend:end_checker")
    if ending:
        lines[-1] += f" {ending['end_phrase']}"
    if "detectable_format:title" in arguments:
        lines.insert(0, f"<<{topic}>>")
    text = "\n".join(lines)
    if "punctuation:no_comma" in arguments:
        text = text.replace(",", "")
    if "change_case:english_lowercase" in arguments:
        text = text.lower()
    if "change_case:english_capital" in arguments:
        text = text.upper()
    if "startend:quotation" in arguments:
        text = f'"{text}"'

    return text
