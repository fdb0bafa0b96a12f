"""The objectives over packed log-probs, each written once in the paper's symbols.

The trainer knows these three by name (`sft`, `grpo`, `mopd`: `Loss.kind`) and nothing of domains or
stages: everything else that differs between algorithms is in the samples.

Also here: the gradient of a micro-batch, and the log-probs alone, both chunk by chunk (`head.py`).

Letters of shapes: N trained tokens, V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from linn.engine.models.interface import CausalLM
from linn.engine.models.vocabulary import check_tokens
from linn.engine.training.head import chunk_size, drawn, gradient_in_place
from linn.engine.training.pack import Packed, micro_batches
from linn.engine.training.trees import to_score
from linn.types import Loss

TokenMetrics = dict[str, Tensor]
"""What to watch, by name: one value per trained token [N], without gradient."""


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

    @classmethod
    def of(cls, packed: Packed) -> Signal:
        """That of the trained tokens of packed rows."""
        return cls(*(getattr(packed, field.name) for field in fields(cls)))

    def split(self, size: int) -> Iterator[Signal]:
        """The same in parts of `size` tokens."""
        columns = [getattr(self, field.name).split(size) for field in fields(self)]
        for parts in zip(*columns, strict=True):
            yield Signal(*parts)


def sft(logp: Tensor, signal: Signal, loss: Loss) -> tuple[Tensor, TokenMetrics]:
    """Weighted mean of -log π(y_t|s_t); `weight` holds length**-length_power."""
    value = -(signal.weight * signal.advantage * logp).sum()
    return value, {"nll": -logp.detach()}


def grpo(logp: Tensor, signal: Signal, loss: Loss) -> tuple[Tensor, TokenMetrics]:
    """Eq. 1: -Σ weight·Â·ratio.

    There is one step per batch, so ratio = π/sg[π] is 1, its gradient is Â·∇log π, and a clip
    would never act.
    """
    ratio = torch.exp(logp - logp.detach())
    value = -(signal.weight * signal.advantage * ratio).sum()
    metrics = _mismatch(logp, signal)

    if loss.kl:  # RLHF: k3 = π_ref/π - log(π_ref/π) - 1
        log_ratio = signal.teacher - logp
        k3 = torch.exp(log_ratio) - log_ratio - 1
        value = value + loss.kl * (signal.weight * k3).sum()
        metrics["kl"] = k3.detach()

    return value, metrics


def mopd(logp: Tensor, signal: Signal, loss: Loss) -> tuple[Tensor, TokenMetrics]:
    """Eq. 2-4: -Σ weight·w·sg[a]·log π.

    A token outside the band weighs 0 and still counts in |V(y)|, which `weight` holds.
    """
    low, high = loss.band
    metrics = _mismatch(logp, signal)

    a = signal.teacher - logp.detach()  # Eq. 2
    r = metrics["ratio"]
    inside = (low <= r) & (r <= high)
    w = torch.where(inside, r, torch.zeros_like(r))  # Eq. 3
    value = -(signal.weight * w * a * logp).sum()  # Eq. 4

    metrics["teacher_gap"] = a
    metrics["out_of_band"] = (~inside).to(logp.dtype)
    return value, metrics


def _mismatch(logp: Tensor, signal: Signal) -> TokenMetrics:
    """r = π_train/π_inf and |log r|: how far the sampler's numbers are from the trainer's."""
    log_r = logp.detach() - signal.behaviour
    return {"mismatch": log_r.abs(), "ratio": log_r.exp()}


OBJECTIVES = {"sft": sft, "grpo": grpo, "mopd": mopd}
"""By `Loss.kind`."""


def check_batch(packed: Packed, loss: Loss | None, vocab: int) -> None:
    """Refuse, on the host, rows that cannot be trained; loss None: that cannot be scored.

    Raises UserError for a token that the model has no embedding for, ValueError for a trained token
    without a log-prob that the objective reads (NaN).
    """
    check_tokens([int(packed.ids.min()), int(packed.ids.max())], vocab)
    if loss is None or loss.kind == "sft":
        return
    read = ["behaviour", "teacher"] if loss.kind == "mopd" or loss.kl else ["behaviour"]
    for name in read:
        if bool(getattr(packed, name).isnan().any()):
            raise ValueError(f"a trained token has no `{name}` log-prob")


def precision(device: torch.device, autocast: bool) -> AbstractContextManager[Any]:
    """bf16 matrix products over weights that stay as they are, or nothing."""
    if autocast:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def trained_states(model: CausalLM, packed: Packed) -> tuple[Tensor, Tensor]:
    """Hidden states [N, H] of the places that predict a trained token, and these tokens [N]."""
    if packed.continues is None:
        hidden = model.hidden(packed.ids, packed.segments)
    else:
        hidden = model.hidden(packed.ids, packed.segments, packed.continues)
    return hidden.flatten(0, 1).index_select(0, packed.place), packed.targets


def backward(
    model: CausalLM,
    packed: Packed,
    loss: Loss,
    autocast: bool = False,
    chunk: int | None = None,
) -> tuple[Tensor, TokenMetrics]:
    """Add the gradient of one micro-batch to the parameters' own.

    An objective is a sum over tokens. So a chunk of them goes from the head's logits all the way
    to the gradient of its hidden states before the next one starts: [N, V] never exists, and
    nothing is computed twice. One pass through the layers then takes the gradients of all.

    packed: checked by `check_batch`. chunk: positions that the head sees at a time. Returns the
    loss, without its graph, and what to watch.
    """
    device = packed.ids.device
    with precision(device, autocast):
        hidden, targets = trained_states(model, packed)
    size = chunk or chunk_size(model.vocab, device.type)

    values: list[Tensor] = []
    gradients: list[Tensor] = []
    watched: dict[str, list[Tensor]] = defaultdict(list)
    parts = zip(
        hidden.detach().split(size),
        targets.split(size),
        Signal.of(packed).split(size),
        strict=True,
    )
    with gradient_in_place(model):
        for states, own_targets, signal in parts:
            states.requires_grad_()
            value, metrics = _chunk_backward(model, states, own_targets, signal, loss, autocast)
            assert states.grad is not None
            gradients.append(states.grad)
            values.append(value)
            for name, watch in metrics.items():
                watched[name].append(watch)

    torch.autograd.backward(hidden, torch.cat(gradients))
    return torch.stack(values).sum(), {name: torch.cat(all_) for name, all_ in watched.items()}


def _chunk_backward(
    model: CausalLM,
    states: Tensor,
    targets: Tensor,
    signal: Signal,
    loss: Loss,
    autocast: bool,
) -> tuple[Tensor, TokenMetrics]:
    """From hidden states [N, H] to the objective, and back to their gradient.

    Its logits are gone before the next chunk's are made.
    """
    with precision(states.device, autocast):
        logits = model.head(states).float()
    found = drawn(logits.detach(), targets, loss.temperature)
    logp = found.logp.requires_grad_()
    value, metrics = OBJECTIVES[loss.kind](logp, signal, loss)
    (slope,) = torch.autograd.grad(value, logp)
    torch.autograd.backward(logits, found.gradient(slope))
    return value.detach(), metrics | {"entropy": found.entropy}


@torch.no_grad()
def score(
    model: CausalLM,
    sequences: Sequence[Sequence[int]],
    temperature: float = 1.0,
    width: int = 2048,
    tokens: int = 2048,
    autocast: bool = False,
    prompts: Sequence[int] | None = None,
) -> list[list[float]]:
    """Log-prob of every token given those before it, computed as in training.

    Entry 0 of each sequence is 0.0: nothing precedes it.

    width, tokens: of rows and of micro-batches. prompts: how many tokens each sequence begins with
    whose log-probs nobody asks for, which are 0.0 too; equal prompts are then computed once, by a
    model that `shares`. Raises ValueError for a temperature of 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature = {temperature}: log-probs need one above 0")

    samples = [sample for sample in to_score(sequences, prompts) if len(sample.tokens)]
    share = prompts is not None and model.shares
    batches = micro_batches(samples, [0.0] * len(samples), width, tokens, model.packs, share)
    # Sequences of one token have nothing to score.
    worth = [packed for packed in batches if packed.trains]
    for packed in worth:
        check_batch(packed, None, model.vocab)
    return score_packed(model, sequences, worth, temperature, autocast)


@torch.no_grad()
def score_packed(
    model: CausalLM,
    sequences: Sequence[Sequence[int]],
    batches: Iterable[Packed],
    temperature: float,
    autocast: bool,
) -> list[list[float]]:
    """`score` of sequences that are packed (`to_score`, `micro_batches`) and checked already."""
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    size = chunk_size(model.vocab, device.type)

    # All sequences end to end: sample i begins at starts[i].
    lengths = [len(ids) for ids in sequences]
    starts = torch.tensor([0, *accumulate(length for length in lengths if length)])
    logprobs = torch.zeros(int(starts[-1]))

    for packed in batches:
        with precision(device, autocast):
            hidden, targets = trained_states(model, packed.to(device))
            logps = []
            for states, own_targets in zip(hidden.split(size), targets.split(size), strict=True):
                logits = model.head(states).float()
                logps.append(drawn(logits, own_targets, temperature).logp)

        # Rows hold the sequences by length; each token goes back to its own place.
        place = starts[packed.sample.cpu()] + packed.token.cpu()
        logprobs[place] = torch.cat(logps).float().cpu()

    return [row.tolist() for row in logprobs.split(lengths)]
