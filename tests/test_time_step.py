"""Mamba-2's time step against its definition, token by token in float64: no floor but the config's.

dt runs from exactly 0 (a softplus that has underflowed) over what trained weights have and a floor
of 0.001 would hide, to beyond the range that new models are drawn in.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linn.bases.make import new_model
from linn.engine.models.load import load
from linn.engine.models.nemotron_h.config import Config, read_config
from linn.engine.models.nemotron_h.layers import Mamba
from linn.engine.models.nemotron_h.segments import lay_out
from linn.errors import UserError

DT = (0.0, 1e-7, 1e-5, 3e-4, 0.002, 0.05, 0.7, 9.0)
"""One head each; what the bias alone gives."""
LIMITS = ((0.0, math.inf), (0.001, math.inf), (0.0, 0.01))
CONFIG: dict[str, Any] = {
    "vocab_size": 16,
    "hidden_size": 12,
    "hybrid_override_pattern": "M",
    "mamba_num_heads": len(DT),
    "mamba_head_dim": 4,
    "ssm_state_size": 6,
    "n_groups": 2,
}


def mixer(limit: tuple[float, float]) -> Mamba:
    """A Mamba-2 layer whose heads keep a token for 1 to millions of tokens."""
    config = read_config(CONFIG | {"time_step_limit": list(limit)}, Path("config.json"))
    torch.manual_seed(0)
    layer = Mamba(config)
    dt = torch.tensor(DT, dtype=torch.float64)
    bias = dt + torch.log(-torch.expm1(-dt))  # the inverse of softplus
    with torch.no_grad():
        layer.dt_bias.copy_(bias.clamp_min(-200))
        layer.A_log.copy_(torch.linspace(-2, 2, len(DT)))
        # The inputs move every head's dt by a factor of up to e.
        heads = layer.in_proj.weight[-len(DT) :]
        heads.mul_(0.3 / heads.abs().max())
    return layer


def definition(layer: Mamba, hidden: Tensor) -> Tensor:
    """What the layer makes of one sequence [T, H], by Mamba-2's equations, token by token.

    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t and y_t = C_t h_t + D x_t, with Δ = softplus(·) kept
    within the config's `time_step_limit` (Dao and Gu 2024, section 7).
    """
    config: Config = layer.config
    weights = {name: value.double() for name, value in layer.named_parameters()}
    projected = F.linear(hidden.double(), weights["in_proj.weight"])
    gate, mixed, raw = projected.split(
        [config.inner, config.channels, config.mamba_num_heads], dim=-1
    )
    low, high = config.time_step_limit
    dt = F.softplus(raw + weights["dt_bias"]).clamp(low, high)
    a = -weights["A_log"].exp()
    taps = weights["conv1d.weight"][:, 0]  # [channels, kernel]

    groups, size = config.n_groups, config.ssm_state_size
    per_group = config.mamba_num_heads // groups
    state = torch.zeros(config.mamba_num_heads, config.mamba_head_dim, size, dtype=torch.float64)
    outs = []
    for t in range(len(hidden)):
        window = mixed[max(0, t + 1 - config.conv_kernel) : t + 1]  # [up to kernel, channels]
        convolved = (window.T * taps[:, -len(window) :]).sum(1) + weights["conv1d.bias"]
        x, b, c = F.silu(convolved).split([config.inner, groups * size, groups * size])
        x = x.view(-1, config.mamba_head_dim)
        b = b.view(groups, size).repeat_interleave(per_group, 0)
        c = c.view(groups, size).repeat_interleave(per_group, 0)

        decay = (dt[t] * a).exp()
        written = (dt[t][:, None] * x)[:, :, None] * b[:, None, :]
        state = decay[:, None, None] * state + written
        y = (state * c[:, None, :]).sum(-1) + weights["D"][:, None] * x
        outs.append(y.flatten())

    gated = torch.stack(outs) * F.silu(gate)
    grouped = gated.view(len(hidden), groups, -1)
    rms = (grouped.square().mean(-1, keepdim=True) + config.layer_norm_epsilon).sqrt()
    normed = (grouped / rms).view_as(gated) * weights["norm.weight"]
    return F.linear(normed, weights["out_proj.weight"])


def hiddens(*lengths: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(length, CONFIG["hidden_size"], generator=draw) for length in lengths]


def run(layer: Mamba, parts: list[Tensor], with_cache: bool = False) -> Any:
    """The layer's outputs of segments laid end to end, and its cache."""
    segments = lay_out([len(part) for part in parts], 32, CONFIG.get("conv_kernel", 4), _CPU)
    return layer(torch.cat(parts), segments, with_cache)


