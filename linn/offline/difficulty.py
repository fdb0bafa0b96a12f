"""Offline difficulty filtering (paper §4.7, §4.8.2).

How often a model solves each row of a file, and which rows are worth training on. Pass rates go to
`OUT.rates.jsonl` chunk by chunk, so a killed measurement goes on where it stood and ends with the
same bytes. OUT is written at the end: the rows that stay, with `pass_rate`, `pass_rate_total` and
`pass_rate_passed` beside their fields.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from linn.chat.codec import Codec
from linn.chat.render import answer_of
from linn.data.names import located
from linn.data.rows import Lines, object_of, write_lines
from linn.domains.base import Domain
from linn.endpoint.client import BadRequest, Endpoint
from linn.engine.protocol import Sampler
from linn.errors import InfrastructureError, UserError, task_group
from linn.files import json_line, write_jsonl
from linn.judges.panel import Judges
from linn.play.credit import grouped, judged_rewards
from linn.play.failures import check_failures
from linn.play.rollout import Job, play
from linn.types import Prompt, Reply, Rollout, Sampling, Verdict, seed_of

CHUNK = 512
"""Conversations held at once; what a kill can cost."""
SOLVED = 1.0 - 1e-9
"""A reward from here on passes."""


@dataclass(frozen=True)
class Rate:
    """How often one row was solved."""

    passed: int | None
    """Rollouts that passed; None where a row of earlier making says its rate alone."""
    total: int | None
    """Rollouts judged; None likewise."""
    share: float
    """`passed / total`; 0 where none was judged."""

    @property
    def is_known(self) -> bool:
        """Whether any rollout was judged: environment, grader and judge did not break on all."""
        return self.total != 0

    def fields(self) -> dict[str, Any]:
        """As the released rows have it."""
        fields: dict[str, Any] = {"pass_rate": self.share}
        if self.total is not None:
            fields["pass_rate_total"] = self.total
        if self.passed is not None:
            fields["pass_rate_passed"] = self.passed
        return fields


Counts = tuple[int, int]
"""Rollouts of a row that passed, and those that were judged."""


class Solver(Protocol):
    """Whoever answers the prompts."""

    async def rollouts(self, jobs: Sequence[Job], domain: Domain) -> list[Rollout]:
        """A graded rollout of every job, in order."""
        ...


@dataclass(frozen=True)
class CheckpointSolver:
    """A checkpoint over an engine's sampler."""

    sampler: Sampler
    """Samples from it."""
    codec: Codec
    """Its tokenizer."""

    async def rollouts(self, jobs: Sequence[Job], domain: Domain) -> list[Rollout]:
        """See `Solver`."""
        return await play(jobs, {domain.name: domain}, self.sampler, self.codec)


@dataclass(frozen=True)
class EndpointSolver:
    """A model behind an OpenAI-compatible endpoint, for single-turn domains.

    It thinks as the server lets it.
    """

    model: Endpoint
    """Answers."""

    async def rollouts(self, jobs: Sequence[Job], domain: Domain) -> list[Rollout]:
        """See `Solver`. Seeds are asked for; whether the server keeps to them is its own affair."""
        tasks = []
        async with self.model, task_group() as group:
            for job in jobs:
                tasks.append(group.create_task(self._rollout(job)))
        rollouts = [task.result() for task in tasks]

        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(domain.workers) as pool:
            graded = [
                loop.run_in_executor(pool, self._graded, rollout, domain) for rollout in rollouts
            ]
            return await asyncio.gather(*graded)

    async def _rollout(self, job: Job) -> Rollout:
        """One answer, not graded yet; a request that the server refuses is no wrong answer."""
        rollout = Rollout(job.prompt, job.sibling, (), Reply(""), Verdict(0.0))
        try:
            answer = await self.model.complete(
                job.prompt.messages, job.how, job.seed, job.prompt.tools
            )
        except BadRequest as error:
            return replace(rollout, status="failed", error=str(error))

        if answer.is_cut_off:
            return replace(rollout, reply=Reply("", finished=False), status="truncated")
        message = replace(answer.message, content=answer_of(answer.content))
        return replace(rollout, reply=Reply(message.content, messages=(message,)))

    def _graded(self, rollout: Rollout, domain: Domain) -> Rollout:
        if rollout.status == "failed":
            return rollout
        try:
            verdict = domain.verify(rollout.prompt, rollout.reply)
        except InfrastructureError:
            raise
        except Exception as error:  # a bad reply is data
            what = f"grader: {type(error).__name__}: {error}"
            return replace(rollout, status="failed", error=what)

        return replace(rollout, verdict=verdict)


