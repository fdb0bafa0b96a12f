"""Packed rows cut over ranks: each computes a piece, and layers hand over what crosses a cut.

The tokens of a micro-batch lie end to end and are cut into pieces of equal length, wherever that
falls. What a token needs of earlier ones comes over the cut in each layer: of a convolution, the
last inputs of the piece before; of a recurrence, the state that enters (what a piece adds to it is
computed from zero, and is linear in what entered); of attention, all keys and values. Queries are
exchanged for heads: each rank attends for some heads over whole segments, so that no rank has the
longest part of a long segment. Gradients take the same ways back.

Letters of shapes: T tokens of all pieces, n of this rank's, C ranks, D channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from linn.engine.models.nemotron_h.handover import Handover, hand_over, with_inputs, with_states
from linn.engine.models.nemotron_h.layers import Attention, Mamba, recurrence_for
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.models.nemotron_h.segments import Segments, lay_out
from linn.engine.models.rectangles import segment_lengths
from linn.engine.training.pack import Packed
from linn.errors import UserError
from linn.scale.collectives import exchange, gather, gather_rows, kept_by

_CHUNK = 32
"""Tokens of a scan's chunk in the layout of all tokens, which is for attention alone."""


@dataclass(frozen=True)
class Piece:
    """The tokens of one rank, as parts of segments."""

    lengths: tuple[int, ...]
    """Tokens of each part."""
    before: int
    """Tokens of the first part's segment that stand on earlier ranks."""
    opens: bool
    """Whether the last part's segment goes on on the next rank."""

    @property
    def tokens(self) -> int:
        """All together."""
        return sum(self.lengths)

    @property
    def passes_on(self) -> bool:
        """Whether one segment comes in and goes out again."""
        return self.opens and len(self.lengths) == 1 and self.before > 0


