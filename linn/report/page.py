"""The page itself: gathers the run's parts, renders the template, writes `report.html`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from linn import files
from linn.ledger import Interval
from linn.report.comparison import comparison
from linn.report.curves import curves
from linn.report.files import RunFiles, read_run, text
from linn.report.links import Chapter, Links
from linn.report.numbers import count_of, format_percent, format_range, format_score, format_tick
from linn.report.summary import greedy_moves, recoveries, summary
from linn.report.tables import Cell, Table, benchmarks, table
from linn.report.transcripts import EACH, clean, label, transcripts

if TYPE_CHECKING:
    from jinja2 import Template

TEXT_BUDGET = 1_200_000
"""Bytes of transcripts on the whole page. Curves and tables stay below a third of that."""


@dataclass(frozen=True)
class Watch:
    """What a page that renews itself is told."""

    mark: str
    """Names this page among those of the run."""
    nonce: str
    """What the page's script is known by: no other runs."""


def build(run_folder: Path) -> Path:
    """Write `report.html` into the run folder and return its path.

    The same folder gives the same bytes. Missing or half-written files become gaps. Raises
    UserError where the folder holds no run.
    """
    path = run_folder / "report.html"
    files.write_text(path, render(read_run(run_folder)))
    return path


def render(run: RunFiles, watch: Watch | None = None) -> str:
    """The page as text; with `watch` one that loads itself anew when the run went on."""
    rewards = run.rewards
    cascade, greedy = (
        table(run.scores, run.parents, "test", metric, run.taught, rewards)
        for metric in ("accuracy", "greedy")
    )
    given = recoveries(run)
    chapters = _chapters(run)
    tables = [
        ("Sampled", "Mean reward, each domain sampled as it is trained.", cascade),
        ("Greedy", _greedy_note(greedy), greedy),
        *_benchmarks(run),
    ]
    tables = [entry for entry in tables if entry[2].rows]
    return template("page.html.jinja").render(
        run=run,
        name=text(run.about, "name") or run.folder.resolve().name,
        summary=[*summary(run, cascade, given), *greedy_moves(run, greedy)],
        tables=tables,
        recoveries=given,
        comparison=comparison(run.compare),
        chapters=chapters,
        links=Links(chapters, [own for _, _, own in tables]),
        watch=watch,
        stages={stage.name: stage for stage in run.stages},
        shade=shade,
        bar=bar,
        counts=counts,
        count_of=count_of,
    )


def _greedy_note(greedy: Table) -> str:
    """What the table is, and which stages have no scores in it."""
    if not greedy.unmeasured:
        return "At temperature 0."
    return f"At temperature 0. Not measured so (–): {', '.join(greedy.unmeasured)}."


def _benchmarks(run: RunFiles) -> list[tuple[str, str, Table]]:
    """A table for each number of samples a prompt."""
    found = []
    for metric, meaning in benchmarks(run.scores):
        own = table(run.scores, run.parents, "test", metric, run.taught, run.rewards)
        note = (
            f"{metric}: mean reward over the samples of each prompt, by each benchmark's protocol."
        )
        found.append((meaning.capitalize(), note, own))
    return found


def template(name: str) -> Template:
    """A page's template, with linn's filters."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def visible(value: object) -> object:
        if isinstance(value, str) and not isinstance(value, Markup):
            return clean(value)
        return value

    # Every value is cleaned and escaped, without exception: rollouts are hostile text. The template
    # marks nothing as safe; the only Markup is the output of its own macro.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        short=format_score,
        tick=format_tick,
        percent=format_percent,
        label=label,
    )

    return environment.get_template(name)


def _chapters(run: RunFiles) -> list[Chapter]:
    stages = {stage.name: stage for stage in run.stages}
    # Best and worst hold one text each, newly right two, newly wrong two per domain.
    domains = {score.domain for score in run.scores}
    texts = EACH * 4 + max(EACH, len(domains)) * 2
    room = min(4000, TEXT_BUDGET // max(1, len(stages) * texts))
    chapters = []
    for stage in run.stages:
        rows = stage.metrics()
        parent = stages.get(stage.parent) if stage.parent else None
        chapter = Chapter(stage, len(rows), curves(rows), transcripts(stage, parent, room))
        # A base that was not measured has nothing to show.
        if stage.parent is not None or chapter.panels or chapter.sorts:
            chapters.append(chapter)
    return chapters


def shade(cells: list[Cell | None], cell: Cell) -> str:
    """Opacity of a cell, on its column's own scale from lowest to highest.

    The scale is at least 0.2 wide, so that noise alone stays pale.
    """
    values = [other.score.value for other in cells if other is not None]
    low, high = min(values), max(values)
    place = (cell.score.value - low) / max(high - low, 0.2)
    return f"{0.04 + 0.5 * place:.2f}"


def counts(cells: list[Cell | None]) -> str:
    """The number of prompts behind a column: one where all agree, else the range."""
    return format_range([cell.score.n for cell in cells if cell is not None])


def bar(share: Interval) -> dict[str, str]:
    """CSS of a recovery's bar and of its whisker.

    Left end and width, in percent of a track that runs from −50 % to 150 %. `beyond`: classes that
    mark the ends at which something lies outside and is cut off.
    """

    def place(value: float) -> float:
        return min(100.0, max(0.0, (value + 0.5) * 50))

    left, right = sorted((place(0.0), place(share.value)))
    low, high = place(share.low), place(share.high)
    beyond = []
    if min(share.value, share.low) < -0.5:
        beyond.append("below")
    if max(share.value, share.high) > 1.5:
        beyond.append("above")

    return {
        "bar": f"left:{left:.1f}%;width:{right - left:.1f}%",
        "whisker": f"left:{low:.1f}%;width:{high - low:.1f}%",
        "beyond": " ".join(beyond),
    }
