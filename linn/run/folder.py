"""One run folder: its places, what is done in it, run.json, and whether it agrees with a recipe.

runs/NAME/
  recipe.yaml     the resolved recipe
  run.json        versions, machine, seed; stages with their parents and teachers; what changed
  ledger.jsonl    one row per checkpoint, domain, split and metric
  stages/02-if-rl/
    metrics.jsonl rollouts/ evals/ rewards/ checkpoints/ log-N.txt
    state/        until a stage that was built on it is done
    position.json from then on: its place in the data
    DONE          once it is evaluated
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from linn import files
from linn.chat.folder import template_name
from linn.chat.template import TemplateName
from linn.checkpoints import devices_of, start_folder
from linn.engine.local.device import computed_on
from linn.errors import UserError
from linn.ledger import Ledger, RewardFiles
from linn.recipe import load as recipes
from linn.recipe.schema import NewModelConfig, Recipe
from linn.recipe.stages import AnyStage, SftConfig
from linn.run.changes import Change, Plan, Request, entry_of, merged, read_changes, reconcile
from linn.run.data_files import Marks, changed, check_unchanged, marks_of
from linn.run.machine import machine, versions
from linn.run.standing import Standing, loss, standings


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
        self._changes: list[Change] = []
        self._marks: Marks = {}

    # ------------------------------------------------------------ places

    def stage_folder(self, name: str) -> Path:
        """`stages/02-if-rl` of a stage."""
        return self.path / "stages" / f"{self.names.index(name):02d}-{name}"

    def checkpoint(self, place: str) -> Path:
        """The weights that a stage ended with, or with `STAGE:STEP` those it kept on its way.

        `base`: what the run starts from.
        """
        name, _, step = place.partition(":")
        if name == "base":
            return start_folder(self.recipe, self.path)
        number = int(step) if step else self.last_step(name)
        return self.stage_folder(name) / "checkpoints" / f"step-{number:04d}"

    def last_step(self, name: str) -> int:
        """The step that a stage ends with; 0 of `base`."""
        return 0 if name == "base" else self.recipe.stage(name).steps

    def has_checkpoint(self, name: str, step: int) -> bool:
        """Whether the weights of a stage at a step are there; the last ones once it is done."""
        if step == self.last_step(name):
            return name == "base" or self.is_there(name)
        return name != "base" and self.is_there(f"{name}:{step}")

    def line(self, name: str) -> list[str]:
        """A stage, where it started, and so on to `base`."""
        line = []
        ancestor: str | None = name
        while ancestor is not None:
            line.append(ancestor)
            ancestor = self.parents[ancestor]
        return line

    def rewards(self) -> RewardFiles:
        """Every prompt's reward behind the ledger's rows."""
        return RewardFiles({name: self.stage_folder(name) for name in self.names})

    def earlier(self, name: str) -> list[str]:
        """`base` and the stages that come before a stage in the recipe."""
        return self.names[: self.names.index(name)]

    @property
    def template(self) -> TemplateName:
        """How the run writes conversations: as the recipe says, else as its model needs it."""
        if self.recipe.template is not None or isinstance(self.recipe.model, NewModelConfig):
            return self.recipe.template or "nemotron"
        return template_name(self.checkpoint("base"))

    # ------------------------------------------------------------ what is done

    def is_done(self, name: str) -> bool:
        """Whether a stage is finished, its scores in the ledger."""
        return (self.stage_folder(name) / "DONE").exists()

    def is_there(self, name: str) -> bool:
        """Whether `STAGE` is finished, or `STAGE:STEP` is kept."""
        if ":" in name:
            return (self.checkpoint(name) / "config.json").exists()
        return self.is_done(name)

    def mark_done(self, name: str) -> None:
        """Mark a stage as finished.

        Its state stays, so that it can be given more steps, until a stage that was built on it is
        done: then only its place in the data stays, and its weights as its checkpoint.
        """
        teachers = self._teachers.get(name, {}).values()
        used = {self.parents[name], *(place.partition(":")[0] for place in teachers)}
        for stage in self.names:
            if stage in used:
                _shed_state(self.stage_folder(stage))
        files.write_text(self.stage_folder(name) / "DONE", "")

    def reopen(self, name: str) -> None:
        """Take the mark of a finished stage away: what it lacks will be made."""
        (self.stage_folder(name) / "DONE").unlink(missing_ok=True)

    def without_checkpoint(self) -> dict[str, bool]:
        """Finished stages without their last checkpoint, and whether their state can give it."""
        begun = {standing.name: standing for standing in self._standings().values()}
        found = {}
        for stage in self.recipe.stages:
            if self.is_done(stage.name) and not self.checkpoint(stage.name).exists():
                parent = self.checkpoint(self.recipe.parent(stage.name))
                found[stage.name] = begun[stage.name].exact and parent.exists()
        return found

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

    def sweep(self) -> None:
        """Remove what a killed run was writing, replacing or deleting; under the lock alone."""
        for stage in (self.path / "stages").glob("[0-9]*-*"):
            files.recover(stage / "state")
        files.sweep(self.path)

    # ------------------------------------------------------------ run.json

    def set_teachers(self, stage: str, teachers: Mapping[str, str]) -> None:
        """Put on record which checkpoint teaches each domain in a distillation stage."""
        self._teachers[stage] = dict(teachers)
        self.write_run_json()

    def teachers_of(self, stage: str) -> dict[str, str]:
        """Which checkpoint teaches each domain in a distillation stage that is done."""
        return self._recorded_teachers()[stage]

    def chosen_teachers(self, stage: str) -> dict[str, str]:
        """Which checkpoint teaches each domain, once a distillation has made steps; else empty.

        Later measurements must not exchange a teacher in the middle of its stage.
        """
        anew = any(change.key == f"{stage}.teachers" for change in self._changes)
        if anew or not (self.stage_folder(stage) / "state").exists():
            return {}
        return self._recorded_teachers().get(stage, {})

    def write_run_json(self) -> None:
        """Write run.json anew; teachers of stages that are there, and changes, stay on record."""
        path = self.path / "run.json"
        self._keep_teachers()
        stages: list[dict[str, Any]] = [
            {"index": 0, "name": "base", "kind": "base", "parent": None, "folder": "stages/00-base"}
        ]
        stages += [self._entry(stage) for stage in self.recipe.stages]
        content = {
            "name": self.recipe.name,
            "seed": self.recipe.seed,
            "template": self.template,
            "versions": versions(),
            "machine": machine(),
            "devices": self._devices(path),
            "stages": stages,
            "data": self._marks,
            "changes": [entry_of(change) for change in self._changes],
        }
        files.write_json(path, content)

    def _devices(self, path: Path) -> list[str]:
        """What the run was computed on, one after the other: another device rounds otherwise."""
        before = devices_of(path.parent)
        here = computed_on(self.recipe.scale)
        return before if before and before[-1] == here else [*before, here]

    def _keep_teachers(self) -> None:
        for name, teachers in self._recorded_teachers().items():
            if name not in self.names or name in self._teachers:
                continue
            if self.stage_folder(name).exists():
                self._teachers[name] = teachers

    def _recorded_teachers(self) -> dict[str, dict[str, str]]:
        """By stage: the teachers that run.json has on record."""
        stages = _about(self.path / "run.json")["stages"]
        return {entry["name"]: dict(entry["teachers"]) for entry in stages if "teachers" in entry}

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

    def check_ledger(self, remeasured: Collection[str] = ()) -> None:
        """Refuse a corrupted ledger, or one without the rows of a stage that is done.

        `remeasured`: stages that will be measured in any case.
        """
        # DONE means evaluated: without its rows, teachers would be chosen among fewer stages.
        on_record = {row.stage for row in self.ledger.read()}
        for stage in self.recipe.stages:
            evaluated = stage.evaluate and self.recipe.measured_at(stage.name)
            if stage.name in remeasured:
                continue
            if evaluated and stage.name not in on_record and self.is_done(stage.name):
                raise UserError(
                    f"{self.ledger.path}: no rows of stage {stage.name!r}, which is done; "
                    "put the ledger back, or delete "
                    f"{self.stage_folder(stage.name) / 'DONE'} to have it measured again"
                )

    def check_recipe(self, redo: str | None = None, from_here: bool = False) -> Plan:
        """How the run goes on with this recipe; UserError where what is there forbids it.

        `redo` and later stages are excepted: they are about to be removed. `from_here`: values that
        decided steps already made may change for those to come.
        """
        self._changes = read_changes(_about(self.path / "run.json")["changes"])
        path = self.path / "recipe.yaml"
        if not path.exists():
            return Plan()
        if path.read_text(errors="replace") == recipes.resolved(self.recipe):
            return Plan()

        # Another text need not matter: a stage may be added, or one that never began may change.
        old = recipes.load_resolved(path)
        request = Request(
            where=str(self.path),
            old=old,
            new=self.recipe,
            begun=standings(self.path, old),
            teachers=self._recorded_teachers(),
            redo=None if redo is None else self.names.index(redo),
            from_here=from_here,
        )
        return reconcile(request)

    def check_data(self, plan: Plan, redo: str | None = None, from_here: bool = False) -> None:
        """Refuse to go on with other rows under the same names, unless that is asked for.

        What changes then is added to the plan.
        """
        old: Marks = _about(self.path / "run.json")["data"]
        # A file that is away for now is not forgotten.
        self._marks = {**old, **marks_of(self.recipe)}
        begun = self._standings()
        if redo is not None:
            begun = {number: begun[number] for number in begun if number < self.names.index(redo)}
        if not any(standing.steps or standing.finished for standing in begun.values()):
            return
        done = {one.name for one in begun.values() if one.finished} - {*plan.reopened}
        ahead = [stage for stage in self.recipe.stages if stage.name not in done]
        keys = changed(old, self._marks, done)
        if not keys or not (ahead or plan.remeasured):
            self._marks |= {key: old[key] for key in keys}
            return

        stage = (ahead or self.recipe.stages)[0].name
        standing = begun.get(self.names.index(stage))
        step = 0 if standing is None else standing.steps
        if not from_here:
            where = str(self.path)
            check_unchanged(where, keys, old, self._marks, f"{stage} step {step + 1}")
        for key in keys:
            promise = f"changed from step {step + 1}"
            plan.changes.append(Change(stage, step, key, old[key], self._marks[key], promise))
        # Scores of other rows would stand beside those to come.
        if any(key.startswith(("domains.", "evaluate.")) for key in keys):
            for name in self.names:
                if name in done and name not in plan.remeasured and self.recipe.is_measured(name):
                    plan.remeasured.append(name)

    def take_up(self, plan: Plan) -> list[str]:
        """Put the changes on record, and reopen what they concern.

        Returns the stages that cannot be measured anew, since their checkpoint is gone. A kill in
        the middle is no harm: the same changes are found again until the recipe is written.
        """
        self._changes = merged(self._changes, plan.changes)
        self.write_run_json()
        gone = []
        for stage in plan.reopened:
            self.reopen(stage)
        for stage in plan.remeasured:
            if self.checkpoint(stage).exists():
                self.reopen(stage)
            else:
                gone.append(stage)
        self.write_recipe()
        return gone

    def check_template(self, redo: str | None = None) -> None:
        """Refuse to go on under another chat template than what is there was made with."""
        path = self.path / "run.json"
        if not path.exists() or redo == "base" or not self._standings():
            return
        # Runs of earlier versions knew one template and do not name it.
        made = _about(path)["template"] or "nemotron"
        if made != self.template:
            raise UserError(
                f"run folder {self.path}: it was made under template: {made}, and this would go on "
                f"under {self.template}; set template: {made}, or give --out another folder"
            )

    def write_recipe(self) -> None:
        """Write the resolved recipe."""
        files.write_text(self.path / "recipe.yaml", recipes.resolved(self.recipe))

    def losses(self, first: str) -> str:
        """What removing a stage and every later one would lose, in words."""
        begun = self._standings()
        return loss(begun[number] for number in begun if number >= self.names.index(first))

    def remove_from(self, stage: str) -> None:
        """Remove a stage and every later one, under whatever recipe they were made.

        Their ledger rows go as orphans, and so do the changes within them.
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
        self._changes = _kept_changes(self._changes, self.names[:first], stage)

    def drop_orphans(self) -> None:
        """Forget ledger rows of stages that have no folder.

        A redo removed them, perhaps one that was killed before it came here.
        """
        # A stage that is only half made has its folder, so its rows stay.
        present = {name for name in self.names if self.stage_folder(name).exists()}
        orphans = {row.stage for row in self.ledger.read()} - present
        if orphans:
            self.ledger.drop(orphans)

    def _standings(self) -> dict[int, Standing]:
        """Where every stage that has begun stands, under the recipe that the folder has."""
        path = self.path / "recipe.yaml"
        return standings(self.path, recipes.load_resolved(path) if path.exists() else self.recipe)


