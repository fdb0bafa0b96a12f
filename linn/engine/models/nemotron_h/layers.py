"""Nemotron-H's norms, Mamba-2 mixer and attention.

Letters of shapes: T tokens laid end to end, S segments, B rows of a running batch, H hidden size,
L the longest row so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linn.engine.models.kernels import convolution as gpu_convolution
from linn.engine.models.kernels import scan as gpu_scan
from linn.engine.models.kernels.attention import attend
from linn.engine.models.kernels.choice import attends_joined, by_triton, on_gpu
from linn.engine.models.kernels.products import linear
from linn.engine.models.nemotron_h import scan as plain_scan
from linn.engine.models.nemotron_h.behind import attend_behind
from linn.engine.models.nemotron_h.caches import AttentionCache, MambaCache, Seen
from linn.engine.models.nemotron_h.config import Config
from linn.engine.models.nemotron_h.handover import with_ends, with_inputs, with_states
from linn.engine.models.nemotron_h.leaves import Leaves
from linn.engine.models.nemotron_h.scan import scan_step
from linn.engine.models.nemotron_h.segments import Segments
from linn.engine.models.rectangle_attention import attend as attend_in_rectangles

_FEW_HEADS = 4
"""Query heads per key head, up to which values are read faster as the first operand (CPU)."""
_NEAR = 96
"""Numbers between two channels of the values, up to which that holds: from some more on MKL packs
them first, which takes four times as long."""


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        normed = F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps)
        return normed.to(x.dtype)


class GatedNorm(nn.Module):
    """RMSNorm of x * silu(gate), each group of channels for itself."""

    def __init__(self, width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.groups = groups
        self.eps = eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        gated = (x.float() * F.silu(gate.float())).view(len(x), self.groups, -1)
        normed = F.rms_norm(gated, gated.shape[-1:], None, self.eps)
        return normed.view_as(x).to(gate.dtype) * self.weight


class Mamba(nn.Module):
    """The Mamba-2 mixer.

    In-projection, short convolution, state space recurrence, gated norm, out-projection.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        hidden, heads = config.hidden_size, config.mamba_num_heads

        # Gate, inputs of the convolution and dt in one product.
        self.in_proj = nn.Linear(
            hidden,
            config.inner + config.channels + heads,
            bias=config.use_bias,
        )
        self.conv1d = nn.Conv1d(
            config.channels,
            config.channels,
            config.conv_kernel,
            groups=config.channels,
            bias=config.use_conv_bias,
        )

        self.dt_bias = nn.Parameter(torch.zeros(heads))
        self.A_log = nn.Parameter(torch.zeros(heads))
        self.D = nn.Parameter(torch.ones(heads))

        self.norm = GatedNorm(
            config.inner,
            config.n_groups,
            config.layer_norm_epsilon,
        )
        self.out_proj = nn.Linear(
            config.inner,
            hidden,
            bias=config.use_bias,
        )

    def _project(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gate [T, inner], inputs of the convolution [T, channels], dt [T, heads] in float32."""
        config = self.config
        gate, mixed, dt = self.in_proj(hidden).split(
            [config.inner, config.channels, config.mamba_num_heads],
            dim=-1,
        )
        dt = F.softplus(dt.float() + self.dt_bias.float())
        # `time_step_min` is no bound: it only says how a new model's biases are drawn. A head that
        # has learnt a smaller dt remembers over more tokens.
        low, high = config.time_step_limit
        return gate, mixed, dt.clamp(low, high)

    def _split(self, convolved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the convolution made, [T, channels], as the recurrence takes it, in float32.

        x [T, heads, head_dim], B and C [T, groups, state].
        """
        config = self.config
        shared = config.n_groups * config.ssm_state_size
        x, b, c = convolved.float().split(
            [config.inner, shared, shared],
            dim=-1,
        )

        of_heads = (len(x), config.mamba_num_heads, config.mamba_head_dim)
        of_groups = (len(x), config.n_groups, config.ssm_state_size)
        return x.reshape(of_heads), b.reshape(of_groups), c.reshape(of_groups)

    def _decay_rates(self) -> Tensor:
        """A [heads] in float32, negative: a state decays by exp(dt A) per token."""
        return -self.A_log.float().exp()

    def _taps(self) -> tuple[Tensor, Tensor]:
        """The convolution's weights [kernel, channels] and bias [channels], float32."""
        # Contiguous, as what they are multiplied with: three times as fast.
        taps = self.conv1d.weight[:, 0].t().float().contiguous()
        if self.conv1d.bias is None:
            return taps, taps.new_zeros(taps.shape[1])
        return taps, self.conv1d.bias.float()

    def forward(
        self,
        hidden: Tensor,
        segments: Segments,
        with_cache: bool,
        before: MambaCache | None = None,
    ) -> tuple[Tensor, MambaCache | None]:
        """The mixer's output [T, H].

        With `with_cache`, also the cache after each leaf's last token. before: what segments that
        are laid out behind states go on from.
        """
        gate, mixed, dt = self._project(hidden)
        handover = segments.handover
        convolve, scan, last_states = recurrence_for(hidden.device)

        # The recurrence adds up over thousands of tokens: float32 even under autocast.
        with torch.autocast(hidden.device.type, enabled=False):
            taps, bias = self._taps()
            inputs = mixed.float()
            convolved = convolve(inputs, taps, bias, segments)
            earlier = None
            if before is not None:
                earlier, states = before.settled()
                earlier = earlier.flatten(0, 1)
            if handover is not None:
                read = inputs if earlier is None else earlier.float()
                convolved = with_inputs(convolved, read, taps, handover)

            x, b, c = self._split(F.silu(convolved))
            a = self._decay_rates()
            y, decay, carry = scan(x, dt, a, b, c, self.D.float(), segments)
            if handover is not None:
                if before is None:
                    states = last_states(x, dt, b, decay, carry, segments, handover.prompts)
                y = with_states(y, dt, a, c, states, handover)

            cache = None
            if with_cache:
                leaves = segments.leaves
                ends = last_states(x, dt, b, decay, carry, segments, leaves.segments)
                if handover is not None:
                    ends = with_ends(ends, dt, a, states, leaves)
                cache = MambaCache(self._last_inputs(mixed, leaves, earlier), ends)

        normed = self.norm(y.flatten(1), gate)
        return self.out_proj(normed), cache

    def _last_inputs(self, mixed: Tensor, leaves: Leaves, earlier: Tensor | None) -> Tensor:
        """The convolution's last inputs [L, kernel - 1, channels] of each leaf.

        earlier [L (kernel - 1), channels]: those that came before the leaves; where there are none,
        zeros stand before a leaf's first token.
        """
        back = torch.arange(self.config.conv_kernel - 1, 0, -1, device=mixed.device)
        if earlier is not None:
            own = leaves.ends[:, None] + 1 - back
            place = torch.arange(len(earlier), device=mixed.device)
            place = place.view(len(leaves.ends), len(back))
            # Of as many as it has tokens, the oldest ones are of no more use.
            kept = place + (leaves.ends - leaves.starts + 1)[:, None]
            return torch.cat([earlier, mixed])[
                torch.where(own >= leaves.starts[:, None], own + len(earlier), kept)
            ]
        column = leaves.lengths[:, None] - back  # [L, kernel - 1]
        inputs = mixed[leaves.tokens(column.clamp_min(0))]
        return inputs * (column >= 0)[..., None].to(mixed.dtype)

    def _fused_step(self, hidden: Tensor, cache: MambaCache, is_open: Tensor) -> Tensor:
        """`step` in slots, by kernels that read and write the state once."""
        from linn.engine.models.nemotron_h import fused_step

        projected = self.in_proj(hidden)
        y = fused_step.advance(
            projected,
            cache.conv,
            cache.ssm,
            is_open,
            config=self.config,
            taps=self.conv1d.weight,
            bias=self.conv1d.bias,
            dt_bias=self.dt_bias,
            a_log=self.A_log,
            skip=self.D,
        )
        return self.out_proj(self.norm(y, projected[:, : self.config.inner]))

    def step(self, hidden: Tensor, cache: MambaCache, is_open: Tensor | None = None) -> Tensor:
        """One token per row, hidden [B, H] to [B, H]; updates the cache in place.

        is_open: bool [B]; the rows whose cache is to change, which has neither decay nor ring then.
        None: all rows.
        """
        if is_open is not None and by_triton(hidden.device):
            return self._fused_step(hidden, cache, is_open)
        gate, mixed, dt = self._project(hidden)

        # The recurrence adds up over thousands of tokens: float32 even under autocast.
        with torch.autocast(hidden.device.type, enabled=False):
            taps, bias = self._taps()
            if is_open is None:
                convolved = cache.convolve(mixed, taps, bias)
            else:
                convolved = _convolve_open(mixed, cache.conv, is_open, taps, bias)
                # With dt = 0 a state decays by 1 and nothing is written to it.
                dt = dt * is_open[:, None]

            x, b, c = self._split(F.silu(convolved))
            a = self._decay_rates()
            if is_open is None:
                y = cache.advance(x, dt, a, b, c)
            else:
                y = scan_step(x, dt, a, b, c, state=cache.ssm)
            y = y + x * self.D.float()[:, None]

        normed = self.norm(y.flatten(1), gate)
        return self.out_proj(normed)


def _convolve_open(
    newest: Tensor, conv: Tensor, is_open: Tensor, taps: Tensor, bias: Tensor
) -> Tensor:
    """As `MambaCache.convolve` of inputs without a ring, which move on in the open rows alone."""
    window = torch.cat([conv, newest[:, None]], dim=1)  # [B, K, C]
    conv.copy_(torch.where(is_open[:, None, None], window[:, 1:], window[:, :-1]))
    return (window * taps).sum(1) + bias


def recurrence_for(device: torch.device) -> tuple[Any, Any, Any]:
    """Convolution, scan and last states as they are computed on a device."""
    if on_gpu(device):
        return gpu_convolution.convolve, gpu_scan.scan, gpu_scan.last_states
    return plain_scan.convolve, plain_scan.scan, plain_scan.last_states


def _weighted(weight: Tensor, values: Tensor) -> Tensor:
    """weight [N, queries, L] times values [N, head_dim, L]: [N, queries, head_dim]."""
    is_near = values.stride(1) - values.shape[2] <= _NEAR
    if values.device.type == "cpu" and weight.shape[1] <= _FEW_HEADS and is_near:
        return torch.bmm(values, weight.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(weight, values.transpose(1, 2))


class Attention(nn.Module):
    """Grouped-query attention without positional embedding (the Mamba layers know the order)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim

        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv, bias=False)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)

    @property
    def _parts(self) -> list[int]:
        """Heads of queries, keys and values, as `_project` lays them."""
        return [self.heads, self.kv_heads, self.kv_heads]

    def _project(self, hidden: Tensor) -> Tensor:
        """Queries, keys and values [T, heads + 2 kv heads, head_dim] in one product."""
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        return linear(hidden, weight).view(len(hidden), -1, self.head_dim)

    def forward(
        self,
        hidden: Tensor,
        segments: Segments,
        with_cache: bool,
        before: AttentionCache | None = None,
    ) -> tuple[Tensor, AttentionCache | None]:
        """The mixer's output [T, H].

        With `with_cache`, also the cache after each leaf's last token. before: what segments that
        are laid out behind states go on from.
        """
        projected = self._project(hidden)
        if before is not None:
            mixed, cache = attend_behind(projected, self.heads, before, segments)
            return self.o_proj(mixed), cache
        if attends_joined(projected):
            mixed = attend(projected, self.heads, segments.joined).flatten(1)
        else:
            mixed = attend_in_rectangles(projected, self.heads, segments.rectangles).flatten(1)

        made = self._cache_of(projected, segments.leaves) if with_cache else None
        return self.o_proj(mixed), made

    def _cache_of(self, projected: Tensor, leaves: Leaves) -> AttentionCache:
        """Keys and values of all tokens, one row per leaf."""
        column = torch.arange(leaves.longest, device=projected.device)
        # Beyond a leaf's end its last token is repeated; `step` hides it.
        index = leaves.tokens(torch.minimum(column, leaves.lengths[:, None] - 1))
        both = projected[:, self.heads :][index].transpose(1, 2)
        keys, values = both.transpose(2, 3).split(self.kv_heads, dim=1)
        return AttentionCache(keys.contiguous(), values.contiguous())

    def step(
        self,
        hidden: Tensor,
        cache: AttentionCache,
        lengths: Tensor,
        seen: Sequence[Seen],
    ) -> Tensor:
        """One token per row, hidden [B, H] to [B, H]; updates the cache in place.

        lengths: int64 [B], tokens fed before; the new one goes to that column of the cache.
        seen: all rows, in their order.
        """
        projected = self._project(hidden)
        q, k, v = projected.split(self._parts, dim=1)

        row = torch.arange(len(hidden), device=hidden.device)
        cache.keys[row, :, :, lengths] = k
        cache.values[row, :, :, lengths] = v

        outs = [self._read(q[some.rows], cache, some) for some in seen]
        return self.o_proj(torch.cat(outs) if len(outs) > 1 else outs[0])

    def _read(self, q: Tensor, cache: AttentionCache, seen: Seen) -> Tensor:
        """What some rows read of their own keys and values, [n, heads · head_dim].

        q [n, heads, head_dim]: their queries.
        """
        rows, columns = len(q), seen.hide.shape[2]
        keys = cache.keys[seen.rows, ..., :columns].flatten(0, 1)  # [n·kv heads, head_dim, L]
        values = cache.values[seen.rows, ..., :columns].flatten(0, 1)  # the same

        # The query heads that share a key head stand where a sequence of queries would, so that
        # no key is copied.
        shared = rows * self.kv_heads
        score = self._scores(q.reshape(shared, -1, self.head_dim), keys)

        # The rows differ in what they hide, so it is added per row: [n, heads, L].
        score = score.view(rows, -1, columns)
        weight = score.float().add_(seen.hide).softmax(-1).to(values.dtype)

        out = _weighted(weight.view(shared, -1, columns), values)
        return out.reshape(rows, -1)

    def _scores(self, q: Tensor, keys: Tensor) -> Tensor:
        """q [N, queries, head_dim] times keys [N, head_dim, L], divided by the root of head_dim."""
        scale = self.head_dim**-0.5
        if q.is_cuda and q.dtype != torch.float32:
            # As the kernels of `forward` do: summed and scaled in float32, and never rounded.
            return torch.bmm(q, keys, out_dtype=torch.float32) * scale
        return torch.bmm(q * scale, keys)
