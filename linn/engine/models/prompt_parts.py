"""Prompts that rows share, in parts of like lengths: a short one is not computed to the longest.

Letters of shapes: U prompts, K key heads, P columns of the longest prompt, d head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from linn.engine.models.cache_state import CacheState

_PART = 2**15
"""Key elements of one layer that take as long as the calls of one more part, about: 50 us for some
eight operators and their Python, 1.5 to 2 ns for an element of a few queries."""


_PLACES = 64
"""Places at which there may be a cut, at most: the search takes time by their number, and memory by
its square."""


@dataclass(frozen=True)
class Part:
    """Prompts that stand next to each other, cut to the longest of them."""

    prompts: slice
    """Which of the U prompts."""
    pairs: slice
    """The same among U · K pairs of a prompt and a key head."""
    columns: int
    """Tokens of its longest prompt."""
    hides: Tensor | None
    """float32 [prompts, 1, 1, columns]: -inf before a prompt's first token; None: nothing is."""
    keys: list[Tensor]
    """By layer: views [pairs, d, columns], as they are multiplied."""
    values: list[Tensor]
    """By layer: views [pairs, columns, d]."""


def parts_of(state: CacheState) -> list[Part]:
    """Parts of the prompts of a state, in order. They hold on to its keys and values.

    Raises NotImplementedError where the layers differ in their number of key heads.
    """
    if not len(state.lengths):
        return []
    _, heads, _, size = state.cache.layers[0].keys.shape
    if any(layer.keys.shape[1] != heads for layer in state.cache.layers):
        raise NotImplementedError("layers with unlike numbers of key heads")
    lengths = state.lengths.cpu()
    found = []
    for first, last in runs_of(lengths, heads * size):
        columns = int(lengths[first:last].max())
        layers = [_cut(layer, slice(first, last), columns) for layer in state.cache.layers]
        part = Part(
            prompts=slice(first, last),
            pairs=slice(first * heads, last * heads),
            columns=columns,
            hides=hidden(state.lengths[first:last], columns),
            keys=[keys.transpose(1, 2) for keys, _ in layers],
            values=[values for _, values in layers],
        )
        found.append(part)
    return found


def _cut(layer: object, prompts: slice, columns: int) -> list[Tensor]:
    """Keys and values [pairs, columns, d]: the last columns, since prompts end together."""
    cut = []
    for name in ("keys", "values"):
        tensor: Tensor = getattr(layer, name)
        cut.append(tensor[prompts, :, tensor.shape[2] - columns :].flatten(0, 1))
    return cut


def runs_of(lengths: Tensor, numbers: int) -> list[tuple[int, int]]:
    """Where to cut rows of these lengths (int64 [U], on the CPU): first and last + 1 of each run.

    numbers: of a token's keys in one layer. The cheapest cut, where a run costs `_PART`.
    """
    return list(_runs(lengths, _PART // numbers))


def _runs(lengths: Tensor, price: int) -> Iterator[tuple[int, int]]:
    """The fewest columns in all, where each run costs as many as `price` more.

    Of many rows a few next to each other are never cut apart.
    """
    count = len(lengths)
    if count * int(lengths.max()) - int(lengths.sum()) <= price:
        yield 0, count
        return

    apart = -(-count // _PLACES)
    places = [*range(0, count, apart), count]
    own = torch.stack([rows.max() for rows in lengths.split(apart)])
    place = torch.tensor(places)

    # Of the run from a place (a row here) to another one (a column).
    longest = own.expand(len(own), -1).triu().cummax(dim=1).values
    cost = longest * (place[1:] - place[:-1, None]) + price

    # The best way to cut the first rows, a few rows more at a time.
    least = torch.zeros(len(places), dtype=torch.int64)
    begins = []
    for last in range(len(own)):
        whole = least[: last + 1] + cost[: last + 1, last]
        begins.append(int(whole.argmin()))
        least[last + 1] = whole[begins[-1]]

    runs = []
    last = len(own)
    while last:
        first = begins[last - 1]
        runs.append((places[first], places[last]))
        last = first
    yield from reversed(runs)


def hidden(lengths: Tensor, columns: int) -> Tensor | None:
    """float32 [rows, 1, 1, columns]: -inf before a row's first token; None: nothing is hidden."""
    padding = columns - lengths
    if not bool((padding > 0).any()):
        return None
    is_hidden = torch.arange(columns, device=lengths.device) < padding[:, None]
    mask = torch.zeros(is_hidden.shape, device=lengths.device)
    return mask.masked_fill_(is_hidden, -torch.inf)[:, None, None]
