"""A kind of role that tells what is in its environment."""

from __future__ import annotations

import os
from typing import Any


class Teller:
    """Its one message is `tell`."""

    def __init__(self) -> None:
        self._first = dict(os.environ)

    def tell(self, variable: str) -> str | None:
        """A variable's value as this was made, which is the one it has now."""
        value = os.environ.get(variable)
        assert self._first.get(variable) == value, f"{self._first.get(variable)}, now {value}"
        return value


def opened(options: Any) -> Teller:
    """What a process runs."""
    return Teller()
