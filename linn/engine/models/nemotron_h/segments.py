"""Segments laid end to end: where each begins and ends, and the masks that keep them apart.

Letters of shapes: T tokens, S segments, C chunks of Q tokens each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from linn.engine.models.kernels.attention import Joined, join
from linn.engine.models.nemotron_h.handover import Handover, hand_over, hand_over_states
from linn.engine.models.nemotron_h.leaves import Leaves, leaves_of
from linn.engine.models.rectangles import Rectangles, rectangles


@dataclass(frozen=True)
class Segments:
    """T tokens in S contiguous segments, cut into C chunks of Q (the last one padded).

    Built once per forward and used by every layer.
    """

    starts: Tensor
    """int64 [S]: index of each segment's first token."""
    ends: Tensor
    """int64 [S]: index of each segment's last token."""
    lengths: tuple[int, ...]
    """Tokens of each segment."""
    prompts: tuple[int, ...] | None
    """The segment that each one goes on from, -1 where it begins anew; None: all do."""
    of_token: Tensor
    """int64 [T]: the segment of each token."""
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
    near_start: Tensor
    """int64: indices of the tokens with fewer than kernel - 1 tokens of their own segment before
    them."""
    handover: Handover | None = None
    """What prompts hand over to the segments that go on from them; None: none does."""
    before: Tensor | None = None
    """int64 [S]: the tokens that a segment's state has read, where each one goes on from a state of
    a running batch; None: they have none."""

    @property
    def chunks(self) -> int:
        """C, the number of chunks."""
        return self.visible.shape[0]

    @property
    def chunk(self) -> int:
        """Q, the tokens of a chunk."""
        return self.visible.shape[-1]

    def start_of(self, tokens: Tensor) -> Tensor:
        """The first token of the segments of these tokens, both int64 [E]."""
        return self.starts[self.of_token[tokens]]

    @cached_property
    def leaves(self) -> Leaves:
        """The segments whose end somebody may go on from."""
        leaves = leaves_of(self.lengths, self.prompts).to(self.starts.device)
        return leaves if self.before is None else leaves.behind(self.before)

    @cached_property
    def rectangles(self) -> Rectangles:
        """The same tokens in rectangles, for attention."""
        laid = rectangles(torch.tensor(self.lengths), self.prompts)
        return laid.to(self.starts.device)

    @cached_property
    def joined(self) -> Joined:
        """Where the queries and keys of each segment stand, for attention without rectangles."""
        return join(self.lengths, self.prompts).to(self.starts.device)


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
    # What takes a look at the values is made on the host. The rest is computed where it is used,
    # from two small tensors: a GPU is never waited for.
    sizes = torch.tensor(lengths)
    starts = sizes.cumsum(0) - sizes
    near_start, early = _early(starts, sizes, kernel)
    handover = None
    if prompts is not None:
        handover = hand_over(starts, sizes, prompts, kernel).to(device)

    sizes = sizes.to(device, non_blocking=True)
    starts = starts.to(device, non_blocking=True)
    number = torch.arange(len(lengths), device=device)
    segment = torch.repeat_interleave(number, sizes, output_size=sum(lengths))  # [T]

    of_chunk = _in_chunks(segment, chunk)  # [C, Q]
    same = of_chunk[:, :, None] == of_chunk[:, None, :]
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=device).tril()
    visible = same & causal

    # The segment that ends each chunk, and the one that ended the chunk before it: [C, 1].
    last = of_chunk[:, -1:]
    none = torch.full((1, 1), -1, device=device)
    before = torch.cat([none, last[:-1]])

    # The axes of size 1 stand for the heads.
    return Segments(
        starts=starts,
        ends=starts + sizes - 1,
        lengths=tuple(lengths),
        prompts=None if prompts is None else tuple(prompts),
        of_token=segment,
        visible=visible[:, None],
        began_before=(of_chunk == before).float()[:, None],
        reaches_end=(of_chunk == last).float()[:, None],
        spans=(last == before).float(),
        early=tuple(index.to(device, non_blocking=True) for index in early),
        near_start=near_start.to(device, non_blocking=True),
        handover=handover,
    )


def lay_out_behind(before: Tensor, lengths: Sequence[int], chunk: int, kernel: int) -> Segments:
    """Segments of these lengths, each of which goes on from a state of a running batch.

    before: int64 [S], on the CPU as all of it: the tokens that each state has read.
    """
    layout = lay_out(lengths, chunk, kernel, before.device)
    handover = hand_over_states(layout.starts, torch.tensor(lengths), kernel)
    return replace(layout, handover=handover, before=before)


def _in_chunks(segment: Tensor, chunk: int) -> Tensor:
    """The segment of each token, [T] as [C, Q].

    The last chunk is filled up as its last segment's: dt is 0 there, so the state stays.
    """
    chunks = -(-len(segment) // chunk)
    missing = chunks * chunk - len(segment)
    filling = segment[-1:].expand(missing)
    return torch.cat([segment, filling]).view(chunks, chunk)


def _early(starts: Tensor, sizes: Tensor, kernel: int) -> tuple[Tensor, list[Tensor]]:
    """`Segments.near_start` and `Segments.early` of segments that stand so, on the host."""
    place = torch.arange(kernel - 1)
    token = starts[:, None] + place  # [S, kernel - 1], of which each segment has `sizes`
    exists = place < sizes[:, None]

    early = []
    for reach in range(1, kernel):
        # A tap that reaches back before the first token of all is not computed there.
        is_early = exists & (place < reach) & (token >= reach)
        early.append(token[is_early])
    return token[exists], early
