"""The rewards behind a row of the ledger, one per prompt: what makes two rows comparable.

`stages/02-if-rl/rewards/step-0040.jsonl`: one line per (domain, split, metric) measured at that
step. A thousandth of the replies' size, so every measurement keeps them, a curve's too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from linn import files
from linn.types import Score

Rewards = Mapping[str, float]
"""Prompt id -> reward, the mean over its rollouts; prompts whose rollouts failed are not in it."""

RewardsOf = Callable[[Score], Rewards]
"""Finds the rewards behind a row; empty where there are none any more."""

Cell = tuple[str, str, str]
"""Domain, split and metric."""


def no_rewards(row: Score) -> Rewards:
    """For a ledger without its stages' folders."""
    return {}


def write_rewards(stage_folder: Path, step: int, cells: Mapping[Cell, Rewards]) -> None:
    """Keep the rewards of a measurement; those of other cells at the same step stay."""
    path = _path(stage_folder, step)
    merged = {**_read(path), **cells}
    files.write_jsonl(path, (_line(cell, rewards) for cell, rewards in merged.items()))


class RewardFiles:
    """The rewards on disk; every file is read once."""

    def __init__(self, stage_folders: Mapping[str, Path]) -> None:
        """`stage_folders`: the folder of every stage, by its name."""
        self.stage_folders = stage_folders
        self._kept: dict[Path, dict[Cell, dict[str, float]]] = {}

    def __call__(self, row: Score) -> Rewards:
        """The rewards behind a row; those of the kept replies where an older linn wrote no others.

        Empty where they are not those of the row: another step's, or of other prompts.
        """
        folder = self.stage_folders.get(row.stage)
        if folder is None:
            return {}
        cell = (row.domain, row.split, row.metric)
        rewards = self._cached(_path(folder, row.step), _read).get(cell)
        if rewards is None:
            # Runs of linn 0.1 have the replies of each stage's last step alone.
            replies = folder / "evals" / f"{row.split}-{row.metric}.jsonl"
            rewards = self._cached(replies, _of_replies).get(cell, {})
        return rewards if _belongs(rewards, row) else {}

    def _cached(
        self, path: Path, read: Callable[[Path], dict[Cell, dict[str, float]]]
    ) -> dict[Cell, dict[str, float]]:
        if path not in self._kept:
            self._kept[path] = read(path)
        return self._kept[path]


def _belongs(rewards: Rewards, row: Score) -> bool:
    """Whether a row was computed from these rewards."""
    if len(rewards) != row.n:
        return False
    return abs(sum(rewards.values()) / row.n - row.value) < 1e-6


def _path(stage_folder: Path, step: int) -> Path:
    return stage_folder / "rewards" / f"step-{step:04d}.jsonl"


def _line(cell: Cell, rewards: Rewards) -> dict[str, Any]:
    domain, split, metric = cell
    return {"domain": domain, "split": split, "metric": metric, "rewards": dict(rewards)}


def _read(path: Path) -> dict[Cell, dict[str, float]]:
    """A file of rewards; empty where it is not there, without its lines that cannot be read."""
    cells = {}
    for row in files.json_objects(path):
        rewards = row.get("rewards")
        if not isinstance(rewards, dict) or not all(map(_is_number, rewards.values())):
            continue
        cell = (str(row.get("domain")), str(row.get("split")), str(row.get("metric")))
        cells[cell] = {prompt: float(reward) for prompt, reward in rewards.items()}
    return cells


def _of_replies(path: Path) -> dict[Cell, dict[str, float]]:
    """The rewards in a file of kept replies, `SPLIT-METRIC.jsonl`; pass@k is not told by them."""
    split, _, metric = path.stem.partition("-")
    if metric.startswith("pass@"):
        return {}
    cells: dict[Cell, dict[str, float]] = {}
    for row in files.json_objects(path):
        if _is_number(row.get("reward")):
            cell = (str(row.get("domain")), split, metric)
            cells.setdefault(cell, {})[str(row.get("prompt_id"))] = float(row["reward"])
    return cells


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300
