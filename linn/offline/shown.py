"""What a model sees of each row of a file: `linn render`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linn.chat import render as chat
from linn.chat.codec import Codec
from linn.chat.request import render_row, request_of
from linn.data.layouts import as_messages, layout_of, present
from linn.domains.base import Domain
from linn.domains.load import reader
from linn.errors import UserError


class Shown:
    """Rows as text, and as token ids where there is a tokenizer."""

    def __init__(self, domain: str | None = None, codec: Codec | None = None) -> None:
        """`domain`: asks every row in its own words and mode; None: rows speak for themselves.

        A row without a conversation is then asked as the domain asks it that its fields point to.
        `codec`: whose template writes; None: linn's protocol.
        """
        self._domain = domain
        self._codec = codec
        self._domains: dict[str, Domain] = {}

    def text(self, row: Mapping[str, Any], index: int) -> str:
        """The text of a row; UserError names the field that is wrong. `index`: its number."""
        return str(self.entry(row, index)["text"])

    def entry(self, row: Mapping[str, Any], index: int) -> dict[str, Any]:
        """`text` of a row, and `tokens` where there is a tokenizer; errors as `text`."""
        row = as_messages(row)
        name = self._domain
        if name is None and not _speaks(row):
            name = layout_of(row).domain
        return self._entry(row, name, index)

    def _entry(self, row: Mapping[str, Any], name: str | None, index: int) -> dict[str, Any]:
        """The row asked by the domain `name`, or as it speaks for itself."""
        codec = self._codec
        if name is not None:
            prompt = self._reader(name).from_row(present(row), index)
            if codec is None:
                return {"text": chat.render(prompt.messages, prompt.tools, prompt.thinking)}
            return {"text": codec.prompt_text(prompt), "tokens": codec.prompt_ids(prompt)}
        if codec is None:
            return {"text": render_row(row)}
        if codec.template.name == "own":
            prompt = request_of(row).prompt("", "")
            return {"text": codec.prompt_text(prompt), "tokens": codec.prompt_ids(prompt)}

        # linn's protocol shows a row also where it could not be trained.
        text = codec.template.bos + render_row(row)
        tokens = codec.encode(text)
        try:
            prompt = request_of(row).prompt("", "")
        except UserError:
            return {"text": text, "tokens": tokens}
        if codec.prompt_text(prompt) == text:
            tokens = codec.prompt_ids(prompt)
        return {"text": text, "tokens": tokens}

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
