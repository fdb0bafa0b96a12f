"""What a step has cost: wall and CPU seconds, and how grading kept up. Timings: in metrics.jsonl only, never in rollouts or the ledger."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from linn.domains.base import Domain


@dataclass(frozen=True)
class Clock:
    """Sums at one instant; two of them tell what lay between."""

    wall: float
    """Seconds, monotonic."""
    cpu: float
    """CPU seconds of this process and the engine's workers."""
    grading: Mapping[str, Mapping[str, float]]
    """`Domain.grading` of every domain."""
    workers: Mapping[str, Mapping[str, float]]
    """`Domain.totals` of every domain."""


def read(domains: Mapping[str, Domain], engine_cpu: float) -> Clock:
    """The clock now."""
    grading = {name: domain.grading.read() for name, domain in domains.items()}
    return Clock(
        time.monotonic(),
        time.process_time() + engine_cpu,
        grading,
        {name: domain.totals() for name, domain in domains.items()},
    )


def between(began: Clock, now: Clock) -> dict[str, float]:
    """`wall_s`, `cpu_s`, and of each domain that graded replies `DOMAIN/verify_…`, of each that ran programs `DOMAIN/executions` and more.

    `verify_seconds`, `verify_wait`: mean of a reply, at work and before; `verify_queue`: replies waiting, averaged over the step.
    `execution_seconds`: mean of one; `execution_wait`: of one, for a free server; `executions_per_second`: over the step.
    """
    wall = now.wall - began.wall
    found = {"wall_s": wall, "cpu_s": now.cpu - began.cpu}
    for name in now.grading:
        gain = _gain(began.grading.get(name, {}), now.grading[name])
        if replies := gain.get("verified"):
            found[f"{name}/verify_seconds"] = gain["seconds"] / replies
            found[f"{name}/verify_wait"] = gain["waited"] / replies
            found[f"{name}/verify_queue"] = gain["waited"] / wall
        gain = _gain(began.workers.get(name, {}), now.workers[name])
        if runs := gain.pop("executions", 0.0):
            found[f"{name}/executions"] = runs
            found[f"{name}/execution_seconds"] = gain.pop("seconds") / runs
            found[f"{name}/execution_wait"] = gain.pop("waited") / runs
            found[f"{name}/executions_per_second"] = runs / wall
            found |= {f"{name}/{key}": value for key, value in sorted(gain.items())}
    return found


def _gain(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {key: value - before.get(key, 0.0) for key, value in after.items()}
