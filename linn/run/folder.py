"""One run folder: its places, what is done in it, run.json, and whether it agrees with a recipe.

runs/NAME/
  recipe.yaml     the resolved recipe
  run.json        versions, machine, seed; stages with their parents and teachers
  ledger.jsonl    one row per checkpoint, domain, split and metric
  stages/02-if-rl/
    metrics.jsonl rollouts/ evals/ checkpoints/ log-N.txt
    state/        while the stage runs
    DONE          once it is evaluated
"""

from __future__ import annotations

import difflib
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from linn import files
from linn.checkpoints import start_folder
from linn.errors import UserError
from linn.ledger import Ledger
from linn.recipe import load as recipes
from linn.recipe.schema import Recipe
from linn.recipe.stages import AnyStage, SftConfig
from linn.run.agreement import difference
from linn.run.machine import machine, versions

DIFFERENCE_LINES = 40
"""Lines of a difference between two recipes that an error shows at most."""


class RunFolder:
    """The folder of one run, seen with the recipe that the run follows."""

    def __init__(self, recipe: Recipe, path: Path) -> None:
        self.recipe = recipe
        self.path = path
        self.ledger = Ledger(path / "ledger.jsonl")
        self.names = recipe.stage_names()
        """`base` and every stage, in order."""
        self.parents: dict[str, str | None] = {"base": None}
        """Where each of them started."""
        for stage in recipe.stages:
            self.parents[stage.name] = recipe.parent(stage.name)
        self._teachers: dict[str, dict[str, str]] = {}

    # ------------------------------------------------------------ places

    def stage_folder(self, name: str) -> Path:
        """`stages/02-if-rl` of a stage."""
        return self.path / "stages" / f"{self.names.index(name):02d}-{name}"

    def checkpoint(self, name: str) -> Path:
        """The weights that a stage ended with; `base`: what the run starts from."""
        if name == "base":
            return start_folder(self.recipe, self.path)
        steps = self.recipe.stage(name).steps
        return self.stage_folder(name) / "checkpoints" / f"step-{steps:04d}"

    def earlier(self, name: str) -> list[str]:
        """`base` and the stages that come before a stage in the recipe."""
        return self.names[: self.names.index(name)]

    # ------------------------------------------------------------ what is done

    def is_done(self, name: str) -> bool:
        """Whether a stage is finished, its scores in the ledger."""
        return (self.stage_folder(name) / "DONE").exists()

    def mark_done(self, name: str) -> None:
        """Mark a stage as finished; what it needed to resume goes."""
        folder = self.stage_folder(name)
        shutil.rmtree(folder / "state", ignore_errors=True)
        files.write_text(folder / "DONE", "")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process works in a run folder."""
        with open(self.path / ".lock", "w") as file:
            # The lock goes with the process, however that ends: nobody has to clean up.
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    f"run folder {self.path}: another linn works in it; "
                    "wait for it or give --out another folder"
                ) from None
            yield

    # ------------------------------------------------------------ run.json

    def set_teachers(self, stage: str, teachers: Mapping[str, str]) -> None:
        """Put on record which stage teaches each domain in a distillation stage."""
        self._teachers[stage] = dict(teachers)
        self.write_run_json()

    def teachers_of(self, stage: str) -> dict[str, str]:
        """Which stage teaches each domain in a distillation stage that is done."""
        path = self.path / "run.json"
        entry = next(entry for entry in _stages_of(path) if entry["name"] == stage)
        return dict(entry["teachers"])

    def write_run_json(self) -> None:
        """Write run.json anew; the teachers of stages that are there stay on record."""
        path = self.path / "run.json"
        if path.exists():
            self._keep_teachers(path)
        stages: list[dict[str, Any]] = [
            {"index": 0, "name": "base", "kind": "base", "parent": None, "folder": "stages/00-base"}
        ]
        stages += [self._entry(stage) for stage in self.recipe.stages]
        content = {
            "name": self.recipe.name,
            "seed": self.recipe.seed,
            "versions": versions(),
            "machine": machine(),
            "stages": stages,
        }
        files.write_json(path, content)

    def _keep_teachers(self, path: Path) -> None:
        for entry in _stages_of(path):
            name, teachers = entry["name"], entry.get("teachers")
            if not teachers or name not in self.names or name in self._teachers:
                continue
            if self.stage_folder(name).exists():
                self._teachers[name] = teachers

    def _entry(self, stage: AnyStage) -> dict[str, Any]:
        """A stage in run.json."""
        weights = self.recipe.weights_of(stage)
        folder = self.stage_folder(stage.name).relative_to(self.path)
        entry: dict[str, Any] = {
            "index": self.names.index(stage.name),
            "name": stage.name,
            "kind": stage.kind,
            "parent": self.parents[stage.name],
            "steps": stage.steps,
            "domains": weights,
            "folder": str(folder),
        }

        # What only some kinds of stage have.
        if stage.name in self._teachers:
            entry["teachers"] = self._teachers[stage.name]
        if isinstance(stage, SftConfig):
            entry["faulty"] = {domain: stage.faulty_share(domain) for domain in weights}
        return entry

    # ------------------------------------------------------------ agreement with the recipe

    def check_ledger(self) -> None:
        """Refuse a corrupted ledger, or one without the rows of a stage that is done."""
        # DONE means evaluated: without its rows, teachers would be chosen among fewer stages.
        on_record = {row.stage for row in self.ledger.read()}
        for stage in self.recipe.stages:
            evaluated = stage.evaluate and self.recipe.measured_at(stage.name)
            if evaluated and stage.name not in on_record and self.is_done(stage.name):
                raise UserError(
                    f"{self.ledger.path}: no rows of stage {stage.name!r}, which is done; "
                    "put the ledger back, or delete "
                    f"{self.stage_folder(stage.name) / 'DONE'} to have it measured again"
                )

    def check_recipe(self, redo: str | None = None) -> None:
        """Refuse a folder whose stages were made by another recipe.

        `redo` and later stages are excepted: they are about to be removed.
        """
        path = self.path / "recipe.yaml"
        if not path.exists():
            return
        old = path.read_text(errors="replace")
        new = recipes.resolved(self.recipe)
        if old == new:
            return

        # Another text need not matter: a stage may be added, or one that never began may change.
        changed = difference(recipes.load(path), self.recipe, self._begun_folders(), redo)
        if changed is None:
            return

        lines = difflib.unified_diff(
            old.splitlines(), new.splitlines(), "in the folder", "asked for", lineterm="", n=1
        )
        excerpt = "\n".join(list(lines)[:DIFFERENCE_LINES])
        raise UserError(
            f"run folder {self.path}: {changed.what} was made under another recipe:\n{excerpt}\n"
            f"to continue: give --out another folder; --redo {changed.redo} to make it and all "
            "later ones again; or take the old values back"
        )

    def write_recipe(self) -> None:
        """Write the resolved recipe."""
        files.write_text(self.path / "recipe.yaml", recipes.resolved(self.recipe))

    def remove_from(self, stage: str) -> list[str]:
        """Remove a stage and every later one, under whatever recipe they were made.

        Returns their names. Their ledger rows go as orphans.
        """
        first = self.names.index(stage)
        folders = [
            path
            for path in sorted((self.path / "stages").glob("[0-9]*-*"))
            if int(path.name.split("-")[0]) >= first
        ]
        # The last one first: a removal that is killed leaves no stage without its parent.
        for path in reversed(folders):
            files.remove_folder(path)
        return [path.name.split("-", 1)[1] for path in folders]

    def drop_orphans(self) -> None:
        """Forget ledger rows of stages that have no folder.

        A redo removed them, perhaps one that was killed before it came here.
        """
        # A stage that is only half made has its folder, so its rows stay.
        present = {name for name in self.names if self.stage_folder(name).exists()}
        orphans = {row.stage for row in self.ledger.read()} - present
        if orphans:
            self.ledger.drop(orphans)

    def _begun_folders(self) -> set[str]:
        """Names of the stage folders in which something was made, and `00-base` if it is there."""
        names = set()
        for folder in (self.path / "stages").glob("[0-9]*-*"):
            signs = ("metrics.jsonl", "checkpoints", "DONE")
            if folder.name == "00-base" or any((folder / sign).exists() for sign in signs):
                names.add(folder.name)
        return names


def _stages_of(path: Path) -> list[dict[str, Any]]:
    """The stages that a run.json lists."""
    try:
        stages = json.loads(path.read_text())["stages"]
        assert isinstance(stages, list) and all(isinstance(stage["name"], str) for stage in stages)
    except (ValueError, RecursionError, LookupError, TypeError, AssertionError):
        raise UserError(
            f"{path}: not what linn wrote there; put it back, or delete it to have it written anew"
        ) from None
    return stages
