"""`ledger.jsonl`: one row per checkpoint, domain, split and metric."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from linn import files
from linn.errors import UserError
from linn.ledger.intervals import reward_interval
from linn.types import Score, Split


def score(
    stage: str,
    step: int,
    domain: str,
    split: Split,
    metric: str,
    rewards: Sequence[float],
    failed: int = 0,
) -> Score:
    """The ledger row of one evaluation, `rewards` holding one finite number per prompt.

    `failed`: prompts that are not among them, since their rollouts failed.
    """
    finite = all(math.isfinite(reward) for reward in rewards)
    assert rewards and finite, (stage, domain, len(rewards))
    interval = reward_interval(rewards)
    return Score(
        stage=stage,
        step=step,
        domain=domain,
        split=split,
        metric=metric,
        value=interval.value,
        n=len(rewards),
        low=interval.low,
        high=interval.high,
        failed=failed,
    )


class Ledger:
    """`ledger.jsonl`: one row per (stage, step, domain, split, metric).

    Rows keep the order of their first appearance.
    """

    def __init__(self, path: Path) -> None:
        """`path` need not exist yet; an absent file is an empty ledger."""
        self.path = path

    def read(self) -> list[Score]:
        """Every row. Raises UserError naming file and line for a row that cannot be read."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return []
        rows: dict[tuple[Any, ...], Score] = {}
        lines = raw.split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = _parse(line)
            except (ValueError, RecursionError) as error:
                fault = f"is not a ledger row ({error})"
                # Every line we write ends in a newline: what comes after the last was cut short.
                if number == len(lines):
                    fault = "is cut short, as by a crash or a full disk"
                raise UserError(
                    f"{self.path}: line {number} {fault}; repair or delete that line "
                    "(a deleted row has to be measured again). Nothing was changed"
                ) from None
            rows[_key(row)] = row
        return list(rows.values())

    def upsert(self, rows: Iterable[Score]) -> None:
        """Add rows, replacing those of the same key in place.

        The file is replaced whole or left alone.
        """
        merged = {_key(row): row for row in self.read()}
        for row in rows:
            merged[_key(row)] = row
        self._write(merged.values())

    def drop(self, stages: Iterable[str]) -> None:
        """Forget every row of these stages.

        A stage done anew may end at another step, and its old rows would outlive it.
        """
        dropped = set(stages)
        self._write(row for row in self.read() if row.stage not in dropped)

    def drop_after(self, stage: str, step: int) -> None:
        """Forget the rows of a stage's later steps; the file is left alone where there are none."""
        rows = self.read()
        kept = [row for row in rows if row.stage != stage or row.step <= step]
        if len(kept) < len(rows):
            self._write(kept)

    def keep_only(self, stage: str, step: int, kinds: Collection[tuple[str, str]]) -> list[str]:
        """Forget a checkpoint's rows of other (split, metric) than these; benchmarks' rows stay.

        Returns the metrics that went. The file is left alone where there are none.
        """
        kept, dropped = [], []
        for row in self.read():
            is_here = (row.stage, row.step) == (stage, step)
            is_benchmark = row.metric.startswith("avg@")
            if is_here and not is_benchmark and (row.split, row.metric) not in kinds:
                dropped.append(row)
            else:
                kept.append(row)
        if dropped:
            self._write(kept)
        return list(dict.fromkeys(row.metric for row in dropped))

    def _write(self, rows: Iterable[Score]) -> None:
        text = "".join(json.dumps(asdict(row), allow_nan=False) + "\n" for row in rows)
        files.write_text(self.path, text)


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "stage": str,
    "step": int,
    "domain": str,
    "split": str,
    "metric": str,
    "value": (int, float),
    "n": int,
    "low": (int, float),
    "high": (int, float),
    "failed": int,
}


def _parse(line: bytes) -> Score:
    """One row; ValueError says what is wrong with it."""
    data = json.loads(line.decode("utf-8"))
    names = list(_KINDS)
    if isinstance(data, dict):
        # linn 0.1 counted what failed as reward 0, and had no column for it.
        data = {"failed": 0, **data}
    if not isinstance(data, dict) or sorted(data) != sorted(names):
        raise ValueError(f"its keys must be exactly {', '.join(names)}")

    for name, kind in _KINDS.items():
        value = data[name]
        # For Python, True is a whole number and NaN a number.
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if fits and isinstance(value, float):
            fits = math.isfinite(value)
        if not fits:
            raise ValueError(f"{name} is {value!r}")

    if data["split"] not in ("train", "validation", "test"):
        raise ValueError(f"split is {data['split']!r}; allowed: train, validation, test")
    return Score(**data)


def _key(row: Score) -> tuple[Any, ...]:
    return row.stage, row.step, row.domain, row.split, row.metric


def latest(rows: Iterable[Score], split: str, metric: str) -> dict[tuple[str, str], Score]:
    """The row of each (stage, domain) at the stage's highest measured step.

    That is the checkpoint that the stage hands on.
    """
    last: dict[tuple[str, str], Score] = {}
    for row in rows:
        if row.split != split or row.metric != metric:
            continue

        # Curves put rows of earlier steps into the ledger, too.
        key = (row.stage, row.domain)
        if key not in last or row.step >= last[key].step:
            last[key] = row
    return last
