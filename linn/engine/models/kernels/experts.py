"""A layer's routed experts in one pair of products, whatever their number.

Letters of shapes: T tokens of width W, k experts per token, E experts of inner width I.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from linn.engine.models.kernels.choice import computed_in
from linn.engine.models.kernels.products import linear
from linn.engine.models.nemotron_h.activation import squared_relu
from linn.engine.models.nemotron_h.gather import take


def grouped(hidden: Tensor, weights: Tensor, chosen: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The weighted sum [T, W] of each token's experts; how many each expert got stays on the GPU.

    hidden [T, W]; weights and chosen [T, k], as from `Router`; up [E, I, W]; down [E, W, I].
    """
    top = chosen.shape[1]
    sorted_experts, order = chosen.flatten().sort(stable=True)  # [T·k]
    # Where each choice went: the inverse permutation.
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)

    # The end of each expert's rows. Counting them instead would wait for the GPU.
    numbers = torch.arange(len(up), device=up.device)
    ends = torch.searchsorted(sorted_experts, numbers, right=True).to(torch.int32)

    # Autocast does not know this operator.
    dtype = computed_in(hidden)
    by_expert = take(hidden, order // top, back.view(-1, top)).to(dtype)
    inner = F.grouped_mm(by_expert, _cast(up, dtype).transpose(1, 2), offs=ends)
    inner = squared_relu(inner)
    out = F.grouped_mm(inner, _cast(down, dtype).transpose(1, 2), offs=ends)

    # Back into the tokens' order, and summed over k.
    return weighted(take(out, back, order).view(len(hidden), top, -1), weights)


def all_of_them(
    hidden: Tensor, weights: Tensor, chosen: Tensor, up: Tensor, down: Tensor
) -> Tensor:
    """The same for few rows: each passes every expert, and what it did not choose counts 0."""
    share = weights.new_zeros(len(hidden), len(up)).scatter(1, chosen, weights)
    is_chosen = torch.zeros_like(share, dtype=torch.bool).scatter(1, chosen, True)

    every = hidden.expand(len(up), -1, -1)
    inner = torch.bmm(every, up.transpose(1, 2))  # [E, T, I]
    # Left out before it is squared: where an expert overflows, 0 times what it gives is no number.
    inner = inner.where(is_chosen.t()[..., None], 0)
    out = torch.bmm(squared_relu(inner), down.transpose(1, 2))  # [E, T, W]
    return (out * share.t().to(out.dtype)[..., None]).sum(0)


def side_by_side(
    hidden: Tensor, weights: Tensor, chosen: Tensor, up: Tensor, down: Tensor
) -> Tensor:
    """The same for few rows on a CPU: two large products, as of one expert of width E·I.

    What a row did not choose counts 0. Where such an expert overflows the row is not finite.
    """
    share = weights.new_zeros(len(hidden), len(up)).scatter(1, chosen, weights)
    inner = squared_relu(linear(hidden, up.flatten(0, 1))).unflatten(1, (len(up), -1))
    inner = inner * share.to(inner.dtype)[..., None]
    return linear(inner.flatten(1), down.transpose(0, 1).flatten(1))


class _Cast(torch.autograd.Function):
    """A weight in another dtype, whose gradient is added where the weight's own stands already.

    Autograd would first make one of the weight's size and dtype. Of all experts together that is
    as much as the model itself, for every micro-batch.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.weight = weight
        return weight.to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        weight, (grad,) = ctx.weight, grads
        if weight.is_leaf and weight.grad is not None:
            weight.grad.add_(grad)
            return None, None
        return grad.to(weight.dtype), None


def _cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in this dtype."""
    if weight.dtype == dtype:
        return weight
    cast: Tensor = _Cast.apply(weight, dtype)
    return cast


class _Weighted(torch.autograd.Function):
    """The sum of each token's experts; its gradient is written down, since a product of every
    token's own matrices is what autograd would make of it, which takes ten times as long."""

    @staticmethod
    def forward(ctx: Any, outs: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(outs, weights)
        # Who trains or scores keeps the product's sums, between whose dealings bounds are measured.
        if not _in_turn(outs) or not torch.is_inference_mode_enabled():
            return torch.bmm(weights[:, None], outs)[:, 0]
        first, *others = zip(outs.unbind(1), weights.unsqueeze(2).unbind(1), strict=True)
        total = first[0] * first[1]
        for out, weight in others:
            total.addcmul_(out, weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        outs, weights = ctx.saved_tensors
        (grad,) = grads
        of_outs = weights[..., None] * grad[:, None]
        if not _in_turn(outs):
            return of_outs, torch.bmm(outs, grad[..., None])[..., 0]
        return of_outs, (outs * grad[:, None]).sum(-1)


def _in_turn(outs: Tensor) -> bool:
    """Whether a token's experts come one after the other, in float32 on a CPU: a product of every
    token's own matrix takes up to twelve times as long there."""
    return outs.is_cpu and outs.dtype == torch.float32


def weighted(outs: Tensor, weights: Tensor) -> Tensor:
    """The sum [T, W] of outs [T, k, W] by weights [T, k]."""
    total: Tensor = _Weighted.apply(outs, weights.to(outs.dtype))
    return total
