"""What a model sees of each row of a file: `linn render`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linn.chat import render as chat
from linn.chat.request import render_row
from linn.data.layouts import as_messages, layout_of, present
from linn.domains.base import Domain
from linn.domains.load import reader


class Shown:
    """Rows as text, under linn's own template."""

    def __init__(self, domain: str | None = None) -> None:
        """`domain`: asks every row in its own words and mode; None: rows speak for themselves.

        A row without a conversation is then asked as the domain asks it that its fields point to.
        """
        self._domain = domain
        self._domains: dict[str, Domain] = {}

    def text(self, row: Mapping[str, Any], index: int) -> str:
        """The text of a row; UserError names the field that is wrong. `index`: its number."""
        row = as_messages(row)
        name = self._domain
        if name is None and not _speaks(row):
            name = layout_of(row).domain
        if name is None:
            return render_row(row)
        prompt = self._reader(name).from_row(present(row), index)
        return chat.render(prompt.messages, prompt.tools, prompt.thinking)

    def close(self) -> None:
        """Free what the domains hold."""
        for domain in self._domains.values():
            domain.close()

    def _reader(self, name: str) -> Domain:
        if name not in self._domains:
            self._domains[name] = reader(name)
        return self._domains[name]


def _speaks(row: Mapping[str, Any]) -> bool:
    """Whether a row holds the conversation itself; HumanEval's `prompt` is half a function."""
    params = row.get("responses_create_params")
    if params is not None:
        # An empty or a broken one is shown, or refused, as it stands.
        return not isinstance(params, Mapping) or "input" in params
    if row.get("messages") or row.get("context"):
        return True
    return bool(row.get("prompt")) and "entry_point" not in row