@dataclass(frozen=True)
class Measurement:
    """What is measured, and where the rates are kept."""

    domain: Domain
    """Reads the rows and grades the replies."""
    rollouts: int
    """Rollouts per row."""
    how: Sampling
    """How each of them is sampled."""
    seed: int
    """Seeds of the rollouts depend on it."""
    kept: Path
    """The file that holds the rates measured so far; it grows a chunk at a time."""
    settings: Mapping[str, Any]
    """What the rates depend on besides the rows; a file made under others is refused."""
    reuse: bool = False
    """Rows with a rate keep it."""
    max_failed: float = 0.1
    """Share of a chunk's rollouts that may fail; above it the measurement stops."""

    @property
    def rows_per_chunk(self) -> int:
        """Rows whose rollouts are held at once."""
        return max(1, CHUNK // self.rollouts)


def own_rows(
    domain: Domain, progress: Callable[[float, int], None] = lambda share, line: None
) -> Iterator[tuple[int, bytes, Prompt]]:
    """(line, its bytes, prompt) of the domain's rows in order.

    Other domains' and, with `skip_bad`, bad ones are counted in the domain's `tally`.
    """
    assert domain.rows is not None
    path = located(domain.rows)
    lines = Lines(path)

    for line, raw in lines:
        progress(lines.share, line)
        prompt = domain._of_line(path, line, raw)
        if prompt is not None:
            yield line, raw, prompt


def told_rate(raw: bytes) -> Rate | None:
    """The pass rate that a row holds already, if any."""
    row = object_of(raw)
    share, total, passed = (
        row.get(key) for key in ("pass_rate", "pass_rate_total", "pass_rate_passed")
    )
    if isinstance(share, bool) or not isinstance(share, int | float):
        return None
    if not 0 <= share <= 1:
        return None

    return Rate(
        passed=passed if type(passed) is int else None,
        total=total if type(total) is int else None,
        share=float(share),
    )


async def measured(
    measurement: Measurement,
    solver: Solver | None,
    judges: Judges | None = None,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
    on_read: Callable[[float, int], None] = lambda share, line: None,
) -> dict[int, Rate]:
    """The rate of every row of the domain by its line, measured where `kept` lacks it.

    `on_rows` hears how many rows are done, of how many to measure; `on_read`, before that, the
    share of the file that was read, and the line.
    """
    domain = measurement.domain
    rates, missing, digest = await _read_rows(measurement, on_read)
    if not missing and not rates:
        raise UserError(f"{domain.rows}: holds no rows of domain {domain.name}: {domain.tally}")
    if not missing:
        return rates
    if solver is None:
        raise UserError(
            f"{domain.rows} line {missing[0]}: has no pass_rate to reuse; name a model with --from"
        )

    done = _read_kept(measurement, digest, len(missing))
    on_rows(len(done), len(missing))
    left = (row for row in own_rows(domain) if row[0] not in rates and row[0] not in done)

    while chunk := list(islice(left, measurement.rows_per_chunk)):
        rows = [(line, prompt) for line, _, prompt in chunk]
        counts = await _chunk(rows, measurement, solver, judges)
        _append(measurement, counts)
        done |= counts
        on_rows(len(done), len(missing))

    for line, (passed, judged) in done.items():
        rates[line] = Rate(
            passed=passed,
            total=judged,
            share=passed / judged if judged else 0.0,
        )

    return rates


async def _read_rows(
    measurement: Measurement, on_read: Callable[[float, int], None]
) -> tuple[dict[int, Rate], list[int], str]:
    """(rates that rows hold already, lines to measure, a digest of all rows)."""
    digest = hashlib.blake2b(digest_size=8)
    rates: dict[int, Rate] = {}
    missing: list[int] = []

    # Every row is read before the first is sampled: a bad one shows now, not after hours.
    for line, raw, _ in own_rows(measurement.domain, on_read):
        if line % 1024 == 0:
            await asyncio.sleep(0)  # Ctrl-C ends the reading of a long file too
        digest.update(raw)
        rate = told_rate(raw) if measurement.reuse else None
        if rate is None:
            missing.append(line)
        else:
            rates[line] = rate

    return rates, missing, digest.hexdigest()


async def _chunk(
    rows: Sequence[tuple[int, Prompt]],
    measurement: Measurement,
    solver: Solver,
    judges: Judges | None,
) -> dict[int, Counts]:
    """How many rollouts of each row passed, of how many that were judged, by line."""
    domain, seed = measurement.domain, measurement.seed
    jobs = []

    for line, prompt in rows:
        for k in range(measurement.rollouts):
            jobs.append(Job(prompt, k, measurement.how, seed_of("filter", seed, line, k)))

    first_line, _ = rows[0]
    rollouts = await solver.rollouts(jobs, domain)
    check_failures(rollouts, measurement.max_failed, f"rows from line {first_line}")
    groups = await grouped(
        rollouts,
        measurement.rollouts,
        {domain.name: domain},
        "keep",
        judges,
        seed_of("filter", seed, first_line),
    )

    counts = {}

    for (line, _), group in zip(rows, groups, strict=True):
        rewards = judged_rewards(group)
        for reward in rewards:
            if not -1e-9 <= reward <= 1 + 1e-9:
                raise UserError(
                    f"domain {domain.name}: a reward of {reward:.3g} passes nothing: "
                    "its rewards compare siblings; filter another domain"
                )

        counts[line] = (sum(reward >= SOLVED for reward in rewards), len(rewards))

    return counts


# ---------------------------------------------------------------- the rates that are kept


def _append(measurement: Measurement, counts: Mapping[int, Counts]) -> None:
    """Add a chunk's rates to the file, on disk before anything goes on."""
    entries = _entries(measurement, counts)
    with open(measurement.kept, "a", encoding="utf-8") as file:
        file.write("".join(map(json_line, entries)))
        file.flush()
        os.fsync(file.fileno())


def _entries(measurement: Measurement, counts: Mapping[int, Counts]) -> list[dict[str, int]]:
    """A line per row; `judged` stands there where rollouts failed."""
    entries = []
    for line, (passed, judged) in counts.items():
        entry = {"line": line, "passed": passed}
        if judged != measurement.rollouts:
            entry["judged"] = judged
        entries.append(entry)
    return entries


def _read_kept(measurement: Measurement, digest: str, rows: int) -> dict[int, Counts]:
    """Passed and judged rollouts by line, of whole chunks that the file holds.

    It is cut back to them. A new file where there is none. UserError where it was made under
    other settings. `digest`: of the rows; `rows`: how many are measured in all.
    """
    path = measurement.kept
    settings = {
        **measurement.settings,
        "rollouts": measurement.rollouts,
        "seed": measurement.seed,
        "reuse": measurement.reuse,
        "rows": digest,
    }

    if not path.exists():
        write_jsonl(path, [settings])
        return {}

    lines = path.read_bytes().split(b"\n")
    # What follows the last newline is a line that a kill cut short, or nothing.
    rest = lines[-1]
    try:
        before = dict(json.loads(lines[0]))
        entries = [json.loads(line) for line in lines[1:-1]]
        done: dict[int, Counts] = {}
        for entry in entries:
            judged = int(entry.get("judged", measurement.rollouts))
            done[int(entry["line"])] = (int(entry["passed"]), judged)
    except (ValueError, LookupError, TypeError):
        raise UserError(
            f"{path}: not what linn filter wrote there; "
            "give another --out, or begin anew with --no-resume"
        ) from None

    _check_settings(path, before, settings)

    # Part of a chunk is measured again: so batches stay those of an unbroken run.
    whole = len(done)
    if whole != rows:
        whole -= whole % measurement.rows_per_chunk
    kept = dict(islice(done.items(), whole))
    if len(kept) != len(done) or rest:
        write_jsonl(path, [settings, *_entries(measurement, kept)])

    return kept


def _check_settings(path: Path, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """UserError where the file's settings are not these."""
    if before == dict(settings):
        return
    others = []
    for key, value in settings.items():
        if before.get(key) != value:
            others.append(f"{key} {before.get(key)!r}, now {value!r}")

    raise UserError(
        f"{path}: measured with {', '.join(others)}; "
        "give another --out, or begin anew with --no-resume"
    )


# ---------------------------------------------------------------- what stays


def chosen(
    rates: Mapping[int, Rate], keep_solved: float, keep_unsolved: float, seed: int
) -> set[int]:
    """Lines that stay: all rows between never and always solved, and shares of those two.

    Which of the rows always solved (`keep_solved`) or never solved (`keep_unsolved`) stay is drawn
    by `seed`. Rows of which no rollout was judged go.
    """
    rates = {line: rate for line, rate in rates.items() if rate.is_known}
    stay = {line for line, rate in rates.items() if 0 < rate.share < 1}
    for share, exact in ((keep_solved, 1.0), (keep_unsolved, 0.0)):
        lines = sorted(line for line, rate in rates.items() if rate.share == exact)
        rng = random.Random(seed_of("keep", seed, str(exact)))
        stay.update(rng.sample(lines, round(share * len(lines))))

    return stay


def write_kept(
    domain: Domain,
    rates: Mapping[int, Rate],
    stay: set[int],
    out: Path,
) -> int:
    """Write the rows that stay, in the file's order, with their rates; gives their number.

    The file is complete or not there at all.
    """

    def lines() -> Iterator[bytes]:
        for line, raw, _ in own_rows(domain):
            if line in stay:
                row = object_of(raw) | rates[line].fields()
                yield json_line(row).encode()

    return write_lines(out, lines())


def histogram(rates: Mapping[int, Rate], width: int = 40) -> str:
    """Rows by pass rate: never, tenths, always; with n."""
    rates = {line: rate for line, rate in rates.items() if rate.is_known}
    if not rates:
        return "pass rate: no rollout of any row was judged"
    names = ["0", *(f"to {tenth / 10:.1f}" for tenth in range(1, 11)), "1"]
    counts = [0] * len(names)
    for rate in rates.values():
        counts[_bin(rate.share)] += 1

    n = len(rates)
    mean = sum(rate.share for rate in rates.values()) / n
    lines = [f"pass rate     rows  n = {n:,}, mean {mean:.3f}"]

    for name, count in zip(names, counts, strict=True):
        bar = "█" * round(width * count / max(counts))
        lines.append(f"{name:>7} {count:>8,} {count / n:>6.1%} {bar}".rstrip())

    return "\n".join(lines)


def _bin(share: float) -> int:
    """0: never solved; 1 to 10: up to so many tenths; 11: always solved."""
    if share == 0:
        return 0
    if share == 1:
        return 11
    # A tenth itself belongs to the bin that ends there, whatever its floating-point form.
    return min(10, 1 + int(share * 10 - 1e-9))
