"""Exchanges between ranks that gradients go back through.

A collective is a call that all ranks of a group make together, forward and again backward. A rank
whose loss does not depend on what it received would leave out the second one, and all others would
wait for it for ever: `kept_by` ties what is received to what is used.

Letters of shapes: n values of this rank, R ranks of the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


class _Exchange(torch.autograd.Function):
    """Rows to other ranks; backward, their gradients come home."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gives: Sequence[int], takes: Sequence[int], group: ProcessGroup
    ) -> Tensor:
        ctx.gives, ctx.takes, ctx.group = gives, takes, group
        return _to_all(x, gives, takes, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grads
        return _to_all(grad, ctx.takes, ctx.gives, ctx.group), None, None, None


def _to_all(x: Tensor, gives: Sequence[int], takes: Sequence[int], group: ProcessGroup) -> Tensor:
    out = x.new_empty(sum(takes), *x.shape[1:])
    dist.all_to_all_single(out, x.contiguous(), list(takes), list(gives), group=group)
    return out


def exchange(x: Tensor, gives: Sequence[int], takes: Sequence[int], group: ProcessGroup) -> Tensor:
    """Rows of x [n, ...] to every rank, and theirs to this one: [sum(takes), ...].

    gives: rows for each rank, which lie in x in order of rank. takes: rows from each, likewise.
    """
    out: Tensor = _Exchange.apply(x, gives, takes, group)
    return out


class _Gather(torch.autograd.Function):
    """Equal shares of all ranks; backward, what all of them ask of this rank's share, summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        out = x.new_empty(dist.get_world_size(group), *x.shape)
        # The list forms have the same name in every torch that linn takes.
        dist.all_gather(list(out), x.contiguous(), group=group)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        # Summed in float32, whatever was gathered.
        out = torch.empty(grad.shape[1:], dtype=torch.float32, device=grad.device)
        dist.reduce_scatter(out, list(grad.float().contiguous()), group=ctx.group)
        return out.to(grad.dtype), None


def gather(x: Tensor, group: ProcessGroup) -> Tensor:
    """x [n, ...] of every rank, of the same shape in all of them: [R, n, ...]."""
    out: Tensor = _Gather.apply(x, group)
    return out


def gather_rows(x: Tensor, sizes: Sequence[int], group: ProcessGroup) -> Tensor:
    """Rows of every rank, one rank's after the other's: [sum(sizes), ...].

    sizes: how many each rank has.
    """
    most = max(sizes)
    missing = most - len(x)
    if missing:
        x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])])
    everyone = gather(x, group)
    # Pieces of a row differ by a token at most; padding is cut off again.
    if min(sizes) == most:
        return everyone.flatten(0, 1)
    return torch.cat([rows[:size] for rows, size in zip(everyone, sizes, strict=True)])


class _KeptBy(torch.autograd.Function):
    """The first argument; the second gets a gradient of zero, so that its own graph is taken."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, received: Tensor) -> Tensor:
        ctx.received = received.shape, received.dtype
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grads
        shape, dtype = ctx.received
        return grad, grad.new_zeros(shape, dtype=dtype)


def kept_by(out: Tensor, received: Tensor) -> Tensor:
    """`out`, which does not depend on `received`, in a graph that leads back to both."""
    tied: Tensor = _KeptBy.apply(out, received)
    return tied