def pieces_of(lengths: Sequence[int], ranks: int) -> list[Piece]:
    """Segments of these lengths, laid end to end, in pieces that differ by a token at most."""
    total = sum(lengths)
    # Equal numbers of tokens: but for attention, which is shared out by heads, work goes by them.
    cuts = [total * rank // ranks for rank in range(ranks + 1)]
    pieces = []
    for begin, end in pairwise(cuts):
        parts: list[int] = []
        before, opens, start = 0, False, 0
        for length in lengths:
            first, last = max(start, begin), min(start + length, end)
            if first < last:
                if not parts:
                    before = first - start
                parts.append(last - first)
                opens = start + length > end
            start += length
        pieces.append(Piece(tuple(parts), before, opens))
    return pieces


@dataclass(frozen=True)
class Cut:
    """A micro-batch in pieces, as one of the ranks sees it."""

    pieces: tuple[Piece, ...]
    """Of every rank."""
    whole: Segments
    """All tokens, for attention."""
    handover: Handover | None
    """How the first part reads what comes over the cut before it: `inputs` counts the last inputs
    of the rank before. None: nothing comes."""


class Context:
    """The ranks that compute a row together, and the cut of the row that is computed now."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.ranks = dist.get_world_size(group)
        self.rank = dist.get_rank(group)
        self.kernel = 1
        """Taps of the model's convolutions."""
        self._now: Cut | None = None

    @property
    def now(self) -> Cut:
        """Of the micro-batch that is under way."""
        assert self._now is not None, "no micro-batch is cut"
        return self._now

    def cut(self, passes: Iterable[Packed]) -> Iterator[Packed]:
        """This rank's piece of each micro-batch; while one is out, the layers know its cut."""
        for packed in passes:
            own, self._now = self._cut(packed)
            try:
                yield own
            finally:
                self._now = None

    def _cut(self, packed: Packed) -> tuple[Packed, Cut]:
        is_token = (packed.segments >= 0).to(packed.ids.device)
        lengths = segment_lengths(packed.segments).tolist()
        ids = packed.ids[is_token]
        # A convolution reaches into the piece before and no further. What is filled up is a
        # segment of its own, that nobody looks at.
        missing = self.ranks * max(1, self.kernel - 1) - len(ids)
        if missing > 0:
            lengths.append(missing)
            ids = torch.cat([ids, ids.new_zeros(missing)])

        pieces = pieces_of(lengths, self.ranks)
        begin = sum(piece.tokens for piece in pieces[: self.rank])
        own = pieces[self.rank]
        cut = Cut(
            tuple(pieces),
            lay_out(lengths, _CHUNK, self.kernel, ids.device),
            _over_the_cut(own, self.kernel, ids.device),
        )
        return _own_piece(packed, is_token, ids, begin, own), cut

    def total(self, values: Tensor) -> Tensor:
        """Values that one of the ranks has, and the others have as zeros: in all of them."""
        dist.all_reduce(values, group=self.group)
        return values


def _own_piece(packed: Packed, is_token: Tensor, ids: Tensor, begin: int, piece: Piece) -> Packed:
    """One row of this rank's tokens, and of what they predict: the targets come along."""
    number = torch.arange(len(piece.lengths), device=ids.device)
    sizes = torch.tensor(piece.lengths, device=ids.device)
    end = begin + piece.tokens

    # Where a token stands among all of them, row by row.
    place = is_token.flatten().cumsum(0)[packed.place] - 1
    own = (place >= begin) & (place < end)
    return Packed(
        ids=ids[None, begin:end],
        segments=torch.repeat_interleave(number, sizes)[None],
        continues=None,
        place=place[own] - begin,
        targets=packed.targets[own],
        weight=packed.weight[own],
        advantage=packed.advantage[own],
        behaviour=packed.behaviour[own],
        teacher=packed.teacher[own],
        sample=packed.sample[own],
        token=packed.token[own],
    )


def _over_the_cut(piece: Piece, kernel: int, device: torch.device) -> Handover | None:
    """The first part as a reply to what stands before it, of which a few inputs are there."""
    if not piece.before:
        return None
    first, near = piece.lengths[0], min(piece.before, max(1, kernel - 1))
    sizes = torch.tensor([near, first])
    laid = hand_over(sizes.cumsum(0) - sizes, sizes, [-1, 0], kernel)
    return replace(
        laid,
        replies=laid.replies - near,
        starts=laid.starts - near,
        late=laid.late - near,
        inputs=laid.inputs + (kernel - 1 - near),
    ).to(device)


# ---------------------------------------------------------------- layers


def cut_layers(model: NemotronH, context: Context) -> None:
    """Have the layers of a model compute pieces. UserError where it has too few heads."""
    # Layers keep their parameters and names: only what they compute is another.
    context.kernel = model.config.conv_kernel
    for layer in model.modules():
        if isinstance(layer, Mamba):
            layer.forward = partial(_mamba, layer, context)  # type: ignore[method-assign]
        elif isinstance(layer, Attention):
            if layer.heads < context.ranks:
                raise UserError(
                    f"trainers.context: {context.ranks} is more than the model's {layer.heads} "
                    "attention heads, which its ranks share out; lower it"
                )
            layer.forward = partial(_attention, layer, context)  # type: ignore[method-assign]


def _mamba(
    layer: Mamba, context: Context, hidden: Tensor, segments: Segments, with_cache: bool
) -> tuple[Tensor, None]:
    """`Mamba.forward` of this rank's piece, hidden [n, H]."""
    assert not with_cache
    handover = context.now.handover
    gate, mixed, dt = layer._project(hidden)
    convolve, scan, last_states = recurrence_for(hidden.device)

    with torch.autocast(hidden.device.type, enabled=False):
        taps, bias = layer._taps()
        inputs = mixed.float()
        convolved = convolve(inputs, taps, bias, segments)
        reach = len(taps) - 1
        # Every rank gathers, also the first of a segment, which reads nothing: all must call it.
        if reach:
            tails = gather(inputs[-reach:], context.group)  # [C, kernel - 1, D]
            if handover is None:
                convolved = kept_by(convolved, tails)
            else:
                convolved = with_inputs(convolved, tails[context.rank - 1], taps, handover)

        x, b, c = layer._split(F.silu(convolved))
        a = layer._decay_rates()
        y, decay, carry = scan(x, dt, a, b, c, layer.D.float(), segments)

        # The state of the last part alone can go on over the next cut.
        last = torch.tensor([len(segments.lengths) - 1], device=x.device)
        left = last_states(x, dt, b, decay, carry, segments, last)[0]
        states, entering = _states(left, (dt * a).double().sum(0), context)
        if handover is None:
            y = kept_by(y, states)
        else:
            y = with_states(y, dt, a, c, entering[None], handover)

    return layer.out_proj(layer.norm(y.flatten(1), gate)), None


def _states(left: Tensor, log_decay: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """What all ranks gathered of each other, and the state [G, N, K, P] that enters this one.

    left: the state after this rank's last token, of what it computed from zero. log_decay [H]: of
    a state that comes in at its first token and goes out after its last.
    """
    groups, _, per_group, _ = left.shape
    # Added up in float64: a sum over a long piece loses what its exponent needs.
    through = log_decay.exp().to(left.dtype)
    everyone = gather(torch.cat([left.flatten(), through]), context.group)

    entering = torch.zeros_like(left)
    for piece, own in zip(context.now.pieces[: context.rank], everyone, strict=False):
        if not piece.opens:
            entering = torch.zeros_like(left)
            continue
        state = own[: left.numel()].view_as(left)
        # What entered that piece is left in its state only if no other segment began there.
        if piece.passes_on:
            decay = own[left.numel() :].view(groups, 1, per_group, 1)
            state = state + decay * entering
        entering = state
    return everyone, entering


def _attention(
    layer: Attention, context: Context, hidden: Tensor, segments: Segments, with_cache: bool
) -> tuple[Tensor, None]:
    """`Attention.forward` of this rank's piece, hidden [n, H]."""
    assert not with_cache
    projected = layer._project(hidden)
    traffic = _Traffic.of(layer, context)

    # Queries are exchanged for heads; keys and values, of which there are few, go to everybody.
    queries = traffic.to_heads(projected[:, : layer.heads])  # [T, own heads, d]
    both = gather_rows(projected[:, layer.heads :], traffic.tokens, context.group)

    keys = _keys_of(traffic.own_heads, layer.heads // layer.kv_heads)
    # `_project` lays values behind keys.
    values = [key + layer.kv_heads for key in keys]
    read = both.index_select(1, torch.tensor([*keys, *values], device=both.device))
    some = _SomeHeads(len(traffic.own_heads), len(keys), layer.head_dim)
    out, _ = some(torch.cat([queries, read], dim=1), context.now.whole, False)

    return layer.o_proj(traffic.to_tokens(out)), None


@dataclass(frozen=True)
class _Traffic:
    """Queries of n tokens and all heads, for those of all tokens and some heads; and back."""

    tokens: Sequence[int]
    """Of each rank."""
    cuts: Sequence[int]
    """The first head of each rank, and the end of the last's."""
    width: int
    """Of a head, d."""
    context: Context
    """The ranks."""

    @classmethod
    def of(cls, layer: Attention, context: Context) -> _Traffic:
        """Of a layer, for the micro-batch that is under way."""
        tokens = [piece.tokens for piece in context.now.pieces]
        cuts = [layer.heads * rank // context.ranks for rank in range(context.ranks + 1)]
        return cls(tokens, cuts, layer.head_dim, context)

    @property
    def own_heads(self) -> range:
        """Of this rank."""
        return range(*self.cuts[self.context.rank : self.context.rank + 2])

    @property
    def _rows(self) -> tuple[list[int], list[int]]:
        """Rows of `width` that go to each rank as queries, and that come from each."""
        heads = [end - begin for begin, end in pairwise(self.cuts)]
        own_tokens, own_heads = self.tokens[self.context.rank], len(self.own_heads)
        gives = [own_tokens * many for many in heads]
        takes = [many * own_heads for many in self.tokens]
        return gives, takes

    def to_heads(self, queries: Tensor) -> Tensor:
        """[n, heads, d] as [T, own heads, d]."""
        gives, takes = self._rows
        # Each rank's heads of all own tokens lie together, as `exchange` takes them.
        parts = queries.tensor_split(list(self.cuts[1:-1]), dim=1)
        sent = torch.cat([part.reshape(-1, self.width) for part in parts])
        came = exchange(sent, gives, takes, self.context.group)
        return came.view(-1, len(self.own_heads), self.width)

    def to_tokens(self, out: Tensor) -> Tensor:
        """[T, own heads · d] as [n, heads · d]."""
        takes, gives = self._rows
        came = exchange(out.reshape(-1, self.width), gives, takes, self.context.group)
        own_tokens = self.tokens[self.context.rank]
        parts = [part.view(own_tokens, -1) for part in came.split(takes)]
        return torch.cat(parts, dim=1)


def _keys_of(heads: Sequence[int], shared: int) -> list[int]:
    """The key heads of these query heads, `shared` of which have one in common.

    Each once, where equally many of the query heads have it; else as often as it is used.
    """
    keys = [head // shared for head in heads]
    kinds = sorted(set(keys))
    even = [kind for kind in kinds for _ in range(len(keys) // len(kinds))]
    return kinds if keys == even else keys


class _SomeHeads(Attention):
    """Attention of some heads, whose queries, keys and values are there already."""

    def __init__(self, heads: int, kv_heads: int, head_dim: int) -> None:
        nn.Module.__init__(self)
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.o_proj = nn.Identity()  # type: ignore[assignment]

    def _project(self, hidden: Tensor) -> Tensor:
        return hidden
