"""The metrics of one optimiser step: means over the trained tokens of all processes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from linn.engine.training.losses import TokenMetrics
from linn.engine.training.token_weights import trained_tokens
from linn.types import Sample

BY_DOMAIN = ("nll", "teacher_gap")
"""Metrics that are also reported for each domain of the batch."""


@dataclass
class Mean:
    """A mean that is still being added up."""

    total: float = 0.0
    """Sum of the values."""
    count: float = 0.0
    """Number of the values."""

    def add(self, total: float, count: float) -> None:
        """Add the sum and the number of further values."""
        self.total += total
        self.count += count


class StepMetrics:
    """Sums and counts over a process's micro-batches, reduced over all processes at the end."""

    def __init__(self) -> None:
        self.means: dict[str, Mean] = defaultdict(Mean)
        self.mismatches: list[Tensor] = []
        self.tokens = 0
        self.sequences = 0

    def add(self, metrics: TokenMetrics, sample: Tensor, samples: Sequence[Sample]) -> None:
        """Add one micro-batch.

        sample: int64 [N], the index in `samples` of each token's sample.
        """
        metrics = {name: values.detach().cpu() for name, values in metrics.items()}
        for name, values in metrics.items():
            self._add_values(name, values)

        if "mismatch" in metrics:
            self.mismatches.append(metrics["mismatch"].float())

        for name in BY_DOMAIN:
            if name in metrics:
                self._add_by_domain(name, metrics[name], sample, samples)

    def _add_by_domain(
        self,
        name: str,
        values: Tensor,
        sample: Tensor,
        samples: Sequence[Sample],
    ) -> None:
        domains = [samples[index].domain for index in sample.tolist()]
        for domain in sorted(set(domains) - {""}):
            own = torch.tensor([other == domain for other in domains])
            self._add_values(f"{name}/{domain}", values[own])

    def _add_values(self, name: str, values: Tensor) -> None:
        self.means[name].add(float(values.sum(dtype=torch.float64)), values.numel())

    def add_samples(self, samples: Sequence[Sample]) -> None:
        """Count a process's share of the batch, samples without a gradient included."""
        counts = [trained_tokens(sample) for sample in samples]
        self.tokens += sum(counts)
        self.sequences += sum(count > 0 for count in counts)

    def reduced(self) -> dict[str, float]:
        """Means over the tokens of all processes, and the mismatch's largest and 95th percentile.

        Every process calls it and gets the same.
        """
        parts = [self]
        if processes() > 1:
            parts = [self] * processes()
            dist.all_gather_object(parts, self)

        totals: dict[str, Mean] = defaultdict(Mean)
        for part in parts:
            for name, mean in part.means.items():
                totals[name].add(mean.total, mean.count)

        metrics = {}
        for name, mean in sorted(totals.items()):
            metrics[name] = mean.total / mean.count
        metrics["tokens"] = float(sum(part.tokens for part in parts))
        metrics["sequences"] = float(sum(part.sequences for part in parts))

        # The worst token says more than the mean: one that the sampler saw otherwise.
        if "mismatch" in metrics:
            metrics["mismatch_mean"] = metrics.pop("mismatch")
            every = torch.cat([values for part in parts for values in part.mismatches])
            ordered = every.sort().values
            metrics["mismatch_max"] = float(ordered[-1])
            # At most a twentieth of the tokens lie above it.
            metrics["mismatch_p95"] = float(ordered[math.ceil(0.95 * len(ordered)) - 1])
        return metrics


def processes() -> int:
    """How many processes train together."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1
