"""The norm of a gradient, added up so that neither its size nor how it is dealt blurs it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_PART = {"cpu": 2**16, "cuda": 2**24}
"""Numbers whose squares are added up at once, by device; each part is a double while that lasts.
A CPU keeps it in its caches. On a GPU every part is a launch: of 2^16 numbers each, they were
nearly half of a step of 0.3e9 parameters."""


def gradient_norm(gradients: Iterable[Tensor]) -> float:
    """The Euclidean norm of all gradients together. NaN and infinity stay what they are."""
    return norm_of(sum_of_squares(gradients))


def norm_of(squares: Tensor) -> float:
    """The norm whose square this is, to the bits of a float32: no order of sums shows in these."""
    return float(squares.sqrt().float())


def sum_of_squares(gradients: Iterable[Tensor]) -> Tensor:
    """The squares of all numbers, added up: a float64 scalar, on the device of the gradients.

    In float64 the square of a float32 is exact, and so many sums lose less than what the clipping
    factor keeps. In float32 the sum of 10^8 loses 1 % of the norm, and even of a small model's its
    last bits depend on where the gradient was cut: shards would be clipped otherwise than a whole.
    """
    sums = []
    for gradient in gradients:
        size = _PART.get(gradient.device.type, _PART["cuda"])
        for part in gradient.flatten().split(size):
            sums.append(part.double().square().sum())
    if not sums:
        return torch.zeros((), dtype=torch.float64)
    return torch.stack(sums).sum()
