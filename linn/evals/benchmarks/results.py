"""What a benchmark's rollouts say: avg@k, pass@k, maj@k, lengths, and what they compare with.

Numbers of different protocols are not compared: the refusal names the keys that differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from linn.errors import UserError
from linn.evals.benchmarks.config import Benchmark, differences, identity
from linn.evals.benchmarks.kept import Record, votes_of
from linn.evals.benchmarks.rows import Task
from linn.ledger import Difference, Interval, paired
from linn.ledger.samples import maj_at_k, one_level, pass_at_k, two_level
from linn.types import Score


@dataclass(frozen=True)
class Result:
    """One model on one benchmark."""

    benchmark: str
    """Its name."""
    model: str
    """What was measured, as it was named."""
    protocol: Mapping[str, Any]
    """Everything that decides scores, the rows among it."""
    identity: str
    """Its hash."""
    k: int
    """Samples of each prompt."""
    n: int
    """Prompts behind the scores."""
    left_out: int
    """Prompts without any judged rollout."""
    full: int
    """Prompts of the whole benchmark."""
    is_part: bool
    """Whether fewer prompts were measured than the benchmark has."""
    scale: float
    """What a reward of 1 is in the published unit."""
    avg: Interval
    """avg@k: the mean reward, over other prompts and other samples."""
    again: Interval | None
    """The same with the interval over other samples of these prompts; None: one sample each."""
    passed: Interval | None
    """pass@k; None: one sample each."""
    majority: Interval | None
    """maj@k; None: one sample each, or answers that cannot be put to the vote."""
    tokens: float
    """Mean sampled tokens of a conversation."""
    truncated: float
    """Share of conversations that ran into a limit of tokens."""
    failed: int
    """Conversations whose environment or grader broke; they leave the scores."""
    undecided: int
    """Conversations whose judge could not be read; they leave the scores."""
    judge: str | None
    """Who judged; None: no model."""
    place: str
    """Where the rows came from."""
    differs: tuple[str, ...]
    """In what this protocol differs from the published one; empty: comparable."""
    rewards: Mapping[str, float]
    """Prompt -> the mean reward of its samples."""
    notes: tuple[str, ...] = ()
    """What else is to be known, such as overlap with training rows."""

    def scores(self, stage: str, step: int) -> list[Score]:
        """Rows of the ledger."""
        found: list[tuple[str, Interval | None]] = [
            (f"avg@{self.k}", self.avg),
            (f"pass@{self.k}", self.passed),
            (f"maj@{self.k}", self.majority),
        ]
        return [
            Score(
                stage=stage,
                step=step,
                domain=self.benchmark,
                split="test",
                metric=metric,
                value=value.value,
                n=self.n,
                low=value.low,
                high=value.high,
                failed=self.left_out,
            )
            for metric, value in found
            if value is not None
        ]


def result_of(
    task: Task,
    records: Sequence[Record],
    model: str,
    published: Benchmark,
    notes: Sequence[str] = (),
) -> Result | None:
    """The scores of a benchmark's records; None where nobody judged any.

    `published`: the benchmark as its file has it. A prompt counts with its judged samples;
    pass@k and maj@k leave out a prompt of which not all k were judged.
    """
    used = task.benchmark
    by_prompt: dict[str, list[Record]] = {}
    for record in records:
        by_prompt.setdefault(record.prompt, []).append(record)
    judged = {
        prompt: own
        for prompt, every in by_prompt.items()
        if (own := [record for record in every if record.is_judged])
    }
    if not judged:
        return None

    # A prompt is the unit that is sampled from the benchmark, so each counts once.
    rewards = {prompt: _mean(own) for prompt, own in judged.items()}
    # pass@k and maj@k of fewer than k samples would be another number under the same name.
    whole = [own for own in judged.values() if len(own) == used.k]
    several = whole if used.k > 1 else []
    protocol = protocol_of(task)
    judge = used.judge.model if used.judge is not None else None
    return Result(
        benchmark=used.name,
        model=model,
        protocol=protocol,
        identity=identity(protocol),
        k=used.k,
        n=len(judged),
        left_out=len(by_prompt) - len(judged),
        full=used.rows.full,
        is_part=len(task.prompts) < used.rows.full,
        scale=used.scale,
        avg=two_level(list(rewards.values()), used.k),
        again=one_level([[one.reward for one in own] for own in judged.values()]),
        passed=_passed(several, used.k),
        majority=_majority(several, used.k) if used.majority else None,
        tokens=math.fsum(one.tokens for one in records) / len(records),
        truncated=sum(one.status == "truncated" for one in records) / len(records),
        failed=sum(one.status == "failed" for one in records),
        undecided=sum(one.undecided for one in records),
        judge=judge,
        place=task.place,
        differs=tuple(differences(used.decisive(), published.decisive())),
        rewards=rewards,
        notes=tuple(notes),
    )


def protocol_of(task: Task) -> dict[str, Any]:
    """Everything that decides a benchmark's scores, the rows among it."""
    return {**task.benchmark.decisive(), "rows": task.digest}


def _mean(records: Sequence[Record]) -> float:
    return math.fsum(record.reward for record in records) / len(records)


def _passed(prompts: Sequence[Sequence[Record]], k: int) -> Interval | None:
    chances = []
    for own in prompts:
        right = sum(record.reward >= 1 - 1e-9 for record in own)
        chances.append(pass_at_k(len(own), right, k))
    return two_level(chances, 1) if chances else None


def _majority(prompts: Sequence[Sequence[Record]], k: int) -> Interval | None:
    won = [maj_at_k(votes_of(own), [one.reward for one in own], k) for own in prompts]
    return two_level(won, 1) if won else None


# ---------------------------------------------------------------- against another result


def against(result: Result, other: Result) -> Difference:
    """This result minus another, prompt by prompt.

    UserError where they are of different protocols, or share too few prompts.
    """
    # Refused before anything is subtracted: a difference of protocols is no difference of models.
    check_same(result.protocol, result.model, other)
    difference = paired(other.rewards, result.rewards)
    if difference is None:
        raise UserError(
            f"{result.benchmark}: {result.model} and {other.model} share too few prompts "
            f"({result.n} and {other.n}); measure both on the same rows"
        )
    return difference


def check_same(protocol: Mapping[str, Any], model: str, other: Result) -> None:
    """Refuse to compare a model under a protocol with a result of another protocol."""
    if identity(protocol) != other.identity:
        found = differences(protocol, other.protocol)
        raise UserError(
            f"{other.benchmark}: {model} and {other.model} are not compared, since their "
            f"protocols differ: {'; '.join(found)}"
        )


def as_json(results: Sequence[Result]) -> str:
    """Results for other programs, and for `--against`."""
    return json.dumps([asdict(result) for result in results], indent=1, ensure_ascii=False)


def read_results(path: Path) -> list[Result]:
    """What `as_json` wrote; UserError where a file holds something else."""
    try:
        # Whatever is wrong with the content is one kind of mistake: not the file that was meant.
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [_result(entry) for entry in entries]
    except OSError as error:
        raise UserError(f"--against {path}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(
            f"--against {path}: holds no results; give what linn eval … --json printed"
        ) from None


def _result(entry: dict[str, Any]) -> Result:
    for key in ("avg", "again", "passed", "majority"):
        if entry[key] is not None:
            entry[key] = Interval(**entry[key])
    for key in ("differs", "notes"):
        entry[key] = tuple(entry[key])
    return Result(**entry)
