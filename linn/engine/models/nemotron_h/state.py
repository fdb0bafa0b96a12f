"""The states of running Nemotron-H sequences that are selected and joined.

Letters of shapes: B rows of a running batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from linn.engine.models.interface import State
from linn.engine.models.nemotron_h.layers import AttentionCache, LayerCache


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
        lengths = torch.cat([self.lengths, other.lengths])
        longest = max(self.longest, other.longest)

        layers: list[LayerCache | None] = []
        pairs = zip(self.layers, other.layers, strict=True)
        for number, (one, two) in enumerate(pairs):
            # Both are of one model, so both are None or neither is.
            if one is None or two is None:
                layers.append(None)
            else:
                layers.append(one.join(two, longest))
            if move:
                self.layers[number] = other.layers[number] = one = two = None
        return HybridState(layers, lengths, longest)
