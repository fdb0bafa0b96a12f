"""Playing a benchmark: its prompts k times each, in batches that are kept as they end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from linn.domains.common.boxes import last_box
from linn.errors import UserError
from linn.evals.benchmarks.kept import Kept, Record, record_of
from linn.evals.benchmarks.rows import Task
from linn.evals.evaluate import judged_alone
from linn.judges.panel import Judges
from linn.play.conversation import Job
from linn.play.failures import check_failures
from linn.types import Rollout, Sampling, seed_of

Player = Callable[[Sequence[Job]], Awaitable[list[Rollout]]]
"""Holds and grades conversations, whoever answers: a checkpoint or an endpoint."""

AT_ONCE = 32
"""Conversations held together, and kept together, unless somebody says otherwise."""
MAX_FAILED = 0.1
"""Share of rollouts that may fail before the measurement stops."""
_LONGEST_ANSWER = 400
"""Characters of an answer that has a vote."""


@dataclass
class Measuring:
    """How a benchmark is played."""

    player: Player
    """Answers."""
    judges: Judges = field(default_factory=Judges)
    """Judge, where the benchmark is judged."""
    seed: int = 0
    """Of all sampling."""
    at_once: int = AT_ONCE
    """Conversations of a batch. Batches are whole in the file or not at all."""
    max_failed: float = MAX_FAILED
    """Share of a batch's rollouts that may fail."""
    longest: int | None = None
    """Tokens of the longest conversation that the model was made for; None: not known."""
    on_done: Callable[[int, int], None] = lambda done, total: None
    """Hears how many conversations are over, of how many."""


async def measure(task: Task, kept: Kept, how: Measuring) -> list[Record]:
    """The records of every prompt's k samples, prompt by prompt; what is kept is not played again.

    Raises RunFailed where too much of a batch failed. What was judged is kept before that.
    """
    benchmark = task.benchmark
    if benchmark.judge is not None and not how.judges.by_domain:
        raise UserError(
            f"benchmark {benchmark.name} is judged by a model (published: "
            f"{benchmark.judge.model}): name one by --judge MODEL"
        )
    jobs = jobs_of(task, how.seed, how.longest)
    records: dict[int, Record] = {}
    for first in range(0, len(jobs), how.at_once):
        places = range(first, min(first + how.at_once, len(jobs)))
        # A batch that was kept in part is played for the rest: draws do not depend on company.
        missing = []
        for place in places:
            known = kept.get(jobs[place].prompt, jobs[place].sibling)
            if known is None:
                missing.append(place)
            else:
                records[place] = known
        if missing:
            played = await _play(task, [jobs[place] for place in missing], how)
            found = [record_of(one, _vote(task, one)) for one in played]
            kept.add(found)
            check_failures(played, how.max_failed, f"benchmark {benchmark.name}")
            records |= dict(zip(missing, found, strict=True))
        how.on_done(len(records), len(jobs))
    return [records[place] for place in range(len(jobs))]


async def _play(task: Task, jobs: Sequence[Job], how: Measuring) -> list[Rollout]:
    played = await how.player(jobs)
    domains = {task.domain.name: task.domain}
    return await judged_alone(played, domains, how.judges, seed_of("benchmark", how.seed))


def jobs_of(task: Task, seed: int, longest: int | None = None) -> list[Job]:
    """The conversations: every prompt's samples after each other.

    A seed depends on the benchmark, the prompt and the sample alone: avg@4 samples what the first
    four of avg@64 are, and a part of the rows what the whole does.
    """
    benchmark = task.benchmark
    limits = [limit for limit in (benchmark.max_sequence, longest) if limit is not None]
    sampling = Sampling(benchmark.max_tokens, benchmark.temperature, benchmark.top_p)
    return [
        Job(
            prompt=prompt,
            sibling=sibling,
            how=sampling,
            seed=seed_of("benchmark", seed, benchmark.name, prompt.id, sibling),
            max_turns=benchmark.max_turns,
            max_sequence=min(limits, default=None),
        )
        for prompt in task.prompts
        for sibling in range(benchmark.k)
    ]


def _vote(task: Task, rollout: Rollout) -> str | None:
    """The answer that a vote counts: what the last box holds."""
    if not task.benchmark.majority:
        return None
    box = last_box(rollout.reply.text)
    if box is None:
        return None
    inner = "".join(box.inner.split())
    return inner[:_LONGEST_ANSWER] or None
