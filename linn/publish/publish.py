"""A run as others can use it: every checkpoint a folder with its card, and the data beside them.

In a folder: `model/main`, `model/STAGE` and `data`. On the Hub: the branches of one repository, and
a data set. Each part is made, uploaded and, where nobody asked for a folder, taken away again, so
that one checkpoint's room is enough.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from linn import files
from linn.checkpoints import resolve, start_folder
from linn.errors import UserError, nearest
from linn.progress import reading
from linn.publish.card import Place, Subject, data_card, model_card
from linn.publish.data import Passed, TrainingData
from linn.publish.hub import Hub, Target
from linn.publish.licences import Licence, of_model
from linn.recipe import load as recipes
from linn.recipe.schema import Recipe
from linn.report.files import RunFiles, read_run, text
from linn.run.export import (
    SHARD_SIZE,
    check_options,
    check_target,
    export_checkpoint,
    planned_export,
)

_BRANCH = re.compile(r"main|HEAD|refs")
"""Names of stages that no branch may have beside `main`."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be published, and where."""

    run: Path
    """The run folder."""
    place: str = ""
    """`STAGE` or `STAGE:STEP`; empty: the last stage, the others as branches."""
    folder: Path | None = None
    """A new folder that keeps everything."""
    target: Target | None = None
    """Where it is uploaded to."""
    private: bool | None = None
    """Whether new repositories are private; None: as the Hub has it."""
    licence: str = ""
    """The licence of the weights, where the base's card does not say it."""
    data_licences: Mapping[str, str] = field(default_factory=dict)
    """Licences of data, by domain or name of a file."""
    with_data: bool = True
    """Whether the training data is passed on."""
    base: str = ""
    """The base's name on the Hub."""
    dtype: str | None = None
    """Of the weights; None: the base's."""
    shard_size: str = SHARD_SIZE
    """Weights above it are cut."""


@dataclass(frozen=True)
class Part:
    """One folder that was, or would be, published."""

    address: str
    """Where it is."""
    what: str
    """What it is, in words."""
    sizes: dict[str, int]
    """Bytes of its files by name."""


@dataclass(frozen=True)
class Published:
    """What came of it."""

    parts: tuple[Part, ...]
    """Every folder, in the order of their making."""
    passed: tuple[Passed, ...]
    """What became of the training data."""
    left_out: tuple[str, ...]
    """Stages that are finished and have no checkpoint any more, or are not finished."""
    licence: Licence | None
    """That of the weights."""


