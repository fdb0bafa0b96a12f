"""Stage after stage in one run folder: resumable, measured, with teachers from the ledger.

runs/NAME/
  recipe.yaml run.json   the resolved recipe; versions, seed, machine, stages with their parents and teachers
  ledger.jsonl           one row a checkpoint, domain, split and metric
  stages/02-if-rl/       metrics.jsonl rollouts/ evals/ checkpoints/ state/ (while it runs) log-N.txt DONE
"""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from linn import files
from linn.bases.make import prepare_start
from linn.chat.codec import Codec
from linn.checkpoints import start_folder
from linn.domains import load as domain_files
from linn.domains.base import Domain
from linn.engine.open import open_engine
from linn.engine.protocol import Engine
from linn.errors import UserError, nearest
from linn.evals.evaluate import Evaluation, Probe
from linn.judges.open import judge_folders, judges_of
from linn.judges.panel import Judges
from linn.ledger import Ledger, regressions, teachers
from linn.progress import Progress
from linn.recipe import load as recipes
from linn.recipe.schema import DistillConfig, Recipe, RlConfig, SftConfig, StageConfig
from linn.stages.distill import distill
from linn.stages.measuring import measured
from linn.stages.preflight import preflight
from linn.stages.rl import rl
from linn.stages.sft import sft
from linn.stages.stage_run import StageRun
from linn.types import seed_of


