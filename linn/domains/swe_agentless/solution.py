"""The part of an answer between `<solution>` and `</solution>`."""

from __future__ import annotations

_OPEN, _CLOSE = "<solution>", "</solution>"


def last_solution(answer: str) -> str | None:
    """What stands between the last `<solution>` and the `</solution>` after it; None without."""
    start = answer.rfind(_OPEN)
    end = answer.find(_CLOSE, start)
    if start < 0 or end < 0:
        return None
    return answer[start + len(_OPEN) : end]


def solution(text: str) -> str:
    """A text as an answer gives it."""
    return f"{_OPEN}\n{text}\n{_CLOSE}"
