"""Samples into rows of a fixed width: token ids, segments, and the signal of each predicted token.

Letters of shapes: R rows of width W.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from linn.types import Sample


@dataclass(frozen=True)
class Packed:
    """R rows of width W.

    Position t of a row predicts token t+1 of the same segment: every field but `ids` and
    `segments` speaks of that token.
    """

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
    """float32 [R, W]: the predicted token's advantage."""
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
        return Packed(*(getattr(self, field.name).to(device) for field in fields(self)))


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


def micro_batches(
    samples: Sequence[Sample],
    weights: Sequence[float],
    width: int = 2048,
    tokens: int = 2048,
    packs: bool = True,
) -> Iterator[Packed]:
    """Packed rows in groups of at most `tokens` positions, cut to the group's longest row.

    A row longer than `tokens` is a group of its own. `packs` False gives every sample its own
    row; rows of like length then share a micro-batch.
    """
    lengths = [len(sample.tokens) for sample in samples]
    row_width = 0  # nothing fits beside anything
    if packs:
        row_width = width

    group: list[list[int]] = []
    widest = 0
    for row in first_fit(lengths, row_width):
        size = sum(lengths[index] for index in row)
        positions = max(widest, size) * (len(group) + 1)
        if group and positions > tokens:
            yield _pack(samples, weights, group, widest)
            group, widest = [], 0
        group.append(row)
        widest = max(widest, size)
    if group:
        yield _pack(samples, weights, group, widest)


def _pack(
    samples: Sequence[Sample],
    weights: Sequence[float],
    rows: list[list[int]],
    width: int,
) -> Packed:
    """The tensors of rows that hold these samples (their indices), one after the other."""
    packed = _empty(len(rows), width)

    for row, indices in enumerate(rows):
        start = 0
        for segment, index in enumerate(indices):
            end = start + len(samples[index].tokens)
            packed.segments[row, start:end] = segment

            # The last position of a segment predicts nothing: what follows is another's.
            ahead = (row, slice(start, end - 1))
            packed.sample[ahead] = index
            packed.weight[ahead] = weights[index]

            _write(packed, samples[index], row, start)
            start = end
    return packed


def _empty(rows: int, width: int) -> Packed:
    """Rows of padding alone."""
    shape = (rows, width)
    return Packed(
        ids=torch.zeros(shape, dtype=torch.int64),
        segments=torch.full(shape, -1, dtype=torch.int64),
        mask=torch.zeros(shape, dtype=torch.bool),
        targets=torch.zeros(shape, dtype=torch.int64),
        weight=torch.zeros(shape),
        advantage=torch.zeros(shape),
        # A signal that is missing must poison what reads it: NaN, never 0.
        behaviour=torch.full(shape, torch.nan),
        teacher=torch.full(shape, torch.nan),
        sample=torch.zeros(shape, dtype=torch.int64),
        token=torch.zeros(shape, dtype=torch.int64),
    )


def _write(packed: Packed, sample: Sample, row: int, start: int) -> None:
    """Put a sample's tokens and its own signals into a row, from column `start` on."""
    tokens = torch.tensor(sample.tokens, dtype=torch.int64)
    end = start + len(tokens)
    packed.ids[row, start:end] = tokens

    # From here on, position t speaks of the sample's token t + 1.
    ahead = (row, slice(start, end - 1))
    packed.targets[ahead] = tokens[1:]
    packed.token[ahead] = torch.arange(1, len(tokens))

    signals = {
        "mask": sample.mask,
        "advantage": sample.advantage,
        "behaviour": sample.behaviour,
        "teacher": sample.teacher,
    }
    for name, values in signals.items():
        if values is None:
            continue  # stays NaN
        field: Tensor = getattr(packed, name)
        field[ahead] = torch.tensor(values[1:], dtype=field.dtype)
