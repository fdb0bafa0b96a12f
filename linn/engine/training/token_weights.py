"""What each sample's tokens weigh in the loss: the normaliser of the whole batch.

Computed once, before the batch is dealt to processes, so that each of them merely sums over its
share. No torch here: the controller computes it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from linn.errors import RunFailed
from linn.types import Loss, Sample


class StepFailed(RunFailed):
    """An optimiser step that changed nothing. The caller can write its batch to disk."""

    samples: Sequence[Sample] = ()
    """The whole batch of the refused step."""


def trained_tokens(sample: Sample) -> int:
    """Number of trained tokens, |V(y)|; entry 0 has nothing before it and never counts."""
    return sum(map(bool, sample.mask)) - bool(sample.mask[0])


def moves(sample: Sample, loss: Loss) -> bool:
    """Whether a sample has a gradient at all.

    A GRPO sample of advantage 0 (its group's rewards were equal) has none without a KL term. It
    counts in the normaliser and need not be computed.
    """
    return loss.kind != "grpo" or loss.kl > 0 or any(sample.advantage)


def token_weights(samples: Sequence[Sample], loss: Loss) -> list[float]:
    """One factor per sample, the same for each of its trained tokens.

    `samples` is the batch of ALL processes. With |o_i| the trained tokens of sample i:

        token     1 / Σ|o|
        sequence  1 / (n · |o_i|)
        prompt    1 / (groups · Σ_group |o|)

    Sequences without a trained token do not count. SFT multiplies by |o_i|**-length_power and
    divides by the sum of the samples' own token weights, so the loss is a weighted mean.

    Raises ValueError for a signal that is missing, StepFailed for one that is not finite.
    """
    for sample in samples:
        _check_sample(sample, loss, samples)

    lengths = [trained_tokens(sample) for sample in samples]
    group_tokens: dict[int, int] = defaultdict(int)
    for sample, length in zip(samples, lengths, strict=True):
        group_tokens[sample.group] += length

    factors: list[float] = []
    total = 0.0
    for sample, length in zip(samples, lengths, strict=True):
        if not length:
            factors.append(0.0)
            continue
        factor = _share(loss, length, group_tokens[sample.group])
        factors.append(factor)
        total += factor * _mass(sample, loss, length)

    if not total:
        raise ValueError(
            f"nothing to train on: none of the {len(samples)} samples "
            "has a trained token of weight above 0"
        )
    return [factor / total for factor in factors]


def _share(loss: Loss, length: int, group_tokens: int) -> float:
    """A sample's factor before the batch's total divides it."""
    shares = {
        "token": 1.0,
        "sequence": 1.0 / length,
        "prompt": 1.0 / group_tokens,
    }
    share = shares[loss.normalise]
    if loss.kind == "sft":
        share *= length**-loss.length_power
    return share


def _mass(sample: Sample, loss: Loss, length: int) -> float:
    """How many tokens a sample counts as: its trained ones, in SFT by their own weights."""
    if loss.kind != "sft":
        return float(length)
    entries = zip(sample.advantage[1:], sample.mask[1:], strict=True)
    return math.fsum(weight for weight, is_trained in entries if is_trained)


def _check_sample(sample: Sample, loss: Loss, samples: Sequence[Sample]) -> None:
    """Raise for a sample that cannot be trained.

    ValueError where something is missing or does not fit, StepFailed, which carries the batch
    `samples`, where a number is not finite.
    """
    if loss.kl and loss.kind != "grpo":
        raise ValueError(f"kl = {loss.kl}: only grpo has a KL term, not {loss.kind}")
    if loss.temperature <= 0:
        raise ValueError(f"temperature = {loss.temperature}: training needs one above 0")

    name_of_sample = f"sample {sample.source or '?'}"
    count = len(sample.tokens)
    if not count:
        raise ValueError(f"{name_of_sample} has no tokens")

    for name, values in _signals(sample, loss).items():
        if values is None:
            raise ValueError(
                f"{name_of_sample}: {loss.kind} needs `{name}`, and the sample has none"
            )
        if len(values) != count:
            raise ValueError(
                f"{name_of_sample}: {len(values)} entries in `{name}` for {count} tokens"
            )
        if not all(map(math.isfinite, values)):
            error = StepFailed(f"{name_of_sample}: `{name}` holds a value that is not finite")
            error.samples = samples
            raise error


def _signals(sample: Sample, loss: Loss) -> Mapping[str, Sequence[float] | None]:
    """The lists of a sample that the objective reads, by name."""
    signals: dict[str, Sequence[float] | None] = {
        "mask": sample.mask,
        "advantage": sample.advantage,
    }
    if loss.kind != "sft":
        signals["behaviour"] = sample.behaviour
    if loss.kind == "mopd" or loss.kl:
        signals["teacher"] = sample.teacher
    return signals