class Run:
    """One run folder and the recipe it follows."""

    def __init__(self, recipe: Recipe, folder: Path, show: Progress | None = None) -> None:
        self.recipe = recipe
        self.folder = folder
        self.show = show or Progress()
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.names = ["base", *(s.name for s in recipe.stages)]
        self.parents: dict[str, str | None] = {
            "base": None,
            **{s.name: recipe.parent(s.name) for s in recipe.stages},
        }
        self.taught: dict[str, dict[str, str]] = {}
        self.domains: dict[str, Domain] = {}
        self.engine: Engine | None = None

    # ------------------------------------------------------------ places

    def stage_folder(self, name: str) -> Path:
        """`stages/02-if-rl` of a stage."""
        return self.folder / "stages" / f"{self.names.index(name):02d}-{name}"

    def checkpoint(self, name: str) -> Path:
        """The weights that a stage ended with; `base`: what the run starts from."""
        if name == "base":
            return start_folder(self.recipe, self.folder)
        stage = next(s for s in self.recipe.stages if s.name == name)
        return self.stage_folder(name) / "checkpoints" / f"step-{stage.steps:04d}"

    def done(self, name: str) -> bool:
        """Whether a stage is finished, its measurements in the ledger."""
        return (self.stage_folder(name) / "DONE").exists()

    # ------------------------------------------------------------ the run

    def go(self, until: str | None = None, redo: str | None = None) -> None:
        """Run every stage that isn't done, in order; resumes where a killed run stood."""
        for name, allowed in ((until, self.names[1:]), (redo, self.names)):
            if name is not None and name not in allowed:
                raise UserError(f"stage {name!r} is not in the recipe{nearest(name, allowed)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            self._measured()
            self._agree(redo)
            self._drop_orphans()
            self._write_run()
            try:
                for stage in self.recipe.stages:
                    if not self.done(stage.name):
                        self._stage(stage)
                    if stage.name == until:
                        break
            finally:
                self.close()

    def close(self) -> None:
        """Stop worker processes and domains' helpers."""
        if self.engine is not None:
            self.engine.close()
            self.engine = None
        for domain in self.domains.values():
            domain.close()
        self.domains = {}
        self.show.close()

    def _ready(self) -> Engine:
        if self.engine is None:
            self.engine = open_engine(self.recipe.scale)
            self.domains = domain_files.load_all(self.recipe.domain_options())
            self.evaluation = Evaluation(self.domains, self.recipe.evaluate)
            prepare_start(self.recipe, self.folder, self.domains)
        return self.engine

    def _stage(self, keys: StageConfig) -> None:
        engine = self._ready()
        parent = self.parents[keys.name]
        assert parent is not None
        if parent == "base" and self.recipe.evaluate.start and not self.done("base"):
            self._measure_start()
        start, folder = self.checkpoint(parent), self.stage_folder(keys.name)
        folder.mkdir(parents=True, exist_ok=True)
        before = self.names[self.names.index(keys.name) - 1]
        judges = self._judges(before)
        run = StageRun(
            keys,
            folder,
            start,
            seed_of(self.recipe.seed, keys.name),
            self.recipe.weights_of(keys),
            self.domains,
            Codec.load(start),
            engine,
            self.show,
            judges,
        )
        known = [d for d in run.weights if d in self.recipe.measured_at(before)]
        run.measure = lambda step: self._probe(
            keys.name, step, run.codec, self.evaluation.curve, known, judges
        )
        with self.show.logging(folder):
            if not run.checkpoint.exists():
                self.show.say(f"{keys.name}: {keys.kind} from {parent}, {keys.steps} steps")  # type: ignore[attr-defined]
                match keys:
                    case SftConfig():
                        sft(run)
                    case RlConfig():
                        rl(run)
                    case DistillConfig():
                        distill(run, self._teachers(keys, parent))
            else:
                engine.load(run.checkpoint, keys.optim)
            if keys.evaluate:
                self._measure(keys.name, keys.steps, run.codec, folder / "evals")
                self._flag(keys.name)
            shutil.rmtree(folder / "state", ignore_errors=True)
            files.write_text(folder / "DONE", "")

    def _measure_start(self) -> None:
        start = self.checkpoint("base")
        assert self.engine is not None
        self.engine.load(start, StageConfig(name="base").optim)
        self._measure("base", 0, Codec.load(start), self.stage_folder("base") / "evals")
        files.write_text(self.stage_folder("base") / "DONE", "")

    def _measure(self, stage: str, step: int, codec: Codec, folder: Path) -> None:
        """Every domain whose judge, if it has one, is there."""
        names = self.recipe.measured_at(stage)
        if unjudged := [domain for domain in self.domains if domain not in names]:
            self.show.say(
                f"{stage}: {', '.join(unjudged)} not measured: the judge comes with a later stage"
            )
        self._probe(stage, step, codec, self.evaluation.whole, names, self._judges(stage), folder)

    def _judges(self, stage: str) -> Judges:
        """The judges that are there once `stage` has its checkpoint."""
        assert self.engine is not None
        named = self.recipe.judged_by(stage)
        return judges_of(named, judge_folders(named, self.checkpoint), self.engine)

    def _probe(
        self,
        stage: str,
        step: int,
        codec: Codec,
        probes: Sequence[Probe],
        names: Sequence[str],
        judges: Judges,
        folder: Path | None = None,
    ) -> None:
        if not names:
            return
        assert self.engine is not None
        scores = measured(self.evaluation.measure(
            stage, step, self.engine.sampler, codec, self.recipe.seed, probes, names, folder,
            lambda done, total: self.show.note(stage, done, total, "evaluating") if done % 50 == 0 else None,
            judges,
        ))  # fmt: skip
        self.ledger.upsert(scores)
        if asked := judges.figures():
            self.show.say(
                f"{stage}:{step} judges: {asked['judge_questions']:.0f} questions, {asked['judge_unreadable']:.1%} unreadable, {asked['judge_s']:.1f} s"
            )
        test = {s.domain: s.value for s in scores if s.split == "test" and s.metric == "accuracy"}
        self.show.say(
            f"{stage}:{step} " + " ".join(f"{domain} {value:.1%}" for domain, value in test.items())
        )

    def _flag(self, stage: str) -> None:
        for change in regressions(self.ledger.read(), self.parents):
            if change.stage == stage:
                self.show.say(
                    f"⚑ {stage} cost {change.domain} {change.before.value:.1%} → {change.after.value:.1%} (n {change.after.n}), beyond its interval"
                )

    def _teachers(self, keys: DistillConfig, parent: str) -> dict[str, Path]:
        wanted = self.recipe.weights_of(keys)
        before = [
            n for n in self.names[: self.names.index(keys.name)] if n == "base" or self.done(n)
        ]
        rows = self.ledger.read()
        named = {d: "best" if keys.teachers == "best" else keys.teachers[d] for d in wanted}
        best = teachers(rows, [d for d in wanted if named[d] == "best"], before)
        chosen = {d: best.get(d, "") if stage == "best" else stage for d, stage in named.items()}
        if missing := [d for d, stage in chosen.items() if not stage]:
            raise UserError(
                f"stage {keys.name}: the ledger has no validation score for {', '.join(missing)}; evaluate an earlier stage"
            )
        for domain, stage in chosen.items():
            if stage != "base" and not self.done(stage):
                raise UserError(
                    f"stage {keys.name}: teacher {stage} of {domain} is not there yet; run it first"
                )
        folders = {d: (s, self.checkpoint(s)) for d, s in chosen.items()}
        for warning in preflight(keys, (parent, self.checkpoint(parent)), folders, rows):
            self.show.say(f"  {warning}")
        self.show.say("  teachers: " + ", ".join(f"{d} ← {s}" for d, s in chosen.items()))
        self.taught[keys.name] = chosen
        self._write_run()
        return {d: folder for d, (_, folder) in folders.items()}

    # ------------------------------------------------------------ what the folder says

    def _write_run(self) -> None:
        path = self.folder / "run.json"
        if path.exists():
            for known in _stages_of(path):
                name = known["name"]
                if (
                    known.get("teachers")
                    and name in self.names
                    and name not in self.taught
                    and self.stage_folder(name).exists()
                ):
                    self.taught[name] = known["teachers"]
        stages: list[dict[str, Any]] = [
            {"index": 0, "name": "base", "kind": "base", "parent": None, "folder": "stages/00-base"}
        ]
        for index, stage in enumerate(self.recipe.stages, 1):
            entry: dict[str, Any] = {
                "index": index, "name": stage.name, "kind": stage.kind, "parent": self.parents[stage.name], "steps": stage.steps,
                "domains": self.recipe.weights_of(stage), "folder": str(self.stage_folder(stage.name).relative_to(self.folder)),
            }  # fmt: skip
            if stage.name in self.taught:
                entry["teachers"] = self.taught[stage.name]
            if isinstance(stage, SftConfig):
                entry["faulty"] = {d: stage.faulty_share(d) for d in self.recipe.weights_of(stage)}
            stages.append(entry)
        files.write_json(
            path,
            {
                "name": self.recipe.name,
                "seed": self.recipe.seed,
                "versions": versions(),
                "machine": machine(),
                "stages": stages,
            },
        )

    def _agree(self, redo: str | None = None) -> None:
        """Refuse a folder whose stages were made by another recipe, `redo` and later ones excepted: those are removed. Write the resolved recipe."""
        text, path = recipes.resolved(self.recipe), self.folder / "recipe.yaml"
        if (
            path.exists()
            and (old := path.read_text(errors="replace")) != text
            and (touched := self._touched(recipes.load(path), redo))
        ):
            what, again = touched
            shown = list(
                difflib.unified_diff(
                    old.splitlines(),
                    text.splitlines(),
                    "in the folder",
                    "asked for",
                    lineterm="",
                    n=1,
                )
            )
            raise UserError(
                f"run folder {self.folder}: {what} was made under another recipe:\n"
                + "\n".join(shown[:40])
                + "\n"
                f"ways on: give --out another folder; --redo {again} to make it and all later ones again; or take the old values back"
            )
        if redo is not None:
            self._forget(redo)
        files.write_text(path, text)

    def _measured(self) -> None:
        """Refuse a corrupted ledger, or one without the rows of a stage that is done, before any work."""
        there = {row.stage for row in self.ledger.read()}
        for stage in self.recipe.stages:
            if (
                stage.evaluate
                and self.recipe.measured_at(stage.name)
                and stage.name not in there
                and self.done(stage.name)
            ):
                raise UserError(
                    f"{self.ledger.path}: no rows of stage {stage.name!r}, which is done; put the ledger back, or delete "
                    f"{self.stage_folder(stage.name) / 'DONE'} to have it measured again"
                )

    def _touched(self, before: Recipe, redo: str | None) -> tuple[str, str] | None:
        """(what differs, the stage to redo) where something that is kept was made with other values."""
        first = self.names.index(redo) if redo is not None else len(self.names) + len(before.stages)
        kept = [
            s
            for i, s in enumerate(before.stages, 1)
            if i < first and self._begun(f"{i:02d}-{s.name}")
        ]
        if kept or (first > 0 and self.stage_folder("base").exists()):
            for key in ("model", "seed", "domains", "scale", "evaluate"):
                if _deciding(before, key) != _deciding(self.recipe, key):
                    return f"{key!r} of its stages", "base"
        for stage in kept:
            index = before.stages.index(stage)
            now = self.recipe.stages[index] if index < len(self.recipe.stages) else None
            if now != stage or before.parent(stage.name) != self.parents.get(stage.name):
                return f"stage {stage.name!r}", now.name if now else self.names[-1]
        return None

    def _begun(self, folder: str) -> bool:
        place = self.folder / "stages" / folder
        return any((place / sign).exists() for sign in ("metrics.jsonl", "checkpoints", "DONE"))

    def _forget(self, stage: str) -> None:
        """Remove a stage and every later one, under whatever recipe they were made; their ledger rows go as orphans."""
        first = self.names.index(stage)
        made = [
            (int(path.name.split("-")[0]), path)
            for path in (self.folder / "stages").glob("[0-9]*-*")
        ]
        gone = [path for index, path in sorted(made) if index >= first]
        for path in reversed(gone):
            files.remove_folder(path)
        self.show.say(
            f"--redo {stage}: removed {', '.join(path.name.split('-', 1)[1] for path in gone) or 'nothing'}"
        )

    def _drop_orphans(self) -> None:
        """Forget ledger rows of stages that have no folder: a redo removed them, perhaps one that was killed before it came here."""
        orphans = {row.stage for row in self.ledger.read()} - {
            name for name in self.names if self.stage_folder(name).exists()
        }
        if orphans:
            self.ledger.drop(orphans)


def _deciding(recipe: Recipe, key: str) -> Any:
    """What decides results in a part of a recipe: where a judge is served, and how patiently it is asked, does not."""
    if key != "domains":
        return getattr(recipe, key)
    said = {name: keys.model_dump() for name, keys in recipe.domains.items()}
    for name, keys in recipe.domains.items():
        if keys.judge is not None:
            where = (
                {"model": f"#{keys.judge.endpoint[1]}"} if keys.judge.endpoint is not None else {}
            )
            said[name]["judge"] |= where | dict.fromkeys(("concurrency", "timeout_s", "key_env"))
    return said


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process works in a run folder."""
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"run folder {folder}: another linn works in it; wait for it or give --out another folder"
            ) from None
        yield


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


def versions() -> dict[str, str]:
    """Versions of what decides a number."""
    found = {"python": platform.python_version()}
    for package in ("linn", "torch", "transformers", "tokenizers", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "argv": sys.argv[1:],
    }
