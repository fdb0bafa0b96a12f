"""The layers of Nemotron-H: Mamba-2, attention, mixture of experts, MLP; over a stream of segments or one token a row."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linn.engine.models.nemotron_h import scan as ssd
from linn.engine.models.nemotron_h.segments import Stream, take
from linn.errors import UserError

_LETTERS = {
    "M": "M",
    "*": "*",
    "E": "E",
    "-": "-",
    "linear_attention": "M",
    "full_attention": "*",
    "moe": "E",
    "mlp": "-",
}
_LETTERS |= {"mamba": "M", "attention": "*"}  # the names of older files


@dataclass(frozen=True)
class Config:
    """The fields of `config.json` that change what is computed, under NVIDIA's names."""

    vocab_size: int
    hidden_size: int
    pattern: str
    """One letter a layer: M Mamba-2, * attention, E mixture of experts, - dense MLP."""
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int = 128
    intermediate_size: int = 21504
    mamba_num_heads: int = 128
    mamba_head_dim: int = 64
    ssm_state_size: int = 128
    n_groups: int = 8
    conv_kernel: int = 4
    use_conv_bias: bool = True
    use_bias: bool = False
    mlp_bias: bool = False
    time_step_min: float = 0.001
    time_step_max: float = 0.1
    time_step_floor: float = 1e-4
    n_routed_experts: int = 8
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 7688
    moe_shared_expert_intermediate_size: int = 7688
    moe_latent_size: int | None = None
    routed_scaling_factor: float = 1.0
    norm_topk_prob: bool = True
    n_group: int = 1
    topk_group: int = 1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    @property
    def inner(self) -> int:
        """Width of a Mamba layer's heads together."""
        return self.mamba_num_heads * self.mamba_head_dim

    @property
    def mixed(self) -> int:
        """Channels that go through a Mamba layer's convolution: x, B and C."""
        return self.inner + 2 * self.n_groups * self.ssm_state_size


def read_config(raw: dict[str, Any], where: Path) -> Config:
    """The typed config of a `config.json`; UserError names the file and the field."""
    layers = (
        raw.get("layers_block_type") or raw.get("layer_types") or raw.get("hybrid_override_pattern")
    )
    if not layers or any(name not in _LETTERS for name in layers):
        raise UserError(
            f"{where}: hybrid_override_pattern is {layers!r}; give one of M * E - for every layer"
        )
    for key, only in (("mlp_hidden_act", "relu2"), ("mamba_hidden_act", "silu")):
        if raw.get(key, only) != only:
            raise UserError(f"{where}: {key} is {raw[key]!r}; only {only!r} is supported")
    missing = [key for key in ("vocab_size", "hidden_size") if not isinstance(raw.get(key), int)]
    if missing:
        raise UserError(f"{where}: {missing[0]} is missing; is this a Nemotron-H config?")
    known = {f.name for f in fields(Config)}
    given = {key: value for key, value in raw.items() if key in known and value is not None}
    config = Config(**given | {"pattern": "".join(_LETTERS[name] for name in layers)})
    for whole, part in (
        ("num_attention_heads", "num_key_value_heads"),
        ("mamba_num_heads", "n_groups"),
        ("n_routed_experts", "n_group"),
    ):
        if getattr(config, whole) % getattr(config, part):
            raise UserError(
                f"{where}: {whole} {getattr(config, whole)} is not a multiple of {part} {getattr(config, part)}"
            )
    return config


@dataclass
class MambaCache:
    """What a Mamba-2 layer keeps of B rows."""

    conv: Tensor
    """[B, kernel - 1, channels]: the convolution's last inputs."""
    ssm: Tensor
    """float32 [B, groups, state, heads of a group, head_dim]."""


@dataclass
class AttentionCache:
    """Keys and values of B rows, right-padded to a capacity that grows geometrically."""

    keys: Tensor
    """[B, kv heads, head_dim, capacity]: as the product with a query reads them."""
    values: Tensor
    """[B, kv heads, capacity, head_dim]."""

    def resized(self, capacity: int) -> AttentionCache:
        """The same, cut or filled with zeros to a capacity."""
        extra = capacity - self.values.shape[2]
        return AttentionCache(F.pad(self.keys, (0, extra)), F.pad(self.values, (0, 0, 0, extra)))


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


