"""The states of running Nemotron-H sequences that are selected and joined.

Letters of shapes: B rows of a running batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from linn.engine.models.interface import State
from linn.engine.models.nemotron_h.caches import AttentionCache, LayerCache


class HybridState:
    """Caches of B running sequences; rows may have different lengths."""

    def __init__(self, layers: list[LayerCache | None], lengths: Tensor, longest: int) -> None:
        self.layers = layers
        """One cache per layer; None for a layer without a memory."""
        self.lengths = lengths
        """int64 [B]: tokens fed so far."""
        self.longest = longest
        """Largest of the lengths, known without asking the device."""

    def reserve(self, columns: int) -> None:
        """Make room for so many tokens per row, and half as many again when it has to move."""
        for number, layer in enumerate(self.layers):
            if isinstance(layer, AttentionCache) and layer.capacity < columns:
                self.layers[number] = layer.resized(max(64, columns + columns // 2))

    def select(self, rows: Tensor, move: bool = False) -> HybridState:
        """A new state of these rows (int64 [B']), in this order.

        Rows may repeat or be left out.
        """
        lengths = self.lengths[rows]
        longest = 0
        if len(rows):
            longest = int(lengths.max())

        layers: list[LayerCache | None] = []
        for number, layer in enumerate(self.layers):
            if layer is None:
                layers.append(None)
            else:
                layers.append(layer.select(rows, longest))
            if move:
                self.layers[number] = layer = None
        return HybridState(layers, lengths, longest)

    def join(self, other: State, move: bool = False) -> HybridState:
        """A new state: this one's rows followed by the other's."""
        assert isinstance(other, HybridState), other
        return joined([self, other], move)


def joined(states: Sequence[HybridState], move: bool = False) -> HybridState:
    """A new state: the rows of all of these, one after the other. move: as in `State`."""
    if len(states) == 1:
        return states[0]
    longest = max(state.longest for state in states)
    layers: list[LayerCache | None] = []
    for number in range(len(states[0].layers)):
        # All are of one model, so a layer has a cache in each or in none.
        caches = [cache for state in states if (cache := state.layers[number]) is not None]
        kind: Any = type(caches[0]) if caches else None
        layers.append(kind.joined(caches, longest) if caches else None)
        if move:
            for state in states:
                state.layers[number] = None
            del caches
    return HybridState(layers, torch.cat([state.lengths for state in states]), longest)
