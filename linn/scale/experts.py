"""Routed experts spread over ranks: each holds some of them, and tokens go to where theirs are.

A layer's experts are most of its parameters. Spread over E ranks, a rank gathers an E-th of them
for a pass, and the rows of all E ranks' tokens come to it. What it computes is the layer's own
forward, of rows with one expert each; their weighted sum is made at home, as without spreading.

Letters of shapes: T tokens of this rank, k experts per token.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from linn.engine.models.nemotron_h.experts import Experts, MoE
from linn.engine.models.nemotron_h.gather import take
from linn.engine.models.nemotron_h.model import NemotronH
from linn.errors import UserError
from linn.scale.collectives import exchange


def spread(model: NemotronH, group: ProcessGroup) -> None:
    """Leave this rank its experts alone, of a model without memory (`meta`).

    group: the ranks that hold a layer's experts together. Raises UserError where they cannot.
    """
    ranks = dist.get_world_size(group)
    layers = [module for module in model.modules() if isinstance(module, MoE)]
    count = model.config.n_routed_experts
    if not layers or count % ranks:
        has = f"{count} routed experts a layer" if layers else "no routed experts"
        raise UserError(
            f"trainers.experts: {ranks} does not fit a model with {has}; take "
            + ("a divisor of these" if layers else "1")
        )
    for layer in layers:
        _keep(layer.experts, count // ranks)
        layer.experts.forward = partial(  # type: ignore[method-assign]
            _sent_out, layer.experts.forward, count // ranks, group
        )


def _keep(experts: Experts, own: int) -> None:
    for name, stack in list(experts.named_parameters()):
        part = torch.empty(own, *stack.shape[1:], dtype=stack.dtype, device="meta")
        setattr(experts, name, nn.Parameter(part))


def _sent_out(
    forward: Any,
    own: int,
    group: ProcessGroup,
    hidden: Tensor,
    weights: Tensor,
    chosen: Tensor,
) -> Tensor:
    """`Experts.forward` of all experts, by ranks that have `own` of them each.

    hidden [T, width]; weights and chosen [T, k]. Every rank of the group calls it.
    """
    top = chosen.shape[1]
    expert = chosen.flatten()  # [T·k]
    order = expert.argsort(stable=True)
    # Where each choice went: the inverse permutation.
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)

    # How many rows go to each expert; and, of this rank's experts, come from each rank.
    ranks = dist.get_world_size(group)
    sizes = torch.bincount(expert, minlength=own * ranks)
    coming = torch.empty_like(sizes)
    dist.all_to_all_single(coming, sizes, group=group)
    gives = sizes.view(ranks, own).sum(1).tolist()
    takes = coming.view(ranks, own).sum(1).tolist()

    rows = exchange(take(hidden, order // top, back.view(-1, top)), gives, takes, group)
    # Rows came rank by rank, each rank's in order of expert.
    numbers = torch.arange(own, device=rows.device).repeat(ranks)
    done = _computed(forward, rows, torch.repeat_interleave(numbers, coming))

    out = take(exchange(done, takes, gives, group), back, order)
    out = out.view(len(hidden), top, -1)
    weights = weights.to(out.dtype)[:, None]  # [T, 1, k]
    return torch.bmm(weights, out)[:, 0]


def _computed(forward: Any, rows: Tensor, expert: Tensor) -> Tensor:
    """Rows, each through one of this rank's experts, by the layer's own code."""
    if not len(rows):
        # Nobody chose one of these: a row of zeros, so that gradients find their way all the same.
        rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        return _computed(forward, rows, expert.new_zeros(1))[:0]
    # Weighed at home: a weight of 1 leaves every bit as it is.
    weights = torch.ones(len(rows), 1, device=rows.device)
    out: Tensor = forward(rows, weights, expert[:, None])
    return out
