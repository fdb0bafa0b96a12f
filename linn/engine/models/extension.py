"""Several tokens at once behind the rows of a running batch, in families of transformers.

What a tool answers is fed so: all rows' tokens end to end in one pass through the family's code, of
which attention alone knows the rows. Without it they are fed one by one, a decode step each.

Letters of shapes: T tokens that are computed at once, H query heads that share G key heads, d head
size, C keys of a row, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from linn.engine.models.cache_state import CacheState
from linn.engine.models.columns import empty_as
from linn.engine.models.growing_layer import SPARE, GrowingLayer
from linn.engine.models.joined_prefill import write
from linn.engine.models.joined_rows import attention_named, check_told
from linn.engine.models.kept_prompts import prompt_cache
from linn.engine.models.rectangles import prompt_groups
from linn.engine.models.siblings import SiblingState, copy_of

_NAME = "linn_extension"
"""What this attention is called in a family's config while tokens are fed."""

_MASK = 2**21
"""Numbers of a mask, at most: of long rows fewer queries are computed at once, to bound memory."""

Rows = CacheState | SiblingState
"""A running batch: rows with a prompt each, or siblings that share theirs."""
Tokens = Sequence[Sequence[int]]
"""Token ids to be fed to each row, one at least."""


class Earlier:
    """Where the earlier keys and values of some rows stand, for the attention of their new tokens.

    A sibling has its prompt's and, behind them, its own.
    """

    def __init__(self, state: Rows, rows: slice, sizes: Sequence[int]) -> None:
        """rows: those of the state that are fed; sizes: new tokens of each."""
        self.sizes = sizes
        self._parts: list[tuple[CacheState, list[int], list[int]]] = []
        """What was computed together; the row there of each row that is fed, and its tokens."""
        if isinstance(state, SiblingState):
            owner = state.owner[rows]
            lengths = state.prompts.lengths[owner]
            self._parts.append((state.prompts, owner.tolist(), lengths.tolist()))
        own = _own(state)
        number = range(len(own.lengths))[rows]
        self._parts.append((own, list(number), own.lengths[rows].tolist()))

        width = int(state.lengths[rows].max()) + max(sizes)
        self.most = min(max(sizes), max(1, _MASK // (2 * width)))
        """Queries of one row that are computed at once."""
        shape = self.most, width + self.most
        self._hides = torch.full(shape, -torch.inf, dtype=torch.float32).triu_(width + 1)

    def of(self, layer: int, row: int, new: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """All keys and values [G, C, d] of a row that is fed, of which the last are these."""
        pairs = []
        for state, rows, lengths in self._parts:
            cached = state.cache.layers[layer]
            columns = slice(state.columns - lengths[row], None)
            pairs.append([one[rows[row], :, columns] for one in (cached.keys, cached.values)])
        keys, values = zip(*pairs, new, strict=True)
        return torch.cat(keys, dim=1), torch.cat(values, dim=1)

    def hides(self, queries: int, seen: int) -> Tensor:
        """What some queries in a row do not see of the keys up to the last of them.

        float32 [queries, seen]: -inf, and 0 elsewhere.
        """
        # One mask serves all: it is cut so that the first query sees as many as were before it.
        first = self._hides.shape[1] - self.most - (seen - queries)
        return self._hides[:queries, first : first + seen]


def _own(state: Rows) -> CacheState:
    """What grows of a state when tokens are fed: all of it, but for prompts that rows share."""
    if isinstance(state, SiblingState):
        return state.own
    return state


def extended(
    decoder: Any, config: Any, tokens: Tokens, state: Rows, most: int
) -> tuple[Tensor, Rows]:
    """Hidden states [tokens, hidden size] of all new tokens, row by row, and the state after them.

    decoder: the family's code; config: the whole model's; most: tokens that are computed at once.
    """
    sizes = [len(row) for row in tokens]
    own = _own(state)
    grown = _room_for(own, sizes)
    outs = []
    first = 0
    for group in prompt_groups(tokens, most):
        rows = slice(first, first + len(group))
        new = torch.tensor(sizes[rows])
        column = torch.arange(int(new.sum())) - (new.cumsum(0) - new).repeat_interleave(new)
        cache = prompt_cache(config)
        assert cache is not None, "the family remembers in another way"
        with attention_named(_NAME, config):
            out = decoder(
                input_ids=torch.tensor([[token for row in group for token in row]]),
                position_ids=(state.lengths[rows].repeat_interleave(new) + column)[None],
                past_key_values=cache,
                use_cache=True,
                earlier=Earlier(state, rows, sizes[rows]),
            )
        outs.append(out.last_hidden_state[0])
        for layer, kept in zip(grown.cache.layers, cache.layers, strict=True):
            write(layer, kept, first, sizes[rows])
        first += len(group)

    _bring(own, grown, sizes)
    hidden = torch.cat(outs)
    if isinstance(state, SiblingState):
        return hidden, SiblingState(copy_of(state.prompts), state.owner, grown)
    return hidden, grown


def _room_for(own: CacheState, sizes: Sequence[int]) -> CacheState:
    """Rows of so many tokens more, all of which are to be written; and room for the next ones."""
    lengths = own.lengths + torch.tensor(sizes)
    columns = int(lengths.max())
    cache = copy.copy(own.cache)
    cache.layers = []
    for layer in own.cache.layers:
        buffers = []
        for old in (layer.keys, layer.values):
            buffer = empty_as(old, len(old), columns + SPARE)
            buffer[:, :, columns:] = 0
            buffers.append(buffer)
        longer = copy.copy(layer)
        assert isinstance(longer, GrowingLayer), longer
        longer.begin(buffers[0], buffers[1], columns)
        cache.layers.append(longer)
    return CacheState(cache, lengths, columns)


def _bring(own: CacheState, grown: CacheState, sizes: Sequence[int]) -> None:
    """Write a state's tokens before the new ones, so many of each row."""
    lengths = own.lengths.tolist()
    for layer, longer in zip(own.cache.layers, grown.cache.layers, strict=True):
        for old, new in ((layer.keys, longer.keys), (layer.values, longer.values)):
            for row, (fed, more) in enumerate(zip(lengths, sizes, strict=True)):
                end = grown.columns - more
                new[row, :, end - fed : end] = old[row, :, own.columns - fed :]


# ------------------------------------------------------------ attention


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    *,
    earlier: Earlier,
    **told: Any,
) -> tuple[Tensor, None]:
    """Attention [1, T, H, d] of new tokens to their rows' earlier ones and to each other.

    query [1, H, T, d], key and value [1, G, T, d], laid end to end. Raises NotImplementedError
    where the family tells more than this attention does.
    """
    check_told(told | {"attention_mask": attention_mask})
    outs = []
    rows = zip(*(part[0].split(earlier.sizes, dim=1) for part in (query, key, value)), strict=True)
    for row, (own, *new) in enumerate(rows):
        keys, values = earlier.of(module.layer_idx, row, new)
        seen = keys.shape[1] - own.shape[1]
        for part in own.split(earlier.most, dim=1):
            seen += part.shape[1]
            out = F.scaled_dot_product_attention(
                part[None],
                keys[None, :, :seen],
                values[None, :, :seen],
                attn_mask=earlier.hides(part.shape[1], seen),
                scale=scaling,
                enable_gqa=len(part) != len(keys),
            )
            outs.append(out.transpose(1, 2))
    return torch.cat(outs, dim=1), None


AttentionInterface.register(_NAME, _attend)


# ------------------------------------------------------------ which families


@torch.inference_mode()
def agrees(model: Any, tolerance: float) -> bool:
    """Whether a `TransformersLM` goes on with several tokens as its own attention does; tried.

    From a state with a prompt per row, and from the sampler's, whose siblings may share theirs.
    tolerance: nats that log-probs may differ by.
    """
    owner = torch.tensor([0, 1, 0, 0])
    first = [[3, 4], [5, 6], [7, 1], [2, 3]]
    # After tokens of unlike number the state of those fed one by one is of no use.
    last = [[7, 6], [5, 4, 3, 2], [2], [1, 2, 3]]
    try:
        _, state = model.prefill([[1, 2, 3, 4, 5], [6, 7]])
        stepped, apart = state.select(owner), state.select(owner)
        tried = [apart, model.siblings(state, owner)]
        for fed in (first, last):
            right = _one_by_one(model, fed, stepped)
            for number, before in enumerate(tried):
                hidden, tried[number] = model.extend(fed, before)
                gap = model.head(hidden).log_softmax(-1) - right.log_softmax(-1)
                if float(gap.abs().nan_to_num(torch.inf).max()) > tolerance:
                    return False
    except Exception:  # whatever a family's code says of an attention that it does not expect
        return False
    return True


def _one_by_one(model: Any, tokens: Tokens, state: CacheState) -> Tensor:
    """Logits [tokens, V] after each of these, row by row; the state moves on.

    A row that has no more is fed its last token again.
    """
    steps = []
    for place in range(max(len(row) for row in tokens)):
        newest = [row[min(place, len(row) - 1)] for row in tokens]
        logits, _ = model.decode(torch.tensor(newest), state)
        steps.append(logits)
    by_row = torch.stack(steps, dim=1)
    return torch.cat([own[: len(row)] for own, row in zip(by_row, tokens, strict=True)])
