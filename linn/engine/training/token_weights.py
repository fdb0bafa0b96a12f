"""What each sample's tokens weigh in the global loss, computed once before any process starts. No torch here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from linn.errors import RunFailed
from linn.types import Loss, Sample


class StepFailed(RunFailed):
    """An optimiser step that changed nothing, with its batch so that the caller can write it to disk."""

    samples: Sequence[Sample] = ()
    """The whole batch of the refused step."""


def trained(sample: Sample) -> int:
    """Number of trained tokens, |V(y)|; entry 0 has nothing before it and never counts."""
    return sum(map(bool, sample.mask)) - bool(sample.mask[0])


def moves(sample: Sample, loss: Loss) -> bool:
    """Whether a sample has a gradient at all. A GRPO sample of advantage 0 (its group's rewards were equal) has none without a KL term: it
    counts in the normaliser and need not be computed."""
    return loss.kind != "grpo" or loss.kl > 0 or any(sample.advantage)


def token_weights(samples: Sequence[Sample], loss: Loss) -> list[float]:
    """One factor a sample for each of its trained tokens, so that a process merely sums over its share.

    `samples` is the batch of ALL processes. token: 1/Σ|o|; sequence: 1/(n·|o_i|); prompt: 1/(groups·Σ_group |o|). Sequences without a
    trained token do not count. SFT multiplies by |o_i|**-length_power and divides by the sum of the samples' own token weights, so the
    loss is a weighted mean. Raises ValueError for a signal that is missing, StepFailed for one that is not finite.
    """
    for sample in samples:
        _check(sample, loss, samples)
    lengths = [trained(sample) for sample in samples]
    group_tokens: dict[int, int] = defaultdict(int)
    for sample, length in zip(samples, lengths, strict=True):
        group_tokens[sample.group] += length
    raw, total = [], 0.0
    for sample, length in zip(samples, lengths, strict=True):
        if not length:
            raw.append(0.0)
            continue
        factor = {
            "token": 1.0,
            "sequence": 1.0 / length,
            "prompt": 1.0 / group_tokens[sample.group],
        }[loss.normalise]
        mass = float(length)
        if loss.kind == "sft":
            factor *= length**-loss.length_power
            mass = math.fsum(
                a for a, m in zip(sample.advantage[1:], sample.mask[1:], strict=True) if m
            )
        raw.append(factor)
        total += factor * mass
    if not total:
        raise ValueError(
            f"nothing to train on: none of the {len(samples)} samples has a trained token of weight above 0"
        )
    return [factor / total for factor in raw]


def _check(sample: Sample, loss: Loss, samples: Sequence[Sample]) -> None:
    needed = {"mask": sample.mask, "advantage": sample.advantage}
    if loss.kind != "sft":
        needed["behaviour"] = sample.behaviour  # type: ignore[assignment]
    if loss.kind == "mopd" or loss.kl:
        needed["teacher"] = sample.teacher  # type: ignore[assignment]
    if loss.kl and loss.kind != "grpo":
        raise ValueError(f"kl = {loss.kl}: only grpo has a KL term, not {loss.kind}")
    if loss.temperature <= 0:
        raise ValueError(f"temperature = {loss.temperature}: training needs one above 0")
    if not len(sample.tokens):
        raise ValueError(f"sample {sample.source or '?'} has no tokens")
    for name, values in needed.items():
        if values is None:
            raise ValueError(
                f"sample {sample.source or '?'}: {loss.kind} needs `{name}`, and the sample has none"
            )
        if len(values) != len(sample.tokens):
            raise ValueError(
                f"sample {sample.source or '?'}: {len(values)} entries in `{name}` for {len(sample.tokens)} tokens"
            )
        if not all(map(math.isfinite, values)):
            error = StepFailed(
                f"sample {sample.source or '?'}: `{name}` holds a value that is not finite"
            )
            error.samples = samples
            raise error
