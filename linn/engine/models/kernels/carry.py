"""The recurrence between chunks, in few operations whatever their number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linn.engine.models.kernels.choice import by_triton

_BLOCK = 8
"""Chunks of a block. A GPU starts about two operations for each of them, and those of the blocks'
own recurrence: 40 for 400 chunks, 60 for 4,000."""


class _Carry(torch.autograd.Function):
    """`entering` with its gradient, which is the same recurrence from the last chunk back."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, decay: Tensor) -> Tensor:
        carry = _recurrence(local, decay)
        ctx.save_for_backward(carry, decay)
        return carry

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        carry, decay = ctx.saved_tensors
        (grad,) = grads
        local_grad = _recurrence(grad.flip(0), decay.flip(0)).flip(0)
        return local_grad, (local_grad * carry).sum_to_size(decay.shape)


def entering(local: Tensor, decay: Tensor) -> Tensor:
    """The state that enters each chunk: carry[c + 1] = decay[c] * carry[c] + local[c].

    carry[0] is 0. local, carry: [C, ...]; decay has as many dimensions, and broadcasts to them. On
    a GPU they are those of a scan, [C, G, N, K, P] and [C, G, 1, K, 1].
    """
    if local.dtype == torch.float32 and by_triton(local.device):
        from linn.engine.models.kernels import fused_carry

        return fused_carry.entering(local, decay)
    carry: Tensor = _Carry.apply(local, decay)
    return carry


def _recurrence(local: Tensor, decay: Tensor) -> Tensor:
    """`entering` without a gradient: within blocks from zero, then what enters each block."""
    count = len(local)
    carry = torch.empty_like(local)
    carry[::_BLOCK] = 0
    for place in range(min(_BLOCK, count) - 1):
        # Chunk `place` of all blocks at once; the last block may be too short for it.
        out = carry[place + 1 :: _BLOCK]
        at = slice(place, place + 1 + (len(out) - 1) * _BLOCK, _BLOCK)
        torch.addcmul(local[at], decay[at], carry[at], out=out)
    if count <= _BLOCK:
        return carry

    # What a block leaves behind, and what passes through it. Nobody reads that of the last one.
    followed = (count - 1) // _BLOCK
    whole = followed * _BLOCK
    last = slice(_BLOCK - 1, whole, _BLOCK)
    left = torch.zeros_like(local[: followed + 1])
    torch.addcmul(local[last], decay[last], carry[last], out=left[:-1])
    passed = _in_blocks(decay, whole).cumprod(1)  # [blocks, _BLOCK, ...]
    through = torch.cat([passed[:, -1], torch.ones_like(passed[:1, -1])])
    entry = _recurrence(left, through)

    # A chunk of a block gets of that what its own block has let pass before it.
    before = torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)
    _in_blocks(carry, whole).addcmul_(before, entry[:-1, None])
    reach = torch.ones_like(decay[0])
    for chunk in range(whole, count):
        carry[chunk].addcmul_(reach, entry[-1])
        reach = reach * decay[chunk]
    return carry


def _in_blocks(values: Tensor, count: int) -> Tensor:
    """The first values [count, ...] as [blocks, _BLOCK, ...], in the same memory."""
    return values[:count].unflatten(0, (-1, _BLOCK))
