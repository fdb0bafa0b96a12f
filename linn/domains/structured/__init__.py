"""Structured output: a document that keeps a schema; only validity counts, never content."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from linn.chat.request import request_of
from linn.domains.base import Domain
from linn.domains.common.limited_worker import LimitedWorker, WorkerEnded
from linn.domains.structured import documents
from linn.domains.structured.documents import KINDS, closed_schema, is_quick
from linn.errors import InfrastructureError, UserError
from linn.types import Message, Prompt, Reply, ToolCall, Verdict

_NAMES = (
    "ana bob carl dana emma finn gina hank iris jack"
    " kate liam mona nora omar paul rita sam tina vera"
).split()
_TEXTS: Mapping[str, list[str]] = {
    "name": _NAMES,
    "city": "oslo rome paris lima cairo delhi tokyo berlin madrid quito".split(),
    "color": "red blue green black white brown pink gold".split(),
    "pet": "dog cat bird fish horse".split(),
}
_NUMBERS = ("age", "size", "rooms", "score")
_FLAGS = ("happy", "open", "new")
_TYPES = {str: "string", int: "integer", bool: "boolean"}
_MODES = ("text", "tool_call")
_WALL_SECONDS = 30.0
"""Waiting longer than this for a process that is allowed a fraction of a second means that the
machine is at fault."""
_LONGEST_NOTE = 200


@dataclass(frozen=True)
class DocumentTask:
    """What a document is graded by."""

    schema: str
    """The schema, as JSON text, not yet closed."""
    kind: str
    """One of `documents.KINDS`."""
    mode: str = "text"
    """`text`: the answer is the document. `tool_call`: the reply's one call hands it over."""
    tool_name: Any = None
    """The name that the call must have, as the row gives it; None or empty: any."""
    payload_key: Any = None
    """The call's argument that is the document; None or empty: all arguments together are it."""
    facts: Mapping[str, Any] | None = None
    """A document that keeps the schema (tiny level); None for a row."""


