"""Mamba-2's recurrence over segments for a GPU: long chunks, products of whole groups of heads.

It computes what `nemotron_h.scan` does. Letters of shapes: T tokens in C chunks of Q, S segments,
H heads of width P in G groups (K = H/G heads per group), N the state's size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from linn.engine.models.kernels.carry import entering
from linn.engine.models.nemotron_h.segments import Segments

_LEAST = 1e-30
"""The smallest dt that is told from 0."""
_BYTES = 2**29
"""Weights within chunks that are held at once. Of more, none is kept for the backward pass, which
computes them again a part at a time."""


class _Weights(torch.autograd.Function):
    """exp(decay[query] - arrive[key]) where the query sees the key, else 0: [C, H, Q, Q].

    In a long chunk both may be large where their difference is small: they come in 64 bits, and
    only the difference is rounded.
    """

    @staticmethod
    def forward(
        ctx: Any, decay: Tensor, arrive: Tensor, visible: Tensor, dtype: torch.dtype
    ) -> Tensor:
        shape = (*decay.shape, decay.shape[-1])
        weight = torch.empty(shape, dtype=dtype, device=decay.device)
        torch.sub(decay[..., :, None], arrive[..., None, :], out=weight)
        weight.masked_fill_(~visible, -torch.inf).exp_()
        ctx.save_for_backward(weight)
        return weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        # What is not seen has a weight of 0, and so no gradient.
        grad = grads[0] * weight
        return grad.sum(-1).double(), grad.sum(-2).double().neg(), None, None


def scan(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    segments: Segments,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run h_t = exp(dt_t a) h_{t-1} + dt_t b_t x_t and y_t = c_t h_t + d x_t.

    h is zero before every segment's first token. x [T, H, P], dt [T, H] (0 or more), a [H]
    (negative), b and c [T, G, N], d [H], all float32.

    Returns y [T, H, P] and, for `last_states`, the log-decay since each chunk's start, double
    [C, H, Q], and the state that enters each chunk [C, G, N, K, P].
    """
    total, heads, width = x.shape
    groups = b.shape[1]

    x = _chunked(x, segments).unflatten(2, (groups, -1))  # [C, Q, G, K, P]
    b = _chunked(b, segments).transpose(1, 2).contiguous()  # [C, G, Q, N]
    c = _chunked(c, segments).transpose(1, 2).contiguous()

    # The log-decay since the chunk's start, in 64 bits. dt goes into the exponent, so that x is
    # never scaled by it; dt = 0 has no logarithm with a finite gradient, and what is written with
    # _LEAST is nothing in float32.
    decay = _chunked(dt * a, segments).transpose(1, 2).double().cumsum(-1)  # [C, H, Q]
    log_dt = _chunked(dt.clamp_min(_LEAST).log(), segments).transpose(1, 2)
    arrive = decay - log_dt

    carry = _between_chunks(decay, arrive, b, x, segments)
    y = _outputs(decay, arrive, b, c, d, x, carry, segments)
    return y.reshape(-1, heads, width)[:total], decay, carry


def _between_chunks(
    decay: Tensor, arrive: Tensor, b: Tensor, x: Tensor, segments: Segments
) -> Tensor:
    """The state [C, G, N, K, P] that enters each chunk.

    decay, arrive [C, H, Q]; b [C, G, Q, N]; x [C, Q, G, K, P].
    """
    groups, per_group = x.shape[2:4]
    # What each chunk leaves behind: its tokens' writing, decayed to the chunk's end.
    leave = (decay[..., -1:] - arrive).to(x.dtype).exp() * segments.reaches_end
    weight = leave.unflatten(1, (groups, per_group))
    # One product for all heads of a group, which read the same b.
    values = (x * weight.movedim(-1, 1)[..., None]).transpose(1, 2)  # [C, G, Q, K, P]
    local = b.transpose(2, 3) @ values.flatten(3)

    # What passes through a chunk from the one before it.
    through = decay[..., -1].to(x.dtype).exp() * segments.spans
    through = through.view(-1, groups, 1, per_group, 1)
    return entering(local.unflatten(3, (per_group, -1)), through)


