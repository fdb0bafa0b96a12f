"""Attention of tokens that go on from a running batch's keys and values, several per row at once.

Letters of shapes: T tokens laid end to end, S rows, H query heads that share G key heads, d the
width of a head, L tokens of one row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from linn.engine.models.nemotron_h.caches import AttentionCache, room_for
from linn.engine.models.nemotron_h.segments import Segments

_SCORES = 2**22
"""Scores that are computed at once, to bound memory."""


def attend_behind(
    projected: Tensor, heads: int, before: AttentionCache, segments: Segments
) -> tuple[Tensor, AttentionCache]:
    """Attention [T, H · d] of each token to its row's earlier ones, and the cache after them.

    projected: queries, keys and values [T, H + 2G, d]; segments: laid out behind S states, whose
    keys and values are `before`.
    """
    shared = (projected.shape[1] - heads) // 2
    q, k, v = projected.split([heads, shared, shared], dim=1)
    leaves, row = segments.leaves, segments.of_token
    cache = before.resized(room_for(leaves.longest))

    # Each row's own tokens come right behind those that it has.
    column = torch.arange(len(q), device=q.device) + (leaves.before - leaves.starts)[row]
    cache.keys[row, :, :, column] = k
    cache.values[row, :, :, column] = v

    outs = []
    totals = leaves.lengths.tolist()
    for number, (own, total) in enumerate(zip(q.split(segments.lengths), totals, strict=True)):
        keys, values = cache.keys[number], cache.values[number]
        most = max(1, _SCORES // (heads * total))
        seen = total - len(own)
        for part in own.split(most):
            seen += len(part)
            outs.append(_read(part, keys[..., :seen], values[..., :seen]))
    return torch.cat(outs), cache


def _read(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What the last tokens of a row read of all, [n, H · d].

    q [n, H, d]: their queries; keys and values [G, d, L].
    """
    tokens, heads, size = q.shape
    shared, _, total = keys.shape
    # The query heads that share a key head stand where a longer sequence would.
    laid = (q * size**-0.5).transpose(0, 1).reshape(shared, -1, size)
    score = torch.bmm(laid, keys).view(heads, tokens, total)
    hide = torch.full((tokens, total), -torch.inf, device=q.device).triu_(total - tokens + 1)
    weight = (score.float() + hide).softmax(-1).to(values.dtype)
    out = torch.bmm(weight.view(shared, -1, total), values.transpose(1, 2))
    return out.view(heads, tokens, size).transpose(0, 1).reshape(tokens, -1)
