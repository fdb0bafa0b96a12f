"""The rows of a live batch: the requests, and the tensors that go with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from linn.engine.models.interface import State
from linn.engine.sampling.draw import Draws
from linn.engine.sampling.kept_states import Kept
from linn.types import Completion, Sampling

NOT_FINITE = (
    "the model's logits are not finite: its weights are broken, or its dtype is too small for them"
)


@dataclass
class Live:
    """One request from its admission to its completion."""

    id: int
    """Unique in its batch."""
    prompt: tuple[int, ...]
    """Token ids."""
    how: Sampling
    """How it is sampled."""
    seed: int
    """Decides its draws."""
    kept: Kept | None = None
    """The state it goes on from; None: its prompt is prefilled."""
    feed: deque[int] = field(default_factory=deque)
    """Tokens to be fed before anything is sampled: what came after the kept state."""
    ids: list[int] = field(default_factory=list)
    """Sampled so far."""
    logprobs: list[float] = field(default_factory=list)
    """One per id."""

    @property
    def reach(self) -> int:
        """Tokens that it has at most when it ends."""
        return len(self.prompt) + self.how.max_tokens

    def is_done(self) -> bool:
        """Whether the last token ended it."""
        return self._has_stopped() or len(self.ids) >= self.how.max_tokens

    def completion(self) -> Completion:
        """What was sampled."""
        return Completion(
            ids=tuple(self.ids),
            logprobs=tuple(self.logprobs),
            finish="stop" if self._has_stopped() else "length",
        )

    def _has_stopped(self) -> bool:
        return self.ids[-1] in self.how.stop


@dataclass(frozen=True)
class Advance:
    """What one decode step brought."""

    tokens: dict[int, tuple[int, float]]
    """By request: the new token and its log-prob, the last token of a finished request included."""
    completions: dict[int, Completion]
    """By request: those that finished in this step."""
    tops: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    """By request with `Sampling.top`: the most likely tokens of this step, with log-probs."""


@dataclass
class Rows:
    """What is decoded together: each field has one entry per row."""

    lives: list[Live | None]
    """None: its request has gone; the row is computed for nothing until the next compaction."""
    draws: Draws
    """How each row draws."""
    state: State
    """What the model has computed of each row."""
    token: Tensor
    """int64 [B]: drawn last and still to be fed."""

    @classmethod
    def begin(cls, lives: Sequence[Live], state: State, device: torch.device) -> Rows:
        """Rows of requests that have drawn nothing yet."""
        return cls(
            lives=list(lives),
            draws=Draws.begin(
                how=[live.how for live in lives],
                seeds=[live.seed for live in lives],
                device=device,
            ),
            state=state,
            token=torch.zeros(len(lives), dtype=torch.int64, device=device),
        )

    def live(self) -> Iterator[tuple[int, Live]]:
        """Each row that has a request, with it."""
        for row, live in enumerate(self.lives):
            if live is not None:
                yield row, live

    def drop(self, ids: Collection[int]) -> None:
        """Take these requests out of their rows."""
        for row, live in self.live():
            if live.id in ids:
                self.lives[row] = None

    def select(self, rows: Sequence[int]) -> Rows:
        """These rows, in this order, out of what is then of no more use."""
        index = torch.tensor(rows, device=self.token.device)
        return Rows(
            lives=[self.lives[row] for row in rows],
            draws=self.draws.select(index),
            state=self.state.select(index, move=True),
            token=self.token.index_select(0, index),
        )

    def join(self, other: Rows, rows: Sequence[int]) -> Rows:
        """These of its rows followed by the other's; both are of no more use."""
        index = torch.tensor(rows, device=self.token.device)
        return Rows(
            lives=[self.lives[row] for row in rows] + other.lives,
            draws=self.draws.select(index).join(other.draws),
            # In one go: the state is most of what has to be copied.
            state=self.state.join(other.state, move=True, rows=index),
            token=torch.cat([self.token.index_select(0, index), other.token]),
        )


def by_prompt(lives: Sequence[Live]) -> list[Live]:
    """Equal prompts together, longest prompts first: rows of one length decode together cheaply."""
    groups: dict[tuple[int, ...], list[Live]] = {}
    for live in lives:
        groups.setdefault(live.prompt, []).append(live)

    # The sort is stable: prompts of equal length stay in order of first appearance.
    longest_first = sorted(groups, key=len, reverse=True)
    return [live for prompt in longest_first for live in groups[prompt]]
