"""Mamba-2's short convolution and state space recurrence over segments, and one decoding step.

Letters of shapes: T tokens in C chunks of Q, S segments, H heads of width P in G groups
(K = H/G heads per group), N the state's size, D channels, B rows of a running batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linn.engine.models.nemotron_h.segments import Segments

_LEAST = 1e-30
"""The smallest dt that is told from 0."""


class _Convolve(torch.autograd.Function):
    """Depthwise causal convolution, added up tap by tap in place.

    At a segment's first tokens a tap would reach over the border into the segment before. What
    stood there is kept aside and put back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, bias: Tensor, *early: Tensor) -> Tensor:
        ctx.save_for_backward(x, taps, *early)
        out = torch.addcmul(bias, x, taps[-1])

        for reach, border in enumerate(early, start=1):
            if reach >= len(x):
                break
            before = out[border]
            out[reach:].addcmul_(x[:-reach], taps[-1 - reach])
            out.index_copy_(0, border, before)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, taps, *early = ctx.saved_tensors
        (grad,) = grads
        bias_grad = grad.sum(0)

        # The present's tap reaches nowhere.
        x_grad = grad * taps[-1]
        taps_grad = torch.zeros_like(taps)
        taps_grad[-1] = (grad * x).sum(0)

        for reach, border in enumerate(early, start=1):
            if reach >= len(x):
                break
            tap = -1 - reach

            # The tokens that the tap would have read over a border get no gradient from it.
            source = border - reach
            before = x_grad[source]
            x_grad[:-reach].addcmul_(grad[reach:], taps[tap])
            x_grad.index_copy_(0, source, before)

            # And they add nothing to the tap's own.
            products = grad[reach:] * x[:-reach]
            products.index_fill_(0, source, 0)
            taps_grad[tap] = products.sum(0)

        # The indices in `early` have no gradient.
        return x_grad, taps_grad, bias_grad, *(None for _ in early)


def convolve(x: Tensor, taps: Tensor, bias: Tensor, segments: Segments) -> Tensor:
    """Causal depthwise convolution of x [T, D] that never looks into another segment.

    taps [K, D], the last one for the present token; bias [D].
    """
    out: Tensor = _Convolve.apply(x, taps, bias, *segments.early)
    return out


class _Carry(torch.autograd.Function):
    """The state that enters each chunk: carry[c + 1] = decay[c] * carry[c] + local[c].

    carry[0] is 0. local, carry: [C, ...]; decay broadcasts to them. Time is linear in C.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, decay: Tensor) -> Tensor:
        carry = torch.empty_like(local)
        carry[0] = 0
        for c in range(len(local) - 1):
            torch.addcmul(local[c], decay[c], carry[c], out=carry[c + 1])
        ctx.save_for_backward(carry, decay)
        return carry

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        carry, decay = ctx.saved_tensors
        (grad,) = grads
        # The same recurrence from the last chunk to the first.
        local_grad = torch.empty_like(carry)
        local_grad[-1] = 0
        for c in range(len(carry) - 2, -1, -1):
            torch.addcmul(grad[c + 1], decay[c + 1], local_grad[c + 1], out=local_grad[c])
        return local_grad, (local_grad * carry).sum_to_size(decay.shape)


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

    h is zero before every segment's first token. Mamba-2's chunked algorithm: attention within a
    chunk, the recurrence between chunks (Dao and Gu 2024, section 6).

    x [T, H, P], dt [T, H] (0 or more), a [H] (negative), b and c [T, G, N], d [H], all float32.

    Returns y [T, H, P] and, for `last_states`, the log-decay since each chunk's start [C, H, Q]
    and the state that enters each chunk [C, H, N, P].
    """
    total, heads, width = x.shape
    groups, size = b.shape[1:]
    chunks, chunk = segments.chunks, segments.chunk
    # Batched products run over chunks and heads together.
    per_head = (chunks * heads, chunk, -1)

    x = _chunked(x, segments).transpose(1, 2)  # [C, H, Q, P]
    x = x.reshape(chunks * heads, chunk, width)
    b = _chunked(b, segments).transpose(1, 2)  # [C, G, Q, N]
    c = _chunked(c, segments).transpose(1, 2)  # [C, G, Q, N]

    # dt goes into the exponent with the decay, so that x is never scaled. A softplus that has
    # underflowed is 0, whose logarithm has no finite gradient; what is written with dt = _LEAST is
    # nothing in float32.
    decay = _chunked(dt * a, segments).transpose(1, 2).cumsum(-1)  # [C, H, Q]
    log_dt = _chunked(dt.clamp_min(_LEAST).log(), segments).transpose(1, 2)
    arrive = decay - log_dt

    mixed = _within_chunks(decay, arrive, b, c, d, segments)
    carry = _between_chunks(decay, arrive, b, x, segments)

    # y is what a query reads of its own chunk, and of the state that entered it.
    since_start = (decay.exp() * segments.began_before).view(chunks, groups, -1, chunk, 1)
    queries = c[:, :, None] * since_start  # [C, G, K, Q, N]
    y = torch.baddbmm(
        torch.bmm(mixed.view(*per_head), x),
        queries.reshape(*per_head),
        carry.view(-1, size, width),
    )

    # Back to tokens, without the padding of the last chunk.
    y = y.view(chunks, heads, chunk, width).transpose(1, 2)
    y = y.reshape(-1, heads, width)[:total]
    return y, decay, carry