class Structured(Domain):
    """Facts in words to a JSON object (tiny), or the released rows with their schemas."""

    name: ClassVar[str] = "structured"

    def __init__(
        self, level: str = "tiny", rows: str | Path | None = None, reference: bool = False
    ) -> None:
        """As `Domain`; a worker process starts with the first check that could run long.

        `reference`: schemas are closed and XML's and CSV's text is typed as nemo-gym does.
        """
        super().__init__(level, rows)
        self.reference = reference
        self._worker = LimitedWorker(
            f"{documents.__name__}:load_check", "schema checker", _WALL_SECONDS
        )

    def close(self) -> None:
        """End the worker process."""
        self._worker.close()

    def make(self, rng: random.Random) -> Prompt:
        """`name ana, age 31. json: {schema}`: two or three facts, one of them an integer."""
        facts = [_text_fact(rng), _number_fact(rng)]
        if rng.random() < 0.5:
            facts.append((rng.choice(_FLAGS), rng.random() < 0.5))
        rng.shuffle(facts)

        # Facts are written as in JSON, texts without their quotes.
        words = []
        properties = {}
        for key, value in facts:
            word = json.dumps(value).strip('"')
            words.append(f"{key} {word}")
            properties[key] = {"type": _TYPES[type(value)]}

        schema = _compact({"type": "object", "properties": properties})
        text = f"{', '.join(words)}. json: {schema}"
        return Prompt(
            domain=self.name,
            id="",
            messages=(Message("user", text),),
            thinking=False,
            hidden=DocumentTask(schema, "json", facts=dict(facts)),
        )

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """1 iff the whole answer (or the one call's payload) keeps the closed schema.

        Nothing around the document is stripped.
        """
        task = _task_of(prompt)
        kind, text = task.kind, reply.text
        if task.mode == "tool_call":
            kind = "json"
            try:
                text = json.dumps(_payload(task, reply))
            except (ValueError, RecursionError) as error:
                return Verdict(0.0, str(error)[:_LONGEST_NOTE])

        why = self._check(kind, text, task.schema)
        return Verdict(float(not why), why or "keeps the schema")

    def _check(self, kind: str, text: str, schema: str) -> str:
        """As `documents.check`; one that ran out of processor time or memory is a failed reply."""
        if is_quick(kind, text, schema):
            return documents.check(kind, text, schema, self.reference)
        request = (kind, text, schema, self.reference)
        try:
            return str(self._worker.call(request, documents.CPU_SECONDS))
        except WorkerEnded as ended:
            if ended.silent:
                raise InfrastructureError(
                    f"the schema checker gave no answer in {_WALL_SECONDS:.0f} s;"
                    " the machine may be overloaded"
                ) from None
            return "validation ran out of time or memory"

    def gold(self, prompt: Prompt) -> Reply:
        """The facts as a JSON object (tiny level only)."""
        if _task_of(prompt).facts is None:
            raise UserError("domain structured: rows hold no gold replies")
        (message,) = self.demonstrate(prompt, random.Random(0), faulty=False)
        return Reply(text=message.content, messages=(message,))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The facts as a compact JSON object; faulty: integers in quotes."""
        facts = _task_of(prompt).facts
        assert facts is not None, "rows hold no demonstrations"
        document = dict(facts)
        if faulty:
            # `type`, not `isinstance`: a boolean is no number here.
            numbers = {key: value for key, value in facts.items() if type(value) is int}
            document |= {key: str(value) for key, value in numbers.items()}
        return (Message("assistant", _compact(document)),)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """A released row: `schema_str`, `schema_type` (json), newer `response_mode`, `tool_name`,
        `tool_payload_key`."""
        where = f"row {index} (domain structured)"
        schema = row.get("schema_str")
        kind = row.get("schema_type") or "json"
        mode = row.get("response_mode") or "text"

        # Closing it reads it: a schema that cannot be closed is refused here, not in each verdict.
        try:
            closed = None
            if isinstance(schema, str):
                closed = closed_schema(schema, self.reference)
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(
                f"{where}: schema_str is not the JSON text of a schema: {error}"
            ) from error
        if not isinstance(schema, str) or not isinstance(closed, (dict, bool)):
            raise UserError(
                f"{where}: schema_str must be the JSON text of a schema, found {str(schema)[:60]!r}"
            )
        if not isinstance(kind, str) or kind.lower() not in KINDS:
            raise UserError(f"{where}: schema_type is {kind!r}; allowed: {', '.join(KINDS)}")

        # Newer rows may ask for the document as a call.
        if mode not in _MODES:
            raise UserError(f"{where}: response_mode is {mode!r}; allowed: {', '.join(_MODES)}")

        task = DocumentTask(
            schema=schema,
            kind=kind.lower(),
            mode=mode,
            tool_name=row.get("tool_name"),
            payload_key=row.get("tool_payload_key"),
        )
        identity = row.get("id", row.get("source_record_id") or index)
        request = request_of(row, index)
        return request.prompt(self.name, str(identity), task)


def _task_of(prompt: Prompt) -> DocumentTask:
    task = prompt.hidden
    assert isinstance(task, DocumentTask), task
    return task


def _payload(task: DocumentTask, reply: Reply) -> Any:
    """What the reply's one call hands over.

    Raises ValueError where there is not exactly one call, or not the right one.
    """
    calls: list[ToolCall] = []
    for message in reply.messages:
        if message.role == "assistant":
            calls += message.tool_calls
    if len(calls) != 1:
        raise ValueError(f"{len(calls)} calls; exactly one is wanted")

    # A row without a name for the tool takes any.
    call = calls[0]
    if task.tool_name and call.name != task.tool_name:
        raise ValueError(f"called {call.name[:60]!r} instead of {task.tool_name!r}")

    arguments = call.arguments
    if isinstance(arguments, str):
        arguments = json.loads(arguments)

    key = task.payload_key
    if not key:
        return dict(arguments) if isinstance(arguments, Mapping) else arguments
    if not isinstance(arguments, Mapping) or key not in arguments:
        raise ValueError(f"the call lacks {key!r}")
    return arguments[key]


# ---------------------------------------------------------------- the tiny generator


def _text_fact(rng: random.Random) -> tuple[str, str | int | bool]:
    key = rng.choice(list(_TEXTS))
    return key, rng.choice(_TEXTS[key])


def _number_fact(rng: random.Random) -> tuple[str, str | int | bool]:
    return rng.choice(_NUMBERS), rng.randint(1, 99)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
