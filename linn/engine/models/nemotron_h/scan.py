"""Mamba-2's short convolution and state space recurrence over a stream of segments, and one step of the latter for decoding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linn.engine.models.nemotron_h.segments import Stream


class _Convolve(torch.autograd.Function):
    """Depthwise causal convolution: added up tap by tap in place; rows that a tap would reach over a segment's border are put back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, bias: Tensor, *young: Tensor) -> Tensor:
        ctx.save_for_backward(x, taps, *young)
        out = torch.addcmul(bias, x, taps[-1])
        for back, edge in enumerate(young, 1):
            if back < len(x):
                before = out[edge]
                out[back:].addcmul_(x[:-back], taps[-1 - back])
                out.index_copy_(0, edge, before)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, taps, *young = ctx.saved_tensors
        (grad,) = grads
        into = grad * taps[-1]
        of_taps = torch.zeros_like(taps)
        of_taps[-1] = (grad * x).sum(0)
        for back, edge in enumerate(young, 1):
            if back < len(x):
                before = into[edge - back]
                into[:-back].addcmul_(grad[back:], taps[-1 - back])
                into.index_copy_(0, edge - back, before)
                of_taps[-1 - back] = (grad[back:] * x[:-back]).index_fill_(0, edge - back, 0).sum(0)
        return into, of_taps, grad.sum(0), *(None for _ in young)


def convolve(x: Tensor, taps: Tensor, bias: Tensor, layout: Stream) -> Tensor:
    """Causal depthwise convolution of x [T, D] by taps [K, D] (the last is the present's) that never looks before a segment's first token."""
    out: Tensor = _Convolve.apply(x, taps, bias, *layout.young)
    return out


class _Carry(torch.autograd.Function):
    """states [C, ..] entering each chunk: carry[c + 1] = decay[c] * carry[c] + local[c], carry[0] = 0. Linear in C."""

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
        back = torch.empty_like(carry)
        back[-1] = 0
        for c in range(len(carry) - 2, -1, -1):
            torch.addcmul(grad[c + 1], decay[c + 1], back[c + 1], out=back[c])
        return back, (back * carry).sum_to_size(decay.shape)


def scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, layout: Stream
) -> tuple[Tensor, Tensor, Tensor]:
    """Run h_t = exp(dt_t a) h_{t-1} + dt_t b_t x_t, y_t = c_t h_t + d x_t, from zero at every segment's first token.

    x [T, H, P], dt [T, H] (positive), a [H] (negative), b and c [T, G, N] (H/G heads share a group), d [H], all float32.
    Returns y [T, H, P], and for `last_states` the chunked log-decay [C, H, Q] and the states entering each chunk [C, H, N, P].
    """
    total, heads, width = x.shape
    groups, size = b.shape[1:]
    chunks, chunk = layout.within.shape[0], layout.within.shape[-1]
    flat, split = (chunks * heads, chunk, -1), (chunks, groups, -1, chunk)
    x = _chunked(x, layout).transpose(1, 2).reshape(chunks * heads, chunk, width)
    b, c = _chunked(b, layout).transpose(1, 2), _chunked(c, layout).transpose(1, 2)  # [C, G, Q, N]
    decay = _chunked(dt * a, layout).transpose(1, 2).cumsum(-1)  # [C, H, Q]
    # dt goes into the exponent with the decay, so that x is never scaled.
    arrive = decay - _chunked(dt.log(), layout).transpose(1, 2)
    # Within a chunk: like attention, weighted by the decay between query and key; d stands on the diagonal.
    weight = (
        (decay[..., :, None] - arrive[..., None, :]).masked_fill(~layout.within, -torch.inf).exp()
    )
    skip = d[:, None, None] * torch.eye(chunk, device=d.device)
    mixed = torch.addcmul(
        skip.view(1, groups, -1, chunk, chunk),
        weight.view(*split, chunk),
        (c @ b.transpose(2, 3))[:, :, None],
    )
    # Between chunks: what each leaves behind, what enters the next, what a query reads of it.
    leave = (decay[..., -1:] - arrive).exp() * layout.leaving
    local = torch.bmm((b[:, :, None] * leave.view(*split, 1)).reshape(*flat).transpose(1, 2), x)
    through = (decay[..., -1].exp() * layout.passing)[..., None, None]
    carry = _Carry.apply(local.view(chunks, heads, size, width), through)
    read = c[:, :, None] * (decay.exp() * layout.carried).view(*split, 1)
    y = torch.baddbmm(
        torch.bmm(mixed.view(*flat), x), read.reshape(*flat), carry.view(-1, size, width)
    )
    return (
        y.view(chunks, heads, chunk, width).transpose(1, 2).reshape(-1, heads, width)[:total],
        decay,
        carry,
    )


def last_states(
    x: Tensor, dt: Tensor, b: Tensor, decay: Tensor, carry: Tensor, layout: Stream
) -> Tensor:
    """The state [S, G, N, H/G, P] after each segment's last token; decay and carry are `scan`'s."""
    chunk = decay.shape[-1]
    where, step = layout.ends // chunk, layout.ends % chunk
    start = (layout.starts - where * chunk).clamp_min(0)
    place = torch.arange(chunk, device=x.device)
    mine = (place >= start[:, None]) & (place <= step[:, None])  # [S, Q]
    final = decay[where, :, step]  # [S, H]
    weight = (
        (final[..., None] - decay[where]).clamp_max(0).exp()
        * mine[:, None]
        * _chunked(dt, layout).transpose(1, 2)[where]
    )
    began = layout.starts < where * chunk
    old = carry[where] * (final.exp() * began[:, None])[..., None, None]
    heads, groups = decay.shape[1], b.shape[1]
    keys = _chunked(b, layout)[where].repeat_interleave(heads // groups, dim=2)
    state = old + torch.einsum("shq,sqhn,sqhp->shnp", weight, keys, _chunked(x, layout)[where])
    return (
        state.view(len(where), groups, heads // groups, *state.shape[2:])
        .transpose(2, 3)
        .contiguous()
    )


def step(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> Tensor:
    """One token a row: updates state [B, G, N, K, P] in place, returns y [B, H, P]. x [B, H, P], dt [B, H], b and c [B, G, N]."""
    rows, groups, size, per, width = state.shape
    state.mul_((dt * a).exp().view(rows, groups, 1, per, 1))
    state.addcmul_(
        b.view(rows, groups, size, 1, 1), (x * dt[..., None]).view(rows, groups, 1, per, width)
    )
    y = torch.bmm(c.reshape(rows * groups, 1, size), state.view(rows * groups, size, per * width))
    return y.view(rows, groups * per, width)


def _chunked(t: Tensor, layout: Stream) -> Tensor:
    """[T, ...] as [C, Q, ...], zeros after the last token."""
    chunks, chunk = layout.within.shape[0], layout.within.shape[-1]
    missing = chunks * chunk - len(t)
    if missing:
        t = torch.cat([t, t.new_zeros(missing, *t.shape[1:])])
    return t.view(chunks, chunk, *t.shape[1:])
