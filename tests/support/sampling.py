"""Requests to a sampler, all at once and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from linn.engine.protocol import Sampler
from linn.types import Completion, Sample, Sampling

Request = tuple[Sequence[int], Sampling, int]
"""Prompt ids, how to sample, seed."""


def sample_all(sampler: Sampler, requests: Sequence[Request]) -> list[Completion]:
    """One batch: a completion per request, in order."""

    async def ask() -> list[Completion]:
        waiting = [asyncio.ensure_future(sampler.generate(*request)) for request in requests]
        await asyncio.sleep(0)  # every request is queued now
        sampler.flush()
        return await asyncio.gather(*waiting)

    return asyncio.run(ask())


def samples_of(requests: Sequence[Request], done: Sequence[Completion]) -> list[Sample]:
    """A training batch of what was sampled, with signals of every kind."""
    out = []
    for (ids, _, seed), completion in zip(requests, done, strict=True):
        behaviour = [0.0] * len(ids) + list(completion.logprobs)
        sample = Sample(
            tokens=(*ids, *completion.ids),
            mask=[False] * len(ids) + [True] * len(completion.ids),
            advantage=[float(seed % 3 - 1)] * len(behaviour),
            behaviour=behaviour,
            teacher=[value - 0.2 for value in behaviour],
            domain="d",
            source=f"p/{seed}",
            group=seed // 4,
        )
        out.append(sample)
    return out
