"""Rows by index, with a gradient that is gathered rather than added up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Take(torch.autograd.Function):
    """x[index], whose gradient is read from the places where each row went.

    The stock gradient of an index adds every row of the result into place one by one, which is
    much slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        (grad,) = grads
        if places.dim() == 1:
            return grad.index_select(0, places), None, None

        out = grad.index_select(0, places[:, 0])
        for copy in range(1, places.shape[1]):
            out = out.add_(grad.index_select(0, places[:, copy]))
        return out, None, None


def take(x: Tensor, index: Tensor, places: Tensor) -> Tensor:
    """x[index] for x [T, ...].

    places: int64 [T] or [T, k], where in the result row t stands. Copies of a row at other places
    must get no gradient.
    """
    out: Tensor = _Take.apply(x, index, places)
    return out
