"""The objectives, each written once in the paper's symbols over packed log-probs; and those log-probs, without [tokens, vocab] in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from linn.engine.models.interface import CausalLM
from linn.engine.training.pack import Packed, micro_batches
from linn.types import Loss, Sample

Figures = dict[str, Tensor]


@dataclass(frozen=True)
class Signal:
    """What N trained tokens carry; every field is [N]."""

    weight: Tensor
    """The token's share of the global mean: the normaliser of every equation below."""
    advantage: Tensor
    """Â of Eq. 1, or SFT's own token weight."""
    behaviour: Tensor
    """log π_inf(y_t|s_t); NaN where nothing was sampled."""
    teacher: Tensor
    """log π_teacher(y_t|s_t), or the reference's; NaN where there is none."""


def sft(logp: Tensor, signal: Signal, loss: Loss) -> tuple[Tensor, Figures]:
    """Weighted mean of -log π(y_t|s_t); `weight` holds length**-length_power."""
    value = -(signal.weight * signal.advantage * logp).sum()
    return value, {"nll": -logp.detach()}


def grpo(logp: Tensor, signal: Signal, loss: Loss) -> tuple[Tensor, Figures]:
    """Eq. 1: -Σ weight·Â·ratio. One step a batch, so ratio = π/sg[π] is 1, its gradient is Â·∇log π, and a clip would be inert."""
    ratio = torch.exp(logp - logp.detach())
    value = -(signal.weight * signal.advantage * ratio).sum()
    figures = _mismatch(logp, signal)
    if loss.kl:  # RLHF: k3 = π_ref/π - log(π_ref/π) - 1
        log_ratio = _given(signal.teacher, "teacher") - logp
        k3 = torch.exp(log_ratio) - log_ratio - 1
        value = value + loss.kl * (signal.weight * k3).sum()
        figures["kl"] = k3.detach()
    return value, figures


def mopd(logp: Tensor, signal: Signal, loss: Loss) -> tuple[Tensor, Figures]:
    """Eq. 2-4: -Σ weight·w·sg[a]·log π. A token outside the band weighs 0 and still counts in |V(y)|, which `weight` holds."""
    low, high = loss.band
    figures = _mismatch(logp, signal)
    a = _given(signal.teacher, "teacher") - logp.detach()  # Eq. 2
    r = figures["ratio"]
    inside = (low <= r) & (r <= high)
    w = torch.where(inside, r, torch.zeros_like(r))  # Eq. 3
    value = -(signal.weight * w * a * logp).sum()  # Eq. 4
    return value, figures | {"teacher_gap": a, "out_of_band": (~inside).to(logp.dtype)}


def _mismatch(logp: Tensor, signal: Signal) -> Figures:
    """r = π_train/π_inf and |log r|: how far the sampler's numbers are from the trainer's."""
    log_r = logp.detach() - _given(signal.behaviour, "behaviour")
    return {"mismatch": log_r.abs(), "ratio": log_r.exp()}


def _given(values: Tensor, name: str) -> Tensor:
    if bool(values.isnan().any()):
        raise ValueError(f"a trained token has no `{name}` log-prob")
    return values


OBJECTIVES = {"sft": sft, "grpo": grpo, "mopd": mopd}


def precision(device: torch.device, autocast: bool) -> AbstractContextManager[Any]:
    """bf16 matrix products over weights that stay as they are, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if autocast else nullcontext()


def token_logprobs(
    model: CausalLM, packed: Packed, temperature: float = 1.0, chunk: int = 1024
) -> tuple[Tensor, Tensor]:
    """Log-probs [N] of the trained tokens, differentiable, and the entropies [N] they were drawn from, without gradient.

    The head sees `chunk` positions at a time and is computed again in the backward pass, so [N, V] never exists.
    """
    where = packed.mask.flatten().nonzero().squeeze(1)
    hidden = model.hidden(packed.ids, packed.segments).flatten(0, 1).index_select(0, where)
    targets = packed.targets.flatten().index_select(0, where)

    def head(part: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        logp = torch.log_softmax(model.head(part).float() / temperature, dim=-1)
        with torch.no_grad():
            entropy = -(logp.exp() * logp).sum(-1)
        return logp.gather(-1, wanted.unsqueeze(-1)).squeeze(-1), entropy

    parts = []
    for part, wanted in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
        if torch.is_grad_enabled():
            parts.append(
                checkpoint(head, part, wanted, use_reentrant=False, preserve_rng_state=False)
            )
        else:
            parts.append(head(part, wanted))
    return torch.cat([logp for logp, _ in parts]), torch.cat([entropy for _, entropy in parts])


@torch.no_grad()
def score(
    model: CausalLM,
    sequences: Sequence[Sequence[int]],
    temperature: float = 1.0,
    width: int = 2048,
    tokens: int = 2048,
    autocast: bool = False,
) -> list[list[float]]:
    """Log-prob of every token given those before it, computed as in training; entry 0 of each sequence is 0.0."""
    if temperature <= 0:
        raise ValueError(f"temperature = {temperature}: log-probs need one above 0")
    samples = [
        Sample(tokens=ids, mask=[False] + [True] * (len(ids) - 1), advantage=[0.0] * len(ids))
        for ids in sequences
        if len(ids) > 0
    ]
    starts = torch.tensor([0, *accumulate(len(sample.tokens) for sample in samples)])
    out = torch.zeros(int(starts[-1]))
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    for packed in micro_batches(samples, [0.0] * len(samples), width, tokens, model.packs):
        if packed.mask.any():
            with precision(device, autocast):
                logp, _ = token_logprobs(model, packed.to(device), temperature)
            out[starts[packed.sample[packed.mask]] + packed.token[packed.mask]] = logp.float().cpu()
    return [row.tolist() for row in torch.split(out, [len(ids) for ids in sequences])]
