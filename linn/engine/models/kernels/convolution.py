"""Mamba-2's short convolution over segments for a GPU: one operator, with the borders apart.

Letters of shapes: T tokens, D channels, K taps, E tokens near the start of their segment.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from linn.engine.models.nemotron_h.segments import Segments


def convolve(x: Tensor, taps: Tensor, bias: Tensor, segments: Segments) -> Tensor:
    """Causal depthwise convolution of x [T, D] that never looks into another segment.

    taps [K, D], the last one for the present token; bias [D].
    """
    kernel = len(taps)
    weight = taps.t()[:, None]  # [D, 1, K]
    padded = F.pad(x.t()[None], (kernel - 1, 0))
    out = F.conv1d(padded, weight, bias, groups=len(bias))[0].t()

    # As if all were one segment; where the taps reach over a border, computed anew without it. No
    # gradient goes through what is put aside.
    near = segments.near_start  # [E]
    index = near[:, None] - torch.arange(kernel - 1, -1, -1, device=x.device)  # [E, K]
    inside = index >= segments.start_of(near)[:, None]
    window = x[index.clamp_min(0)] * inside[..., None]
    return out.index_copy(0, near, (window * taps).sum(1) + bias)
