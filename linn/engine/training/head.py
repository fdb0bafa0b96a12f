"""The head of a model in training: log-probs of tokens and their gradient, chunk by chunk.

A vocabulary is large, so the logits of all trained tokens are never in memory. Of a chunk of them
there is one copy: logits become probabilities, and these their own gradient, in place. On a GPU two
kernels do that (`fused_head`).

Letters of shapes: N tokens of a chunk, V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from linn.engine.models.interface import CausalLM
from linn.engine.models.kernels.choice import by_triton
from linn.engine.models.kernels.products import Linear, product, suits, unfilled

LOGITS = {"cpu": 2**23, "cuda": 2**27}
"""Logits that exist at once, by device: 32 MB in float32 on a CPU, 512 MB on a GPU. With fewer rows
its products are slow, and every chunk passes over the gradient of the head's weights: 256 rows of a
vocabulary of 131,072 took a fifth of a step for that."""
BLOCK = {"cpu": 2**17, "cuda": 2**23}
"""Logits that are normalised at once: what stays in a CPU's cache from one operator to the next."""


def chunk_size(vocab: int, device: str = "cpu") -> int:
    """How many positions the head sees at a time."""
    rows = max(1, LOGITS.get(device, LOGITS["cuda"]) // vocab)
    # Filled, a chunk would be copied, and take more than the allocator keeps (32 MB).
    return unfilled(rows) if device == "cpu" else rows


class Drawn(Protocol):
    """Tokens that were drawn from the distributions that N rows of logits stand for."""

    @property
    def logp(self) -> Tensor:
        """[N]: log-prob of each token."""
        ...

    @property
    def entropy(self) -> Tensor:
        """[N]: of each distribution, in nats."""
        ...

    def gradient(self, slope: Tensor) -> Tensor:
        """Σ slope·∂logp/∂logits [N, V], in the memory of the logits, which are gone then.

        slope: [N], what the objective gains for each log-prob.
        """
        ...


@dataclass(frozen=True)
class _PlainDrawn:
    """By torch's operators."""

    targets: Tensor
    """int64 [N]: the tokens."""
    temperature: float
    """Logits are divided by it."""
    logp: Tensor
    """[N]: log-prob of each token."""
    entropy: Tensor
    """[N]: of each distribution, in nats."""
    odds: Tensor
    """[N, V]: all probabilities, each row times its `total`; in the memory of the logits."""
    total: Tensor
    """[N, 1]: the sum of each row of `odds`."""

    def gradient(self, slope: Tensor) -> Tensor:
        """See `Drawn`; in the memory of `odds`."""
        # ∂logp_y/∂logit_j = (1[j = y] - p_j) / temperature
        scale = (slope / self.temperature).unsqueeze(-1)
        gradient = self.odds.mul_(-scale / self.total)
        place = self.targets.unsqueeze(-1)
        return gradient.scatter_(-1, place, gradient.gather(-1, place) + scale)


@torch.no_grad()
def drawn(logits: Tensor, targets: Tensor, temperature: float) -> Drawn:
    """Log-probs of the targets (int64 [N]), and what they were drawn from.

    logits: float32 [N, V], whose memory is taken. Nothing else of this size is made.
    """
    if by_triton(logits.device):
        from linn.engine.training import fused_head

        return fused_head.drawn(logits, targets, temperature)
    rows = max(1, BLOCK.get(logits.device.type, BLOCK["cuda"]) // logits.shape[-1])
    chosen, sums, means = [], [], []
    for block, own in zip(logits.split(rows), targets.split(rows), strict=True):
        if temperature != 1:
            block.div_(temperature)
        block.sub_(block.amax(-1, keepdim=True))
        chosen.append(block.gather(-1, own.unsqueeze(-1)))
        odds = block.exp()
        sums.append(odds.sum(-1, keepdim=True))
        means.append(block.mul_(odds).sum(-1, keepdim=True))
        block.copy_(odds)

    total = torch.cat(sums)
    log_total = total.log()
    return _PlainDrawn(
        targets,
        temperature,
        logp=(torch.cat(chosen) - log_total).squeeze(-1),
        # -Σ p·log p, where log p = block - log total
        entropy=(log_total - torch.cat(means) / total).squeeze(-1),
        odds=logits,
        total=total,
    )


# ---------------------------------------------------------------- the gradient of its weights


@contextmanager
def gradient_in_place(model: CausalLM) -> Iterator[None]:
    """The head's matrix product adds its weights' gradient to `weight.grad` itself.

    Autograd would make a gradient of the size of the weights for every chunk, and then add it:
    with small chunks that takes as long as the product. A head that is no plain linear map is left
    as it is.
    """
    head = getattr(model, "lm_head", None)
    if head is None or type(head) not in (nn.Linear, Linear):
        yield
        return
    head.forward = _Projection(head)
    try:
        yield
    finally:
        del head.forward


class _Projection:
    """What a linear layer computes, while one micro-batch goes through it in chunks."""

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._cast: Tensor | None = None
        """The weights as they are multiplied, which autocast would make for every chunk."""

    def __call__(self, hidden: Tensor) -> Tensor:
        weight = self._layer.weight
        bias: Tensor | None = self._layer.bias
        device = hidden.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            hidden, bias = hidden.to(dtype), None if bias is None else bias.to(dtype)
        if self._cast is None:
            self._cast = weight.detach().to(hidden.dtype)
        product: Tensor = _Product.apply(hidden, self._cast, weight)
        return product if bias is None else product + bias


class _Product(torch.autograd.Function):
    """hidden · Wᵀ; the backward pass adds to W's gradient where it stands."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, values: Tensor, weight: nn.Parameter) -> Tensor:
        """values: the weight as it is multiplied, [V, H]."""
        ctx.save_for_backward(hidden, values)
        ctx.weight = weight
        if suits(hidden, values):
            return product(hidden, values)
        return linear(hidden, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of `hidden`, [N, H]."""
        hidden, values = ctx.saved_tensors
        weight = ctx.weight
        if weight.requires_grad:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            add_product(weight.grad, gradient.T, hidden)
        if suits(gradient, values.t()):
            return product(gradient, values.t()), None, None
        return gradient @ values, None, None


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a · b; where a and b are in half precision, what is added is not rounded to it."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif _adds_to_float32(total.device):
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total += a @ b


@cache
def _adds_to_float32(device: torch.device) -> bool:
    """Whether a product in bfloat16 can be added to float32 as it is made: tried once."""
    if device.type != "cuda":
        return False
    total = torch.ones(16, 16, device=device)
    half = torch.eye(16, dtype=torch.bfloat16, device=device)
    try:
        torch.addmm(total, half, half, out_dtype=total.dtype, out=total)
    except (RuntimeError, TypeError):
        return False
    return bool((total == 1 + torch.eye(16, device=device)).all())
