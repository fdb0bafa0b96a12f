"""The one way of text to a terminal: what cannot be seen is shown as its code.

Models, rows, endpoints and files of others write what they like. An escape sequence among it must
not move the cursor, hide a line or reorder what a person reads. So nothing else prints; a test
reads the sources for it.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# Control characters but for tab and newline, lone surrogates, and the marks that reorder or hide
# what a reader sees (bidi, zero width).
_INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"
    "\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff"
    "]"
)


def visible(text: str) -> str:
    """Text whose every character can be seen and written; others become `<U+202E>`."""
    return _INVISIBLE.sub(lambda found: f"<U+{ord(found.group()):04X}>", text)


def visible_json(text: str) -> str:
    """JSON of the same value, of which the same holds: they become escapes of JSON."""
    # Outside of strings JSON has none of them but what separates its tokens.
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def echo(text: object = "", err: bool = False) -> None:
    """A line on standard output, or on standard error."""
    stream = sys.stderr if err else sys.stdout
    print(visible(str(text)), file=stream, flush=True)


def aside(text: str) -> None:
    """A line on standard error, for where nobody shows progress."""
    echo(text, err=True)


def echo_json(text: str) -> None:
    """JSON on standard output, for other programs."""
    print(visible_json(text), flush=True)


def overwrite(text: str, live: bool) -> None:
    """A line of progress on standard error, which the next one replaces where it is `live`."""
    end = "\r" if live else "\n"
    print(visible(text), end=end, file=sys.stderr, flush=True)


def clear_line() -> None:
    """Take away what `overwrite` left."""
    print("\x1b[2K", end="\r", file=sys.stderr, flush=True)


_STYLES = {"dim": "\x1b[2m", "bold": "\x1b[1m"}
_PLAIN = "\x1b[0m"


def say(text: str, style: str = "") -> None:
    """A piece of text on standard output, where the cursor stands; `style`: `dim` or `bold`."""
    shown = visible(text)
    if style and shown:
        shown = f"{_STYLES[style]}{shown}{_PLAIN}"
    print(shown, end="", flush=True)


def take_back(rows: int) -> None:
    """Take away the line that the cursor is in, and the `rows` above it, of standard output."""
    up = f"\x1b[{rows}A" if rows else ""
    print(f"\r{up}\x1b[J", end="", flush=True)


def console(**options: Any) -> Console:
    """A rich console that shows text as `visible` does. Its own colours and bars stay."""
    return _console_class()(**options)


@cache
def _console_class() -> type[Console]:
    # Only now: rich takes a tenth of a second, and help needs none of it.
    from rich.console import Console
    from rich.segment import Segment

    class VisibleConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                # Moves of the cursor are rich's own; text is anybody's.
                if segment.control is None:
                    segment = Segment(visible(segment.text), segment.style)
                yield segment

    return VisibleConsole
