"""Products with a layer's weights where torch's own are slow: on processors that are not Intel's.

torch multiplies float32 by MKL, which uses no AVX-512 on AMD's processors. oneDNN, which comes with
torch too, uses what there is (docs/benchmarks.md has how much faster that is). Small products
remain MKL's, since it starts sooner.

Letters of shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from linn.engine.models.kernels.choice import VARIABLE

_LEAST = 2**21
"""Multiplications from which on oneDNN takes less time: it starts 8 us later."""

_FINE = 256
"""Up to so many rows there is a size every 16; above, four sizes from one power of two to the
next."""

_CPUINFO = Path("/proc/cpuinfo")

_forgone = False
"""Whether this process leaves all products to torch."""


def forgo() -> None:
    """Leave all products of this process to torch, which takes some 150 MB less for them."""
    global _forgone
    _forgone = True


def by_onednn() -> bool:
    """Whether this process takes large products from oneDNN.

    No result depends on it but by rounding, which in long sums is up to twice that of MKL.
    """
    return not _forgone and os.environ.get(VARIABLE) != "plain" and _is_faster()


@cache
def _is_faster() -> bool:
    """The processor decides, and no measurement: the same machine always computes the same."""
    try:
        is_amd = "AuthenticAMD" in _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return is_amd and torch.backends.mkldnn.is_available() and _is_right()


def _is_right() -> bool:
    """Whether torch's call of oneDNN, which is not part of its documented interface, is there."""
    x, weight = torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    try:
        return torch.equal(product(x, weight, weight[:, 0]), F.linear(x, weight, weight[:, 0]))
    except Exception:  # whatever another torch says of a call that it does not have
        return False


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [N, I] times weight [O, I] transposed, plus bias [O], by oneDNN and without gradients."""
    return _cut(_product(_filled(x), weight, bias), len(x))


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`product` of as many rows as there are."""
    if bias is not None:
        # It would read the memory behind a view, and nothing of a lone number.
        bias = bias.expand(len(weight)).contiguous()
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether the product of x [..., I] and weight [O, I] is oneDNN's."""
    return (
        x.numel() * len(weight) >= _LEAST
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and by_onednn()
        and not torch.is_autocast_enabled("cpu")
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x [..., I] times weight [O, I] transposed, plus bias [O]."""
    if not suits(x, weight):
        return F.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    out: Tensor
    if torch.is_grad_enabled():
        out = _Linear.apply(flat, weight, bias)
    else:
        out = product(flat, weight, bias)
    return out.view(*x.shape[:-1], len(weight))


def unfilled(rows: int) -> int:
    """So many rows, or as few less as it takes that nothing is filled: of less than 16 all are."""
    return rows - rows % _step(rows) or rows


def _step(rows: int) -> int:
    """How far apart sizes are around so many rows."""
    return 16 if rows <= _FINE else 1 << (rows.bit_length() - 3)


def _filled(x: Tensor) -> Tensor:
    """x [N, I] with zeros below it, up to one of a few sizes.

    oneDNN prepares itself for every size that it meets: that takes as long as the product of a
    thousand rows, and up to a few megabytes.
    """
    rows = len(x)
    step = _step(rows)
    size = -(-rows // step) * step
    if size == rows:
        return x
    filled = x.new_empty(size, x.shape[1])
    filled[:rows] = x
    filled[rows:] = 0
    return filled


def _cut(out: Tensor, rows: int) -> Tensor:
    """The first rows of a tensor of one's own, where they are."""
    return out.resize_(rows, out.shape[1])


class _Linear(torch.autograd.Function):
    """The product with gradients, which are products of the same size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad
        # As torch's own: what no gradient needs is not kept, and may change.
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = len(grads[0])
        grad = _filled(grads[0].contiguous())
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _cut(_product(grad, weight.t()), rows) if of_x else None,
            _of_weight(grad, _filled(x)) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def _of_weight(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient [O, I] of the weights; grad [N, O], x [N, I]."""
    # The first operand is copied where it lies in memory the other way round: the smaller one.
    if x.shape[1] < grad.shape[1]:
        return _product(x.t(), grad.t()).t()
    return _product(grad.t(), x.t())


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """The product of input [..., I], which some code gives by this name, with the weights."""
        return linear(input, self.weight, self.bias)


def take_products(model: nn.Module) -> None:
    """Let oneDNN compute the linear layers of a model on a CPU, where it is faster."""
    if not by_onednn():
        return
    for module in model.modules():
        # Subclasses compute something of their own.
        if type(module) is nn.Linear:
            module.__class__ = Linear