_CPU = torch.device("cpu")


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected.float(), atol=2e-4, rtol=0)


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_prefill_and_packed_rows_are_the_definition(limit: tuple[float, float]) -> None:
    layer = mixer(limit)
    parts = hiddens(1, 70, 3, 200, 33)
    with torch.no_grad():
        together, _ = run(layer, parts)
        for part, own in zip(parts, together.split([len(p) for p in parts]), strict=True):
            close(own, definition(layer, part))
            close(run(layer, [part])[0], definition(layer, part))


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_decoding_is_the_definition(limit: tuple[float, float]) -> None:
    layer = mixer(limit)
    parts = hiddens(60, 105)
    fed = (5, 50)
    with torch.no_grad():
        expected = [definition(layer, part) for part in parts]
        starts = [part[:length] for part, length in zip(parts, fed, strict=True)]
        _, cache = run(layer, starts, with_cache=True)
        for step in range(55):
            tokens = torch.stack([p[n + step] for p, n in zip(parts, fed, strict=True)])
            out = layer.step(tokens, cache)
            now = [e[n + step] for e, n in zip(expected, fed, strict=True)]
            close(out, torch.stack(now))


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_gradients_are_the_definitions(limit: tuple[float, float]) -> None:
    """Also at dt = 0, where the scan's logarithm has none."""
    layer = mixer(limit)
    parts = [part.requires_grad_() for part in hiddens(40, 70)]
    leaves = [*parts, *layer.parameters()]
    names = ["input", "input", *dict(layer.named_parameters())]
    weight = torch.randn(CONFIG["hidden_size"], generator=torch.Generator().manual_seed(2))

    ours, _ = run(layer, parts)
    grads = torch.autograd.grad((ours * weight).sum(), leaves)
    theirs = torch.cat([definition(layer, part) for part in parts])
    expected = torch.autograd.grad((theirs * weight.double()).sum(), leaves)
    for name, grad, right in zip(names, grads, expected, strict=True):
        assert grad.isfinite().all(), name
        scale = float(right.abs().max()) + 1e-3
        torch.testing.assert_close(grad / scale, right / scale, atol=2e-4, rtol=0, msg=name)


def test_a_slow_head_remembers() -> None:
    """dt 1e-5 and |A| 0.3 keep 0.906 of a token after 32K tokens; floored at 0.001, 5e-5."""
    layer = mixer((0.0, math.inf))
    with torch.no_grad():
        layer.dt_bias.fill_(math.log(math.expm1(1e-5)))
        layer.A_log.fill_(math.log(0.3))
        layer.in_proj.weight[-len(DT) :] = 0
        _, cache = run(layer, [torch.cat([hiddens(1)[0], torch.zeros(4, 12)])], with_cache=True)
        before = cache.ssm.clone()
        _, _, dt = layer._project(torch.zeros(1, 12))
        kept = (dt[0] * layer._decay_rates() * 32_768).exp()
    assert before.abs().max() > 0
    assert kept.tolist() == pytest.approx([0.9064] * len(DT), abs=1e-3)


def test_the_limit_is_read_and_written(tmp_path: Path) -> None:
    new_model(tmp_path, 256, seed=1)
    file = tmp_path / "config.json"
    raw = json.loads(file.read_text())
    assert raw["time_step_limit"] == [0.0, math.inf]

    transformers_infinity = {"__float__": "Infinity"}
    for written, expected in (
        ([0.0, 0.05], (0.0, 0.05)),
        ([0.001, math.inf], (0.001, math.inf)),
        ([0, transformers_infinity], (0.0, math.inf)),
        (None, (0.0, math.inf)),
    ):
        file.write_text(json.dumps(raw | {"time_step_limit": written}))
        model: Any = load(tmp_path)
        assert model.config.time_step_limit == expected
        model.save(tmp_path / "again")
        again = json.loads((tmp_path / "again/config.json").read_text())
        assert again["time_step_limit"] == list(expected)

    for wrong in ([0.1, 0.05], [-1, 1], [math.nan, 1], 3, ["low", 1], [0.1]):
        file.write_text(json.dumps(raw | {"time_step_limit": wrong}))
        with pytest.raises(UserError, match="time_step_limit"):
            load(tmp_path)
