"""Both ways of computing a Nemotron-H, and how far apart they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from linn.engine.models.kernels.choice import VARIABLE
from linn.engine.models.nemotron_h.segments import Segments, lay_out
from support.decoding import packed_rows

LENGTHS = (1, 2, 3, 122, 128, 128, 1, 1, 255, 40, 300, 5)
"""Segments of one token, shorter than the convolution, that end where a chunk of 128 does, that
fill chunks, that span several, and that share one."""


def by(way: str, monkeypatch: pytest.MonkeyPatch, compute: Callable[[], Any]) -> Any:
    """What `compute` gives by the operators of `plain` or `gpu`."""
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, way)
        return compute()


def passes(
    model: Any, lengths: Sequence[int] = LENGTHS, device: str = "cpu", autocast: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs [T, V] of one packed row, and the gradients of a sum that weighs all of them."""
    generator = torch.Generator().manual_seed(1)
    rows = [[torch.randint(model.vocab, (n,), generator=generator) for n in lengths]]
    ids, segments = packed_rows(rows, width=sum(lengths) + 3)
    direction = torch.randn(sum(lengths), model.vocab, generator=generator)

    model.zero_grad()
    with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
        hidden = model.hidden(ids.to(device), segments.to(device))
        logprobs = model.head(hidden).log_softmax(-1)[(segments >= 0).to(device)]
    torch.autograd.backward((logprobs * direction.to(device)).sum() / len(direction))
    gradients = {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}
    return logprobs.detach().cpu(), gradients


def scan_inputs(
    lengths: Sequence[int] = LENGTHS, groups: int = 2, per_group: int = 2, strong: float = 1.0
) -> tuple[Segments, dict[str, Tensor]]:
    """Segments as the present way cuts them, and what a scan over them takes; double."""
    total, heads, width, size = sum(lengths), groups * per_group, 4, 6
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    values = {
        "x": normal(total, heads, width),
        # From next to nothing to more than 1, and exactly 0 now and then.
        "dt": (normal(total, heads) * 3 - 3).exp().clamp_max(2) * (normal(total, heads) < 1.5),
        "a": -strong * torch.linspace(0.01, 4, heads, dtype=torch.float64),
        "b": normal(total, groups, size),
        "c": normal(total, groups, size),
        "d": normal(heads),
    }
    return lay_out(lengths, 32, 4, torch.device("cpu")), values


def step_by_step(values: dict[str, Tensor], lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """y [T, H, P] and the last states [S, G, N, K, P], from the definition of the recurrence."""
    groups = values["b"].shape[1]
    x = values["x"].unflatten(1, (groups, -1))  # [T, G, K, P]
    dt = values["dt"].unflatten(1, (groups, -1))
    a, d = (values[name].view(groups, -1) for name in "ad")

    outs, states = [], []
    token = 0
    for length in lengths:
        state = torch.zeros(1, dtype=x.dtype)
        for _ in range(length):
            decay = (dt[token] * a).exp()[:, None, :, None]  # [G, 1, K, 1]
            written = (dt[token][..., None] * x[token])[:, None] * values["b"][token][
                ..., None, None
            ]
            state = decay * state + written  # [G, N, K, P]
            read = torch.einsum("gn,gnkp->gkp", values["c"][token], state)
            outs.append((read + d[..., None] * x[token]).flatten(0, 1))
            token += 1
        states.append(state)
    return torch.stack(outs), torch.stack(states)


def differences(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    """Of each tensor's gradients, the largest difference as a share of its largest entry."""
    assert one.keys() == other.keys()
    found = {}
    for name, expected in one.items():
        scale = float(expected.abs().max()) or 1.0
        found[name] = float((expected - other[name]).abs().max()) / scale
    return found
