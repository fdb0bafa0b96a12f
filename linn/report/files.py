"""Reading a run folder as it stands.

A run in progress, a missing file or a line cut short is a gap in the page, never an error.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linn.data.tally import Tally
from linn.errors import UserError
from linn.files import json_objects
from linn.ledger import Ledger, RewardFiles
from linn.types import Score

Row = dict[str, Any]


@dataclass(frozen=True)
class StageFiles:
    """One stage as the run folder shows it."""

    name: str
    """The stage's name."""
    kind: str
    """base, sft, rl or distill."""
    parent: str | None
    """The stage whose checkpoint it started from."""
    domains: tuple[str, ...]
    """What it trained on."""
    teachers: dict[str, str]
    """domain -> checkpoint, `sft` or `sft:40`; distillation only."""
    folder: Path
    """Its folder, which may not exist yet."""

    @property
    def done(self) -> bool:
        """Whether the stage has ended."""
        return self.kind == "base" or (self.folder / "DONE").exists()

    def metrics(self) -> list[Row]:
        """One object per step."""
        return list(json_objects(self.folder / "metrics.jsonl"))

    def skipped_rows(self) -> list[str]:
        """Of each reader of rows that passed some over: its name and its counts."""
        try:
            record = json.loads((self.folder / "rows.json").read_text(encoding="utf-8"))
            lines = []
            for name, counts in record.items():
                tally = Tally()
                tally.restore(counts)
                if tally.bad or tally.others or tally.notes:
                    lines.append(f"{name}: {tally}"[:400])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return []
        return lines

    def rollouts(self) -> tuple[str, list[Row]]:
        """Name and rows of the last step whose rollouts can be read."""
        # Step numbers have leading zeros, but those of a long run may outgrow them.
        paths = sorted(self.folder.glob("rollouts/*.jsonl"), key=lambda p: (len(p.name), p.name))
        for path in reversed(paths):
            rows = list(json_objects(path))
            if rows:
                return path.stem, rows
        return "", []

    def evals(self, name: str) -> dict[tuple[str, str], Row]:
        """(domain, prompt id) -> row of one evaluation file, e.g. `test-greedy`."""
        rows = json_objects(self.folder / "evals" / f"{name}.jsonl")
        return {(text(row, "domain"), text(row, "prompt_id")): row for row in rows}

    def eval_names(self) -> list[str]:
        """The evaluation files there are."""
        return sorted(path.stem for path in self.folder.glob("evals/*.jsonl"))


@dataclass(frozen=True)
class RunFiles:
    """A run folder."""

    folder: Path
    """Where it is."""
    about: Row
    """run.json, or empty."""
    recipe: str
    """recipe.yaml as text, or empty."""
    stages: tuple[StageFiles, ...]
    """In run order."""
    scores: tuple[Score, ...]
    """The ledger."""
    compare: Row
    """compare.json, or empty."""
    troubles: tuple[str, ...]
    """What could not be read, for the page to say."""

    @property
    def parents(self) -> dict[str, str | None]:
        """stage -> where it started, in run order."""
        return {stage.name: stage.parent for stage in self.stages}

    @property
    def changes(self) -> list[str]:
        """What was changed in the middle of the run, a line each, with the promise that is left."""
        entries = self.about.get("changes")
        lines = []
        for entry in entries if isinstance(entries, list) else []:
            if not isinstance(entry, dict):
                continue
            promise = text(entry, "promise")
            values = [text(entry, key) or "none" for key in ("old", "new")]
            line = f"{text(entry, 'key')}: {' → '.join(values)}"
            if promise != "scores":
                step = (number(entry, "step") or 0) + 1
                line += f" from {text(entry, 'stage')} step {step:.0f} on"
            line += f"; promise: {promise}"
            note = text(entry, "note")
            lines.append(f"{line} ({note})" if note else line)
        return lines

    @property
    def rewards(self) -> RewardFiles:
        """Every prompt's reward behind the ledger's rows, as far as they are there."""
        return RewardFiles({stage.name: stage.folder for stage in self.stages})

    @property
    def taught(self) -> dict[str, set[str]]:
        """domain -> every stage whose final checkpoint taught it."""
        taught: dict[str, set[str]] = {}
        for stage in self.stages:
            for domain, teacher in stage.teachers.items():
                taught.setdefault(domain, set()).add(teacher)
        return taught


_PARTS = ("run.json", "ledger.jsonl", "recipe.yaml", "compare.json")


def read_run(folder: Path) -> RunFiles:
    """Read everything that is not large; stages read their own files when asked.

    Raises UserError where there is neither run nor comparison.
    """
    if not any((folder / name).is_file() for name in _PARTS):
        missing = f"found neither {' nor '.join(_PARTS)}"
        raise UserError(f"{folder}: no run here ({missing}); give the folder that `linn run` wrote")

    troubles: list[str] = []
    scores: list[Score] = []
    try:
        scores = Ledger(folder / "ledger.jsonl").read()
    except UserError as error:
        troubles.append(str(error))

    about = _json(folder / "run.json", troubles)
    if about and len(_entries(about)) == 0:
        troubles.append("run.json lists no stages: names and parents are guessed from the ledger")
    compare = _json(folder / "compare.json", troubles)
    recipe = folder / "recipe.yaml"
    recipe_text = recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else ""

    return RunFiles(
        folder=folder,
        about=about,
        recipe=recipe_text,
        stages=_stages(folder, about, scores),
        scores=tuple(scores),
        compare=compare,
        troubles=tuple(troubles),
    )


def _stages(folder: Path, about: Row, scores: list[Score]) -> tuple[StageFiles, ...]:
    """The stages of run.json; without it the ledger's, each taken to start from the one before."""
    entries = _entries(about)
    if not entries:
        names = list(dict.fromkeys(row.stage for row in scores))
        parents = [None, *names]
        for name, parent in zip(names, parents, strict=False):
            entries.append({"name": name, "parent": parent})

    # A stage that is listed twice counts where it stands first, as it is listed last.
    stages: dict[str, StageFiles] = {}
    for index, entry in enumerate(entries):
        stage = _stage(folder, index, entry)
        stages[stage.name] = stage

    return tuple(stages.values())


def _entries(about: Row) -> list[Row]:
    """What run.json lists as stages, each with a name."""
    stages = about.get("stages")
    if not isinstance(stages, list):
        return []
    return [entry for entry in stages if isinstance(entry, dict) and text(entry, "name")]


def _stage(folder: Path, index: int, entry: Row) -> StageFiles:
    name = text(entry, "name")
    domains, teachers = entry.get("domains"), entry.get("teachers")
    if not isinstance(domains, dict | list):
        domains = ()
    if not isinstance(teachers, dict):
        teachers = {}

    return StageFiles(
        name=name,
        kind=text(entry, "kind"),
        parent=text(entry, "parent") or None,
        domains=tuple(map(str, domains)),
        teachers={str(domain): str(teacher) for domain, teacher in teachers.items()},
        folder=folder / (text(entry, "folder") or f"stages/{index:02d}-{name}"),
    )


def _json(path: Path, troubles: list[str]) -> Row:
    try:
        data = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, OSError) as error:
        troubles.append(
            f"{path.name} could not be read ({error}); put it back, or delete it: "
            "linn run writes it anew"
        )
        return {}
    if not isinstance(data, dict):
        troubles.append(f"{path.name} is not what linn wrote there: it holds no keys")
        return {}
    return data


def number(row: Row, key: str) -> float | None:
    """A finite number, or None."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def text(row: Row, key: str) -> str:
    """A value as text; empty where there is none."""
    value = row.get(key)
    return "" if value is None else str(value)
