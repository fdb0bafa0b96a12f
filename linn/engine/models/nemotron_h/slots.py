"""The states of Nemotron-H sequences at fixed places, for CUDA graphs."""

from __future__ import annotations

from torch import Tensor

from linn.engine.models.interface import State
from linn.engine.models.nemotron_h.caches import AttentionCache, LayerCache, MambaCache
from linn.engine.models.nemotron_h.state import HybridState


class HybridSlots:
    """See `Slots`. Each layer has the cache that it decodes from elsewhere, with a row per slot."""

    def __init__(self, like: HybridState, rows: int, columns: int) -> None:
        self.rows = rows
        self.columns = columns
        self.lengths = like.lengths.new_zeros(rows)
        self.layers = [_empty(layer, rows, columns) for layer in like.layers]

    def put(self, slots: Tensor, state: State, rows: Tensor) -> None:
        """Write rows of a state into as many slots."""
        assert isinstance(state, HybridState), state
        for own, new in zip(self.layers, state.layers, strict=True):
            # Both are of one model, so both are None or neither is.
            if own is None or new is None:
                continue
            pairs = zip(_parts(own, state.longest), _parts(new, state.longest), strict=True)
            for buffer, part in pairs:
                buffer.index_copy_(0, slots, part.index_select(0, rows))
        self.lengths.index_copy_(0, slots, state.lengths.index_select(0, rows))

    def take(self, slots: Tensor, longest: int) -> HybridState:
        """A copy of these slots."""
        layers: list[LayerCache | None] = []
        for layer in self.layers:
            if layer is None:
                layers.append(None)
                continue
            one, two = (part.index_select(0, slots) for part in _parts(layer, longest))
            layers.append(type(layer)(one, two))
        return HybridState(layers, self.lengths.index_select(0, slots), longest)

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copy some slots over others."""
        for layer in self.layers:
            if layer is None:
                continue
            for buffer in _parts(layer, self.columns):
                buffer.index_copy_(0, target, buffer.index_select(0, source))
        self.lengths.index_copy_(0, target, self.lengths.index_select(0, source))

    def resize(self, rows: int, columns: int) -> None:
        """New buffers that hold what fits of the old ones, one layer after the other."""
        kept_rows, kept_columns = min(rows, self.rows), min(columns, self.columns)
        for number, layer in enumerate(self.layers):
            if layer is None:
                continue
            new = self.layers[number] = _empty(layer, rows, columns)
            assert new is not None
            pairs = zip(_parts(new, kept_columns), _parts(layer, kept_columns), strict=True)
            for buffer, old in pairs:
                buffer[:kept_rows] = old[:kept_rows]

        # A slot that nobody has may be longer than what is left; it is written to all the same.
        old_lengths = self.lengths[:kept_rows].clamp(max=columns - 1)
        self.lengths = self.lengths.new_zeros(rows)
        self.lengths[:kept_rows] = old_lengths
        self.rows, self.columns = rows, columns

    def first(self, rows: int) -> list[LayerCache | None]:
        """The caches of the first slots, as views."""
        caches: list[LayerCache | None] = []
        for layer in self.layers:
            if layer is None:
                caches.append(None)
                continue
            one, two = (part[:rows] for part in _parts(layer, self.columns))
            caches.append(type(layer)(one, two))
        return caches


def _parts(layer: LayerCache, columns: int) -> tuple[Tensor, Tensor]:
    """The two tensors of a cache, as views; keys and values cut to the first columns."""
    if isinstance(layer, MambaCache):
        return layer.settled()
    return layer.keys[..., :columns], layer.values[..., :columns]


def _empty(layer: LayerCache | None, rows: int, columns: int) -> LayerCache | None:
    """A cache of zeros for so many rows.

    Zeros and not what the memory held: a hidden column counts 0 times what it holds, and that must
    be a number.
    """
    if layer is None:
        return None
    if isinstance(layer, MambaCache):
        return MambaCache(
            layer.conv.new_zeros(rows, *layer.conv.shape[1:]),
            layer.ssm.new_zeros(rows, *layer.ssm.shape[1:]),
        )
    shape = rows, *layer.keys.shape[1:3], columns
    return AttentionCache(layer.keys.new_zeros(shape), layer.values.new_zeros(shape))
