"""Live progress: one bar per stage in a terminal, one line per step without."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

from linn import files, terminal

_WATCHED = (
    ("loss", "loss"),
    ("reward", "reward"),
    ("kept_groups", "kept"),
    ("length", "len"),
    ("mismatch_max", "mismatch"),
    ("grad_norm", "grad"),
)
"""Metrics on the line of a step, with their labels there."""

QUIET_S = 2
"""Seconds that reading a file takes before it says anything."""


class Progress:
    """What a person watches while a run goes on."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or terminal.console(stderr=True)
        self._bars: Bars | None = None
        self._began: dict[str, tuple[float, int]] = {}
        """Per stage: when the first step that was seen began, and how many were done by then."""
        self._log: Path | None = None

    @contextmanager
    def logging(self, folder: Path) -> Iterator[None]:
        """Meanwhile every line goes to `log-N.txt` in `folder` too, N counting the attempts."""
        attempt = 1 + len(list(folder.glob("log-*.txt")))
        self._log = folder / f"log-{attempt}.txt"
        files.append_text(self._log, "")
        try:
            yield
        except Exception:
            # The terminal shows one line of it. On a full disk that line is all there can be.
            with contextlib.suppress(OSError):
                self._keep(traceback.format_exc())
            raise
        finally:
            self._log = None
            self.close()

    def say(self, text: str) -> None:
        """One line worth reading, above the bar."""
        self._keep(terminal.visible(text) + "\n")
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, stage: str, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """One step is over; steps are counted from 1."""
        seconds = metrics.get("wall_s", 0.0)
        left = self._seconds_left(stage, step, steps, seconds)
        text = _watched_text(metrics, seconds)
        self._keep(f"{step}/{steps} {text}\n")
        self._show(stage, step, steps, f"{text} left {_minutes(left)}")

    def note(self, stage: str, done: int, total: int, what: str) -> None:
        """Progress of something that is not a step, such as an evaluation; in a terminal only."""
        if self.console.is_terminal:
            self._show(stage, done, total, what)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _keep(self, text: str) -> None:
        """Put text into the log, if there is one."""
        # Opened for each line: an open file would hold what a full disk refused, and refuse to
        # close in the middle of another error.
        if self._log is not None:
            files.append_text(self._log, text)

    def _seconds_left(self, stage: str, step: int, steps: int, seconds: float) -> float:
        """An estimate from the mean of the steps seen so far; `seconds`: what this step took."""
        # A resumed stage counts from the step it resumed at.
        now = time.time()
        began, first = self._began.setdefault(stage, (now - seconds, step - 1))
        mean = (now - began) / max(1, step - first)
        return mean * (steps - step)

    def _show(self, stage: str, done: int, total: int, text: str) -> None:
        if not self.console.is_terminal:
            terminal.echo(f"{stage:<14} {done:>4}/{total:<4} {text}", err=True)
            return

        if self._bars is None:
            self._bars = _new_bars(self.console)
            self._bars.add_task(stage, total=total, text=text)
            self._bars.start()
        (task,) = self._bars.task_ids
        self._bars.update(task, description=stage, completed=done, total=total, text=text)


def _new_bars(console: Console) -> Bars:
    """One line, which is cut at the width of the terminal and goes when it is stopped."""
    # The text takes what the other columns leave, so that these stay whole in a narrow terminal.
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    return Bars(
        TextColumn("{task.description:<14} {task.completed:>4}/{task.total:<4}"),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[text]}", markup=False, table_column=rest),
        expand=True,
        console=console,
        refresh_per_second=8,
        transient=True,
    )


@contextmanager
def reading(what: str, unit: str = "lines") -> Iterator[Callable[[float, int], None]]:
    """Progress of reading a long file, on standard error.

    Yields what to call with (share read, units read). Silent for the first seconds, then a line
    once in a while.
    """
    began = last = time.monotonic()
    live = sys.stderr.isatty()
    pause = 0.5 if live else 10

    def report(share: float, count: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < pause or now - began < QUIET_S:
            return
        last = now
        left = "?"
        if share > 0:
            left = _minutes((now - began) / share * (1 - share))
        line = f"{what}: {share:.0%}, {count:,} {unit}, left {left}"
        terminal.overwrite(line, live)

    try:
        yield report
    finally:
        if live and last > began:
            terminal.clear_line()


def _watched_text(metrics: Mapping[str, float], seconds: float) -> str:
    """The metrics worth watching, in one line."""
    parts = []
    for key, label in _WATCHED:
        if key in metrics:
            parts.append(f"{label} {_short(metrics[key])}")

    # Tokens sampled, or read by SFT.
    tokens = metrics.get("sampled_tokens", metrics.get("tokens", 0.0))
    if seconds and tokens:
        parts.append(f"tok/s {tokens / seconds:,.0f}")
    return " ".join(parts)


def _short(value: float) -> str:
    """A metric in a few characters."""
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.0e}"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
