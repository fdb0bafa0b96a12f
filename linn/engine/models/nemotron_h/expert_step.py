"""The mixture of experts in decoding: few tokens, and no question back to the device.

`Experts.forward` asks how many tokens each expert has. Here that number stays on the device: on
GPUs that have the kernel, a grouped product reads it there; elsewhere every expert computes every
token, which costs little while the experts' weights cost more to read than to multiply.

Letters of shapes: T tokens, E experts, k experts per token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from linn.engine.models.kernels.experts import all_of_them
from linn.engine.models.nemotron_h.activation import squared_relu
from linn.engine.models.nemotron_h.experts import Experts, MoE

_GROUPING = {(9, 0), (10, 0)}
"""Compute capabilities whose grouped product takes its borders from the device."""

_ALIGNED = 8
"""Numbers of which each side of an expert's matrix must be a multiple there."""


def moe_step(moe: MoE, hidden: Tensor) -> Tensor:
    """What `MoE.forward` gives for hidden [T, H], up to rounding."""
    weights, chosen = moe.gate(hidden)
    latent = moe.fc1_latent_proj(hidden)
    if _has_grouped_product(moe.experts):
        routed = grouped(moe.experts, latent, weights, chosen)
    else:
        up, down = moe.experts.up_proj, moe.experts.down_proj
        routed = all_of_them(latent, weights, chosen, up, down)
    return moe.fc2_latent_proj(routed) + moe.shared_experts(hidden)


def grouped(experts: Experts, hidden: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """The same; each expert computes the tokens that chose it. In bfloat16."""
    top = chosen.shape[1]
    expert, order = chosen.flatten().sort(stable=True)  # [T·k], by expert
    numbers = torch.arange(len(experts.up_proj), device=hidden.device)
    ends = torch.searchsorted(expert, numbers, right=True).to(torch.int32)

    ups, downs = experts.up_proj.transpose(1, 2), experts.down_proj.transpose(1, 2)
    by_expert = hidden.index_select(0, order // top).to(ups.dtype)
    inner = F.grouped_mm(by_expert, ups, offs=ends)
    out = F.grouped_mm(squared_relu(inner), downs, offs=ends)

    # Back into the tokens' order, [T, k, width], and summed over k.
    back = torch.empty_like(out).index_copy_(0, order, out)
    share = weights.to(out.dtype)[:, None]  # [T, 1, k]
    return torch.bmm(share, back.view(len(hidden), top, -1))[:, 0]


def _has_grouped_product(experts: Experts) -> bool:
    up = experts.up_proj
    if not up.is_cuda or up.dtype != torch.bfloat16 or not hasattr(F, "grouped_mm"):
        return False
    if any(size % _ALIGNED for size in up.shape[1:]):
        return False
    return torch.cuda.get_device_capability(up.device) in _GROUPING