def _outputs(
    decay: Tensor,
    arrive: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    x: Tensor,
    carry: Tensor,
    segments: Segments,
) -> Tensor:
    """y [C, Q, G, K, P], in parts where the weights within all chunks would take too much memory.

    decay, arrive [C, H, Q]; b, c [C, G, Q, N]; d [H]; x [C, Q, G, K, P]; carry [C, G, N, K, P].
    """
    per_chunk = decay[0].numel() * segments.chunk * x.element_size()
    most = max(1, _BYTES // per_chunk)
    all_chunks = (decay, arrive, b, c, x, carry, segments.visible, segments.began_before)
    if len(decay) <= most:
        return _read(d, *all_chunks)

    outs = []
    for part in zip(*(values.split(most) for values in all_chunks), strict=True):
        outs.append(
            checkpoint(_read, d, *part, use_reentrant=False, preserve_rng_state=False),
        )
    return torch.cat(outs)


def _read(
    d: Tensor,
    decay: Tensor,
    arrive: Tensor,
    b: Tensor,
    c: Tensor,
    x: Tensor,
    carry: Tensor,
    visible: Tensor,
    began_before: Tensor,
) -> Tensor:
    """What queries read of their own chunks, and of the states that entered them: `_outputs`.

    visible, began_before: as in `Segments`.
    """
    chunks, chunk, groups, per_group, width = x.shape

    # Like attention without a softmax: c·b, weighted by the decay between query and key.
    weight: Tensor = _Weights.apply(decay, arrive, visible, x.dtype)
    # A token reads itself by d as well: d stands on the diagonal.
    skip = d[:, None, None] * torch.eye(chunk, device=d.device)  # [H, Q, Q]
    mixed = torch.addcmul(
        skip.view(groups, per_group, chunk, chunk),
        weight.view(chunks, groups, per_group, chunk, chunk),
        (c @ b.transpose(2, 3))[:, :, None],
    )
    per_head = x.permute(0, 2, 3, 1, 4).reshape(-1, chunk, width)
    own = torch.bmm(mixed.view(-1, chunk, chunk), per_head)  # [C·H, Q, P]

    entered = (c @ carry.flatten(3)).view(chunks, groups, chunk, per_group, width)
    since_start = decay.to(x.dtype).exp() * began_before
    since_start = since_start.view(chunks, groups, per_group, chunk, 1)
    return torch.addcmul(
        own.view(chunks, groups, per_group, chunk, width).permute(0, 3, 1, 2, 4),
        entered.transpose(1, 2),
        since_start.permute(0, 3, 1, 2, 4),
    )


def last_states(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    decay: Tensor,
    carry: Tensor,
    segments: Segments,
    of: Tensor | None = None,
) -> Tensor:
    """The state [S, G, N, K, P] after each segment's last token.

    x, dt and b as in `scan`; decay, double [C, H, Q], and carry [C, G, N, K, P] are its results.
    of: int64, the segments that are asked for; None: all.
    """
    chunk, groups = segments.chunk, b.shape[1]
    starts, ends = segments.starts, segments.ends
    if of is not None:
        starts, ends = starts[of], ends[of]

    # Where a segment's last chunk holds its own tokens: [S, 1, Q].
    last_chunk, last_place = ends // chunk, ends % chunk
    first_place = starts - last_chunk * chunk
    place = torch.arange(chunk, device=x.device)
    own = (place >= first_place[:, None]) & (place <= last_place[:, None])

    # What those tokens wrote, decayed to the last of them.
    total = decay[last_chunk, :, last_place]  # [S, H]
    since = (total[..., None] - decay[last_chunk]).clamp_max(0).to(x.dtype).exp()  # [S, H, Q]
    steps = _chunked(dt, segments)[last_chunk].transpose(1, 2)
    weight = (since * steps * own[:, None]).unflatten(1, (groups, -1))

    values = _chunked(x, segments)[last_chunk].unflatten(2, (groups, -1))  # [S, Q, G, K, P]
    values = (values * weight.movedim(-1, 1)[..., None]).transpose(1, 2)
    keys = _chunked(b, segments)[last_chunk].transpose(1, 2)  # [S, G, Q, N]
    written = keys.transpose(2, 3) @ values.flatten(3)

    # What entered that chunk counts where the segment began before it.
    began_before = (starts < last_chunk * chunk)[:, None]
    through = (total.to(x.dtype).exp() * began_before).view(len(total), groups, 1, -1, 1)
    entered = carry[last_chunk]
    return torch.addcmul(written.view_as(entered), entered, through)


def _chunked(x: Tensor, segments: Segments) -> Tensor:
    """[T, ...] as [C, Q, ...], zeros after the last token."""
    missing = segments.chunks * segments.chunk - len(x)
    if missing:
        x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])])
    return x.view(segments.chunks, segments.chunk, *x.shape[1:])
