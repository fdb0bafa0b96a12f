"""One recipe over several seeds: what all of them show, with ranges, and what only some do.

    python -m bench.seeds recipes/tiny.yaml --seeds 0 1 2 [--set KEY=VALUE] [--out FOLDER]
    python -m bench.seeds --runs A B C                    # runs that are finished
    python -m bench.seeds --runs A B C --markdown         # or --json

Per stage and domain: mean and range over the seeds, and in how many of them the change against the
stage's start is flagged. Then the recovery of each distillation, the flags and the claims of
`.ci/check_ledger.py`, seed by seed. A run is begun or gone on with by the command `linn run`, so
what was stopped goes on. Seed K starts from base tiny-K where the recipe starts from a tiny base.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from linn.checkpoints import BASES
from linn.errors import LinnError, UserError
from linn.ledger import loss_line
from linn.recipe import load as recipes
from linn.report.files import RunFiles, StageFiles, read_run
from linn.report.tables import GAIN, LOSS, Table, recovery, table

METRICS = {"accuracy": "sampled", "greedy": "greedy"}
CHECKS = Path(__file__).resolve().parents[1] / ".ci" / "check_ledger.py"


@dataclass(frozen=True)
class Cell:
    """One stage in one domain, over the runs."""

    stage: str
    domain: str
    values: tuple[float, ...]
    """One per run in which it was measured, in their order."""
    gained: int
    """Runs in which the change is a flagged gain."""
    lost: int
    """Runs in which it is a flagged loss."""

    @property
    def mean(self) -> float:
        """Over the runs."""
        return statistics.fmean(self.values)

    @property
    def span(self) -> str:
        """The lowest and the highest, in whole percent."""
        low, high = (f"{100 * value:.0f}" for value in (min(self.values), max(self.values)))
        return low if low == high else f"{low}–{high}"

    def text(self, runs: int, between: str = " ") -> str:
        """Mean, range and flags; with how many runs measured it, where not all did."""
        parts = [f"{100 * self.mean:.0f}{between}({self.span})", self.flags]
        if len(self.values) < runs:
            parts.append(f"in {len(self.values)} of {runs}")
        return " ".join(part for part in parts if part)

    @property
    def flags(self) -> str:
        """`▲3`, `▼2`, both, or nothing."""
        marks = []
        if self.gained:
            marks.append(f"{GAIN}{self.gained}")
        if self.lost:
            marks.append(f"{LOSS}{self.lost}")
        return " ".join(marks)


@dataclass(frozen=True)
class Summary:
    """Everything that is printed."""

    runs: tuple[str, ...]
    """What each run is called: its seed, else its folder."""
    cells: dict[str, list[Cell]]
    """By metric, in the order of stages and domains."""
    recoveries: list[dict[str, Any]]
    """Of each distillation, metric and run: the share of the gap, with its interval."""
    losses: list[dict[str, Any]]
    """Of each metric, stage and domain with a flagged loss: in which runs, and each one's line."""
    claims: list[dict[str, Any]]
    """Of each claim: in which runs it holds, and what was seen in each."""


# ---------------------------------------------------------------- runs


