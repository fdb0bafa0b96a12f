"""Which worker gets which part of a batch: a function of the batch alone, never of timing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def deal(lengths: Sequence[int], shares: int) -> list[list[int]]:
    """Indices in `shares` lists: longest first, each to the list with the fewest tokens."""
    dealt: list[list[int]] = [[] for _ in range(shares)]
    load = [0] * shares
    # Longest first, so that short ones even out at the end; equal ones by index.
    longest_first = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for index in longest_first:
        least = load.index(min(load))
        dealt[least].append(index)
        load[least] += lengths[index]
    return dealt


def undeal(shares: Sequence[Sequence[int]], replies: Sequence[Sequence[T]]) -> list[T]:
    """The replies to dealt items, in the order that the items had before."""
    by_index: dict[int, T] = {}
    for share, reply in zip(shares, replies, strict=True):
        by_index |= zip(share, reply, strict=True)
    return [by_index[index] for index in range(len(by_index))]
