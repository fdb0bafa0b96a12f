"""Keys and values of one attention layer, written in place."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from linn.engine.models.columns import empty_as
from linn.errors import UserError

SPARE = 32
"""Columns that a buffer has beyond those it is made for: tokens until it is copied again."""


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` that does not copy all keys and values for every new token.

    `keys` and `values` [B, heads, columns, d] are views of the front of two buffers that have spare
    columns. Whoever sets other tensors there gives the layer a new start; `begin` does so with
    buffers that are used as they are.
    """

    _buffers: tuple[Tensor, Tensor] | None = None
    _views: tuple[Tensor, Tensor] | None = None
    """`keys` and `values` as they were last returned."""

    def __copy__(self) -> GrowingLayer:
        """A copy is for other keys and values: it does not hold on to the buffers of these."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), _buffers=None, _views=None)
        return twin

    def begin(self, keys: Tensor, values: Tensor, columns: int) -> None:
        """Take these buffers, whose first columns are the keys and the values."""
        self._buffers = keys, values
        self.keys, self.values = self._views = keys[:, :, :columns], values[:, :, :columns]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append [B, heads, new columns, d]; returns all keys and values."""
        if self.keys is None or not (self.keys.numel() or self._buffers):
            # A prompt needs no spare columns: it may be copied before anything is sampled.
            keys, values = super().update(key_states, value_states, *args, **kwargs)
            return keys, values

        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        keys, values = self._room(end)
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.keys, self.values = self._views = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def _room(self, columns: int) -> tuple[Tensor, Tensor]:
        """Buffers of at least `columns` columns that begin with the keys and the values."""
        if self._buffers is not None and self._views is not None:
            is_own = self.keys is self._views[0] and self.values is self._views[1]
            if is_own and columns <= self._buffers[0].shape[2]:
                return self._buffers

        assert self.keys is not None and self.values is not None
        self._buffers = (_longer(self.keys, columns), _longer(self.values, columns))
        return self._buffers


_OTHERS = {
    "LinearAttentionLayer",
    "LinearAttentionAndFullAttentionLayer",
    "DummyLayer",
}
"""Other layers of a `transformers` cache whose rows can be selected and joined."""


def growing_cache(config: Any) -> Any:
    """A cache without tokens for a model of this config, whose attention layers grow in place.

    Sliding windows keep all keys, so that rows can be joined; the family's mask hides the old ones.
    """
    cache = DynamicCache(config=config)
    for number, layer in enumerate(cache.layers):
        if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer):
            cache.layers[number] = GrowingLayer()
        elif type(layer).__name__ not in _OTHERS:
            raise UserError(
                f"model type {config.model_type}: "
                f"its cache ({type(layer).__name__}) can't be batched here"
            )
    return cache


def _longer(tensor: Tensor, columns: int) -> Tensor:
    """A buffer with room for `columns` columns and some more; the tensor's own come first."""
    rows, _, used, _ = tensor.shape
    buffer = empty_as(tensor, rows, columns + SPARE)
    buffer[:, :, :used] = tensor
    # What stands in columns not yet written is never read; zeros cost nothing and are no NaN.
    buffer[:, :, used:] = 0
    return buffer
