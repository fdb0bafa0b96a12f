"""What a step has cost: wall and CPU seconds, and how grading kept up.

Timings go into metrics.jsonl only, never into rollouts or the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from linn.domains.base import Domain


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Sums at one instant; the difference of two is what lay between them."""

    wall: float
    """Seconds, monotonic."""
    cpu: float
    """CPU seconds of this process and the engine's workers."""
    grading: Mapping[str, Mapping[str, float]]
    """`Domain.grading` of every domain."""
    workers: Mapping[str, Mapping[str, float]]
    """`Domain.totals` of every domain."""


def read_costs(domains: Mapping[str, Domain], engine_cpu: float) -> Costs:
    """The sums now."""
    return Costs(
        wall=time.monotonic(),
        cpu=time.process_time() + engine_cpu,
        grading={name: domain.grading.read() for name, domain in domains.items()},
        workers={name: domain.totals() for name, domain in domains.items()},
    )


def costs_between(before: Costs, after: Costs) -> dict[str, float]:
    """`wall_s`, `cpu_s`, and how grading went in each domain.

    A domain that graded replies has `DOMAIN/verify_seconds` and `verify_wait`, the mean per reply
    at work and in the queue, and `verify_queue`, replies waiting, averaged over the step. A domain
    that ran programs has `DOMAIN/executions`, `execution_seconds` and `execution_wait` (the means
    per program, at work and for a free server), `executions_per_second` over the step, and more.
    """
    # Sums that a domain did not have before start at zero.
    wall = after.wall - before.wall
    metrics = {"wall_s": wall, "cpu_s": after.cpu - before.cpu}
    for name in after.grading:
        graded = _gain(before.grading.get(name, {}), after.grading[name])
        metrics |= _prefixed(name, _verify_metrics(graded, wall))

        programs = _gain(before.workers.get(name, {}), after.workers[name])
        metrics |= _prefixed(name, _execution_metrics(programs, wall))
    return metrics


def _verify_metrics(gain: Mapping[str, float], wall: float) -> dict[str, float]:
    replies = gain.get("verified", 0.0)
    if not replies:
        return {}
    return {
        "verify_seconds": gain["seconds"] / replies,
        "verify_wait": gain["waited"] / replies,
        "verify_queue": gain["waited"] / wall,
    }


def _execution_metrics(gain: dict[str, float], wall: float) -> dict[str, float]:
    programs = gain.pop("executions", 0.0)
    if not programs:
        return {}
    return {
        "executions": programs,
        "execution_seconds": gain.pop("seconds") / programs,
        "execution_wait": gain.pop("waited") / programs,
        "executions_per_second": programs / wall,
        **dict(sorted(gain.items())),
    }


def _prefixed(domain: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{domain}/{key}": value for key, value in metrics.items()}


def _gain(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {key: value - before.get(key, 0.0) for key, value in after.items()}
