"""Live progress: one bar a stage in a terminal, one line a step without."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

_WATCHED = (
    ("loss", "loss"),
    ("reward", "reward"),
    ("kept_groups", "kept"),
    ("length", "len"),
    ("mismatch_max", "mismatch"),
    ("grad_norm", "grad"),
)


class Progress:
    """What a person watches while a run goes on."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._live: Live | None = None
        self._began: dict[str, tuple[float, int]] = {}
        self._log: TextIO | None = None

    @contextmanager
    def logging(self, folder: Path) -> Iterator[None]:
        """Meanwhile every line goes to `log-N.txt` in `folder` too, N counting the attempts."""
        attempt = 1 + len(list(folder.glob("log-*.txt")))
        with open(folder / f"log-{attempt}.txt", "w", encoding="utf-8", buffering=1) as self._log:
            try:
                yield
            except Exception:
                self._log.write(traceback.format_exc())  # the terminal shows one line of it
                raise
            finally:
                self._log = None
                self.close()

    def say(self, text: str) -> None:
        """One line worth reading, above the bar."""
        if self._log is not None:
            self._log.write(text + "\n")
        self.console.print(text, highlight=False, soft_wrap=True)

    def step(self, stage: str, step: int, steps: int, figures: Mapping[str, float]) -> None:
        """One step is over."""
        began, first = self._began.setdefault(
            stage, (time.time() - figures.get("wall_s", 0.0), step - 1)
        )
        left = (time.time() - began) / max(1, step - first) * (steps - step)
        seen = " ".join(
            f"{label} {_figure(figures[key])}" for key, label in _WATCHED if key in figures
        )
        wall = figures.get("wall_s", 0.0)
        if wall and (tokens := figures.get("sampled_tokens", figures.get("tokens", 0.0))):
            seen += f" tok/s {tokens / wall:,.0f}"
        if self._log is not None:
            self._log.write(f"{step}/{steps} {seen}\n")
        self._line(stage, step, steps, f"{seen} left {_clock(left)}")

    def note(self, stage: str, done: int, total: int, what: str) -> None:
        """Progress of something that is not a step, such as an evaluation."""
        if self.console.is_terminal:
            self._line(stage, done, total, what)

    def _line(self, stage: str, done: int, total: int, text: str) -> None:
        head = f"{stage:<14} {done:>4}/{total:<4}"
        if not self.console.is_terminal:
            print(f"{head} {text}", file=sys.stderr, flush=True)
            return
        width = 12
        full = int(width * done / max(1, total))
        line = Text(
            f"{head} {'━' * full}{'╺' * (width - full)} {text}", overflow="ellipsis", no_wrap=True
        )
        if self._live is None:
            self._live = Live(line, console=self.console, refresh_per_second=8, transient=True)
            self._live.start()
        self._live.update(line)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None


@contextmanager
def reading(what: str) -> Iterator[Callable[[float, int], None]]:
    """Progress of reading a long file, on standard error: hears (share, lines); silent for the first seconds, then a line in a while."""
    began = said = time.monotonic()
    live = sys.stderr.isatty()

    def hear(share: float, lines: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < (0.5 if live else 10) or now - began < 2:
            return
        said = now
        left = _clock((now - began) / share * (1 - share)) if share > 0 else "?"
        print(
            f"{what}: {share:.0%}, {lines:,} lines, left {left}",
            end="\r" if live else "\n",
            file=sys.stderr,
            flush=True,
        )

    try:
        yield hear
    finally:
        if live and said > began:
            print("\x1b[2K", end="\r", file=sys.stderr, flush=True)


def _figure(value: float) -> str:
    return (
        f"{value:.0f}"
        if value >= 100 or value == int(value)
        else f"{value:.3g}"
        if abs(value) >= 1e-3
        else f"{value:.0e}"
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
