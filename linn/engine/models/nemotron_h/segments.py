"""Segments laid end to end: where each begins and ends, and the masks that keep them apart.

Letters of shapes: T tokens, S segments, C chunks of Q tokens each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from linn.engine.models.nemotron_h.handover import Handover, hand_over
from linn.engine.models.rectangles import Rectangles, rectangles


@dataclass(frozen=True)
class Segments:
    """T tokens in S contiguous segments, cut into C chunks of Q (the last one padded).

    Built once per forward and used by every layer.
    """

    starts: Tensor
    """int64 [S]: index of each segment's first token."""
    lengths: tuple[int, ...]
    """Tokens of each segment."""
    visible: Tensor
    """bool [C, 1, Q, Q]: query i may see key j (same segment, j <= i)."""
    began_before: Tensor
    """float [C, 1, Q]: 1 where the token's segment began before its chunk."""
    reaches_end: Tensor
    """float [C, 1, Q]: 1 where the token's segment is the one that ends its chunk."""
    spans: Tensor
    """float [C, 1]: 1 where one segment spans the chunk and began before it."""
    early: tuple[Tensor, ...]
    """For k = 1 .. kernel - 1: int64 indices (>= k) of the tokens with fewer than k tokens of
    their own segment before them."""
    rectangles: Rectangles
    """The same tokens in rectangles, for attention."""
    handover: Handover | None = None
    """What prompts hand over to the segments that go on from them; None: none does."""

    @property
    def ends(self) -> Tensor:
        """int64 [S]: index of each segment's last token."""
        return self.starts + torch.tensor(self.lengths, device=self.starts.device) - 1

    @property
    def chunks(self) -> int:
        """C, the number of chunks."""
        return self.visible.shape[0]

    @property
    def chunk(self) -> int:
        """Q, the tokens of a chunk."""
        return self.visible.shape[-1]

    def to(self, device: torch.device) -> Segments:
        """The same on another device."""
        return Segments(
            starts=self.starts.to(device),
            lengths=self.lengths,
            visible=self.visible.to(device),
            began_before=self.began_before.to(device),
            reaches_end=self.reaches_end.to(device),
            spans=self.spans.to(device),
            early=tuple(index.to(device) for index in self.early),
            rectangles=self.rectangles.to(device),
            handover=None if self.handover is None else self.handover.to(device),
        )


def lay_out(
    lengths: Sequence[int],
    chunk: int,
    kernel: int,
    device: torch.device,
    prompts: Sequence[int] | None = None,
) -> Segments:
    """Segments of these lengths, laid end to end.

    chunk: tokens of a scan's chunk; kernel: taps of the convolution. prompts: the segment that each
    one goes on from, -1 where it begins anew; replies stand right behind their prompt.
    """
    assert lengths and min(lengths) > 0, lengths
    sizes = torch.tensor(lengths)
    starts = sizes.cumsum(0) - sizes
    number = torch.arange(len(lengths))
    segment = torch.repeat_interleave(number, sizes)  # [T]
    position = torch.arange(len(segment)) - starts[segment]  # [T], within its segment

    of_chunk = _in_chunks(segment, chunk)  # [C, Q]
    same = of_chunk[:, :, None] == of_chunk[:, None, :]
    causal = torch.ones(chunk, chunk, dtype=torch.bool).tril()
    visible = same & causal

    # The segment that ends each chunk, and the one that ended the chunk before it: [C, 1].
    last = of_chunk[:, -1:]
    none = torch.full((1, 1), -1)
    before = torch.cat([none, last[:-1]])

    # The axes of size 1 stand for the heads.
    segments = Segments(
        starts=starts,
        lengths=tuple(lengths),
        visible=visible[:, None],
        began_before=(of_chunk == before).float()[:, None],
        reaches_end=(of_chunk == last).float()[:, None],
        spans=(last == before).float(),
        early=tuple(_early(position, kernel)),
        rectangles=rectangles(sizes, prompts),
        handover=None if prompts is None else hand_over(starts, sizes, prompts, kernel),
    )
    return segments.to(device)


def _in_chunks(segment: Tensor, chunk: int) -> Tensor:
    """The segment of each token, [T] as [C, Q].

    The last chunk is filled up as its last segment's: dt is 0 there, so the state stays.
    """
    chunks = -(-len(segment) // chunk)
    missing = chunks * chunk - len(segment)
    filling = segment[-1:].expand(missing)
    return torch.cat([segment, filling]).view(chunks, chunk)


def _early(position: Tensor, kernel: int) -> Iterator[Tensor]:
    """`Segments.early` of tokens that stand at these positions [T] of their segments."""
    for reach in range(1, kernel):
        is_early = position[reach:] < reach
        yield is_early.nonzero().flatten().add(reach)
