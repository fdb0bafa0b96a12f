"""What a task may spend: sampled tokens, looked at before every wave of requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from linn.types import Message, Reply, Rollout, ToolCall, Turn, Verdict


@dataclass(frozen=True)
class Attempt:
    """What a strategy keeps of a rollout: the reply, its verdict and what it cost."""

    reply: Reply
    """What the model answered."""
    verdict: Verdict
    """What the domain's grader said; strategies that may not know it only report it."""
    status: Literal["ok", "truncated", "failed"]
    """See `Rollout`."""
    error: str
    """Why it is not `ok`."""
    tokens: int
    """Tokens that the model sampled, over all turns."""
    prompt_tokens: int
    """Tokens that it read: the prompt, and what tools gave back; 0 at an endpoint."""

    @property
    def text(self) -> str:
        """The answer, without its thought; empty where it was cut off."""
        return self.reply.text if self.status != "truncated" else ""


def attempt_of(rollout: Rollout) -> Attempt:
    """A rollout as a strategy keeps it."""
    tokens = sum(map(_sampled, rollout.turns))
    read = sum(len(turn.ids) for turn in rollout.turns if turn.logprobs is None)
    return Attempt(
        reply=rollout.reply,
        verdict=rollout.verdict,
        status=rollout.status,
        error=rollout.error,
        tokens=tokens,
        prompt_tokens=read,
    )


def _sampled(turn: Turn) -> int:
    """Tokens of a turn that the model sampled; a served turn's are counted by its server."""
    told: int | None = getattr(turn, "told", None)
    if told is not None:
        return told
    return 0 if turn.logprobs is None else len(turn.ids)


@dataclass
class Budget:
    """Sampled tokens that one task may spend, and what it has spent.

    It is looked at before every wave, so it is exceeded by what one wave samples at most.
    """

    tokens: int | None = None
    """At most so many sampled tokens; None: no limit."""
    spent: int = 0
    """Tokens sampled so far, judges' included."""
    read: int = 0
    """Tokens read so far: prompts and tool turns."""
    calls: int = 0
    """Rollouts so far."""
    truncated: int = 0
    """Those that reached a limit of tokens."""
    failed: int = 0
    """Those whose environment or grader broke: nobody judged them."""

    @property
    def is_spent(self) -> bool:
        """Whether no further request may start."""
        return self.tokens is not None and self.spent >= self.tokens

    def add(self, attempts: Iterable[Attempt]) -> None:
        """Count what came back."""
        # Failed ones too: their tokens were sampled.
        for attempt in attempts:
            self.spent += attempt.tokens
            self.read += attempt.prompt_tokens
            self.calls += 1
            self.truncated += attempt.status == "truncated"
            self.failed += attempt.status == "failed"


# ---------------------------------------------------------------- on disk


def row_of(attempt: Attempt) -> dict[str, Any]:
    """An attempt as JSON."""
    reply, verdict = attempt.reply, attempt.verdict
    return {
        "text": reply.text,
        "reasoning": reply.reasoning,
        "finished": reply.finished,
        "turns": [_turn_row(message) for message in reply.messages],
        "reward": verdict.reward,
        "note": verdict.note,
        "status": attempt.status,
        "error": attempt.error,
        "tokens": attempt.tokens,
        "prompt_tokens": attempt.prompt_tokens,
    }


def attempt_from(row: dict[str, Any]) -> Attempt:
    """The attempt that `row_of` wrote; KeyError or TypeError for another object."""
    turns = tuple(_turn_from(turn) for turn in row["turns"])
    return Attempt(
        reply=Reply(row["text"], row["reasoning"], turns, row["finished"]),
        verdict=Verdict(float(row["reward"]), row["note"]),
        status=row["status"],
        error=row["error"],
        tokens=int(row["tokens"]),
        prompt_tokens=int(row["prompt_tokens"]),
    )


def _turn_row(message: Message) -> dict[str, Any]:
    """A turn as JSON; what it does not have is left out."""
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        row["reasoning"] = message.reasoning
    if message.tool_calls:
        row["calls"] = [[call.name, call.arguments, call.id] for call in message.tool_calls]
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    return row


def _turn_from(row: dict[str, Any]) -> Message:
    calls = tuple(ToolCall(*call) for call in row.get("calls", ()))
    return Message(
        role=row["role"],
        content=row["content"],
        reasoning=row.get("reasoning"),
        tool_calls=calls,
        tool_call_id=row.get("tool_call_id"),
    )
