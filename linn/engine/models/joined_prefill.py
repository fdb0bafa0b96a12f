"""Prompts in one pass through a family's code, end to end as in training, and the state after them.

Sampler and trainer then compute a prompt in the same way. Without it prompts stand in rows that are
padded to the longest, behind a mask.

Letters of shapes: B prompts, T tokens of those computed at once, H hidden size, G key heads,
d head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from linn.engine.models.cache_state import CacheState
from linn.engine.models.growing_layer import growing_cache
from linn.engine.models.joined_rows import joined_attention, joined_states
from linn.engine.models.kept_prompts import PromptLayer, prompt_cache
from linn.engine.models.rectangles import prompt_groups

Prompts = Sequence[Sequence[int]]
"""Token ids of each."""


def prefilled(
    decoder: Any, config: Any, prompts: Prompts, most: int, device: torch.device
) -> tuple[Tensor, CacheState]:
    """Hidden states [B, H] of each prompt's last token, and the state to continue from.

    decoder: the family's code; config: the whole model's; most: tokens that are computed at once.
    """
    whole = growing_cache(config)
    lengths = [len(prompt) for prompt in prompts]
    columns = max(lengths)
    states = []
    first = 0
    for group in prompt_groups(prompts, most):
        own = torch.tensor([len(prompt) for prompt in group])
        ids = torch.tensor([token for prompt in group for token in prompt], device=device)
        cache = prompt_cache(config)
        assert cache is not None, "the family remembers in another way"
        with joined_attention(config):
            hidden = joined_states(decoder, ids, own, None, cache)
        states.append(hidden[(own.cumsum(0) - 1).to(device)])
        for layer, kept in zip(whole.layers, cache.layers, strict=True):
            if not first:
                _make_room(layer, kept, len(prompts), columns)
            write(layer, kept, first, own.tolist())
        first += len(group)
    return torch.cat(states), CacheState(whole, torch.tensor(lengths, device=device), columns)


def _make_room(layer: Any, kept: PromptLayer, rows: int, columns: int) -> None:
    """Keys and values [rows, G, columns, d] that are to be written."""
    keys, values = _kept(kept)
    layer.lazy_initialization(keys, values)
    layer.keys = keys.new_empty(rows, keys.shape[1], columns, keys.shape[3])
    layer.values = values.new_empty(rows, values.shape[1], columns, values.shape[3])


def write(layer: Any, kept: PromptLayer, first: int, lengths: Sequence[int]) -> None:
    """What was kept of texts of these lengths, end to end, into rows from `first` on.

    Their last tokens stand in the last column; before their first there are zeros.
    """
    for rows, tokens in zip((layer.keys, layer.values), _kept(kept), strict=True):
        parts = tokens[0].split(lengths, dim=1)
        for row, part in zip(rows[first:], parts, strict=False):
            padding = row.shape[1] - part.shape[1]
            row[:, :padding] = 0
            row[:, padding:] = part


def _kept(layer: PromptLayer) -> tuple[Tensor, Tensor]:
    """Keys and values [1, G, T, d]."""
    assert layer.kept is not None, "the family's code did not use its cache"
    return layer.kept


Prefill = Callable[[Prompts], tuple[Tensor, CacheState]]
"""Logits [B, V] after each prompt, and the state to continue from."""


def agrees(model: Any, joined: Prefill, in_rows: Prefill, tolerance: float) -> bool:
    """Whether a `TransformersLM` goes on from prompts as from those in rows of their own; tried.

    tolerance: nats that log-probs may differ by.
    """
    prompts = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11]]
    ids = torch.tensor([3, 4, 5], device=next(model.parameters()).device)
    try:
        logits, state = joined(prompts)
        right, stock = in_rows(prompts)
        for _ in range(3):
            gap = (logits.log_softmax(-1) - right.log_softmax(-1)).abs().nan_to_num(torch.inf)
            if float(gap.max()) > tolerance:
                return False
            logits, _ = model.decode(ids, state)
            right, _ = model.decode(ids, stock)
    except Exception:  # whatever a family's code says of a cache that it does not expect
        return False
    return True
