"""Failed rollouts: nobody judged them, so they leave all statistics; too many stop the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from linn.errors import RunFailed
from linn.types import Rollout

NAMED = 3
"""Different errors that the line names."""

_CHARACTERS = 160
"""Of one error in the line."""


def is_judged(rollout: Rollout) -> bool:
    """Whether its reward is a judgement: environment and grader held, a judge's answer was read."""
    return rollout.status != "failed" and not rollout.verdict.undecided


def failed_share(rollouts: Sequence[Rollout]) -> float:
    """Share of rollouts whose environment or grader broke."""
    return sum(rollout.status == "failed" for rollout in rollouts) / len(rollouts)


def check_failures(rollouts: Iterable[Rollout], most: float, where: str) -> None:
    """Raise RunFailed where more than the share `most` of a domain's rollouts failed.

    A single failure never does: in a small batch it is a large share. `where` begins the line,
    which names the domain's most frequent errors.
    """
    by_domain: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        by_domain.setdefault(rollout.prompt.domain, []).append(rollout)

    for domain, own in by_domain.items():
        failed = [rollout for rollout in own if rollout.status == "failed"]
        lone = len(failed) == 1 and len(own) > 1
        if lone or len(failed) <= most * len(own):
            continue
        raise RunFailed(
            f"{where}: {len(failed)} of {len(own)} rollouts of {domain} failed "
            f"(max_failed {most:g}): {_named(failed)}; mend the domain, "
            "or raise max_failed to go on without them"
        )


def _named(failed: Sequence[Rollout]) -> str:
    """The most frequent errors with their counts, each with the first prompt it came from."""
    counts = Counter(_line(rollout.error) for rollout in failed)
    parts = []
    for error, count in counts.most_common(NAMED):
        first = next(rollout for rollout in failed if _line(rollout.error) == error)
        parts.append(f"{count} x {error} (first at prompt {first.prompt.id})")
    if len(counts) > NAMED:
        parts.append(f"{len(counts) - NAMED} other errors")
    return "; ".join(parts)


def _line(error: str) -> str:
    """An error in one printable line: it may quote a reply."""
    line = " ".join(error.split())
    line = "".join(char if char.isprintable() else "�" for char in line)
    if len(line) > _CHARACTERS:
        line = line[: _CHARACTERS - 1] + "…"
    return line or "no error was given"
