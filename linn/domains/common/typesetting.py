r"""What sets a text in another type, size or colour, or moves it, and says nothing: in LaTeX and
Markdown. Graders read answers without it.
"""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\\(?:text)?color\s*\{[^{}]*\}")
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|rm|it|sf|tt|sc|sl|up|md|normal)?|math(?:rm|bf|it|sf|tt|cal|bb|frak|scr|normal)"
    r"|boldsymbol|bm|pmb|boxed|fbox|mbox|hbox|emph|underline|operatorname|rm|bf)"
    r"\s*\{(?P<inner>[^{}]*)\}"
)
_MOST_WRAPPERS = 8
_SWITCH = re.compile(
    r"\\(?:bf|rm|it|sf|tt|bfseries|itshape|displaystyle|textstyle|tiny|small|normalsize|large|Large"
    r"|LARGE|huge|Huge|left|right|[bB]igg?[lrm]?|qquad|quad|checkmark)(?![A-Za-z])"
)
_SPACE = re.compile(r"\\[,;:!\s]|(?<!~)~(?!~)")
"""LaTeX's spaces; a pair of tildes strikes out in Markdown."""
_MARKED = re.compile(
    r"(?<!\w)(?P<mark>\*{1,3}|_{1,3}|`+)(?=\S)(?P<inner>.+?)(?<=\S)(?P=mark)(?!\w)"
)


def without_colour(text: str) -> str:
    """LaTeX without the commands for colours."""
    return _COLOUR.sub("", text)


def unwrapped(text: str) -> str:
    """LaTeX without the commands that set their argument in another type, or frame it."""
    for _ in range(_MOST_WRAPPERS):
        text, count = _WRAPPER.subn(lambda match: match["inner"], text)
        if not count:
            break
    return text


def unset(text: str) -> str:
    """A text without type, size, colour and space of LaTeX, and without Markdown's emphasis."""
    text = _SWITCH.sub(" ", unwrapped(without_colour(text)))
    text = _SPACE.sub(" ", text)
    return _MARKED.sub(lambda match: match["inner"], text).strip()
