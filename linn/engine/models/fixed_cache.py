"""Keys and values of a family of transformers at fixed places, for CUDA graphs.

Letters of shapes: R slots, B the first of them that are computed, L columns that are looked at.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import DynamicLayer

from linn.engine.models.cache_state import CacheState
from linn.engine.models.columns import columns_at
from linn.engine.models.growing_layer import GrowingLayer
from linn.engine.models.interface import State


class FixedLayer(DynamicLayer):
    """The cache of one attention layer: a new token goes to its row's own column."""

    def __init__(self, slots: FixedCache, keys: Tensor, values: Tensor) -> None:
        """keys, values: [R, heads, columns, d]."""
        super().__init__()
        self.lazy_initialization(keys, values)
        self.slots = slots
        self.keys, self.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write [B, heads, 1, d]; returns the first columns [B, heads, L, d] of these rows."""
        rows, columns = self.slots.looked_at
        assert self.keys is not None and self.values is not None
        row = torch.arange(rows, device=key_states.device)
        column = self.slots.lengths[:rows]
        # Under autocast a family's keys and values need not have one dtype in every pass.
        self.keys[row, :, column] = key_states[:, :, 0].to(self.keys.dtype)
        self.values[row, :, column] = value_states[:, :, 0].to(self.values.dtype)
        return self.keys[:rows, :, :columns], self.values[:rows, :, :columns]


class FixedCache:
    """See `Slots`. A row's tokens stand in its first columns, unlike those of a `CacheState`."""

    def __init__(self, like: CacheState, config: Any, rows: int, columns: int) -> None:
        self.rows = rows
        self.columns = columns
        self.lengths = like.lengths.new_zeros(rows)
        self.looked_at = (0, 0)
        """B and L of the step that is being computed."""
        self.cache: Any = cache_utils.DynamicCache(config=config)
        self.cache.layers = []
        for layer in like.cache.layers:
            heads, size = layer.keys.shape[1], layer.keys.shape[3]
            self._add(layer.keys, (rows, heads, columns, size), layer.values.shape[3])

    def _add(self, like: Tensor, shape: tuple[int, ...], value_size: int) -> None:
        # Zeros: a hidden column counts 0 times what it holds, and that must be a number.
        keys, values = like.new_zeros(shape), like.new_zeros((*shape[:3], value_size))
        self.cache.layers.append(FixedLayer(self, keys, values))

    def put(self, slots: Tensor, state: State, rows: Tensor) -> None:
        """Write rows of a state into as many slots."""
        assert isinstance(state, CacheState), state
        lengths = state.lengths.index_select(0, rows)
        column = torch.arange(state.columns, device=lengths.device)
        index = (column + state.columns - lengths[:, None]).clamp_max(state.columns - 1)
        for own, new in zip(self.cache.layers, state.cache.layers, strict=True):
            for name in ("keys", "values"):
                moved = columns_at(getattr(new, name).index_select(0, rows), index)
                getattr(own, name)[:, :, : state.columns].index_copy_(0, slots, moved)
        self.lengths.index_copy_(0, slots, lengths)

    def take(self, slots: Tensor, longest: int) -> CacheState:
        """A copy of these slots, padded on the left."""
        lengths = self.lengths.index_select(0, slots)
        column = torch.arange(longest, device=lengths.device)
        index = (column - (longest - lengths[:, None])).clamp_min(0)
        cache: Any = cache_utils.DynamicCache()
        cache.layers = []
        for own in self.cache.layers:
            layer = GrowingLayer()
            keys = columns_at(own.keys.index_select(0, slots), index)
            layer.lazy_initialization(keys, keys)
            layer.keys = keys
            layer.values = columns_at(own.values.index_select(0, slots), index)
            cache.layers.append(layer)
        return CacheState(cache, lengths, longest)

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copy some slots over others."""
        for layer in self.cache.layers:
            for buffer in (layer.keys, layer.values):
                buffer.index_copy_(0, target, buffer.index_select(0, source))
        self.lengths.index_copy_(0, target, self.lengths.index_select(0, source))

    def resize(self, rows: int, columns: int) -> None:
        """New buffers that hold what fits of the old ones, one layer after the other."""
        old_rows, old_columns = min(rows, self.rows), min(columns, self.columns)
        for layer in self.cache.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_zeros(rows, old.shape[1], columns, old.shape[3])
                new[:old_rows, :, :old_columns] = old[:old_rows, :, :old_columns]
                setattr(layer, name, new)
        lengths = self.lengths[:old_rows].clamp(max=columns - 1)
        self.lengths = self.lengths.new_zeros(rows)
        self.lengths[:old_rows] = lengths
        self.rows, self.columns = rows, columns


def mask_of(lengths: Tensor, columns: int) -> Tensor:
    """float32 [B, 1, 1, L]: -inf at the columns behind a row's newest token."""
    beyond = torch.arange(columns, device=lengths.device) > lengths[:, None]
    hide = torch.zeros(len(lengths), 1, 1, columns, device=lengths.device)
    return hide.masked_fill_(beyond[:, None, None], -torch.inf)


def agrees(model: Any, tolerance: float) -> bool:
    """Whether a `TransformersLM` decodes in slots what it decodes elsewhere, and never waits.

    tolerance: nats that log-probs may differ by. On a GPU a step that asks the host is refused.
    """
    prompts = [[1, 2, 3, 4, 5], [6, 7]]
    on_gpu = next(model.parameters()).device.type == "cuda"
    try:
        _, state = model.prefill(prompts)
        slots = model.new_slots(state, 4, 16)
        every = torch.arange(2, device=slots.lengths.device)
        slots.put(every + 1, state, every)
        is_open = torch.ones(4, dtype=torch.bool, device=every.device)
        ids = torch.full((4,), 8, device=every.device)
        for _ in range(3):
            logits, state = model.decode(ids[:2], state)
            try:
                if on_gpu:
                    torch.cuda.set_sync_debug_mode("error")
                own = model.decode_slots(ids, slots, is_open, 12)
            finally:
                if on_gpu:
                    torch.cuda.set_sync_debug_mode("default")
            gap = own[1:3].log_softmax(-1) - logits.log_softmax(-1)
            if not float(gap.abs().max()) <= tolerance:
                return False
    except Exception:  # whatever a family's code says of a cache that it does not expect
        return False
    return True
