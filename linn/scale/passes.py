"""Equal passes: every rank goes through the layers as often as the one with the most to do.

Each pass gathers weights, and a rank that skips one leaves all the others waiting for ever. So
ranks agree on the number of passes before the first, and who has fewer goes through empty rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from linn.engine.models.interface import CausalLM
from linn.engine.models.transformers_lm import TransformersLM
from linn.engine.training.pack import Packed
from linn.engine.training.token_weights import StepFailed


def agree(failure: Exception | None, device: torch.device) -> None:
    """Raise this rank's error, or StepFailed where another rank has one. Every rank calls it."""
    flag = torch.tensor(0.0 if failure is None else 1.0, device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    if failure is not None:
        raise failure
    if flag > 0:
        raise StepFailed("another rank failed in this step")


def equal_passes(model: CausalLM, own: Sequence[Packed], device: torch.device) -> Iterator[Packed]:
    """This rank's micro-batches, then empty ones up to the largest number of any rank.

    While one is out, the model makes as many forward passes for it as for that of any other rank.
    """
    count = torch.tensor(len(own), device=device)
    dist.all_reduce(count, dist.ReduceOp.MAX)
    passes = [*own, *(empty() for _ in range(int(count) - len(own)))]
    if not isinstance(model, TransformersLM):
        yield from passes
        return

    forwards = torch.tensor([model.forwards(packed.segments) for packed in passes], device=device)
    dist.all_reduce(forwards, dist.ReduceOp.MAX)
    for packed, most in zip(passes, forwards.tolist(), strict=True):
        model.least_forwards = most
        try:
            yield packed
        finally:
            model.least_forwards = 0


def empty() -> Packed:
    """A row that trains nothing: two tokens, neither of them looked at."""
    ids = torch.zeros((1, 2), dtype=torch.int64)
    whole, real = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    return Packed(
        ids=ids,
        segments=ids,
        continues=None,
        place=whole,
        targets=whole,
        weight=real,
        advantage=real,
        behaviour=real,
        teacher=real,
        sample=whole,
        token=whole,
    )


def total(value: Tensor) -> Tensor:
    """The sum over all ranks, in place."""
    dist.all_reduce(value)
    return value