class GatedNorm(nn.Module):
    """RMSNorm of x * silu(gate), each group of channels for itself."""

    def __init__(self, width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.groups = groups
        self.eps = eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        gated = (x.float() * F.silu(gate.float())).view(len(x), self.groups, -1)
        return (
            F.rms_norm(gated, gated.shape[-1:], None, self.eps).view_as(x).to(gate.dtype)
            * self.weight
        )


class Mamba(nn.Module):
    """The Mamba-2 mixer: in-projection, short convolution, state space recurrence, gated norm, out-projection."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.in_proj = nn.Linear(
            config.hidden_size,
            config.inner + config.mixed + config.mamba_num_heads,
            bias=config.use_bias,
        )
        self.conv1d = nn.Conv1d(
            config.mixed,
            config.mixed,
            config.conv_kernel,
            groups=config.mixed,
            bias=config.use_conv_bias,
        )
        self.dt_bias = nn.Parameter(torch.zeros(config.mamba_num_heads))
        self.A_log = nn.Parameter(torch.zeros(config.mamba_num_heads))
        self.D = nn.Parameter(torch.ones(config.mamba_num_heads))
        self.norm = GatedNorm(config.inner, config.n_groups, config.layer_norm_epsilon)
        self.out_proj = nn.Linear(config.inner, config.hidden_size, bias=config.use_bias)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gate, mixed, dt = self.in_proj(x).split(
            [self.config.inner, self.config.mixed, self.config.mamba_num_heads], dim=-1
        )
        # The upper limit is open, as in transformers' class; the lower holds for decoding too, so that sampler and trainer agree.
        return (
            gate,
            mixed,
            F.softplus(dt.float() + self.dt_bias.float()).clamp_min(self.config.time_step_min),
        )

    def _heads(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        bc = config.n_groups * config.ssm_state_size
        x, b, c = mixed.float().split([config.inner, bc, bc], dim=-1)
        grouped = (len(x), config.n_groups, config.ssm_state_size)
        return (
            x.reshape(len(x), config.mamba_num_heads, config.mamba_head_dim),
            b.reshape(grouped),
            c.reshape(grouped),
        )

    def _taps(self) -> tuple[Tensor, Tensor]:
        """The convolution's weights [kernel, channels] and bias [channels], float32."""
        taps = self.conv1d.weight[:, 0].t().float()
        return taps, taps.new_zeros(
            taps.shape[1]
        ) if self.conv1d.bias is None else self.conv1d.bias.float()

    def forward(
        self, hidden: Tensor, layout: Stream, keep: bool
    ) -> tuple[Tensor, MambaCache | None]:
        gate, mixed, dt = self._split(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            x, b, c = self._heads(F.silu(ssd.convolve(mixed.float(), *self._taps(), layout)))
            y, decay, carry = ssd.scan(
                x, dt, -self.A_log.float().exp(), b, c, self.D.float(), layout
            )
        cache = None
        if keep:
            cache = MambaCache(
                self._last_inputs(mixed, layout), ssd.last_states(x, dt, b, decay, carry, layout)
            )
        return self.out_proj(self.norm(y.flatten(1), gate)), cache

    def _last_inputs(self, mixed: Tensor, layout: Stream) -> Tensor:
        """The convolution's last inputs [S, kernel - 1, channels] of each segment, zeros before its first token."""
        back = torch.arange(self.config.conv_kernel - 2, -1, -1, device=mixed.device)
        place = layout.ends[:, None] - back
        inside = place >= layout.starts[:, None]
        return mixed[place.clamp_min(0)] * inside[..., None].to(mixed.dtype)

    def step(self, hidden: Tensor, cache: MambaCache) -> Tensor:
        gate, mixed, dt = self._split(hidden)
        window = torch.cat([cache.conv, mixed[:, None]], dim=1)
        cache.conv = window[:, 1:]
        taps, bias = self._taps()
        x, b, c = self._heads(F.silu((window * taps).sum(1) + bias))
        y = ssd.step(x, dt, -self.A_log.float().exp(), b, c, cache.ssm)
        return self.out_proj(self.norm((y + x * self.D.float()[:, None]).flatten(1), gate))


class Attention(nn.Module):
    """Grouped-query attention without positional embedding (the Mamba layers know the order)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.kv, self.width = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.width, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, self.kv * self.width, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, self.kv * self.width, bias=False)
        self.o_proj = nn.Linear(self.heads * self.width, config.hidden_size, bias=False)

    def _project(self, hidden: Tensor) -> Tensor:
        """Queries, keys and values [T, heads + 2 kv, head_dim] in one product."""
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        return F.linear(hidden, weight).view(len(hidden), -1, self.width)

    def forward(
        self, hidden: Tensor, layout: Stream, keep: bool
    ) -> tuple[Tensor, AttentionCache | None]:
        projected = self._project(hidden)
        laid = take(projected, layout.laid, layout.place)
        parts = []
        for (rows, length), part in zip(
            layout.buckets, laid.split([r * n for r, n in layout.buckets]), strict=True
        ):
            # Padding stands after a segment's own tokens, so the causal mask alone hides it.
            q, k, v = (
                part.view(rows, length, -1, self.width)
                .transpose(1, 2)
                .split([self.heads, self.kv, self.kv], dim=1)
            )
            out = F.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=self.heads != self.kv
            )
            parts.append(out.transpose(1, 2).reshape(rows * length, -1))
        mixed = torch.cat(parts).index_select(0, layout.place)
        cache = None
        if keep:
            step = torch.arange(max(layout.lengths), device=hidden.device)
            index = torch.minimum(layout.starts[:, None] + step, layout.ends[:, None])
            keys, values = projected[:, self.heads :][index].transpose(1, 2).split(self.kv, dim=1)
            cache = AttentionCache(keys.transpose(2, 3).contiguous(), values.contiguous())
        return self.o_proj(mixed), cache

    def step(self, hidden: Tensor, cache: AttentionCache, lengths: Tensor, hide: Tensor) -> Tensor:
        """One token a row, at column lengths[b] of the cache; hide [B, 1, L] is -inf at the columns a row has not reached."""
        rows, longest = len(hidden), hide.shape[2]
        q, k, v = self._project(hidden).split([self.heads, self.kv, self.kv], dim=1)
        row = torch.arange(rows, device=hidden.device)
        cache.keys[row, :, :, lengths] = k
        cache.values[row, :, lengths] = v
        # The query heads that share a key head stand where a sequence of queries would: no key is copied.
        q = q.reshape(rows * self.kv, -1, self.width) * self.width**-0.5
        score = torch.bmm(q, cache.keys.flatten(0, 1)[:, :, :longest]).view(rows, -1, longest)
        weight = (score.float() + hide).softmax(-1).to(v.dtype).view(rows * self.kv, -1, longest)
        return self.o_proj(
            torch.bmm(weight, cache.values.flatten(0, 1)[:, :longest]).view(rows, -1)
        )


class MLP(nn.Module):
    """Up-projection, squared ReLU, down-projection."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, width, bias=config.mlp_bias)
        self.down_proj = nn.Linear(width, config.hidden_size, bias=config.mlp_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(F.relu(self.up_proj(hidden)).square())


class Router(nn.Module):
    """Sigmoid router in float32; the correction bias moves the choice of experts, never their weights, and isn't trained by gradient."""

    e_score_correction_bias: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(config.n_routed_experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (float32) and indices of each token's experts, both [T, k]."""
        config = self.config
        with torch.autocast(hidden.device.type, enabled=False):
            scores = F.linear(hidden.float(), self.weight.float()).sigmoid()
        ranked = scores.detach() + self.e_score_correction_bias
        if config.n_group > 1:
            grouped = ranked.view(len(ranked), config.n_group, -1)
            best = grouped.topk(2, dim=-1).values.sum(-1).topk(config.topk_group, dim=-1).indices
            closed = torch.ones(grouped.shape[:2], dtype=torch.bool, device=best.device).scatter_(
                1, best, False
            )
            ranked = grouped.masked_fill(closed[..., None], -torch.inf).flatten(1)
        chosen = ranked.topk(config.num_experts_per_tok, dim=-1).indices
        weights = scores.gather(1, chosen)
        if config.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return weights * config.routed_scaling_factor, chosen


class Experts(nn.Module):
    """The routed experts' matrices, stacked."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.moe_latent_size or config.hidden_size
        self.up_proj = nn.Parameter(
            torch.empty(config.n_routed_experts, config.moe_intermediate_size, width)
        )
        self.down_proj = nn.Parameter(
            torch.empty(config.n_routed_experts, width, config.moe_intermediate_size)
        )

    def forward(self, hidden: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Tokens sorted by expert, one pair of products per expert that has any. hidden [T, D]; weights, chosen [T, k]."""
        count, top = len(self.up_proj), chosen.shape[1]
        flat = chosen.flatten()
        order = flat.argsort()
        sizes = torch.bincount(flat, minlength=count).tolist()
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        parts = take(hidden, order // top, back.view(-1, top)).split(sizes)
        outs = [
            F.linear(F.relu(F.linear(part, up)).square(), down)
            for part, up, down in zip(
                parts, self.up_proj.unbind(), self.down_proj.unbind(), strict=True
            )
            if len(part)
        ]
        out = take(torch.cat(outs), back, order).view(len(hidden), top, -1)
        return torch.bmm(weights.to(out.dtype)[:, None], out)[:, 0]


class MoE(nn.Module):
    """Routed experts plus a shared one that every token passes."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        self.shared_experts = MLP(config, config.moe_shared_expert_intermediate_size)
        latent = config.moe_latent_size
        self.fc1_latent_proj = (
            nn.Linear(config.hidden_size, latent, bias=config.mlp_bias) if latent else nn.Identity()
        )
        self.fc2_latent_proj = (
            nn.Linear(latent, config.hidden_size, bias=config.mlp_bias) if latent else nn.Identity()
        )

    def forward(self, hidden: Tensor) -> Tensor:
        weights, chosen = self.gate(hidden)
        routed = self.fc2_latent_proj(self.experts(self.fc1_latent_proj(hidden), weights, chosen))
        return routed + self.shared_experts(hidden)
