"""One decode step of a Mamba-2 layer's recurrence on a GPU, in two Triton kernels.

Written with torch's operators (`Mamba.step`) a step is some twenty launches, and passes five times
over a state of megabytes. Here the state is read once and written once, and that of a closed row
not at all.

Letters of shapes: B rows, C channels of the convolution.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from linn.engine.models.nemotron_h.config import Config

_CHANNELS = 512
"""Channels of one program of the convolution."""


def advance(
    projected: Tensor,
    conv: Tensor,
    ssm: Tensor,
    is_open: Tensor,
    config: Config,
    taps: Tensor,
    bias: Tensor | None,
    dt_bias: Tensor,
    a_log: Tensor,
    skip: Tensor,
) -> Tensor:
    """y [B, inner] in float32 of one token per row; `conv` and `ssm` move on in the open rows.

    projected [B, inner + C + heads]: gate, inputs of the convolution, dt. conv, ssm: as in
    `MambaCache`. is_open: bool [B]. taps [C, 1, kernel] and bias [C] of the convolution; dt_bias,
    a_log, skip (D) [heads].
    """
    rows, heads, channels = len(projected), config.mamba_num_heads, config.channels
    assert projected.stride(1) == 1 and conv.is_contiguous() and ssm.is_contiguous()
    mixed = projected[:, config.inner :]
    convolved = torch.empty(rows, channels, dtype=torch.float32, device=projected.device)
    _convolve[(rows, triton.cdiv(channels, _CHANNELS))](
        mixed,
        conv,
        taps,
        taps if bias is None else bias,
        is_open,
        convolved,
        projected.stride(0),
        channels,
        HAS_BIAS=bias is not None,
        BACK=config.conv_kernel - 1,
        BLOCK=_CHANNELS,
    )

    low, high = config.time_step_limit
    y = torch.empty(rows, config.inner, dtype=torch.float32, device=projected.device)
    _recur[(rows, heads)](
        convolved,
        mixed[:, channels:],
        dt_bias,
        a_log,
        skip,
        ssm,
        is_open,
        y,
        projected.stride(0),
        float(low),
        float(high),
        INNER=config.inner,
        GROUPS=config.n_groups,
        SIZE=config.ssm_state_size,
        PER_GROUP=heads // config.n_groups,
        WIDTH=config.mamba_head_dim,
        BLOCK_SIZE=triton.next_power_of_2(config.ssm_state_size),
        BLOCK_WIDTH=triton.next_power_of_2(config.mamba_head_dim),
    )
    return y


@triton.jit
def _convolve(
    mixed,
    conv,
    taps,
    bias,
    is_open,
    out,
    row_stride,
    channels,
    HAS_BIAS: tl.constexpr,
    BACK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """SiLU of the convolution's newest output [B, C]; its last inputs [B, BACK, C] move on."""
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    moves = inside & (tl.load(is_open + row) != 0)

    tap = taps + channel * (BACK + 1)
    place = conv + row * BACK * channels + channel
    newest = tl.load(mixed + row * row_stride + channel, mask=inside, other=0.0)
    total = newest.to(tl.float32) * tl.load(tap + BACK, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        total += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)

    for back in tl.static_range(BACK):
        old = tl.load(place + back * channels, mask=inside, other=0.0)
        total += old.to(tl.float32) * tl.load(tap + back, mask=inside, other=0.0).to(tl.float32)
        # Each input takes the place of the one before it, which has been read.
        if back > 0:
            tl.store(place + (back - 1) * channels, old, mask=moves)
    if BACK > 0:
        tl.store(place + (BACK - 1) * channels, newest, mask=moves)

    silu = total / (1.0 + tl.exp(-total))
    tl.store(out + row * channels + channel, silu, mask=inside)


@triton.jit
def _recur(
    convolved,
    dt,
    dt_bias,
    a_log,
    skip,
    state,
    is_open,
    out,
    row_stride,
    low,
    high,
    INNER: tl.constexpr,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    PER_GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """One head of one row: h <- exp(dt a) h + b (dt x), y = c h + d x."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    group, of_group = head // PER_GROUP, head % PER_GROUP
    goes_on = tl.load(is_open + row) != 0
    size, width = tl.arange(0, BLOCK_SIZE), tl.arange(0, BLOCK_WIDTH)
    has_size, has_width = size < SIZE, width < WIDTH

    inputs = convolved + row * (INNER + 2 * GROUPS * SIZE)
    keys = inputs + INNER + group * SIZE + size
    x = tl.load(inputs + head * WIDTH + width, mask=has_width, other=0.0)
    b = tl.load(keys, mask=has_size, other=0.0)
    c = tl.load(keys + GROUPS * SIZE, mask=has_size, other=0.0)

    # softplus, as torch has it: the identity above 20. log(1 + e) is exact for small e as well
    # when it is divided by what 1 + e was rounded to.
    raw = tl.load(dt + row * row_stride + head).to(tl.float32)
    raw += tl.load(dt_bias + head).to(tl.float32)
    e = tl.exp(tl.minimum(raw, 20.0, propagate_nan=tl.PropagateNan.ALL))
    sum = 1.0 + e
    rounded = sum - 1.0
    log = tl.where(rounded == 0.0, e, tl.log(sum) * (e / tl.where(rounded == 0.0, 1.0, rounded)))
    step = tl.where(raw > 20.0, raw, log)
    step = tl.maximum(step, low, propagate_nan=tl.PropagateNan.ALL)
    step = tl.minimum(step, high, propagate_nan=tl.PropagateNan.ALL)
    decay = tl.exp(-tl.exp(tl.load(a_log + head).to(tl.float32)) * step)

    # [state, groups of heads side by side]: see `MambaCache.ssm`.
    line = (row * GROUPS + group) * SIZE + size
    place = state + line[:, None] * (PER_GROUP * WIDTH) + of_group * WIDTH + width[None, :]
    moves = has_size[:, None] & has_width[None, :] & goes_on
    new = tl.load(place, mask=moves, other=0.0) * decay + b[:, None] * (x * step)[None, :]
    tl.store(place, new, mask=moves)

    y = tl.sum(c[:, None] * new, axis=0) + tl.load(skip + head).to(tl.float32) * x
    tl.store(out + row * INNER + head * WIDTH + width, y, mask=has_width)
