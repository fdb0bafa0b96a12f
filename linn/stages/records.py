"""The files that a stage writes beside its weights: metrics, rollouts, tallies of rows.

A stage's folder holds metrics.jsonl (a line per step), rollouts/step-NNNN.jsonl, rows.json, and
failed-step-NNNN.jsonl where a batch stopped the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from linn import files
from linn.data.tally import Tally
from linn.play.rollout import transcript
from linn.types import Group, Sample, Turn


class Records:
    """The records in one stage's folder. Steps are counted from 1 here, as a person does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def forget_after(self, step: int) -> None:
        """Drop records of steps that a killed run made after its last saved state.

        They will be made again.
        """
        path = self.folder / "metrics.jsonl"
        if path.exists():
            lines = path.read_text().splitlines()
            lines_to_keep = [line + "\n" for line in lines if _step_of(line) <= step]
            files.write_text(path, "".join(lines_to_keep))

        for file in (self.folder / "rollouts").glob("step-*.jsonl"):
            if int(file.stem.removeprefix("step-")) > step:
                file.unlink()

    def add_step(
        self, metrics: Mapping[str, Any], groups: Sequence[Group], keep: int | None = None
    ) -> None:
        """The step's rollouts, if there are any, then its line of metrics.

        `keep`: how many steps' rollouts there may be; None: any number.
        """
        step: int = metrics["step"]
        if groups and keep != 0:
            path = self.folder / "rollouts" / f"step-{step:04d}.jsonl"
            files.write_jsonl(path, _rollout_rows(groups))
        if keep is not None:
            for path in (self.folder / "rollouts").glob("step-*.jsonl"):
                if int(path.stem.removeprefix("step-")) <= step - keep:
                    path.unlink()

        # A line of metrics is the sign that the step is on record, so it comes last.
        line = json.dumps({key: _short(value) for key, value in metrics.items()})
        files.append_text(self.folder / "metrics.jsonl", line + "\n")

    def steps(self) -> int:
        """Steps on record."""
        return len(self._lines())

    def idle_steps(self) -> int:
        """Steps on record that updated nothing."""
        return sum(1 for line in self._lines() if json.loads(line).get("idle"))

    def _lines(self) -> list[str]:
        path = self.folder / "metrics.jsonl"
        return path.read_text().splitlines() if path.exists() else []

    def write_failed_batch(self, step: int, samples: Sequence[Sample]) -> Path:
        """Keep the samples of a batch that stopped the run."""
        path = self.folder / f"failed-step-{step:04d}.jsonl"
        rows = (
            vars(sample) | {"tokens": list(sample.tokens), "mask": list(sample.mask)}
            for sample in samples
        )
        files.write_jsonl(path, rows)
        return path

    def write_tallies(self, tallies: Mapping[str, Tally]) -> Path:
        """rows.json: what became of the rows read so far."""
        path = self.folder / "rows.json"
        files.write_json(path, {name: tally.record() for name, tally in tallies.items()})
        return path


def sampled_length(turns: Sequence[Turn]) -> int:
    """Tokens that the policy sampled in a conversation."""
    return sum(len(turn.ids) for turn in turns if turn.logprobs is not None)


def _rollout_rows(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    for group in groups:
        for rollout, reward in zip(group.rollouts, group.rewards, strict=True):
            yield {
                "prompt_id": rollout.prompt.id,
                "domain": rollout.prompt.domain,
                "sibling": rollout.sibling,
                "status": rollout.status,
                "error": rollout.error,
                "reward": reward,
                "note": rollout.verdict.note,
                "length": sampled_length(rollout.turns),
                "text": transcript(rollout),
            }


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut short by a kill: its step will be made again


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