def run_seeds(recipe: Path, seeds: Sequence[int], changes: Sequence[str], out: Path) -> list[Path]:
    """Run the recipe with each seed, or go on with it; the run folders."""
    model = recipes.load(recipe, changes).model
    folders = []
    for seed in seeds:
        folder = out / f"seed-{seed}"
        own = [*changes, f"seed={seed}"]
        if isinstance(model, str) and model.startswith("tiny"):
            if not (BASES / f"tiny-{seed}").is_dir():
                raise UserError(f"--seeds {seed}: no base tiny-{seed} is kept in {BASES}")
            own.append(f"model=tiny-{seed}")
        words = [word for change in own for word in ("--set", change)]
        print(f"seed {seed}: {folder}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "linn.cli.main", "run", str(recipe), "--out", str(folder)]
        done = subprocess.run([*command, *words], stdout=subprocess.DEVNULL)
        if done.returncode:
            raise LinnError(f"seed {seed} ended with {done.returncode}; the same command goes on")
        folders.append(folder)
    return folders


def read_runs(folders: Sequence[Path]) -> list[RunFiles]:
    """Runs to be put side by side. Raises UserError where they are of different stages."""
    runs = [read_run(folder) for folder in folders]
    first = list(runs[0].parents)
    for run in runs:
        unfinished = [stage.name for stage in run.stages if not stage.done]
        troubles = list(run.troubles)
        if unfinished:
            troubles.append(f"not finished: {', '.join(unfinished)}")
        for trouble in troubles:
            print(f"⚠ {run.folder}: {trouble}", file=sys.stderr)
        if list(run.parents) != first:
            stages = f"{', '.join(run.parents)}; {runs[0].folder} has {', '.join(first)}"
            raise UserError(f"{run.folder}: its stages are {stages}: not runs of one recipe")
    return runs


def _name_of(run: RunFiles, runs: Sequence[RunFiles]) -> str:
    """Its seed, where that tells the runs apart."""
    seeds = [other.about.get("seed") for other in runs]
    if len(set(seeds)) == len(seeds):
        return f"seed {run.about.get('seed')}"
    return run.folder.name


# ---------------------------------------------------------------- what they show


def summary_of(runs: Sequence[RunFiles]) -> Summary:
    """All tables of several runs."""
    names = tuple(_name_of(run, runs) for run in runs)
    tables = {metric: [_table(run, metric) for run in runs] for metric in METRICS}
    recoveries = []
    for name, run in zip(names, runs, strict=True):
        for stage in run.stages:
            recoveries += _recoveries(name, run, stage)
    losses = [loss for metric in METRICS for loss in _losses(names, tables[metric], metric)]
    cells = {metric: _cells(tables[metric]) for metric in METRICS}
    return Summary(names, cells, recoveries, losses, _claims(names, runs))


def _table(run: RunFiles, metric: str) -> Table:
    return table(run.scores, run.parents, metric=metric, teachers=run.taught, rewards=run.rewards)


def _cells(tables: Sequence[Table]) -> list[Cell]:
    """Mean, range and flags of every place that some run measured."""
    values: dict[tuple[str, str], list[float]] = {}
    gained: Counter[tuple[str, str]] = Counter()
    lost: Counter[tuple[str, str]] = Counter()
    for one in tables:
        for stage, cell in one.cells:
            place = (stage, cell.score.domain)
            values.setdefault(place, []).append(cell.score.value)
            gained[place] += cell.gained
            lost[place] += cell.lost
    return [
        Cell(*place, values=tuple(values[place]), gained=gained[place], lost=lost[place])
        for place in values
    ]


def _losses(names: Sequence[str], tables: Sequence[Table], metric: str) -> list[dict[str, Any]]:
    """The flagged losses, those of all runs first."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name, one in zip(names, tables, strict=True):
        for change in one.changes:
            if change.lost:
                lines = found.setdefault((change.stage, change.domain), {})
                lines[name] = loss_line(change)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return [
        {"metric": metric, "stage": stage, "domain": domain, "runs": list(lines), "lines": lines}
        for (stage, domain), lines in ordered
    ]


def _recoveries(name: str, run: RunFiles, stage: StageFiles) -> list[dict[str, Any]]:
    """What a distillation closed of the gap to its teachers, in each metric."""
    if not stage.teachers or stage.parent is None:
        return []
    found = []
    for metric in METRICS:
        closed = recovery(
            run.scores,
            stage.parent,
            stage.name,
            stage.teachers,
            metric=metric,
            rewards=run.rewards,
        )
        if closed is None:
            continue
        share, gap = closed.pooled.share, closed.pooled.gap
        entry: dict[str, Any] = {"run": name, "stage": stage.name, "metric": metric}
        entry["gap"] = [gap.value, gap.low, gap.high]
        entry["share"] = None if share is None else [share.value, share.low, share.high]
        found.append(entry)
    return found


def _claims(names: Sequence[str], runs: Sequence[RunFiles]) -> list[dict[str, Any]]:
    """The claims that CI checks of the demo, in each run; runs of one recipe have them alike."""
    checks = _load_checks()
    by_run = []
    for run in runs:
        try:
            by_run.append(list(checks(run.folder)))
        except (LookupError, ValueError, OSError) as error:  # a run that is not the demo's
            by_run.append([(False, f"cannot be asked of it ({type(error).__name__}: {error})")])
    claims = []
    for one in zip_longest(*by_run, fillvalue=(False, "not asked")):
        seen = {name: text for name, (_, text) in zip(names, one, strict=True)}
        holds = [name for name, (fits, _) in zip(names, one, strict=True) if fits]
        claims.append({"holds": holds, "in_all": len(holds) == len(names), "seen": seen})
    return claims


def _load_checks() -> Callable[[Path], Any]:
    spec = importlib.util.spec_from_file_location("check_ledger", CHECKS)
    assert spec is not None and spec.loader is not None, CHECKS
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checks: Callable[[Path], Any] = module.claims
    return checks


# ---------------------------------------------------------------- for people


def heading(summary: Summary, metric: str) -> str:
    """What the table of a metric is."""
    count = len(summary.runs)
    return (
        f"test split, {METRICS[metric]}, in %: mean and range over {', '.join(summary.runs)}; "
        f"{GAIN}{LOSS}: in how many of {count} the change is flagged"
    )


def grid_of(cells: Sequence[Cell]) -> list[list[Cell | None]]:
    """Stages down, domains across."""
    stages = list(dict.fromkeys(cell.stage for cell in cells))
    domains = list(dict.fromkeys(cell.domain for cell in cells))
    places = {(cell.stage, cell.domain): cell for cell in cells}
    return [[places.get((stage, domain)) for domain in domains] for stage in stages]


def _lines_below(summary: Summary) -> list[str]:
    """Recovery, flags and claims, a line each."""
    lines = []
    for entry in summary.recoveries:
        where = f"{entry['stage']}, {METRICS[entry['metric']]}, {entry['run']}"
        if entry["share"] is None:
            low, high = entry["gap"][1:]
            text = f"the gap to the teachers cannot be told from 0 [{low:+.1%}, {high:+.1%}]"
        else:
            value, low, high = entry["share"]
            text = f"closes {value:.0%} [{low:.0%}, {high:.0%}] of the gap to the teachers"
        lines.append(f"{where}: {text}")
    for entry in summary.losses:
        where = "every run" if len(entry["runs"]) == len(summary.runs) else ", ".join(entry["runs"])
        what = f"{entry['stage']} costs {entry['domain']}"
        lines.append(f"{LOSS} {what}, {METRICS[entry['metric']]}: flagged in {where}")
    for claim in summary.claims:
        lines.append(f"claim, holds in {len(claim['holds'])} of {len(summary.runs)}:")
        for name, text in claim["seen"].items():
            lines.append(f"  {name} {'holds' if name in claim['holds'] else 'FAILS'}: {text}")
    return lines


def print_terminal(summary: Summary) -> None:
    """Tables for a terminal; a cell has the mean, below it the range and the flags."""
    console = Console(highlight=False)
    for metric, cells in summary.cells.items():
        if not cells:
            continue
        console.print(heading(summary, metric), style="bold")
        grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1), show_lines=False)
        grid.add_column("stage", no_wrap=True)
        for domain in dict.fromkeys(cell.domain for cell in cells):
            grid.add_column(domain.replace("_", " "), justify="right", max_width=8, overflow="fold")
        stages = dict.fromkeys(cell.stage for cell in cells)
        for stage, row in zip(stages, grid_of(cells), strict=True):
            texts = []
            for cell in row:
                text = ""
                if cell is not None:
                    text = cell.text(len(summary.runs), between="\n")
                texts.append(text)
            grid.add_row(stage, *texts)
        console.print(grid)
    for line in _lines_below(summary):
        console.print(line, markup=False, soft_wrap=True)


def markdown(summary: Summary) -> str:
    """The same for a document."""
    lines = []
    for metric, cells in summary.cells.items():
        if not cells:
            continue
        domains = list(dict.fromkeys(cell.domain for cell in cells))
        lines += [heading(summary, metric), "", f"| stage | {' | '.join(domains)} |"]
        lines.append("|---" * (1 + len(domains)) + "|")
        stages = dict.fromkeys(cell.stage for cell in cells)
        for stage, row in zip(stages, grid_of(cells), strict=True):
            texts = []
            for cell in row:
                text = ""
                if cell is not None:
                    text = cell.text(len(summary.runs))
                texts.append(text)
            lines.append(f"| {stage} | {' | '.join(texts)} |")
        lines.append("")
    for line in _lines_below(summary):
        indent = "  " if line.startswith("  ") else ""
        lines.append(f"{indent}- {line.strip()}")
    return "\n".join(lines)


def main() -> int:
    """Read the command line; 2 for wrong input, 1 where a run failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", type=Path, help="a recipe to run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--out", type=Path, help="where runs go; default runs/NAME-seeds")
    parser.add_argument("--runs", nargs="+", type=Path, help="finished run folders instead")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if (options.recipe is None) == (options.runs is None):
        parser.error("give a recipe to run, or --runs with finished run folders")
    try:
        folders = options.runs
        if folders is None:
            name = recipes.load(options.recipe, options.changes).name
            out = options.out or Path("runs") / f"{name}-seeds"
            folders = run_seeds(options.recipe, options.seeds, options.changes, out)
        summary = summary_of(read_runs(folders))
    except LinnError as error:
        print(f"seeds: {error}", file=sys.stderr)
        return error.exit_code

    if options.json:
        print(json.dumps(asdict(summary), indent=1))
    elif options.markdown:
        print(markdown(summary))
    else:
        print_terminal(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
