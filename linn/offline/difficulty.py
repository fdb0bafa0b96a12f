"""Offline difficulty filtering: how often a model solves each row of a file, and which rows are worth training on (paper §4.7, §4.8.2).

Pass rates go to `OUT.rates.jsonl` chunk by chunk, so a killed measurement goes on where it stood and ends with the same bytes; OUT is
written at the end: the rows that stay, with `pass_rate`, `pass_rate_total` and `pass_rate_passed` beside their fields.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from linn.chat.codec import Codec
from linn.data.names import located
from linn.data.rows import Lines, object_of, write_lines
from linn.domains.base import Domain
from linn.engine.protocol import Sampler
from linn.errors import InfrastructureError, UserError
from linn.files import json_line, write_jsonl
from linn.judges.endpoint import EndpointJudge
from linn.judges.panel import Judges
from linn.play.credit import grouped
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
    """Rollouts made; None likewise."""
    share: float
    """`passed / total`."""

    def fields(self) -> dict[str, Any]:
        """As the released rows have it."""
        found = {
            "pass_rate": self.share,
            "pass_rate_total": self.total,
            "pass_rate_passed": self.passed,
        }
        return {key: value for key, value in found.items() if value is not None}


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
    """A model behind an OpenAI-compatible endpoint, for single-turn domains; it thinks as the server lets it."""

    model: EndpointJudge
    """Asks it, with the sampling of the measurement."""

    async def rollouts(self, jobs: Sequence[Job], domain: Domain) -> list[Rollout]:
        """See `Solver`. Seeds are asked for; whether the server keeps to them is its own affair."""
        texts = await self.model.answer(
            [job.prompt.messages for job in jobs], [job.seed for job in jobs]
        )
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(domain.workers) as pool:
            graded = [
                loop.run_in_executor(pool, self._graded, job, text, domain)
                for job, text in zip(jobs, texts, strict=True)
            ]
            return await asyncio.gather(*graded)

    def _graded(self, job: Job, text: str, domain: Domain) -> Rollout:
        reply = Reply(text, finished=bool(text))
        try:
            verdict = domain.verify(job.prompt, reply)
        except InfrastructureError:
            raise
        except Exception as error:  # a bad reply is data
            return Rollout(
                job.prompt,
                job.sibling,
                (),
                reply,
                Verdict(0.0),
                "failed",
                f"grader: {type(error).__name__}: {error}",
            )
        return Rollout(job.prompt, job.sibling, (), reply, verdict, "ok" if text else "truncated")


def own_rows(
    domain: Domain, progress: Callable[[float, int], None] = lambda share, line: None
) -> Iterator[tuple[int, bytes, Prompt]]:
    """(line, its bytes, prompt) of the domain's rows in order; other domains' and, with `skip_bad`, bad ones are counted in its `tally`."""
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
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        return None
    return Rate(
        passed if type(passed) is int else None, total if type(total) is int else None, float(share)
    )


async def measured(
    domain: Domain,
    solver: Solver | None,
    rollouts: int,
    how: Sampling,
    seed: int,
    kept: Path,
    settings: Mapping[str, Any],
    reuse: bool = False,
    judges: Judges | None = None,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
    on_read: Callable[[float, int], None] = lambda share, line: None,
) -> dict[int, Rate]:
    """The rate of every row of the domain by its line, measured where `kept` doesn't have it yet; `kept` grows a chunk at a time.

    `settings`: what the rates depend on besides the rows; a file made under others is refused. `reuse`: rows with a rate keep it.
    `on_rows` hears how many rows are done, of how many to measure; `on_read`, before, the share of the file that was read, and the line.
    """
    digest, rates, wanted = hashlib.blake2b(digest_size=8), dict[int, Rate](), list[int]()
    for line, raw, _ in own_rows(
        domain, on_read
    ):  # every row is read before the first is sampled: a bad one shows now, not after hours
        if not line % 1024:
            await asyncio.sleep(0)  # Ctrl-C ends the reading of a long file too
        digest.update(raw)
        told = told_rate(raw) if reuse else None
        if told is None:
            wanted.append(line)
        else:
            rates[line] = told
    if not wanted and not rates:
        raise UserError(f"{domain.rows}: holds no rows of domain {domain.name}: {domain.tally}")
    if not wanted:
        return rates
    if solver is None:
        raise UserError(
            f"{domain.rows} line {wanted[0]}: has no pass_rate to reuse; name a model with --from"
        )
    size = max(1, CHUNK // rollouts)
    settings = {
        **settings,
        "rollouts": rollouts,
        "seed": seed,
        "reuse": reuse,
        "rows": digest.hexdigest(),
    }
    done = _read_kept(kept, settings, size, len(wanted))
    on_rows(len(done), len(wanted))
    left = (row for row in own_rows(domain) if row[0] not in rates and row[0] not in done)
    while chunk := list(islice(left, size)):
        found = await _chunk(
            [(line, prompt) for line, _, prompt in chunk],
            domain,
            solver,
            rollouts,
            how,
            seed,
            judges,
        )
        with open(kept, "a", encoding="utf-8") as file:
            file.write(
                "".join(
                    json_line({"line": line, "passed": passed}) for line, passed in found.items()
                )
            )
            file.flush()
            os.fsync(file.fileno())
        done |= found
        on_rows(len(done), len(wanted))
    return rates | {
        line: Rate(passed, rollouts, passed / rollouts) for line, passed in done.items()
    }


async def _chunk(
    rows: Sequence[tuple[int, Prompt]],
    domain: Domain,
    solver: Solver,
    rollouts: int,
    how: Sampling,
    seed: int,
    judges: Judges | None,
) -> dict[int, int]:
    """How many of its rollouts each row passed, by line."""
    jobs = [
        Job(prompt, k, how, seed_of("filter", seed, line, k))
        for line, prompt in rows
        for k in range(rollouts)
    ]
    groups = await grouped(
        await solver.rollouts(jobs, domain),
        rollouts,
        {domain.name: domain},
        "keep",
        judges,
        seed_of("filter", seed, rows[0][0]),
    )
    found = {}
    for (line, _), group in zip(rows, groups, strict=True):
        if strange := next((r for r in group.rewards if not -1e-9 <= r <= 1 + 1e-9), None):
            raise UserError(
                f"domain {domain.name}: a reward of {strange:.3g} passes nothing: its rewards compare siblings; filter another domain"
            )
        found[line] = sum(reward >= SOLVED for reward in group.rewards)
    return found


def _read_kept(path: Path, settings: Mapping[str, Any], size: int, rows: int) -> dict[int, int]:
    """The rates of whole chunks that `path` holds, cut back to them; a new file where there is none. UserError under other settings."""
    if not path.exists():
        write_jsonl(path, [settings])
        return {}
    lines = path.read_bytes().split(b"\n")
    try:
        before = json.loads(lines[0])
        done = {int(entry["line"]): int(entry["passed"]) for entry in map(json.loads, lines[1:-1])}
    except (ValueError, LookupError, TypeError):
        raise UserError(
            f"{path}: not what linn filter wrote there; give another --out, or begin anew with --no-resume"
        ) from None
    if before != dict(settings):
        other = ", ".join(
            f"{key} {before.get(key)!r}, now {value!r}"
            for key, value in settings.items()
            if before.get(key) != value
        )
        raise UserError(
            f"{path}: measured with {other}; give another --out, or begin anew with --no-resume"
        )
    whole = (
        len(done) if len(done) == rows else len(done) // size * size
    )  # part of a chunk is measured again: batches stay an unbroken run's
    kept = dict(list(done.items())[:whole])
    if len(kept) != len(done) or lines[-1]:
        write_jsonl(
            path, [settings, *({"line": line, "passed": passed} for line, passed in kept.items())]
        )
    return kept


def chosen(
    rates: Mapping[int, Rate], keep_solved: float, keep_unsolved: float, seed: int
) -> set[int]:
    """Lines that stay: all between 0 and 1, and so large a share of those always and of those never solved, drawn by `seed`."""
    stay = {line for line, rate in rates.items() if 0 < rate.share < 1}
    for share, exact in ((keep_solved, 1.0), (keep_unsolved, 0.0)):
        lines = sorted(line for line, rate in rates.items() if rate.share == exact)
        stay |= set(
            random.Random(seed_of("keep", seed, str(exact))).sample(
                lines, round(share * len(lines))
            )
        )
    return stay


def write_kept(domain: Domain, rates: Mapping[int, Rate], stay: set[int], out: Path) -> int:
    """Write the rows that stay, in the file's order, with their rates; complete or not at all. Gives their number."""
    rows = ((line, object_of(raw)) for line, raw, _ in own_rows(domain) if line in stay)
    return write_lines(out, (json_line(row | rates[line].fields()).encode() for line, row in rows))


def histogram(rates: Mapping[int, Rate], width: int = 40) -> str:
    """Rows by pass rate: never, tenths, always; with n."""
    names = ["0", *(f"to {(i + 1) / 10:.1f}" for i in range(10)), "1"]
    counts = [0] * 12
    for rate in rates.values():
        counts[
            0
            if rate.share == 0
            else 11
            if rate.share == 1
            else min(10, 1 + int(rate.share * 10 - 1e-9))
        ] += 1
    longest, n = max(counts), len(rates)
    lines = [
        f"{name:>7} {count:>8,} {count / n:>6.1%} {'█' * round(width * count / longest)}".rstrip()
        for name, count in zip(names, counts, strict=True)
    ]
    mean = sum(rate.share for rate in rates.values()) / n
    return "\n".join([f"pass rate     rows  n = {n:,}, mean {mean:.3f}", *lines])
