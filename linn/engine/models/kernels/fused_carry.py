"""The recurrence between chunks on a GPU, by one Triton kernel that walks from chunk to chunk.

By torch's operators (`carry.entering`) it is some forty launches, and as many in the backward pass.

Letters of shapes: C chunks, G groups of K heads, state N, head width P.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 16
"""Rows of a head's state [N, P] in one program."""


class _Carry(torch.autograd.Function):
    """`entering` with its gradient, which is the same recurrence from the last chunk back."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, decay: Tensor) -> Tensor:
        carry = _walk(local, decay, backward=False)
        ctx.save_for_backward(carry, decay)
        return carry

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        carry, decay = ctx.saved_tensors
        local_grad = _walk(grads[0], decay, backward=True)
        return local_grad, (local_grad * carry).sum_to_size(decay.shape)


def entering(local: Tensor, decay: Tensor) -> Tensor:
    """The state that enters each chunk: carry[c + 1] = decay[c] * carry[c] + local[c].

    carry[0] is 0. local, carry: float32 [C, G, N, K, P]; decay: float32 [C, G, 1, K, 1].
    """
    carry: Tensor = _Carry.apply(local, decay)
    return carry


def _walk(values: Tensor, decay: Tensor, backward: bool) -> Tensor:
    """What stands at each chunk when all chunks before it (backward: behind it) have been added."""
    chunks, groups, size, per_group, width = values.shape
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    heads = groups * per_group
    _step[(heads, triton.cdiv(size, _ROWS))](
        values.contiguous(),
        decay.contiguous(),
        out,
        chunks,
        HEADS=heads,
        PER_GROUP=per_group,
        SIZE=size,
        WIDTH=width,
        BACKWARD=backward,
        ROWS=_ROWS,
        BLOCK_WIDTH=triton.next_power_of_2(width),
    )
    return out


@triton.jit
def _step(
    values,
    decay,
    out,
    chunks,
    HEADS: tl.constexpr,
    PER_GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    BACKWARD: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """A few rows of one head's state, through all chunks."""
    head = tl.program_id(0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    width = tl.arange(0, BLOCK_WIDTH)
    inside = (row < SIZE)[:, None] & (width < WIDTH)[None, :]
    line = (head // PER_GROUP) * SIZE + row
    place = line[:, None] * (PER_GROUP * WIDTH) + (head % PER_GROUP) * WIDTH + width[None, :]

    state = tl.zeros([ROWS, BLOCK_WIDTH], dtype=tl.float32)
    for step in range(chunks):
        chunk = step
        if BACKWARD:
            chunk = chunks - 1 - step
        # Of a long row there are more numbers than 32 bits count.
        at = tl.cast(chunk, tl.int64) * (HEADS * SIZE * WIDTH) + place
        tl.store(out + at, state, mask=inside)
        passed = tl.load(decay + chunk * HEADS + head)
        state = state * passed + tl.load(values + at, mask=inside, other=0.0)
