"""Norms in few operators, for what samples: of a few rows each operator costs the same.

A family's code takes six or seven for x / rms(x) * weight, and a step of decoding has dozens of
such norms.
"""

from __future__ import annotations

import copy
import inspect
import os
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from linn.engine.models.kernels.choice import VARIABLE

_EPSILONS = ("variance_epsilon", "eps")
"""How families call what they add to the mean of the squares."""
_TOLERANCE = 1e-5
"""By how much a norm may differ from the family's own; its numbers are around 1."""


def take_norms(model: nn.Module) -> None:
    """Let the RMS norms of a family of transformers be computed in few operators on a CPU.

    Our own hybrid gains nothing by it: torch's norm, which it takes, is one call of Python.
    """
    if os.environ.get(VARIABLE) == "plain":
        return
    tried: dict[type, bool] = {}
    for module in list(model.modules()):
        kind: Any = type(module)
        if kind.__name__.endswith("RMSNorm"):
            if kind not in tried:
                tried[kind] = _is_plain(module)
            if tried[kind]:
                module.__class__ = _in_few(kind, _epsilon(module))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last dimension, without gradients."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = torch.addcmul(_number(eps), norm, norm, value=1 / x.shape[-1]).rsqrt_()
    return (x * scale).mul_(weight)


@cache
def _number(value: float) -> Tensor:
    return torch.full((), value)


@cache
def _in_few(kind: Any, epsilon: str) -> Any:
    """The same class, but for how it computes float32 in prefill and decoding.

    epsilon: the attribute that is added to the mean of the squares.
    """

    def forward(self: Any, *given: Tensor, **named: Any) -> Tensor:
        weight = self.weight
        if not named and _suits(given[0], weight):
            return rms_norm(given[0], weight, getattr(self, epsilon))
        out: Tensor = kind.forward(self, *given, **named)
        return out

    return type(kind.__name__, (kind,), {"forward": forward})


def _suits(x: Tensor, weight: Tensor) -> bool:
    # A teacher's scores stay on the trainer's path: what is its own teacher has a gap of exactly 0.
    return (
        torch.is_inference_mode_enabled()
        and x.dtype == weight.dtype == torch.float32
        and x.is_cpu
        and not torch.is_autocast_enabled("cpu")
    )


def _epsilon(module: nn.Module) -> str:
    """What the module calls it."""
    return next(name for name in _EPSILONS if hasattr(module, name))


@torch.no_grad()
def _is_plain(module: nn.Module) -> bool:
    """Whether it computes `rms_norm` of one argument, whatever its weights; tried."""
    try:
        (weight,) = module.state_dict().values()
        inspect.signature(module.forward).bind(weight)
        probe: Any = copy.deepcopy(module).to("cpu", torch.float32)
        draw = torch.Generator().manual_seed(0)
        probe.weight.copy_(torch.randn(weight.shape, generator=draw))
        for size in (1, 1e-3):
            x = torch.randn(4, *weight.shape, generator=draw) * size
            gap = rms_norm(x, probe.weight, getattr(probe, _epsilon(probe))) - probe(x)
            if not float(gap.abs().max()) <= _TOLERANCE:
                return False
    except Exception:  # whatever a family's code has in place of that
        return False
    return True
