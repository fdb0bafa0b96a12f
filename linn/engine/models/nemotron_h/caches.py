"""What the mixers of Nemotron-H decode from, layer by layer, and a Mamba layer's own step.

Letters of shapes: B rows of a running batch, C channels of the convolution, K its taps, H heads of
width P in G groups, N the state's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST_DECAY = 1e-12
"""Below it a state is multiplied by what it has decayed by. What is added to the state is divided
by that number before, and stays far from what float32 can hold."""

_CACHED = 2**16
"""Numbers that a core's own cache holds for sure, beside what else is read."""

Rows = Tensor | None
"""int64: some rows, in this order; None: all of them."""


@dataclass
class MambaCache:
    """What a Mamba-2 layer remembers of B rows; its size does not grow with their lengths.

    A step is bound by passing over the state. So it is not multiplied by each token's decay: what
    is added to it is divided by all decay so far, and what is read of it is multiplied.
    """

    conv: Tensor
    """[B, K - 1, C]: the convolution's last inputs, in a ring."""
    ssm: Tensor
    """float32 [B, G, N, H/G, P]: the state, but for `decay`."""
    decay: Tensor | None = None
    """float32 [B, H]: what the state of each head is still to be multiplied by; None: 1."""
    oldest: int = 0
    """The place in the ring of the oldest input."""

    @classmethod
    def joined(
        cls, caches: Sequence[MambaCache], rows: Sequence[Rows], columns: int, capacity: int
    ) -> MambaCache:
        """A new cache: the rows of all of these that are asked for, one after the other."""
        return cls(
            _joined([cache._in_order() for cache in caches], rows),
            _joined([cache.ssm for cache in caches], rows),
            _joined([cache._decays() for cache in caches], rows),
        )

    def view(self, rows: slice) -> MambaCache:
        """These rows as views, to be read."""
        decay = None if self.decay is None else self.decay[rows]
        return MambaCache(self.conv[rows], self.ssm[rows], decay, self.oldest)

    def settled(self) -> tuple[Tensor, Tensor]:
        """The convolution's last inputs, oldest first, and the state as it is."""
        if self.decay is None:
            return self._in_order(), self.ssm
        return self._in_order(), self.ssm * self._of_heads(self.decay)

    def convolve(self, newest: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        """The convolution's output [B, C] in float32 for its newest inputs [B, C], which are kept.

        taps [K, C], the last one for the newest input; bias [C].
        """
        out = torch.addcmul(bias, newest.float(), taps[-1])
        back = len(taps) - 1
        for age in range(back):
            place = (self.oldest + age) % back
            out.addcmul_(self.conv[:, place].float(), taps[age])
        if back:
            self.conv[:, self.oldest] = newest
            self.oldest = (self.oldest + 1) % back
        return out

    def advance(self, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """One token per row: moves the state on and returns y [B, H, P] without d x.

        x [B, H, P], dt [B, H], a [H], b and c [B, G, N], as in `scan`.
        """
        rows, groups, _, per_group, width = self.ssm.shape

        # h = decay · s is to become exp(dt a) h + b (dt x): so s gets b (dt x) / decay.
        decay = (dt * a).exp()
        if self.decay is not None:
            decay = self.decay * decay
        # Written so that what is no number, in one row, does not keep the others from it.
        if not float(decay.min()) >= _LEAST_DECAY:
            self.ssm.mul_(self._of_heads(decay))
            decay = torch.ones_like(decay)
        written = x * (dt / decay)[..., None]
        self.decay = decay
        y = self._write_and_read(written, b, c)
        return y.view(rows, groups * per_group, width) * decay[..., None]

    def _write_and_read(self, x: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Adds b x to the state; c times the new state, [B·G, 1, H/G·P]: for all heads of a group
        in one product.

        On a CPU a few rows at a time, while a core's own cache still holds what was written.
        """
        rows, groups, size, per_group, width = self.ssm.shape
        most = max(1, rows)
        if x.is_cpu:
            most = max(1, _CACHED // (groups * size * per_group * width))
        y = x.new_empty(rows * groups, 1, per_group * width)
        parts = zip(
            self.ssm.split(most),
            x.view(rows, groups, 1, per_group, width).split(most),
            b.view(rows, groups, size, 1, 1).split(most),
            c.reshape(rows * groups, 1, size).split(most * groups),
            y.split(most * groups),
            strict=True,
        )
        for state, x_part, b_part, c_part, out in parts:
            state.addcmul_(b_part, x_part)
            torch.bmm(c_part, state.view(-1, size, per_group * width), out=out)
        return y

    def _in_order(self) -> Tensor:
        """`conv` with the oldest input first."""
        return self.conv.roll(-self.oldest, dims=1) if self.oldest else self.conv

    def _decays(self) -> Tensor:
        """`decay`, also where it is 1."""
        if self.decay is not None:
            return self.decay
        rows, groups, _, per_group, _ = self.ssm.shape
        return self.ssm.new_ones(rows, groups * per_group)

    def _of_heads(self, values: Tensor) -> Tensor:
        """Values of the heads [B, H] in a shape that is multiplied with the state."""
        rows, groups, _, per_group, _ = self.ssm.shape
        return values.view(rows, groups, 1, per_group, 1)


def room_for(columns: int) -> int:
    """The columns of a cache that is to grow, by how many are needed at once."""
    return columns + max(32, columns // 8)


@dataclass
class AttentionCache:
    """Keys and values of B rows, right-padded to a capacity that grows geometrically."""

    keys: Tensor
    """[B, kv heads, head_dim, capacity]: tokens stand next to each other, as products read them."""
    values: Tensor
    """The same shape."""

    @property
    def capacity(self) -> int:
        """Columns there is room for."""
        return self.keys.shape[-1]

    def view(self, rows: slice) -> AttentionCache:
        """These rows as views, to be read."""
        return AttentionCache(self.keys[rows], self.values[rows])

    def resized(self, capacity: int) -> AttentionCache:
        """The same, cut or filled with zeros to a capacity."""
        return AttentionCache.joined([self], [None], self.capacity, capacity)

    @classmethod
    def joined(
        cls, caches: Sequence[AttentionCache], rows: Sequence[Rows], columns: int, capacity: int
    ) -> AttentionCache:
        """A new cache: the rows of all of these that are asked for, one after the other.

        Each is brought to these columns; there is room for `capacity`.
        """
        counts = [_count(cache.keys, of) for cache, of in zip(caches, rows, strict=True)]
        shape = sum(counts), *caches[0].keys.shape[1:3], capacity
        new = cls(caches[0].keys.new_empty(shape), caches[0].values.new_empty(shape))
        parts = zip(new.keys.split(counts), new.values.split(counts), caches, rows, strict=True)
        for keys, values, cache, of in parts:
            seen = min(columns, cache.capacity, capacity)
            for part, tensor in ((keys, cache.keys), (values, cache.values)):
                _copy(part[..., :seen], tensor[..., :seen], of)
                # What is hidden counts 0 times what it holds, and that must be a number.
                part[..., seen:] = 0
        return new


def _joined(tensors: Sequence[Tensor], rows: Sequence[Rows]) -> Tensor:
    """A new tensor: the rows of all of these that are asked for, one after the other."""
    counts = [_count(tensor, of) for tensor, of in zip(tensors, rows, strict=True)]
    new = tensors[0].new_empty(sum(counts), *tensors[0].shape[1:])
    for part, tensor, of in zip(new.split(counts), tensors, rows, strict=True):
        _copy(part, tensor, of)
    return new


def _count(tensor: Tensor, rows: Rows) -> int:
    return len(tensor if rows is None else rows)


def _copy(target: Tensor, source: Tensor, rows: Rows) -> None:
    """Write these rows of `source` to `target`."""
    if rows is None:
        target.copy_(source)
    else:
        torch.index_select(source, 0, rows, out=target)


@dataclass(frozen=True)
class Seen:
    """What some rows that stand next to each other read of their keys in a step."""

    rows: slice
    """Which rows, n of them."""
    hide: Tensor
    """[n, 1, L]: -inf at the columns that a row has not reached."""


def hidden_beyond(column: Tensor, lengths: Tensor) -> Tensor:
    """`Seen.hide` of these columns (int64 [L]), for rows that had `lengths` tokens (int64 [n]).

    A row's new token stands at column lengths[b]; what is beyond belongs to longer rows.
    """
    beyond = column > lengths[:, None]
    hide = torch.zeros(len(lengths), 1, len(column), device=column.device)
    return hide.masked_fill_(beyond[:, None], -torch.inf)


LayerCache = MambaCache | AttentionCache
"""What one layer with a memory decodes from."""
