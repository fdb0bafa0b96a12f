"""Sampling in worker processes: requests wait for `flush`, which runs them as one batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from linn.engine.local.dealing import deal, undeal
from linn.types import Completion, Sampling

Request = tuple[tuple[int, ...], Sampling, int]
"""Prompt ids, how to sample, seed."""


class Pool(Protocol):
    """Processes that a batch is dealt to: workers, or the replicas of a cluster."""

    @property
    def count(self) -> int:
        """How many they are."""
        ...

    def call_each(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Have each run its method `name` once; replies in order."""
        ...


class LocalSampler:
    """The `Sampler` of processes that run closed batches.

    Which worker runs a request depends on the queue alone: equal prompts together, dealt by the
    tokens that they and their replies have at most.
    """

    def __init__(self, workers: Pool, checkpoint: Path | None = None) -> None:
        """`checkpoint`: a Hugging Face folder to sample from; None: the policy."""
        self._workers = workers
        self._checkpoint = checkpoint
        self._queue: dict[asyncio.Future[Completion], Request] = {}
        """Who waits, in the order of arrival, and for what."""
        self._ranks: dict[tuple[int, ...], int] = {}
        """By conversation of the last batch that may go on: the worker that keeps its state."""

    async def generate(self, ids: Sequence[int], how: Sampling, seed: int) -> Completion:
        """Continue `ids` at the next `flush`."""
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._queue[future] = (tuple(ids), how, seed)
        try:
            return await future
        finally:
            # Whoever was cancelled waits no longer: nothing is computed for it.
            self._queue.pop(future, None)

    def flush(self) -> None:
        """Run what is queued as one batch, and answer. An error is raised here and to each."""
        queue, self._queue = self._queue, {}
        # A cancelled task hears of it a moment later, maybe only after this batch.
        waiting = [future for future in queue if not future.done()]
        if not waiting:
            return
        try:
            completions = self.run([queue[future] for future in waiting])
        except Exception as error:
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # marked as seen: the raise below reports it
            raise
        for future, completion in zip(waiting, completions, strict=True):
            if not future.done():  # a cancelled conversation no longer waits
                future.set_result(completion)

    def run(self, requests: Sequence[Request]) -> list[Completion]:
        """One batch now, without the queue: one completion per request, in order.

        A request that goes on from a conversation of the batch before runs where that one ran,
        from its kept state.
        """
        known = [self._known_tokens(ids) for ids, _, _ in requests]
        shares = self._shares(requests, known)
        messages = []
        for share in shares:
            own_requests = [requests[i] for i in share]
            own_known = [known[i] for i in share]
            messages.append((self._checkpoint, own_requests, own_known))
        # Workers keep the states of the policy alone, and of the last batch alone: those of the
        # batch before are gone as soon as this one begins, also where it fails.
        self._ranks = {}
        replies = self._workers.call_each("generate", messages)
        completions: list[Completion] = undeal(shares, replies)
        if self._checkpoint is None:
            for rank, share in enumerate(shares):
                for i in share:
                    ids, how, _ = requests[i]
                    if how.more:
                        self._ranks[(*ids, *completions[i].ids)] = rank
        return completions

    def forget(self) -> None:
        """The weights change: nothing that was computed is of use any more."""
        self._ranks = {}

    def _known_tokens(self, prompt: tuple[int, ...]) -> int:
        """How many leading tokens of a prompt are a conversation whose state a worker keeps."""
        lengths = {len(conversation) for conversation in self._ranks}
        for length in sorted(lengths, reverse=True):
            if length < len(prompt) and prompt[:length] in self._ranks:
                return length
        return 0

    def _shares(self, requests: Sequence[Request], known: Sequence[int]) -> list[list[int]]:
        """Indices of the requests per worker."""
        shares: list[list[int]] = [[] for _ in range(self._workers.count)]
        load = [0] * len(shares)
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, (ids, how, _) in enumerate(requests):
            if known[index]:
                rank = self._ranks[ids[: known[index]]]
                shares[rank].append(index)
                load[rank] += len(ids) - known[index] + how.max_tokens
            else:
                # Siblings share a prefill, so equal prompts go to one worker.
                groups.setdefault(ids, []).append(index)

        costs = []
        for ids, group in groups.items():
            costs.append(len(ids) + sum(requests[index][1].max_tokens for index in group))
        members = list(groups.values())
        for share, dealt in zip(shares, deal(costs, len(shares), load), strict=True):
            share += [index for place in dealt for index in members[place]]
            share.sort()
        return shares
