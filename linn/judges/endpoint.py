"""A judge behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from linn.chat.render import answer_of
from linn.endpoint.client import Endpoint
from linn.errors import task_group
from linn.judges.model import JUDGE_SAMPLING
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
    ) -> list[str]:
        """See `Judge`. InfrastructureError names the URL and what the server last did."""
        tasks = []
        async with self.endpoint, task_group() as group:
            for messages, seed in zip(conversations, seeds, strict=True):
                tasks.append(group.create_task(self._text(messages, seed)))
        return [task.result() for task in tasks]

    async def _text(self, messages: Sequence[Message], seed: int) -> str:
        answer = await self.endpoint.complete(messages, self.how, seed)
        if answer.is_cut_off:  # whatever it says is no verdict yet
            return ""
        return answer_of(answer.content)
