"""Nemotron-H's feed-forward layers: the MLP, and the mixture of experts with its router.

Letters of shapes: T tokens, H hidden size, k experts per token.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linn.engine.models.kernels import experts as kernels
from linn.engine.models.kernels.choice import experts_by
from linn.engine.models.kernels.products import linear
from linn.engine.models.nemotron_h.activation import squared_relu
from linn.engine.models.nemotron_h.config import Config
from linn.engine.models.nemotron_h.gather import take


class MLP(nn.Module):
    """Up-projection, squared ReLU, down-projection."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, width, bias=config.mlp_bias)
        self.down_proj = nn.Linear(width, config.hidden_size, bias=config.mlp_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(squared_relu(self.up_proj(hidden)))


class Router(nn.Module):
    """Sigmoid router in float32.

    The correction bias moves the choice of experts, never their weights, and is not trained by
    gradient.
    """

    e_score_correction_bias: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(config.n_routed_experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (float32) and indices of each token's experts, both [T, k].

        hidden: [T, H].
        """
        config = self.config
        # Autocast would round near-equal scores into another choice than the sampler's.
        with torch.autocast(hidden.device.type, enabled=False):
            logits = F.linear(hidden.float(), self.weight.float())
            scores = logits.sigmoid()  # [T, experts]

        # The choice has no gradient; the weights of what was chosen have one.
        ranked = scores.detach() + self.e_score_correction_bias
        if config.n_group > 1:
            ranked = self._within_best_groups(ranked)
        chosen = ranked.topk(config.num_experts_per_tok, dim=-1).indices

        weights = scores.gather(1, chosen)
        if config.norm_topk_prob:
            total = weights.sum(-1, keepdim=True)
            weights = weights / (total + 1e-20)
        return weights * config.routed_scaling_factor, chosen

    def _within_best_groups(self, ranked: Tensor) -> Tensor:
        """-inf for the experts outside each token's `topk_group` best groups.

        ranked: [T, experts]. A group is as good as its two best experts together.
        """
        config = self.config
        grouped = ranked.view(len(ranked), config.n_group, -1)
        group_scores = grouped.topk(2, dim=-1).values.sum(-1)  # [T, groups]
        best = group_scores.topk(config.topk_group, dim=-1).indices

        closed = torch.ones_like(group_scores, dtype=torch.bool)
        closed.scatter_(1, best, False)

        ranked = grouped.masked_fill(closed[..., None], -torch.inf)
        return ranked.flatten(1)


class Experts(nn.Module):
    """The routed experts' matrices, stacked."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        count, inner = config.n_routed_experts, config.moe_intermediate_size
        width = config.moe_latent_size or config.hidden_size
        self.up_proj = nn.Parameter(torch.empty(count, inner, width))
        self.down_proj = nn.Parameter(torch.empty(count, width, inner))

    def forward(self, hidden: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """The weighted sum [T, width] of each token's experts.

        hidden [T, width]; weights and chosen [T, k], as from `Router`.
        """
        way = experts_by(hidden, self.up_proj, chosen.shape[1])
        if way == "grouped":
            return kernels.grouped(hidden, weights, chosen, self.up_proj, self.down_proj)
        if way == "all":
            return kernels.all_of_them(hidden, weights, chosen, self.up_proj, self.down_proj)
        if way == "side by side":
            out = kernels.side_by_side(hidden, weights, chosen, self.up_proj, self.down_proj)
            # Where an expert overflows, the loop keeps it from the rows that did not choose it.
            if math.isfinite(out.detach().sum()):
                return out
        return self._one_by_one(hidden, weights, chosen)

    def _one_by_one(self, hidden: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """`forward` in a loop over the experts that were chosen: the reference."""
        top = chosen.shape[1]
        expert = chosen.flatten()  # [T·k]

        # Sorted by expert, so that an expert with any tokens costs one pair of products.
        order = expert.argsort()
        # Where each choice went: the inverse permutation.
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)

        sizes = torch.bincount(expert, minlength=len(self.up_proj))
        by_expert = take(hidden, order // top, back.view(-1, top))
        parts = by_expert.split(sizes.tolist())

        outs = []
        ups, downs = self.up_proj.unbind(), self.down_proj.unbind()
        for part, up, down in zip(parts, ups, downs, strict=True):
            if len(part) == 0:
                continue
            inner = squared_relu(linear(part, up))
            outs.append(linear(inner, down))

        # Back into the tokens' order, [T, k, width], and summed over k.
        out = take(torch.cat(outs), back, order)
        return kernels.weighted(out.view(len(hidden), top, -1), weights)


class MoE(nn.Module):
    """Routed experts plus a shared one that every token passes.

    With `moe_latent_size`, the routed experts work in a smaller space of that width.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden, latent = config.hidden_size, config.moe_latent_size
        self.gate = Router(config)
        self.experts = Experts(config)
        self.shared_experts = MLP(
            config,
            config.moe_shared_expert_intermediate_size,
        )

        self.fc1_latent_proj: nn.Module = nn.Identity()
        self.fc2_latent_proj: nn.Module = nn.Identity()
        if latent:
            self.fc1_latent_proj = nn.Linear(hidden, latent, bias=config.mlp_bias)
            self.fc2_latent_proj = nn.Linear(latent, hidden, bias=config.mlp_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        weights, chosen = self.gate(hidden)
        routed = self.experts(self.fc1_latent_proj(hidden), weights, chosen)
        return self.fc2_latent_proj(routed) + self.shared_experts(hidden)
