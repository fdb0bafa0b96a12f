"""Requests that wait for a row, and how they start: by a prefill, or from a kept state."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from linn.engine.models.interface import CausalLM, State
from linn.engine.models.vocabulary import check_tokens
from linn.engine.sampling.kept_states import KeptStates, gather
from linn.engine.sampling.rows import Live, by_prompt
from linn.types import Sampling

Request = tuple[Sequence[int], Sampling, int]
"""Prompt ids, how to sample, seed."""


class Waiting:
    """The queue before a batch of `capacity` rows; it says how many may be decoded together."""

    def __init__(
        self,
        model: CausalLM,
        capacity: int,
        prefill_tokens: int,
        slack: int | None,
        cache_bytes: int | None,
    ) -> None:
        """As in `LiveBatch`."""
        self.model = model
        self.capacity = capacity
        self.prefill_tokens = prefill_tokens
        self.cache_bytes = cache_bytes
        self.slack = max(1, capacity // 8) if slack is None else slack
        if not 1 <= self.slack <= capacity:
            raise ValueError(f"slack is {self.slack}; allowed: 1 to the capacity, {capacity}")
        self.device: torch.device = next(model.parameters()).device  # type: ignore[attr-defined]
        self.queue: deque[Live] = deque()
        self.kept = KeptStates()
        """States of finished requests that may go on."""
        self._next_id = 0

    def admit(self, requests: Sequence[Request], known: Sequence[int]) -> list[int]:
        """Queue requests behind those that wait; see `LiveBatch.admit`."""
        lives = []
        for number, (ids, how, seed) in enumerate(requests, self._next_id):
            check_request(ids, how, self.model.vocab)
            lives.append(Live(number, tuple(ids), how, seed))

        for live, length in zip(lives, known, strict=bool(known)):
            if not 0 <= length <= len(live.prompt):
                raise ValueError(f"known is {length} of {len(live.prompt)} prompt tokens")
            if length:
                live.kept = self.kept[live.prompt[:length]]
                # The kept state has not read the last token of its conversation.
                live.feed.extend(live.prompt[length - 1 :])

        self._next_id += len(lives)
        self.queue.extend(by_prompt(lives))
        return [live.id for live in lives]

    def drop(self, ids: Collection[int]) -> None:
        """Forget these requests and what they left."""
        self.queue = deque(live for live in self.queue if live.id not in ids)
        self.kept.drop(ids)

    # ------------------------------------------------------------ how many rows

    def can_start(self, lives: Sequence[Live]) -> bool:
        """Whether so many rows are free beside those of `lives` that waiting requests take them."""
        # However many may be decoded together, they are no more than the capacity.
        if not self.queue or self.capacity - len(lives) < self.slack:
            return False
        most = self.most_rows(reach_of(lives))
        # The same share of fewer rows.
        return most - len(lives) >= max(1, self.slack * most // self.capacity)

    def most_rows(self, longest: int) -> int:
        """Rows that may be decoded together if one reaches so far; the next that waits is of them.

        Every row has as many columns as the longest of them.
        """
        if self.cache_bytes is None:
            return self.capacity
        if self.queue:
            longest = max(longest, self.queue[0].reach)
        if self.model.positions is not None:
            longest = min(longest, self.model.positions)
        fit = self.cache_bytes // max(1, self.model.row_bytes(longest))
        return min(self.capacity, max(1, fit))

    def take(self, lives: Sequence[Live]) -> tuple[list[Live], list[Live]]:
        """The next requests of the queue: those to prefill, and those that go on.

        They end where no row is free beside those of `lives`, or the budget of prompt tokens is
        used up.
        """
        fresh: list[Live] = []
        going_on: list[Live] = []
        prompts: set[tuple[int, ...]] = set()
        size, longest = 0, reach_of(lives)
        while self.queue:
            live = self.queue[0]
            if len(lives) + len(fresh) + len(going_on) >= self.most_rows(longest):
                break
            cost = 0
            if live.kept is not None:
                cost = len(live.feed) if self.model.extends else 0
            elif live.prompt not in prompts:
                cost = len(live.prompt)
            # The first one starts however long it is.
            if cost and size and size + cost > self.prefill_tokens:
                break

            size += cost
            longest = max(longest, live.reach)
            if live.kept is not None:
                going_on.append(live)
            else:
                prompts.add(live.prompt)
                fresh.append(live)
            self.queue.popleft()
        return fresh, going_on

    # ------------------------------------------------------------ how they start

    def prefill(self, lives: Sequence[Live]) -> tuple[Tensor, State, Tensor]:
        """Logits [U, V] and state after each of U different prompts, and whose is whose.

        The last is int64 [len(lives)]: equal prompts are computed once.
        """
        places: dict[tuple[int, ...], int] = {}
        owners = [places.setdefault(live.prompt, len(places)) for live in lives]
        logits, state = self.model.prefill(list(places))
        return logits, state, torch.tensor(owners, device=self.device)

    def resume(self, going_on: Sequence[Live]) -> State:
        """The kept states of these requests, one row each."""
        kept = [live.kept for live in going_on if live.kept is not None]
        state = gather(kept, self.device)
        for live in going_on:
            live.kept = None  # the rows hold a copy
        return state


def reach_of(lives: Sequence[Live]) -> int:
    """Tokens that the longest of these has when it ends; 0 where there are none."""
    return max((live.reach for live in lives), default=0)


def check_request(ids: Sequence[int], how: Sampling, vocab: int) -> None:
    """Refuse a request that a model with `vocab` embeddings cannot sample.

    Raises ValueError, or UserError for a token that it has no embedding for.
    """
    can_sample = how.max_tokens >= 1 and how.temperature >= 0 and 0 < how.top_p <= 1
    if not len(ids) or not can_sample:
        raise ValueError(f"cannot sample: {len(ids)} prompt tokens, {how}")

    # Found out in the model, it would end the other requests of the batch too.
    if min(ids) < 0:
        raise ValueError(f"cannot sample: a prompt token is {min(ids)}")
    check_tokens(ids, vocab)
