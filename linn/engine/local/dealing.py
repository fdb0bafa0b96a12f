"""Which worker gets which part of a batch: a function of the batch alone, never of timing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from linn.engine.training.trees import shared_trees, to_score
from linn.types import Sample

T = TypeVar("T")

Scored = tuple[list[tuple[int, ...]], list[int] | None]
"""Sequences, and how many tokens of each nobody asks for."""


def deal(lengths: Sequence[int], shares: int, before: Sequence[int] = ()) -> list[list[int]]:
    """Indices in `shares` lists: longest first, each to the list with the fewest tokens.

    before: tokens that each list has already; default: none.
    """
    dealt: list[list[int]] = [[] for _ in range(shares)]
    load = list(before) or [0] * shares
    # Longest first, so that short ones even out at the end; equal ones by index.
    longest_first = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for index in longest_first:
        least = load.index(min(load))
        dealt[least].append(index)
        load[least] += lengths[index]
    return dealt


def deal_samples(
    samples: Sequence[Sample], moving: Sequence[bool], shares: int, most: int | None
) -> list[list[int]]:
    """Indices of samples in `shares` lists, by length; those that do not move cost nothing.

    most: siblings stay together, in trees of at most so many tokens; None: each goes by itself.
    """
    if most is None:
        lengths = [
            len(sample.tokens) if own else 0 for sample, own in zip(samples, moving, strict=True)
        ]
        return deal(lengths, shares)

    computed = [index for index, own in enumerate(moving) if own]
    parts: list[list[int]] = []
    sizes: list[int] = []
    for tree in shared_trees([samples[index] for index in computed], most):
        parts.append([computed[place] for place in tree.samples])
        sizes.append(tree.size)

    # Whatever is in no tree is not computed.
    in_trees = {index for part in parts for index in part}
    rest = [index for index in range(len(samples)) if index not in in_trees]
    parts += [[index] for index in rest]
    sizes += [0] * len(rest)
    dealt = deal(sizes, shares)
    return [[index for place in share for index in parts[place]] for share in dealt]


def score_shares(
    sequences: Sequence[Sequence[int]],
    prompts: Sequence[int] | None,
    shares: int,
    most: int | None,
) -> tuple[list[list[int]], list[Scored]]:
    """Indices of sequences to be scored in `shares` lists, and what each list's process is told.

    prompts: as `Engine.score` takes them; most: as in `deal_samples`.
    """
    if most is None or prompts is None:
        # Who computes each sequence whole computes it as ever, whatever is asked for.
        prompts = most = None
    samples = to_score(sequences, prompts)
    dealt = deal_samples(samples, [True] * len(samples), shares, most)
    told: list[Scored] = []
    for share in dealt:
        own = [tuple(sequences[i]) for i in share]
        told.append((own, None if prompts is None else [prompts[i] for i in share]))
    return dealt, told


def undeal(shares: Sequence[Sequence[int]], replies: Sequence[Sequence[T]]) -> list[T]:
    """The replies to dealt items, in the order that the items had before."""
    by_index: dict[int, T] = {}
    for share, reply in zip(shares, replies, strict=True):
        by_index |= zip(share, reply, strict=True)
    return [by_index[index] for index in range(len(by_index))]
