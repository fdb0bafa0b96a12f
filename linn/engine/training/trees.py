"""Samples that begin with the same prompt, as trees: the prompt once, a branch for each reply.

No torch here: the controller deals whole trees to its processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from linn.types import Sample

MICRO_BATCH = 2048
"""Tokens that are computed together on a CPU: what stays in its caches."""

LEAST_SAVED = 0.25
"""Share of a group's tokens that a common prompt must save. What a prompt hands over has a price of
its own: at 4 to 17 % saved a step takes as long or a tenth longer, from a third on it gains."""


@dataclass(frozen=True)
class Tree:
    """Some samples as they are laid out side by side."""

    samples: tuple[int, ...]
    """Their indices."""
    prompt: int
    """Tokens that all of them begin with, laid out once; 0 where a sample stands alone."""
    size: int
    """Tokens in all."""


def lone_trees(samples: Sequence[Sample]) -> list[Tree]:
    """Every sample by itself, with its own copy of its prompt."""
    return [Tree((i,), 0, len(sample.tokens)) for i, sample in enumerate(samples)]


def shared_trees(samples: Sequence[Sample], most: int) -> list[Tree]:
    """Trees of at most `most` tokens, but for a sample that is longer by itself.

    A prompt is what stands before the first trained token, so a conversation of several turns
    branches before its first reply. Where that saves little (`LEAST_SAVED`), each sibling keeps its
    own copy. Samples without a trained token are left out: nothing of them is looked at.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        first = first_trained(sample)
        if first:
            by_prompt[tuple(sample.tokens[:first])].append(index)

    found = []
    for prompt, members in by_prompt.items():
        whole = sum(len(samples[i].tokens) for i in members)
        if (len(members) - 1) * len(prompt) < LEAST_SAVED * whole:
            found += [Tree((i,), 0, len(samples[i].tokens)) for i in members]
            continue
        replies = [len(samples[i].tokens) - len(prompt) for i in members]
        for part in first_fit(replies, most - len(prompt)):
            own = tuple(sorted(members[place] for place in part))
            size = len(prompt) + sum(replies[place] for place in part)
            # Who is alone in a tree has no use for a branch.
            found.append(Tree(own, len(prompt) if len(own) > 1 else 0, size))
    return found


def first_trained(sample: Sample) -> int:
    """Index of the first trained token, at least 1; 0 where none is trained."""
    for place, trained in enumerate(sample.mask):
        if place and trained:
            return place
    return 0


def first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Indices of the samples of each row.

    Longest first, each into the first row with room. A sample over `width` has a row to itself.
    """
    rows: list[list[int]] = []
    room: list[int] = []  # tokens that each row still takes
    first = 0  # rows before it are full to the last token
    # Equal lengths stay in the order of the samples.
    longest_first = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))

    for index in longest_first:
        length = lengths[index]
        while first < len(room) and room[first] <= 0:
            first += 1

        row = first
        while row < len(room) and room[row] < length:
            row += 1
        if row == len(rows):
            rows.append([])
            room.append(width)

        rows[row].append(index)
        room[row] -= length
    return rows


def to_score(sequences: Sequence[Sequence[int]], prompts: Sequence[int] | None) -> list[Sample]:
    """Samples of which every token is looked at and none is trained.

    prompts: how many tokens of each sequence are not looked at; None: the first alone.
    """
    lengths = prompts or [1] * len(sequences)
    samples = []
    for ids, skipped in zip(sequences, lengths, strict=True):
        mask = [place >= max(1, skipped) for place in range(len(ids))]
        samples.append(Sample(tokens=ids, mask=mask, advantage=[0.0] * len(ids)))
    return samples
