"""Norms in few operators are those of the family, and others are left alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linn.engine.models.kernels.norms import take_norms


class PlainRMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(24))
        self.variance_epsilon = 1e-5

    def forward(self, hidden_states: Tensor) -> Tensor:
        squares = hidden_states.float().pow(2).mean(-1, keepdim=True)
        scaled = hidden_states.float() * torch.rsqrt(squares + self.variance_epsilon)
        return self.weight * scaled.to(hidden_states.dtype)


class OffsetRMSNorm(PlainRMSNorm):
    """As Gemma's; with these weights it is the plain one's double."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states) * (1 + self.weight) / self.weight


class CappedRMSNorm(PlainRMSNorm):
    """With weights of 1 it computes what the plain one does."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states) / self.weight * self.weight.clamp(max=1)


class GatedRMSNorm(PlainRMSNorm):
    def forward(self, hidden_states: Tensor, gate: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(hidden_states) * gate


def norm(kind: Any) -> tuple[Any, Any]:
    """A norm as it is, and within a model that was given ours."""
    own = kind()
    model = nn.Sequential(copy.deepcopy(own))
    take_norms(model)
    return own, model[0]


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_a_plain_norm_is_the_familys_also_after_a_step_of_training(size: float) -> None:
    own, ours = norm(PlainRMSNorm)
    assert type(ours) is not PlainRMSNorm and isinstance(ours, PlainRMSNorm)
    x = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(0)) * size
    own_grad, ours_grad = (
        torch.autograd.grad((one(x) * x).sum(), one.weight)[0] for one in (own, ours)
    )
    assert torch.equal(own_grad, ours_grad)
    with torch.no_grad():
        for one in (own, ours):
            one.weight += 0.1 * torch.randn(24, generator=torch.Generator().manual_seed(1))
        assert torch.equal(ours(x), own(x)), "scores are on the trainer's path"
    with torch.inference_mode():
        torch.testing.assert_close(copy.deepcopy(ours)(x), own(x), atol=1e-6, rtol=1e-6)
        assert size != 1 or not torch.equal(ours(x), own(x)), "another way, the same numbers"
        assert torch.equal(ours(hidden_states=x), own(x))
        assert torch.equal(ours(x.bfloat16()), own(x.bfloat16()))


@pytest.mark.parametrize("kind", [OffsetRMSNorm, CappedRMSNorm, GatedRMSNorm])
def test_what_computes_something_else_is_left_alone(kind: Any) -> None:
    _, ours = norm(kind)
    assert type(ours) is kind


def test_plain_leaves_all_to_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINN_KERNELS", "plain")
    _, ours = norm(PlainRMSNorm)
    assert type(ours) is PlainRMSNorm
