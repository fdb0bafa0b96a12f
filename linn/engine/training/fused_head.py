"""The head's softmax on a GPU, in two Triton kernels.

By torch's operators (`head.drawn`) a chunk of logits is passed over some ten times. Here it is read
once for the log-probs, and once more when its gradient takes its place.

Letters of shapes: N tokens of a chunk, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096
"""Logits of a row that a program holds at once."""
_WARPS = 8


@dataclass(frozen=True)
class FusedDrawn:
    """Tokens that were drawn from N rows of logits; what `head.Drawn` asks for."""

    logits: Tensor
    """float32 [N, V]."""
    targets: Tensor
    """int64 [N]: the tokens."""
    temperature: float
    """Logits are divided by it."""
    logp: Tensor
    """[N]: log-prob of each token."""
    entropy: Tensor
    """[N]: of each distribution, in nats."""
    most: Tensor
    """[N]: the largest logit of each row, divided by the temperature."""
    total: Tensor
    """[N]: Σ exp(logit / temperature - most)."""

    def gradient(self, slope: Tensor) -> Tensor:
        """Σ slope·∂logp/∂logits [N, V], in the memory of `logits`, which are gone then.

        slope: [N], what the objective gains for each log-prob.
        """
        rows, vocab = self.logits.shape
        _differentiate[(rows, triton.cdiv(vocab, _BLOCK))](
            self.logits,
            self.targets,
            self.most,
            self.total,
            slope.contiguous(),
            vocab,
            self.logits.stride(0),
            self.temperature,
            BLOCK=_BLOCK,
            num_warps=_WARPS,
        )
        # Else autograd would not see that something it may have kept has changed.
        torch.autograd.graph.increment_version(self.logits)
        return self.logits


def drawn(logits: Tensor, targets: Tensor, temperature: float) -> FusedDrawn:
    """Log-probs of the targets (int64 [N]), and what they were drawn from: float32 [N, V]."""
    assert logits.dtype == torch.float32 and logits.stride(1) == 1, (logits.dtype, logits.stride())
    rows, vocab = logits.shape
    temperature = float(temperature)  # of a whole number Triton makes an integer
    logp, entropy, most, total = logits.new_empty(4, rows).unbind()
    if rows:
        _read[(rows,)](
            logits,
            targets.contiguous(),
            logp,
            entropy,
            most,
            total,
            vocab,
            logits.stride(0),
            temperature,
            BLOCK=_BLOCK,
            num_warps=_WARPS,
        )
    return FusedDrawn(logits, targets, temperature, logp, entropy, most, total)


@triton.jit
def _read(
    logits,
    targets,
    logp,
    entropy,
    most,
    total,
    vocab,
    row_stride,
    temperature,
    BLOCK: tl.constexpr,
):
    """One row's largest logit, Σ exp and Σ logit·exp; the second pass is over the card's cache."""
    row = tl.program_id(0).to(tl.int64)
    line = logits + row * row_stride
    lane = tl.arange(0, BLOCK)

    tops = tl.full([BLOCK], float("-inf"), dtype=tl.float32)
    for start in range(0, vocab, BLOCK):
        inside = start + lane < vocab
        tops = tl.maximum(tops, tl.load(line + start + lane, mask=inside, other=float("-inf")))
    top = tl.div_rn(tl.max(tops, axis=0), temperature)

    sums = tl.zeros([BLOCK], dtype=tl.float32)
    moments = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, vocab, BLOCK):
        inside = start + lane < vocab
        below = tl.div_rn(tl.load(line + start + lane, mask=inside, other=0.0), temperature) - top
        odds = tl.where(inside, tl.exp(below), 0.0)
        sums += odds
        moments += odds * below

    sum = tl.sum(sums, axis=0)
    log = tl.log(sum)
    chosen = tl.load(line + tl.load(targets + row))
    tl.store(logp + row, tl.div_rn(chosen, temperature) - top - log)
    # -Σ p·log p, where log p = below - log
    tl.store(entropy + row, log - tl.sum(moments, axis=0) / sum)
    tl.store(most + row, top)
    tl.store(total + row, sum)


@triton.jit
def _differentiate(
    logits,
    targets,
    most,
    total,
    slope,
    vocab,
    row_stride,
    temperature,
    BLOCK: tl.constexpr,
):
    """slope·∂logp_y/∂logit_j = slope (1[j = y] - p_j) / temperature, where logit_j stood."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < vocab
    place = logits + row * row_stride + column

    below = tl.div_rn(tl.load(place, mask=inside, other=0.0), temperature) - tl.load(most + row)
    scale = tl.load(slope + row) / temperature
    gradient = -scale / tl.load(total + row) * tl.exp(below)
    gradient += tl.where(column == tl.load(targets + row), scale, 0.0)
    tl.store(place, gradient, mask=inside)
