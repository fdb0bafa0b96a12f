"""Trained float32 weights in a narrower dtype, so that what training did survives.

A base in bfloat16 lies on bfloat16's grid, and a stage of a small rate moves a weight by less than
half a step of that grid: the nearest point is where it came from, and the export would be the base.
Rounding up or down by chance, in proportion to the distance, is right on average, and a layer sums
over many weights. Weights that were not trained stay exactly as they are.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor


def by_chance(value: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """A copy in bfloat16 or float16, each number at one of its two neighbours there.

    The mean over draws is the number itself. The draw is a function of `name` alone: the same
    checkpoint gives the same bytes. Numbers beyond the dtype become infinite.
    """
    near = value.to(dtype)
    rest = value - near.float()
    other = _neighbour(near, rest)

    # 0 where the number is one of the dtype's, at most 1/2 elsewhere.
    share = rest / (other.float() - near.float())
    draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    chosen = torch.rand(value.shape, generator=draw) < share
    return torch.where(chosen, other, near)


def _neighbour(near: Tensor, rest: Tensor) -> Tensor:
    """The next number of the dtype on the side of `rest`."""
    # Of one sign, numbers of these dtypes are in the order of their bits.
    bits = near.view(torch.int16)
    away = (rest > 0) == (near > 0)
    beside = bits + torch.where(away, 1, -1).to(torch.int16)

    # On both sides of zero stand the smallest numbers of either sign.
    smallest = torch.where(rest > 0, 1, -(2**15) + 1).to(torch.int16)
    return torch.where(near == 0, smallest, beside).view(near.dtype)
