"""The states of running Nemotron-H sequences that are selected and joined.

Letters of shapes: B rows of a running batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from linn.engine.models.interface import State
from linn.engine.models.nemotron_h.caches import (
    AttentionCache,
    LayerCache,
    Rows,
    Seen,
    hidden_beyond,
    room_for,
)
from linn.engine.models.prompt_parts import runs_of


class HybridState:
    """Caches of B running sequences; rows may have different lengths."""

    def __init__(self, layers: list[LayerCache | None], lengths: Tensor, longest: int) -> None:
        self.layers = layers
        """One cache per layer; None for a layer without a memory."""
        self.lengths = lengths
        """int64 [B]: tokens fed so far."""
        self.longest = longest
        """Largest of the lengths, known without asking the device."""
        self._runs: list[tuple[slice, int]] | None = None
        """Rows of like lengths, and by how many tokens the longest of them is shorter than the
        longest of all. A decode step changes none of that."""

    def reserve(self, columns: int) -> None:
        """Make room for so many tokens per row, and for more when it has to move."""
        for number, layer in enumerate(self.layers):
            if isinstance(layer, AttentionCache) and layer.capacity < columns:
                self.layers[number] = layer.resized(room_for(columns))

    def seen(self) -> list[Seen]:
        """What the rows read of their keys once the next token stands there.

        On a CPU rows of like lengths that stand next to each other are cut to the longest of them.
        """
        if self._runs is None:
            self._runs = self._cut()
        found = []
        for rows, shorter in self._runs:
            columns = self.longest + 1 - shorter
            column = torch.arange(columns, device=self.lengths.device)
            found.append(Seen(rows, hidden_beyond(column, self.lengths[rows])))
        return found

    def _cut(self) -> list[tuple[slice, int]]:
        """See `_runs`."""
        attention = [layer for layer in self.layers if isinstance(layer, AttentionCache)]
        if self.lengths.device.type != "cpu" or not attention or not len(self.lengths):
            return [(slice(None), 0)]
        _, heads, size, _ = attention[0].keys.shape
        runs = [slice(*run) for run in runs_of(self.lengths, heads * size)]
        return [(rows, self.longest - int(self.lengths[rows].max())) for rows in runs]

    def view(self, rows: slice) -> HybridState:
        """These rows as views, to be read."""
        layers = [None if layer is None else layer.view(rows) for layer in self.layers]
        lengths = self.lengths[rows]
        return HybridState(layers, lengths, int(lengths.max()))

    def select(self, rows: Tensor, move: bool = False) -> HybridState:
        """A new state of these rows (int64 [B']), in this order.

        Rows may repeat or be left out.
        """
        return joined([self], move, [rows])

    def join(self, *others: State, move: bool = False, rows: Tensor | None = None) -> HybridState:
        """A new state: this one's rows, or these of them, followed by the others'."""
        states = [self]
        for other in others:
            assert isinstance(other, HybridState), other
            states.append(other)
        return joined(states, move, [rows, *[None] * len(others)])


def joined(
    states: Sequence[HybridState], move: bool = False, rows: Sequence[Rows] | None = None
) -> HybridState:
    """A new state: the rows of all of these, one after the other. move: as in `State`.

    rows: those of each that are asked for; None: all.
    """
    if rows is None:
        if len(states) == 1:
            return states[0]
        rows = [None] * len(states)
    pairs = zip(states, rows, strict=True)
    lengths = torch.cat([state.lengths[... if own is None else own] for state, own in pairs])
    longest = int(lengths.max()) if len(lengths) else 0
    # What moves is decoded on; copies are kept, as small as they can be.
    capacity = room_for(longest) if move else longest

    layers: list[LayerCache | None] = []
    for number in range(len(states[0].layers)):
        # All are of one model, so a layer has a cache in each or in none.
        caches = [cache for state in states if (cache := state.layers[number]) is not None]
        kind: Any = type(caches[0]) if caches else None
        layers.append(kind.joined(caches, rows, longest, capacity) if caches else None)
        if move:
            for state in states:
                state.layers[number] = None
            del caches
    return HybridState(layers, lengths, longest)
