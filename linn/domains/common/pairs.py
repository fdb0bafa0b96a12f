"""Rows of preference data: a prompt, the answer that was chosen and the one that was rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from linn.errors import UserError


@dataclass(frozen=True)
class Pair:
    """One row."""

    prompt: Any
    """Text, or the turns before the answers."""
    chosen: str
    """The better answer."""
    rejected: str
    """The other."""

    @classmethod
    def of_row(cls, row: Mapping[str, Any], where: str) -> Self:
        """`prompt`, `chosen` and `rejected`; the answers are texts or whole conversations.

        UserError names the field that is wrong.
        """
        before, chosen = _answer_of(row.get("chosen"), f"{where}: chosen")
        other, rejected = _answer_of(row.get("rejected"), f"{where}: rejected")
        prompt = row.get("prompt") or row.get("messages") or row.get("context")
        params = row.get("responses_create_params")
        if not prompt and isinstance(params, Mapping):
            prompt = params.get("input")
        if before != other:
            raise UserError(f"{where}: chosen and rejected answer different conversations")
        if not prompt and not before:
            raise UserError(f"{where}: prompt is missing; allowed: text or turns")
        if before and prompt and not _is_asked(prompt, before):
            raise UserError(f"{where}: prompt is another than the turns that chosen answers")
        return cls(before or prompt, chosen, rejected)


def _is_asked(prompt: Any, turns: list[Any]) -> bool:
    """Whether a row's prompt is what the turns before its answers say."""
    if isinstance(prompt, str):
        return any(isinstance(turn, Mapping) and turn.get("content") == prompt for turn in turns)
    # Some tables keep the chosen conversation once more, with its answer.
    said = [(turn.get("role"), turn.get("content")) for turn in turns]
    asked = [
        (turn.get("role"), turn.get("content")) for turn in prompt if isinstance(turn, Mapping)
    ]
    return said in (asked, asked[:-1])


def _answer_of(value: Any, where: str) -> tuple[list[Any], str]:
    """(the turns before an answer, the answer)."""
    if isinstance(value, str) and value.strip():
        return [], value
    last = value[-1] if isinstance(value, list) and value else None
    if isinstance(last, Mapping) and last.get("role") == "assistant":
        content = last.get("content")
        if isinstance(content, str) and not last.get("tool_calls"):
            return list(value[:-1]), content
    raise UserError(
        f"{where} is {str(value)[:40]!r}; allowed: text, or turns that end in an answer"
    )
