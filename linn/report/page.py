"""The page itself: gathers the run's parts, renders the template, writes `report.html`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from linn.ledger import Interval
from linn.report.curves import Panel, comparison, curves
from linn.report.files import Run, StageFiles, read_run, text
from linn.report.plots import tick
from linn.report.summary import percent, summary
from linn.report.tables import Cell, Recovery, Table, recovery_table, short, table
from linn.report.transcripts import EACH, Sort, clean, transcripts

TEXT_BUDGET = 1_200_000
"""Bytes of transcripts on the whole page; curves and tables of a full run stay below a third of that."""


@dataclass(frozen=True)
class Chapter:
    """One stage on the page."""

    stage: StageFiles
    """The stage."""
    steps: int
    """Steps recorded."""
    panels: list[Panel]
    """Curves."""
    sorts: list[Sort]
    """Transcripts."""


def build(run_folder: Path) -> Path:
    """Write `report.html` into the run folder and return its path; the same folder gives the same bytes.

    Missing or half-written files become gaps. Raises UserError where the folder holds no run.
    """
    path = run_folder / "report.html"
    part = path.with_name(path.name + ".part")
    part.write_text(render(read_run(run_folder)), encoding="utf-8", newline="\n")
    part.replace(path)
    return path


def render(run: Run) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def visible(value: object) -> object:
        return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    # Every value is cleaned and escaped, without exception: rollouts are hostile text. The template marks nothing as safe; the only
    # Markup is the output of its own macro.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(short=short, tick=tick, percent=percent)
    cascade, greedy = _table(run, "accuracy"), _table(run, "greedy")
    given_back = [
        (stage, *_recovery(run, stage)) for stage in run.stages if stage.teachers and stage.parent
    ]
    return environment.get_template("page.html.jinja").render(
        run=run,
        name=text(run.about, "name") or run.folder.resolve().name,
        summary=summary(run, cascade, given_back),
        tables=[
            ("Sampled", "Mean reward at the stage's own sampling.", cascade),
            ("Greedy", "At temperature 0.", greedy),
        ],
        recoveries=[entry for entry in given_back if entry[1]],
        comparison=comparison(run.compare),
        chapters=_chapters(run),
        stages={stage.name: stage for stage in run.stages},
        shade=shade,
        bar=bar,
        counts=counts,
    )


def _table(run: Run, metric: str) -> Table:
    return table(run.scores, run.parents, "test", metric, run.taught)


def _recovery(run: Run, stage: StageFiles) -> tuple[list[Recovery], Interval | None]:
    assert stage.parent is not None, stage
    return recovery_table(run.scores, stage.parent, stage.name, stage.teachers)


def _chapters(run: Run) -> list[Chapter]:
    stages = {stage.name: stage for stage in run.stages}
    # Best and worst hold one text each, newly right and newly wrong two.
    room = min(4000, TEXT_BUDGET // max(1, len(stages) * EACH * 6))
    chapters = []
    for stage in run.stages:
        rows = stage.metrics()
        parent = stages.get(stage.parent) if stage.parent else None
        chapters.append(Chapter(stage, len(rows), curves(rows), transcripts(stage, parent, room)))
    return chapters


def shade(cells: list[Cell | None], cell: Cell) -> str:
    """Opacity of a cell: its column's own scale from lowest to highest, at least 0.2 wide, so that noise alone stays pale."""
    values = [other.score.value for other in cells if other is not None]
    low, high = min(values), max(values)
    return f"{0.04 + 0.5 * (cell.score.value - low) / max(high - low, 0.2):.2f}"


def counts(cells: list[Cell | None]) -> str:
    """The number of prompts behind a column: one where all agree, else the range."""
    found = sorted({cell.score.n for cell in cells if cell is not None})
    return "–".join(dict.fromkeys(f"{n:,}" for n in (found[0], found[-1])))


def bar(share: Interval) -> dict[str, str]:
    """Left end and width, in percent of the track from −50 % to 150 %, of the bar and of its whisker."""

    def at(value: float) -> float:
        return min(100.0, max(0.0, (value + 0.5) * 50))

    ends = sorted((at(0.0), at(share.value)))
    return {
        "bar": f"left:{ends[0]:.1f}%;width:{ends[1] - ends[0]:.1f}%",
        "whisker": f"left:{at(share.low):.1f}%;width:{at(share.high) - at(share.low):.1f}%",
    }
