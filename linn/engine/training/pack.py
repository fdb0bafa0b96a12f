"""Samples into rows of a fixed width: token ids, segments, and the signal of each trained token.

Letters of shapes: R rows of width W, N trained tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from linn.engine.training.trees import Tree, first_fit, lone_trees, shared_trees
from linn.types import Sample

_LAYOUT = ("segments", "continues")
"""Fields of `Packed` that stay on the host."""


@dataclass(frozen=True)
class Packed:
    """R rows of width W, and the N tokens of them that are trained.

    A trained token is predicted at a place of the rows, that of the token before it. Siblings that
    share their prompt are all predicted from its last place.
    """

    ids: Tensor
    """int64 [R, W]: token ids, 0 in padding."""
    segments: Tensor
    """int64 [R, W]: 0, 1, … within a row; -1 is padding at the row's end."""
    continues: Tensor | None
    """int64 [R, W]: the segment that a token's own segment goes on from, a prompt that several
    replies share; -1 where it begins anew. None: all of them do."""
    place: Tensor
    """int64 [N]: where a token is predicted, row · W + column."""
    targets: Tensor
    """int64 [N]: the token."""
    weight: Tensor
    """float32 [N]: its sample's factor of `token_weights`."""
    advantage: Tensor
    """float32 [N]: its advantage."""
    behaviour: Tensor
    """float32 [N]: sampler's log-prob; NaN where the sample has none."""
    teacher: Tensor
    """float32 [N]: the other model's log-prob; NaN where the sample has none."""
    sample: Tensor
    """int64 [N]: index of its sample."""
    token: Tensor
    """int64 [N]: its index in its sample."""

    @property
    def trains(self) -> bool:
        """Whether any token is trained, or looked at."""
        return len(self.place) > 0

    def to(self, device: torch.device) -> Packed:
        """The same rows on another device, but for `segments` and `continues`.

        Those two say how the rows are laid out, and that is worked out on the host. A GPU is not
        waited for, so the host goes on while it computes.
        """
        to_gpu = device.type == "cuda"
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _LAYOUT:
                moved[field.name] = value
            elif to_gpu and value.device.type == "cpu" and value.numel():
                moved[field.name] = value.pin_memory().to(device, non_blocking=True)
            else:
                moved[field.name] = value.to(device)
        return Packed(**moved)


def micro_batches(
    samples: Sequence[Sample],
    weights: Sequence[float],
    width: int = 2048,
    tokens: int = 2048,
    packs: bool = True,
    share: bool = False,
) -> Iterator[Packed]:
    """Packed rows in groups of at most `tokens` positions, cut to the group's longest row.

    A row longer than `tokens` is a group of its own. `packs` False gives every sample its own
    row; rows of like length then share a micro-batch. `share`: siblings in one row share their
    prompt, and only a model that `shares` computes that.
    """
    # Nothing fits beside anything in rows of no width.
    row_width = width if packs else 0
    trees = lone_trees(samples)
    if share:
        # A tree may fill a micro-batch: more replies to a prompt than a row of samples holds.
        row_width = max(width, tokens)
        trees = shared_trees(samples, row_width)
    sizes = [tree.size for tree in trees]

    group: list[list[Tree]] = []
    widest = 0
    for row in first_fit(sizes, row_width):
        size = sum(sizes[index] for index in row)
        positions = max(widest, size) * (len(group) + 1)
        if group and positions > tokens:
            yield _pack(samples, weights, group, widest)
            group, widest = [], 0
        group.append([trees[index] for index in row])
        widest = max(widest, size)
    if group:
        yield _pack(samples, weights, group, widest)


def _pack(
    samples: Sequence[Sample],
    weights: Sequence[float],
    rows: list[list[Tree]],
    width: int,
) -> Packed:
    """The tensors of rows that hold these trees, one after the other."""
    writing = _Writing(len(rows), width)
    for row, trees in enumerate(rows):
        writing.begin(row)
        for tree in trees:
            prompt = None
            if tree.prompt:
                ids = samples[tree.samples[0]].tokens[: tree.prompt]
                prompt = writing.lay(ids, after=None)
            for index in tree.samples:
                sample = samples[index]
                own = writing.lay(sample.tokens[tree.prompt :], after=prompt)
                writing.train(index, sample, weights[index], prompt, own)
    return writing.packed()


@dataclass(frozen=True)
class _Segment:
    """Tokens that stand together in a row."""

    number: int
    """Its number in the row."""
    start: int
    """The place of its first token, row · W + column."""
    length: int
    """Its tokens."""


class _Writing:
    """Rows that are being filled from the left."""

    def __init__(self, rows: int, width: int) -> None:
        self._width = width
        self._ids = torch.zeros(rows * width, dtype=torch.int64)
        self._segments = torch.full((rows * width,), -1)
        self._continues = torch.full((rows * width,), -1)
        self._signals: list[tuple[Tensor, ...]] = []
        """Of each sample, the fields of `Packed` from `place` on."""
        self._next = self._number = 0

    def begin(self, row: int) -> None:
        """Write into this row from here on."""
        self._next, self._number = row * self._width, 0

    def lay(self, tokens: Sequence[int], after: _Segment | None) -> _Segment:
        """Write a segment that goes on from another one, or begins anew."""
        segment = _Segment(self._number, self._next, len(tokens))
        own = slice(self._next, self._next + len(tokens))
        self._ids[own] = torch.tensor(tokens, dtype=torch.int64)
        self._segments[own] = segment.number
        if after is not None:
            self._continues[own] = after.number
        self._next += len(tokens)
        self._number += 1
        return segment

    def train(
        self, index: int, sample: Sample, weight: float, prompt: _Segment | None, own: _Segment
    ) -> None:
        """Note the trained tokens of a sample that lies in its own segment, behind its prompt."""
        # Entry 0 has nothing before it. The first of a segment is predicted by what stands before
        # it: its prompt's last token.
        token = 1 + torch.tensor(sample.mask[1:], dtype=torch.bool).nonzero().flatten()
        shared = 0 if prompt is None else prompt.length
        place = own.start + token - 1 - shared
        if prompt is not None:
            place[token == shared] = prompt.start + prompt.length - 1

        def signal(values: Sequence[float] | None) -> Tensor:
            # A signal that is missing must poison what reads it: NaN, never 0.
            if values is None:
                return torch.full((len(token),), torch.nan)
            return torch.tensor(values, dtype=torch.float32)[token]

        self._signals.append(
            (
                place,
                torch.tensor(sample.tokens, dtype=torch.int64)[token],
                torch.full((len(token),), weight),
                signal(sample.advantage),
                signal(sample.behaviour),
                signal(sample.teacher),
                torch.full_like(token, index),
                token,
            )
        )

    def packed(self) -> Packed:
        """All that was written."""
        continues = None
        if bool((self._continues >= 0).any()):
            continues = self._continues.view(-1, self._width)
        columns = [torch.cat(parts) for parts in zip(*self._signals, strict=True)]
        return Packed(
            self._ids.view(-1, self._width),
            self._segments.view(-1, self._width),
            continues,
            *columns,
        )