def _between_chunks(
    decay: Tensor,
    arrive: Tensor,
    b: Tensor,
    x: Tensor,
    segments: Segments,
) -> Tensor:
    """The state [C, H, N, P] that enters each chunk.

    decay, arrive [C, H, Q]; b [C, G, Q, N]; x [C·H, Q, P].
    """
    chunks, heads, chunk = decay.shape
    groups, size = b.shape[1], b.shape[3]

    # What each chunk leaves behind: its tokens' writing, decayed to the chunk's end.
    leave = (decay[..., -1:] - arrive).exp() * segments.reaches_end
    written = b[:, :, None] * leave.view(chunks, groups, -1, chunk, 1)
    written = written.reshape(chunks * heads, chunk, size)
    local = torch.bmm(written.transpose(1, 2), x)

    # What passes through a chunk from the one before it.
    through = decay[..., -1].exp() * segments.spans

    carry: Tensor = _Carry.apply(
        local.view(chunks, heads, size, -1),
        through[..., None, None],
    )
    return carry


def _within_chunks(
    decay: Tensor,
    arrive: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    segments: Segments,
) -> Tensor:
    """Weights [C, G, K, Q, Q] by which each query of a chunk reads its keys.

    Like attention without a softmax: c·b, weighted by the decay between query and key.

    decay, arrive [C, H, Q]; b, c [C, G, Q, N]; d [H].
    """
    groups = b.shape[1]
    chunks, chunk = segments.chunks, segments.chunk

    exponent = decay[..., :, None] - arrive[..., None, :]
    exponent = exponent.masked_fill(~segments.visible, -torch.inf)
    weight = exponent.exp()  # [C, H, Q, Q]

    # A token reads itself by d as well: d stands on the diagonal.
    skip = d[:, None, None] * torch.eye(chunk, device=d.device)

    return torch.addcmul(
        skip.view(1, groups, -1, chunk, chunk),
        weight.view(chunks, groups, -1, chunk, chunk),
        (c @ b.transpose(2, 3))[:, :, None],
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

    x, dt and b as in `scan`; decay [C, H, Q] and carry [C, H, N, P] are its results. of: int64,
    the segments that are asked for; None: all.
    """
    heads, width = x.shape[1:]
    groups, size = b.shape[1:]
    chunk = segments.chunk
    starts, ends = segments.starts, segments.ends
    if of is not None:
        starts, ends = starts[of], ends[of]

    # Where a segment's last chunk holds its own tokens: [S, Q].
    last_chunk = ends // chunk
    last_place = ends % chunk
    first_place = (starts - last_chunk * chunk).clamp_min(0)
    place = torch.arange(chunk, device=x.device)
    own = (place >= first_place[:, None]) & (place <= last_place[:, None])

    # What those tokens wrote, decayed to the last of them.
    total = decay[last_chunk, :, last_place]  # [S, H]
    to_end = (total[..., None] - decay[last_chunk]).clamp_max(0).exp()
    dt_chunked = _chunked(dt, segments).transpose(1, 2)
    weight = to_end * own[:, None] * dt_chunked[last_chunk]  # [S, H, Q]

    # One product for all heads of a group, in the layout that `scan_step` reads.
    count = len(ends)
    keys = _chunked(b, segments)[last_chunk].permute(0, 2, 3, 1)  # [S, G, N, Q]
    values = _chunked(x, segments)[last_chunk] * weight.transpose(1, 2)[..., None]
    values = values.view(count, chunk, groups, -1).transpose(1, 2)  # [S, G, Q, K·P]
    written = (keys @ values).view(count, groups, size, -1, width)

    # What entered that chunk counts where the segment began before it.
    late = (starts < last_chunk * chunk).nonzero().squeeze(1)
    entered = carry[last_chunk[late]] * total[late].exp()[..., None, None]  # [·, H, N, P]
    entered = entered.view(len(late), groups, heads // groups, size, width).transpose(2, 3)
    # Faster than to add them where they stand.
    return written.index_copy_(0, late, written.index_select(0, late) + entered)


def scan_step(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
) -> Tensor:
    """One token per row: updates the state in place and returns y [B, H, P] without d x.

    x [B, H, P], dt [B, H], a [H], b and c [B, G, N], state [B, G, N, K, P].
    """
    rows, groups, size, per_group, width = state.shape

    # h <- exp(dt a) h + b (dt x)
    decay = (dt * a).exp()
    state.mul_(decay.view(rows, groups, 1, per_group, 1))
    written = (x * dt[..., None]).view(rows, groups, 1, per_group, width)
    state.addcmul_(b.view(rows, groups, size, 1, 1), written)

    # y = c h, for all heads of a group in one product.
    y = torch.bmm(
        c.reshape(rows * groups, 1, size),
        state.view(rows * groups, size, per_group * width),
    )
    return y.view(rows, groups * per_group, width)


def _chunked(x: Tensor, segments: Segments) -> Tensor:
    """[T, ...] as [C, Q, ...], zeros after the last token."""
    missing = segments.chunks * segments.chunk - len(x)
    if missing:
        x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])])
    return x.view(segments.chunks, segments.chunk, *x.shape[1:])
