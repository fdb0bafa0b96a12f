"""Packed rows as one flat stream of tokens: where segments begin and end, and the masks that keep them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stream:
    """The layout of T tokens in S contiguous segments, split into C chunks of Q (the last one padded); built once per forward."""

    starts: Tensor
    """int64 [S]: index of each segment's first token."""
    lengths: tuple[int, ...]
    """Tokens of each segment."""
    within: Tensor
    """bool [C, 1, Q, Q]: query i may see key j (same segment, j <= i)."""
    carried: Tensor
    """float [C, 1, Q]: 1 where the token's segment began before its chunk."""
    leaving: Tensor
    """float [C, 1, Q]: 1 where the token's segment is the one that ends its chunk."""
    passing: Tensor
    """float [C, 1]: 1 where one segment spans the chunk and began before it."""
    young: tuple[Tensor, ...]
    """For k = 1 .. kernel - 1: int64 indices (>= k) of the tokens with fewer than k tokens of their own segment before them."""
    buckets: tuple[tuple[int, int], ...]
    """(rows, columns) of rectangles that hold the segments, similar lengths together, padded on the right by the segment's last token."""
    laid: Tensor
    """int64: the token at each place of the rectangles, laid end to end."""
    place: Tensor
    """int64 [T]: each token's own place in the rectangles."""

    @property
    def size(self) -> int:
        """T, the number of tokens."""
        return len(self.place)

    @property
    def ends(self) -> Tensor:
        """int64 [S]: index of each segment's last token."""
        return self.starts + torch.tensor(self.lengths, device=self.starts.device) - 1


def stream(lengths: Sequence[int], chunk: int, kernel: int, device: torch.device) -> Stream:
    """Lay segments of these lengths end to end, for scans in chunks and convolutions of a kernel size."""
    assert lengths and min(lengths) > 0, lengths
    size = torch.tensor(lengths)
    starts = size.cumsum(0) - size
    owner = torch.repeat_interleave(torch.arange(len(lengths)), size)
    total = len(owner)
    position = torch.arange(total) - starts[owner]
    chunks = -(-total // chunk)
    # The last chunk is filled up as its last segment's: dt is 0 there, so nothing happens to the state.
    padded = torch.cat([owner, owner[-1:].expand(chunks * chunk - total)]).view(chunks, chunk)
    last = padded[:, -1]
    before = torch.cat([torch.full((1,), -1), last[:-1]])
    causal = torch.ones(chunk, chunk, dtype=torch.bool).tril()
    within = (padded[:, :, None] == padded[:, None, :]) & causal
    rectangles, laid, place = buckets(size)
    return Stream(
        starts=starts.to(device),
        lengths=tuple(lengths),
        within=within[:, None].to(device),
        carried=(padded == before[:, None]).float()[:, None].to(device),
        leaving=(padded == last[:, None]).float()[:, None].to(device),
        passing=(last == before).float()[:, None].to(device),
        young=tuple(
            (position[back:] < back).nonzero().flatten().add(back).to(device)
            for back in range(1, kernel)
        ),
        buckets=rectangles,
        laid=laid.to(device),
        place=place.to(device),
    )


def buckets(size: Tensor) -> tuple[tuple[tuple[int, int], ...], Tensor, Tensor]:
    """Rectangles for contiguous segments of these lengths that waste little: lengths within one lie within a factor of 1.25.

    Returns their (rows, columns), the token at each of their places laid end to end, and each token's own place (see `Stream`).
    """
    starts = size.cumsum(0) - size
    order = size.argsort(descending=True, stable=True)
    groups: list[list[int]] = []
    longest = 0
    for s, length in zip(order.tolist(), size[order].tolist(), strict=True):
        if not groups or length * 1.25 < longest:
            groups.append([])
            longest = length
        groups[-1].append(s)
    shapes, tokens = [], []
    place = torch.empty(int(size.sum()), dtype=torch.int64)
    filled = 0
    for group in groups:
        rows = torch.tensor(sorted(group))
        step = torch.arange(int(size[rows].max()))
        index = starts[rows, None] + torch.minimum(step, size[rows, None] - 1)
        real = (step < size[rows, None]).flatten().nonzero().flatten()
        place[index.flatten()[real]] = real + filled
        shapes.append((len(rows), len(step)))
        tokens.append(index.flatten())
        filled += index.numel()
    return tuple(shapes), torch.cat(tokens), place


class _Take(torch.autograd.Function):
    """Rows x[index]; the gradient is gathered too, from the places where each row went, which is much faster than adding up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        (grad,) = grads
        if places.dim() == 1:
            return grad.index_select(0, places), None, None
        out = grad.index_select(0, places[:, 0])
        for k in range(1, places.shape[1]):
            out = out.add_(grad.index_select(0, places[:, k]))
        return out, None, None


def take(x: Tensor, index: Tensor, places: Tensor) -> Tensor:
    """x[index] for x [T, ...]; places [T] or [T, k] says where in the result row t stands. Copies at other places must get no gradient."""
    out: Tensor = _Take.apply(x, index, places)
    return out
