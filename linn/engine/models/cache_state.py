"""Running batches over a cache of transformers: rows that are selected and joined.

Letters of shapes: B rows of a running batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from linn.engine.models.columns import empty_as
from linn.engine.models.interface import State

Combine = Callable[[list[Tensor]], Tensor]
"""One tensor of a new cache from the same tensor of old ones."""
Fill = Callable[[Tensor, list[Tensor]], None]
"""The same for keys or values, written into the first tensor's columns."""


class CacheState:
    """A `transformers` cache of B rows.

    Rows are padded on the left, so that every row's newest token is in the last column.
    """

    def __init__(self, cache: Any, lengths: Tensor, columns: int) -> None:
        self.cache = cache
        self.lengths = lengths
        """int64 [B]: tokens fed so far."""
        self.columns = columns
        """Columns of the cached keys, known without asking the device; at least the largest
        length."""

    @property
    def mask(self) -> Tensor:
        """int64 [B, columns]: 1 where a column holds a row's token."""
        column = torch.arange(self.columns, device=self.lengths.device)
        return (column >= self.columns - self.lengths[:, None]).long()

    @property
    def has_keys(self) -> bool:
        """Whether any layer attends to earlier tokens; recurrent states alone do not."""
        return any(isinstance(getattr(layer, "keys", None), Tensor) for layer in self.cache.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of all keys, values and states."""
        total = 0
        for layer in self.cache.layers:
            tensors = [getattr(layer, name, None) for name in ("keys", "values")]
            for name in ("conv_states", "recurrent_states"):
                tensors += getattr(layer, name, {}).values()
            total += sum(t.nbytes for t in tensors if isinstance(t, Tensor))
        return total

    def select(self, rows: Tensor, move: bool = False) -> CacheState:
        """A new state of these rows (int64 [B']), in this order.

        Columns that only left-out rows used are dropped.
        """
        lengths = self.lengths[rows]
        columns = 0
        if len(rows):
            columns = int(lengths.max())
        unused = self.columns - columns

        def fill(new: Tensor, one: list[Tensor]) -> None:
            torch.index_select(one[0][:, :, unused:], 0, rows, out=new)

        def states(one: list[Tensor]) -> Tensor:
            return one[0][rows]

        size = len(rows), columns
        return CacheState(_combined([self.cache], size, fill, states, move), lengths, columns)

    def join(self, *others: State, move: bool = False, rows: Tensor | None = None) -> CacheState:
        """A new state: this one's rows (of them `rows`) followed by the others'.

        The narrower ones are padded on the left.
        """
        states = [self if rows is None else self.select(rows, move)]
        for other in others:
            assert isinstance(other, CacheState), other
            states.append(other)
        return joined(states, move)


def joined(states: Sequence[CacheState], move: bool = False) -> CacheState:
    """A state of the rows of all these, in order; the narrower ones are padded on the left.

    move: the others are of no more use, and emptied layer by layer.
    """
    if len(states) == 1:
        return states[0]
    lengths = torch.cat([state.lengths for state in states])
    columns = max(state.columns for state in states)

    def fill(new: Tensor, olds: list[Tensor]) -> None:
        parts = new.split([len(t) for t in olds])
        for part, t in zip(parts, olds, strict=True):
            padding = columns - t.shape[2]
            part[:, :, :padding] = 0
            part[:, :, padding:] = t

    caches = [state.cache for state in states]
    cache = _combined(caches, (len(lengths), columns), fill, states=torch.cat, move=move)
    return CacheState(cache, lengths, columns)


def _combined(
    caches: list[Any], size: tuple[int, int], fill: Fill, states: Combine, move: bool
) -> Any:
    """A new cache made of the tensors of others.

    `size`: rows B and columns of the new keys and values [B, heads, columns, d], which `fill`
    writes; `states` makes conv and recurrent states [B, ...]. `move`: the others' layers are
    emptied, each when it has been copied.
    """
    from linn.engine.models.growing_layer import SPARE, GrowingLayer

    rows, columns = size
    out = copy.copy(caches[0])
    out.layers = []
    for number, layers in enumerate(zip(*(cache.layers for cache in caches), strict=True)):
        # A copy, so that whatever else a family's layer holds stays as it is.
        layer = copy.copy(layers[0])

        # Copied once: with the room that the next tokens take.
        spare = SPARE if isinstance(layer, GrowingLayer) else 0
        buffers = []
        for name in ("keys", "values"):
            tensors = [getattr(old, name, None) for old in layers]
            filled = [t for t in tensors if isinstance(t, Tensor)]  # others have no token yet
            if filled:
                buffer = empty_as(filled[0], rows, columns + spare)
                fill(buffer[:, :, :columns], filled)
                buffer[:, :, columns:] = 0
                buffers.append(buffer)
                setattr(layer, name, buffer)
        if buffers and isinstance(layer, GrowingLayer):
            layer.begin(buffers[0], buffers[1], columns)

        for name in ("conv_states", "recurrent_states"):
            if hasattr(layer, name):
                olds = [getattr(old, name) for old in layers]
                setattr(layer, name, _combined_states(olds, states))

        out.layers.append(layer)
        if move:
            for cache in caches:
                cache.layers[number] = None
    return out


def _combined_states(olds: list[dict[Any, Any]], states: Combine) -> dict[Any, Any]:
    """The states of one layer, by their key; None stays None."""
    new: dict[Any, Any] = {}
    for key, first in olds[0].items():
        new[key] = None
        if first is not None:
            new[key] = states([old[key] for old in olds])
    return new
