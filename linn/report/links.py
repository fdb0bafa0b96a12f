"""Which parts of the page lead to which: rows of the tables, curves, transcripts.

Ids are made of numbers alone, since names of stages and domains are not to be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from linn.report.curves import Panel
from linn.report.files import StageFiles
from linn.report.tables import Table
from linn.report.transcripts import Sort, label

BY_DOMAIN = ("Reward by domain", "Teacher gap by domain")
"""Panels whose plots are of one domain each, the first to be led to first."""


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


class Links:
    """The ids of the page's parts; every method gives one, or an empty text where there is none."""

    def __init__(self, chapters: Sequence[Chapter], tables: Sequence[Table]) -> None:
        self._chapters = {chapter.stage.name: place for place, chapter in enumerate(chapters)}
        self._rows: dict[str, str] = {}
        self._curves: dict[tuple[int, str], str] = {}
        self._texts: dict[tuple[int, str], str] = {}
        self._turned: dict[tuple[int, str, bool], str] = {}
        # A stage stands in several tables: the first one is where a reader comes from.
        for place, table in enumerate(tables):
            for number, (stage, _) in enumerate(table.rows):
                row = self.row_id(place, number)
                self._rows.setdefault(stage, row)
        for place, chapter in enumerate(chapters):
            self._add_curves(place, chapter)
            self._add_texts(place, chapter)

    def _add_curves(self, place: int, chapter: Chapter) -> None:
        by_domain: dict[str, str] = {}
        for number, panel in enumerate(chapter.panels):
            for index, plot in enumerate(panel.plots):
                curve = self.curve_id(place, number, index)
                if panel.title in BY_DOMAIN:
                    # The reward first: the teacher gap stands for domains that have none.
                    by_domain.setdefault(label(plot.title), curve)
                elif plot.title == "Reward" and len(chapter.stage.domains) == 1:
                    # Of a single domain the main curve is its own.
                    by_domain.setdefault(label(chapter.stage.domains[0]), curve)
        for domain, curve in by_domain.items():
            self._curves[place, domain] = curve

    def _add_texts(self, place: int, chapter: Chapter) -> None:
        for number, sort in enumerate(chapter.sorts):
            for index, shown in enumerate(sort.shown):
                text = self.text_id(place, number, index)
                # The first of a domain, whatever its sort: best before worst.
                self._texts.setdefault((place, shown.domain), text)
                if sort.are_losses or sort.are_gains:
                    self._turned.setdefault((place, shown.domain, sort.are_losses), text)

    # ------------------------------------------------------------ ids

    def row_id(self, table: int, number: int) -> str:
        """Of a row of a table."""
        return f"row-{table}-{number}"

    def curve_id(self, chapter: int, panel: int, plot: int) -> str:
        """Of a plot."""
        return f"curve-{chapter}-{panel}-{plot}"

    def text_id(self, chapter: int, sort: int, number: int) -> str:
        """Of a transcript."""
        return f"text-{chapter}-{sort}-{number}"

    # ------------------------------------------------------------ ways

    def chapter(self, stage: str) -> str:
        """From a row of a table: the stage's curves and transcripts."""
        place = self._chapters.get(stage)
        return "" if place is None else f"stage-{place}"

    def row(self, stage: str) -> str:
        """From a stage: its first row in a table."""
        return self._rows.get(stage, "")

    def curve(self, stage: str, domain: str) -> str:
        """From a score or a transcript: the curve of its domain in the stage that trained it."""
        return self._of(self._curves, stage, domain)

    def text(self, stage: str, domain: str) -> str:
        """From a curve: the first transcript of its domain in the stage."""
        return self._of(self._texts, stage, domain)

    def turned(self, stage: str, domain: str, lost: bool) -> str:
        """From a flag: the first prompt of the domain that the stage lost, or got right."""
        place = self._chapters.get(stage)
        return "" if place is None else self._turned.get((place, label(domain), lost), "")

    def _of(self, ids: dict[tuple[int, str], str], stage: str, domain: str) -> str:
        place = self._chapters.get(stage)
        return "" if place is None else ids.get((place, label(domain)), "")
