"""Chat templates of model folders: Jinja in a sandbox, with the helpers that transformers defines.

A template is code of whoever made the folder. The sandbox lets it read what it is given and write
text. `tests/test_template.py` holds the text equal to `apply_chat_template`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from linn.errors import UserError

if TYPE_CHECKING:
    from jinja2 import Template

TODAY = date(2026, 1, 1)
"""What a template that asks for today's date is told: a run is the same on every day."""


def render(source: str, values: Mapping[str, Any]) -> str:
    """The text of a template; UserError, in one line, where it refuses or cannot be run."""
    try:
        return compiled(source).render(values)
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's code does
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"the chat template refuses the conversation: {reason}") from None


@lru_cache(maxsize=32)
def compiled(source: str) -> Template:
    """The template, ready to render; UserError where it is no Jinja."""
    from jinja2 import TemplateSyntaxError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import CallBlock
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what an assistant says; the text stays as it is."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Callable[[], str]) -> str:
            return caller()

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = TODAY.strftime
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as error:
        raise UserError(f"the chat template is no Jinja: line {error.lineno}: {error}") from None


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter writes HTML's entities.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)