def _shed_state(stage: Path) -> None:
    """Remove what a finished stage needed to go on, but not its place in the data."""
    place = stage / "state" / "stage.json"
    if place.exists():
        files.write_text(stage / "position.json", place.read_text())
    shutil.rmtree(stage / "state", ignore_errors=True)


def _kept_changes(changes: Sequence[Change], stages: Sequence[str], redo: str) -> list[Change]:
    """The changes that still concern something, once `redo` and later stages are gone.

    `stages`: what is kept, `base` first. A change of the whole run that came within a removed stage
    now begins with `redo`: what is kept was made before it.
    """
    kept = []
    for change in changes:
        if change.stage in stages:
            kept.append(change)
        elif len(stages) > 1 and not change.key.startswith(f"{change.stage}."):
            kept.append(replace(change, stage=redo, step=0))
    return kept


def _about(path: Path) -> dict[str, Any]:
    """What a run.json says of stages, changes and template; nothing where there is none."""
    if not path.exists():
        return {"stages": [], "changes": [], "template": None, "data": {}}
    try:
        content = json.loads(path.read_text())
        stages = content["stages"]
        assert isinstance(stages, list) and all(isinstance(stage["name"], str) for stage in stages)
        changes = content.get("changes", [])
        read_changes(changes)
        # Runs of earlier versions say nothing of their rows.
        data = dict(content.get("data", {}))
        template = content.get("template")
        return {"stages": stages, "changes": changes, "template": template, "data": data}
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AssertionError):
        raise UserError(
            f"{path}: not what linn wrote there; put it back, or delete it to have it written anew "
            "(without the record of teachers and of changes)"
        ) from None
