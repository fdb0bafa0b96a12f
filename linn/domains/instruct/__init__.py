"""Instruction following (IF-RL): replies that must keep verifiable constraints; the checkers are in `instructions/`."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from linn.chat.request import request_messages
from linn.domains.base import Domain
from linn.domains.instruct.checkers import follows
from linn.errors import UserError
from linn.types import Message, Prompt, Reply, Verdict

_TOPICS = (
    "river house garden boat train bird horse dog cat tree lake hill road bridge tower school market farm forest island "
    "ship bus car bike clock chair table door window kitchen bread apple cake song book letter drum coat shoe moon"
).split()
_KEYWORDS = "lamp stone cup fish cloud spoon ring flag ball brush candle ladder mirror pencil rope shell".split()
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


class Instruct(Domain):
    """Write a short text that keeps one or two constraints (tiny), or the released IF-RL rows."""

    name: ClassVar[str] = "instruct"

    def make(self, rng: random.Random) -> Prompt:
        """`write about the river. use no commas. end with: good day`: a topic and one or two constraints."""
        topic = rng.choice(_TOPICS)
        chosen = _choose(rng)
        asks = " ".join(constraint.ask for constraint in chosen)
        hidden = {
            "instruction_id_list": [constraint.id for constraint in chosen],
            "kwargs": [dict(constraint.kwargs) for constraint in chosen],
            "grading_mode": "binary",
            "detect_language": False,  # a dozen words are too few to detect a language from
            "topic": topic,
            "words": [constraint.word for constraint in chosen],
        }
        return Prompt(
            domain=self.name,
            id="",
            messages=(Message("user", f"write about the {topic}. {asks}"),),
            thinking=True,
            hidden=hidden,
        )

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """All instructions followed (`binary`), or the share that is (`fraction`); `checker_errors` counts those nothing could be checked of.

        Raises InfrastructureError where a checker's library is absent.
        """
        hidden = prompt.hidden
        results = [
            follows(id_, kwargs, reply.text, hidden.get("detect_language", True))
            for id_, kwargs in zip(hidden["instruction_id_list"], hidden["kwargs"], strict=True)
        ]
        share = sum(result.followed for result in results) / len(results)
        reward = share if hidden["grading_mode"] == "fraction" else float(share == 1)
        note = (
            "; ".join(result.note for result in results if result.note)
            or "every instruction followed"
        )
        return Verdict(
            reward,
            note,
            {
                "instructions": share,
                "checker_errors": float(sum(result.error for result in results)),
            },
        )

    def gold(self, prompt: Prompt) -> Reply:
        """A text that keeps every constraint (tiny level only)."""
        if "topic" not in prompt.hidden:
            raise UserError("domain instruct: rows hold no gold replies")
        (message,) = self.demonstrate(prompt, random.Random(0), faulty=False)
        return Reply(text=message.content, reasoning=message.reasoning or "", messages=(message,))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The thought lists the constraints, the answer keeps them; faulty: the last one is forgotten."""
        hidden = prompt.hidden
        kept = len(hidden["words"]) - faulty
        arguments = dict(
            zip(hidden["instruction_id_list"][:kept], hidden["kwargs"][:kept], strict=True)
        )
        thought = ", ".join(hidden["words"][:kept]) or "plain"
        return (Message("assistant", _write(hidden["topic"], arguments), reasoning=thought),)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """A released IF-RL row: `instruction_id_list`, `kwargs`, `grading_mode` at the top or, in newer rows, in `verifier_metadata`."""
        where = f"row {index} (domain instruct)"
        fields = (
            {**row, **row["verifier_metadata"]}
            if isinstance(row.get("verifier_metadata"), Mapping)
            else row
        )
        ids, kwargs, mode = (
            fields.get("instruction_id_list"),
            fields.get("kwargs"),
            fields.get("grading_mode") or "binary",
        )
        if not isinstance(ids, list) or not ids or not all(isinstance(id_, str) for id_ in ids):
            raise UserError(
                f"{where}: instruction_id_list must be a list of instruction ids, found {json.dumps(ids)[:80]}"
            )
        if (
            not isinstance(kwargs, list)
            or len(kwargs) != len(ids)
            or not all(entry is None or isinstance(entry, Mapping) for entry in kwargs)
        ):
            raise UserError(
                f"{where}: kwargs must be a list of {len(ids)} objects or nulls, one an instruction, found {json.dumps(kwargs)[:80]}"
            )
        if mode not in ("binary", "fraction"):
            raise UserError(f"{where}: grading_mode is {mode!r}; allowed: binary, fraction")
        hidden = {
            "instruction_id_list": ids,
            "kwargs": [dict(entry or {}) for entry in kwargs],
            "grading_mode": mode,
        }
        return Prompt(
            self.name,
            str(row.get("id", index)),
            request_messages(row, index),
            thinking=True,
            hidden=hidden,
        )


