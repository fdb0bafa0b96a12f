"""Causal attention over segments laid end to end, by rectangles of segments of like lengths.

Letters of shapes: T tokens, H query heads that share G key heads, d the width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from linn.engine.models.nemotron_h.gather import take
from linn.engine.models.rectangles import Rectangles


def attend(projected: Tensor, heads: int, layout: Rectangles, scale: float | None = None) -> Tensor:
    """Attention [T, H, d] of each segment to its prompt and to itself.

    projected: queries, keys and values [T, H + 2G, d], of these query heads. scale: of the scores;
    None: one over the root of d.
    """
    parts = [heads, *[(projected.shape[1] - heads) // 2] * 2]
    laid = take(projected, layout.token_at, layout.place_of)

    outs = []
    rectangles = zip(layout.split(laid), layout.prompts, strict=True)
    for part, prompt in rectangles:  # [rows, columns, H + 2G, d]
        q, k, v = part.transpose(1, 2).split(parts, dim=1)
        mask = None
        if prompt is not None:
            start, tokens = prompt
            before = projected[start : start + tokens, heads:].transpose(0, 1)
            keys, values = before.expand(len(q), -1, -1, -1).split(parts[1], dim=1)
            k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
            mask = mask.tril(tokens)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            # Padding stands after a segment's own tokens, so the causal mask alone hides it.
            is_causal=mask is None,
            scale=scale,
            enable_gqa=heads != parts[1],
        )
        outs.append(out.transpose(1, 2).flatten(0, 1))  # the tokens first again
    return torch.cat(outs).index_select(0, layout.place_of)
