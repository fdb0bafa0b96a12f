"""Causal attention over segments laid end to end, by rectangles of segments of like lengths.

Letters of shapes: T tokens, H query heads that share G key heads, d the width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    return _in_rectangles(projected.split(parts, dim=1), laid.split(parts, dim=1), layout, scale)


def attend_apart(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Rectangles,
    scale: float | None = None,
) -> Tensor:
    """The same of queries [T, H, d], keys and values [T, G, d]."""
    laid = [take(part, layout.token_at, layout.place_of) for part in (query, key, value)]
    return _in_rectangles((query, key, value), laid, layout, scale)


def _in_rectangles(
    flat: Sequence[Tensor],
    laid: Sequence[Tensor],
    layout: Rectangles,
    scale: float | None,
) -> Tensor:
    """Attention [T, H, d] of queries, keys and values [T, heads, d].

    laid: the same at the places of the rectangles, [places, heads, d].
    """
    query, key, _ = flat
    before = _prompts(flat[1:], layout)
    outs = []
    rectangles = zip(*(layout.split(part) for part in laid), strict=True)
    for number, parts in enumerate(rectangles):
        q, k, v = (part.transpose(1, 2) for part in parts)  # [rows, heads, columns, d]
        prompt = layout.prompts[number]
        if prompt is not None:
            keys, values = (part.expand(len(q), -1, -1, -1) for part in before[prompt])
            k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        mask = layout.mask(number, q.dtype)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            # Padding stands after a segment's own tokens, so the causal mask alone hides it.
            is_causal=mask is None,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        outs.append(out.transpose(1, 2).flatten(0, 1))  # the tokens first again
    return torch.cat(outs).index_select(0, layout.place_of)


def _prompts(
    both: Sequence[Tensor], layout: Rectangles
) -> dict[tuple[int, int], tuple[Tensor, ...]]:
    """Keys and values [G, tokens, d] of each prompt that rows go on from, by its span.

    All are cut in one operator: the gradient of each cut alone would be as long as all tokens.
    """
    spans = sorted({prompt for prompt in layout.prompts if prompt is not None})
    if not spans:
        return {}
    sizes, end = [], 0
    for start, tokens in spans:
        sizes += [start - end, tokens]
        end = start + tokens
    sizes.append(len(both[0]) - end)
    cut = [part.split(sizes)[1::2] for part in both]
    pairs = zip(*cut, strict=True)
    return {
        span: tuple(part.transpose(0, 1) for part in pair)
        for span, pair in zip(spans, pairs, strict=True)
    }
