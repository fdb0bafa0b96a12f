"""Where the stages of a run folder stand: steps made, hours spent, and what was built on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from linn.recipe.schema import Recipe

SIGNS = ("metrics.jsonl", "checkpoints", "DONE")
"""What stands in the folder of a stage that has begun."""


@dataclass(frozen=True)
class Standing:
    """One stage as its folder shows it."""

    name: str
    """The stage."""
    steps: int
    """Steps whose result is on disk; a killed run makes later ones again."""
    recorded: int
    """Steps on record in metrics.jsonl; those beyond `steps` would be made again."""
    seconds: float
    """Wall time of the recorded steps."""
    finished: bool
    """Whether its last checkpoint is there, or was."""
    resumable: bool
    """Whether it could be given more steps: its state is there, or its place in the data."""
    exact: bool
    """Whether the state is whole: weights, moments of AdamW, place in the data."""

    @property
    def cost(self) -> str:
        """The loss, were it removed: `rl (12 steps, 0.4 h)`."""
        steps = max(self.steps, self.recorded)
        return f"{self.name} ({steps} step{'s' * (steps != 1)}, {self.seconds / 3600:.1f} h)"


def standings(folder: Path, recipe: Recipe) -> dict[int, Standing]:
    """Every stage that has begun, by its number; 0 is the start. `recipe`: the folder's own."""
    planned = {stage.name: stage.steps for stage in recipe.stages}
    found = {}
    for path in sorted((folder / "stages").glob("[0-9]*-*")):
        number, _, name = path.name.partition("-")
        if path.name == "00-base" or any((path / sign).exists() for sign in SIGNS):
            found[int(number)] = _standing(path, name, planned.get(name))
    return found


def loss(stages: Iterable[Standing]) -> str:
    """What would be lost with these stages, in words: each, and all together."""
    lost = list(stages)
    text = ", ".join(stage.cost for stage in lost) or "nothing"
    if len(lost) > 1:
        steps = sum(max(stage.steps, stage.recorded) for stage in lost)
        hours = sum(stage.seconds for stage in lost) / 3600
        text += f": {steps} steps, {hours:.1f} h in all"
    return text


def built_on(
    name: str,
    parents: Mapping[str, str | None],
    teachers: Mapping[str, Mapping[str, str]],
    begun: Iterable[str],
) -> list[str]:
    """The stages that have begun and took a stage's last checkpoint: as start, or as teacher.

    `parents`, `teachers`: of every stage, the teachers by domain. A kept checkpoint (`STAGE:STEP`)
    stays what it is, whatever becomes of its stage.
    """
    users = []
    for stage in begun:
        if parents.get(stage) == name or name in teachers.get(stage, {}).values():
            users.append(stage)
    return users


def _standing(path: Path, name: str, planned: int | None) -> Standing:
    """`planned`: the steps that its recipe gives it; None for the start."""
    rows = _metrics(path / "metrics.jsonl")
    recorded = max((int(row["step"]) for row in rows), default=0)
    finished = (path / "DONE").exists()
    if planned is not None:
        finished = finished or _has_checkpoint(path, planned)

    # Where it can go on from: its whole state, or weights and its place in the data.
    state = _step_in(path / "state" / "stage.json")
    place = _step_in(path / "position.json")
    if place is not None and not _has_checkpoint(path, place):
        place = None
    on_disk = state if state is not None else place
    steps = (planned or 0) if finished else on_disk or 0
    return Standing(
        name=name,
        steps=steps,
        recorded=recorded,
        seconds=sum(float(row.get("wall_s", 0.0)) for row in rows),
        finished=finished,
        resumable=on_disk == steps,
        exact=state == steps,
    )


def _has_checkpoint(stage: Path, step: int) -> bool:
    return (stage / "checkpoints" / f"step-{step:04d}").exists()


def _metrics(path: Path) -> list[dict[str, float]]:
    """The steps on record; a line that a kill cut short is none."""
    rows = []
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            row = json.loads(line)
            int(row["step"]), float(row.get("wall_s", 0.0))
        except (ValueError, LookupError, TypeError, AttributeError):
            continue
        rows.append(row)
    return rows


def _step_in(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_text())["step"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