# ---------------------------------------------------------------- the tiny generator


def _choose(rng: random.Random) -> Sequence[_Constraint]:
    """One or two constraints that can hold together."""
    kinds = ["lower", "capital", "no comma", "quotes", "title", "end", "word", "bullets"]
    first, second = rng.sample(kinds, 2)
    clash = {first, second} in ({"lower", "capital"}, {"quotes", "bullets"})
    chosen = [first] if clash or rng.random() < 0.3 else [first, second]
    return [_constraint(kind, rng) for kind in chosen]


def _constraint(kind: str, rng: random.Random) -> _Constraint:
    if kind == "lower":
        return _Constraint("change_case:english_lowercase", "use only small letters.", "lower", {})
    if kind == "capital":
        return _Constraint(
            "change_case:english_capital", "use only capital letters.", "capital", {}
        )
    if kind == "no comma":
        return _Constraint("punctuation:no_comma", "use no commas.", "no comma", {})
    if kind == "quotes":
        return _Constraint("startend:quotation", "put it in quotes.", "quotes", {})
    if kind == "title":
        return _Constraint("detectable_format:title", "add a title.", "title", {})
    if kind == "end":
        phrase = rng.choice(_ENDINGS)
        return _Constraint(
            "startend:end_checker", f"end with {phrase}.", f"end {phrase}", {"end_phrase": phrase}
        )
    if kind == "word":
        keyword = rng.choice(_KEYWORDS)
        return _Constraint(
            "keywords:existence",
            f"use the word {keyword}.",
            f"word {keyword}",
            {"keywords": [keyword]},
        )
    count = rng.choice((2, 3))
    return _Constraint(
        "detectable_format:number_bullet_lists",
        f"give {count} points.",
        f"points {count}",
        {"num_bullets": count},
    )


def _write(topic: str, kept: Mapping[str, Mapping[str, Any]]) -> str:
    """The one canonical text about a topic that keeps these constraints and breaks every other: it has a comma, both cases, no marks."""
    lines = [f"The {topic} is big, and I like it."]
    if bullets := kept.get("detectable_format:number_bullet_lists"):
        lines = [
            "* " + line for line in [*lines, "It is old.", "It is good."][: bullets["num_bullets"]]
        ]
    if word := kept.get("keywords:existence"):
        lines[-1] += f" I see the {word['keywords'][0]}."
    if end := kept.get("startend:end_checker"):
        lines[-1] += " " + end["end_phrase"]
    if "detectable_format:title" in kept:
        lines.insert(0, f"<<{topic}>>")
    text = "\n".join(lines)
    if "punctuation:no_comma" in kept:
        text = text.replace(",", "")
    if "change_case:english_lowercase" in kept:
        text = text.lower()
    if "change_case:english_capital" in kept:
        text = text.upper()
    return f'"{text}"' if "startend:quotation" in kept else text
