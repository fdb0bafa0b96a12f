"""A judge behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from linn.chat.render import answer_of
from linn.endpoint.answer import Answer
from linn.endpoint.client import BadRequest, Endpoint
from linn.errors import task_group
from linn.judges.model import JUDGE_SAMPLING, JudgeAnswer, cut_off
from linn.types import Message, Sampling


@dataclass(frozen=True)
class EndpointJudge:
    """A model served elsewhere."""

    endpoint: Endpoint
    """Where, and how patiently it is asked."""
    how: Sampling = JUDGE_SAMPLING
    """Temperature, top-p and the limit of tokens, reasoning included."""
    retries: int = 3
    """See `Judge`."""

    async def answer(
        self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]
    ) -> list[JudgeAnswer]:
        """See `Judge`. InfrastructureError names the URL and what the server last did."""
        tasks = []
        async with self.endpoint, task_group() as group:
            for messages, seed in zip(conversations, seeds, strict=True):
                tasks.append(group.create_task(self._answer(messages, seed)))
        return [task.result() for task in tasks]

    async def _answer(self, messages: Sequence[Message], seed: int) -> JudgeAnswer:
        try:
            answer = await self.endpoint.complete(messages, self.how, seed)
        except BadRequest as error:
            # One question too long for the judge's context must not end a run.
            return JudgeAnswer(missing=str(error), final=True)

        if answer.is_cut_off:  # whatever it says is no verdict yet
            return cut_off(self.how.max_tokens)
        text = answer_of(answer.content)
        if text.strip():
            return JudgeAnswer(text)
        return JudgeAnswer(missing=_missing(answer))


def _missing(answer: Answer) -> str:
    """Why an answer holds no text."""
    if answer.tool_calls:
        return "it calls a tool instead of answering"
    if answer.finish_reason == "content_filter":
        return "withheld by the server's content filter"
    if answer.reasoning or answer.content.strip():
        return "a thought without an answer"
    return "an empty answer"