class Publication:
    """One order, checked before anything is written or sent."""

    def __init__(self, order: Order) -> None:
        """Raises UserError for what can be found wrong by looking at the run."""
        self.order = order
        self.run: RunFiles = read_run(order.run)
        # Read once: every card compares the same checkpoints.
        self._rewards = self.run.rewards
        if not (order.run / "recipe.yaml").is_file():
            raise UserError(f"{order.run}: no recipe.yaml there; give the folder of a run")
        self.recipe: Recipe = recipes.load_resolved(order.run / "recipe.yaml")
        self.left_out: list[str] = []
        self.places = self._places()
        self.licence = self._licence()
        if order.folder is not None:
            check_target(order.folder)
        if order.target is not None and self.licence is None:
            raise UserError(
                "the licence of the weights is not known: the base has no card that names one; "
                "--licence NAME states it, such as apache-2.0"
            )
        # What is wrong with an export or a name of data is told before anything is made.
        check_options(order.dtype, order.shard_size)
        for place in self.places:
            resolve(self._checkpoint(place))
        if order.with_data:
            self._training_data().sources()
        elif order.data_licences:
            raise UserError("--data-licence: nothing has it with --no-data; leave one of them out")

    def plan(self) -> Published:
        """What would be written and sent: nothing is, and no weight is read."""
        with tempfile.TemporaryDirectory(prefix="linn-publish-") as name:
            return self._make(Path(name), dry=True, hub=None)

    def go(self) -> Published:
        """Write the folder, or upload it, or both."""
        order = self.order
        hub = None
        if order.target is not None:
            hub = Hub(order.target, order.private)
            # A missing token is told now, and not behind an hour of exports.
            hub.open(order.with_data)
        with self._room() as room:
            return self._make(room, dry=False, hub=hub)

    # ------------------------------------------------------------ what there is

    def _places(self) -> list[Place]:
        """The checkpoints, that of `main` last."""
        # Finished means measured: a card without scores helps nobody.
        asked = self.order.place
        done = [stage.name for stage in self.run.stages if stage.done and stage.name != "base"]
        if asked:
            return [self._asked(asked)]
        found = []
        for config in self.recipe.stages:
            if config.name not in done:
                self.left_out.append(f"{config.name}: not finished")
            elif not self._folder(config.name, config.steps).is_dir():
                self.left_out.append(f"{config.name}: finished, and its checkpoint was deleted")
            else:
                branch = f"stage-{config.name}" if _BRANCH.match(config.name) else config.name
                found.append(Place(config.name, config.steps, True, branch))
        if not found:
            raise UserError(
                f"{self.order.run}: no stage has a checkpoint yet; wait for the first to end"
            )
        found += self._teaching(done)
        last = max(
            (place for place in found if place.is_last),
            key=lambda place: self.run_order.index(place.stage),
        )
        return [place for place in found if place != last] + [replace(last, branch="main")]

    @property
    def run_order(self) -> list[str]:
        """The stages in the order of the run."""
        return [stage.name for stage in self.run.stages]

    def _teaching(self, done: list[str]) -> list[Place]:
        """Checkpoints within stages that taught: no other is needed to repeat a distillation."""
        found: dict[str, Place] = {}
        for stage in self.run.stages:
            for teacher in stage.teachers.values():
                name, _, step = teacher.partition(":")
                if not step.isdecimal() or name not in done:
                    continue
                if self._folder(name, int(step)).is_dir():
                    found[teacher] = Place(name, int(step), False, f"{name}-step-{int(step)}")
        return list(found.values())

    def _asked(self, place: str) -> Place:
        name, _, step = place.partition(":")
        stages = [config.name for config in self.recipe.stages]
        if name not in stages:
            raise UserError(f"{self.order.run}: no stage {name!r}{nearest(name, stages)}")
        steps = self.recipe.stage(name).steps
        if step and not step.isdecimal():
            raise UserError(f"{self.order.run}@{place}: {step!r} is no step; give a number")
        number = int(step) if step else steps
        return Place(name, number, number == steps)

    def _checkpoint(self, place: Place) -> str:
        """A checkpoint's name on the command line."""
        return f"{self.order.run}@{place.stage}:{place.step}"

    def _folder(self, stage: str, step: int) -> Path:
        folder = next(one.folder for one in self.run.stages if one.name == stage)
        return folder / "checkpoints" / f"step-{step:04d}"

    def _licence(self) -> Licence | None:
        if self.order.licence:
            return Licence(self.order.licence, "stated by the publisher", is_said=True)
        try:
            folder = start_folder(self.recipe, self.order.run)
        except UserError:  # the base has gone since, and its card with it
            return None
        return of_model(self.recipe.model, folder)

    def _training_data(self) -> TrainingData:
        """The data of the stages that made what is published."""
        # Of one checkpoint, what it was made by; of a run, everything that it trained on.
        stages = self.recipe.stages
        if self.order.place:
            subject = self._subject(self.places[-1])
            stages = [config for config in stages if config.name in subject.line]
        begun = {stage.name for stage in self.run.stages if stage.metrics()}
        chosen = tuple(config for config in stages if config.name in begun)
        return TrainingData(self.run, self.recipe, chosen, self.order.data_licences)

    # ------------------------------------------------------------ making it

    @contextmanager
    def _room(self) -> Iterator[Path]:
        """Where parts are made: the folder that was asked for, whole or not at all, or for now."""
        if self.order.folder is not None:
            with files.whole_folder(self.order.folder.absolute()) as room:
                yield room
            return
        # In the run, where there is room for checkpoints; a killed one is swept with the run's own.
        with tempfile.TemporaryDirectory(
            dir=self.order.run, prefix=".publish-", suffix=".part"
        ) as name:
            yield Path(name)

    def _make(self, room: Path, dry: bool, hub: Hub | None) -> Published:
        """Every part: the data first, `main` last, so that what a card names is there."""
        passed: tuple[Passed, ...] = ()
        parts = []
        if self.order.with_data:
            passed = self._write_data(room / "data")
            if any(one.rows for one in passed):
                parts.append(self._data_part(room / "data"))
                if hub is not None:
                    hub.upload_data(room / "data", f"Training data of {self._name}, by linn")
        for place in self.places:
            folder = room / "model" / place.branch
            subject = self._subject(place, passed)
            sizes = self._write_model(subject, folder, dry)
            what = f"{place.stage}, step {place.step}"
            parts.append(Part(self._address(place.branch), what, sizes))
            if hub is not None:
                hub.upload_model(folder, place.branch, f"{what} of {self._name}, by linn")
            # A checkpoint of a large model takes the room of the next.
            if self.order.folder is None:
                shutil.rmtree(folder)
        return Published(tuple(parts), passed, tuple(self.left_out), self.licence)

    def _write_data(self, folder: Path) -> tuple[Passed, ...]:
        folder.mkdir(parents=True)
        with reading("training data", "rows") as note:
            passed = tuple(self._training_data().write(folder, note))
        if any(one.rows for one in passed):
            subject = self._subject(self.places[-1], passed)
            title = f"{subject.title}-data"
            files.write_text(folder / "README.md", data_card(subject, title))
        else:
            folder.rmdir()
        return passed

    def _data_part(self, folder: Path) -> Part:
        address = "data"
        if self.order.target is not None:
            address = self.order.target.data_address
        return Part(address, "training data", _sizes(folder))

    def _write_model(self, subject: Subject, folder: Path, dry: bool) -> dict[str, int]:
        """An export with the run's recipe and a card; returns the bytes of its files."""
        place, order = subject.place, self.order
        name = self._checkpoint(place)
        if dry:
            folder.mkdir(parents=True)
            sizes = planned_export(name, folder, order.dtype, order.shard_size)
        else:
            export_checkpoint(name, folder, order.dtype, order.shard_size)
            sizes = _sizes(folder)
        files.write_text(folder / "recipe.yaml", public_recipe(self.run.recipe))
        files.write_text(folder / "README.md", model_card(subject, folder))
        return sizes | _sizes(folder)

    def _subject(self, place: Place, passed: tuple[Passed, ...] = ()) -> Subject:
        # A card names a data set only where there is one.
        target = self.order.target
        with_data = target is not None and any(one.rows for one in passed)
        others = () if place.branch != "main" else tuple(self.places[:-1])
        return Subject(
            run=self.run,
            rewards=self._rewards,
            recipe=self.recipe,
            place=place,
            others=others,
            licence=self.licence,
            base=self.order.base,
            repo=target.model if target else "",
            data_repo=target.data if target and with_data else "",
            passed=passed,
        )

    def _address(self, branch: str) -> str:
        target = self.order.target
        return f"model/{branch}" if target is None else target.address(branch)

    @property
    def _name(self) -> str:
        return text(self.run.about, "name") or self.recipe.name


def public_recipe(raw: str) -> str:
    """A recipe without the places of the machine: of folders and servers, only what they hold."""
    return str(yaml.safe_dump(_public(yaml.safe_load(raw)), sort_keys=False, width=120))


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {_public(key): _public(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_public(entry) for entry in value]
    if not isinstance(value, str):
        return value
    if re.match(r"https?://", value):
        # The address of somebody's judge; the model behind it stays.
        _, mark, model = value.partition("#")
        return f"http://HOST{mark}{model}"
    # Relative names below the working folder are part of a recipe that lies with its rows.
    return Path(value).name if value.startswith(("/", "~", "../")) else value


def _sizes(folder: Path) -> dict[str, int]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.stat().st_size
    return found
