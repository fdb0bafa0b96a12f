"""Attention of tokens that go on from a running batch's keys and values, several per row at once.

Letters of shapes: T tokens laid end to end, S rows, H query heads that share G key heads, d the
width of a head, L tokens of one row.
"""

from __future__ import annotations

import math

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

    q = q * q.shape[-1] ** -0.5
    # No part is longer: it has as many keys as tokens, at least.
    longest = min(max(segments.lengths), math.isqrt(_SCORES))
    hide = torch.full((longest, longest), -torch.inf, device=q.device).triu_(1)
    outs = []
    totals = leaves.lengths.tolist()
    for number, (own, total) in enumerate(zip(q.split(segments.lengths), totals, strict=True)):
        keys, values = cache.keys[number], cache.values[number]
        most = max(1, _SCORES // (heads * total))
        seen = total - len(own)
        for part in own.split(most):
            seen += len(part)
            outs.append(_read(part, keys[..., :seen], values[..., :seen], hide))
    return torch.cat(outs), cache


def _read(q: Tensor, keys: Tensor, values: Tensor, hide: Tensor) -> Tensor:
    """What the last tokens of a row read of all, [n, H · d].

    q [n, H, d]: their queries, divided by the root of d; keys and values [G, d, L]. hide: -inf
    above the diagonal, for n tokens or more.
    """
    tokens, heads, size = q.shape
    shared, _, total = keys.shape
    # The query heads that share a key head stand where a longer sequence would.
    laid = q.transpose(0, 1).reshape(shared, -1, size)
    score = torch.bmm(laid, keys).float().view(heads, tokens, total)
    # All see what came before them; of themselves each sees those up to itself.
    score[..., total - tokens :] += hide[:tokens, :tokens]
    weight = score.softmax(-1).to(values.dtype)
    out = torch.bmm(weight.view(shared, -1, total), values.transpose(1, 2))
    return out.view(heads, tokens, size).transpose(0, 1).reshape(tokens, -1)
