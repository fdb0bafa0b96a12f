"""Samples into rows of a fixed width: token ids, segments, and the signal of each predicted token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from linn.types import Sample


@dataclass(frozen=True)
class Packed:
    """R rows of width W. Position t of a row predicts token t+1 of the same segment: every field but `ids` and `segments` speaks of that token."""

    ids: Tensor
    """int64 [R, W]: token ids, 0 in padding."""
    segments: Tensor
    """int64 [R, W]: 0, 1, … within a row; -1 is padding at the row's end."""
    mask: Tensor
    """bool [R, W]: the predicted token is trained."""
    targets: Tensor
    """int64 [R, W]: the predicted token."""
    weight: Tensor
    """float32 [R, W]: the sample's factor of `token_weights`."""
    advantage: Tensor
    """float32 [R, W]."""
    behaviour: Tensor
    """float32 [R, W]: sampler's log-prob; NaN where the sample has none."""
    teacher: Tensor
    """float32 [R, W]: the other model's log-prob; NaN where the sample has none."""
    sample: Tensor
    """int64 [R, W]: index of the sample."""
    token: Tensor
    """int64 [R, W]: index of the predicted token in its sample."""

    def to(self, device: torch.device) -> Packed:
        """The same rows on another device."""
        return Packed(*(getattr(self, f.name).to(device) for f in fields(self)))


def first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Indices of the samples of each row: longest first, each into the first row with room; a sample over `width` has a row to itself."""
    rows: list[list[int]] = []
    room: list[int] = []
    first = 0  # rows before it are full to the last token
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        while first < len(room) and room[first] <= 0:
            first += 1
        row = next((r for r in range(first, len(room)) if room[r] >= lengths[index]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows


def micro_batches(
    samples: Sequence[Sample],
    weights: Sequence[float],
    width: int = 2048,
    tokens: int = 2048,
    packs: bool = True,
) -> Iterator[Packed]:
    """Packed rows in groups of at most `tokens` positions (one row where it alone is longer), cut to the longest row of the group.

    `packs` False gives every sample its own row; rows of like length then share a micro-batch.
    """
    lengths = [len(sample.tokens) for sample in samples]
    rows = first_fit(lengths, width if packs else 0)
    group: list[list[int]] = []
    widest = 0
    for row in rows:
        size = sum(lengths[i] for i in row)
        if group and max(widest, size) * (len(group) + 1) > tokens:
            yield _tensors(samples, weights, group, widest)
            group, widest = [], 0
        group.append(row)
        widest = max(widest, size)
    if group:
        yield _tensors(samples, weights, group, widest)


def _tensors(
    samples: Sequence[Sample], weights: Sequence[float], rows: list[list[int]], width: int
) -> Packed:
    shape = (len(rows), width)
    ids, targets, sample_of, token = (torch.zeros(shape, dtype=torch.int64) for _ in range(4))
    segments = torch.full(shape, -1, dtype=torch.int64)
    mask = torch.zeros(shape, dtype=torch.bool)
    weight, advantage = torch.zeros(shape), torch.zeros(shape)
    behaviour, teacher = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    for r, row in enumerate(rows):
        start = 0
        for segment, index in enumerate(row):
            sample, length = samples[index], len(samples[index].tokens)
            own = (r, slice(start, start + length))
            ahead = (r, slice(start, start + length - 1))  # the last position predicts nothing
            ids[own] = torch.tensor(sample.tokens, dtype=torch.int64)
            segments[own] = segment
            targets[ahead] = ids[r, start + 1 : start + length]
            mask[ahead] = torch.tensor(sample.mask[1:], dtype=torch.bool)
            weight[ahead] = weights[index]
            advantage[ahead] = torch.tensor(sample.advantage[1:], dtype=torch.float32)
            sample_of[ahead] = index
            token[ahead] = torch.arange(1, length)
            if sample.behaviour is not None:
                behaviour[ahead] = torch.tensor(sample.behaviour[1:], dtype=torch.float32)
            if sample.teacher is not None:
                teacher[ahead] = torch.tensor(sample.teacher[1:], dtype=torch.float32)
            start += length
    return Packed(
        ids, segments, mask, targets, weight, advantage, behaviour, teacher, sample_of, token
    )
