"""Structured output: a document that keeps a schema; only validity counts, never content."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from linn.chat.request import request_messages, request_tools
from linn.domains.base import Domain
from linn.domains.structured.documents import KINDS, check, closed_schema, quick
from linn.errors import InfrastructureError, UserError
from linn.types import Message, Prompt, Reply, Verdict

_NAMES = "ana bob carl dana emma finn gina hank iris jack kate liam mona nora omar paul rita sam tina vera".split()
_TEXTS: Mapping[str, list[str]] = {
    "name": _NAMES,
    "city": "oslo rome paris lima cairo delhi tokyo berlin madrid quito".split(),
    "color": "red blue green black white brown pink gold".split(),
    "pet": "dog cat bird fish horse".split(),
}
_NUMBERS = ("age", "size", "rooms", "score")
_FLAGS = ("happy", "open", "new")


class Structured(Domain):
    """Facts in words to a JSON object (tiny), or the released rows with their schemas."""

    name: ClassVar[str] = "structured"

    def __init__(self, level: str = "tiny", rows: str | Path | None = None) -> None:
        """As `Domain`; a worker process starts with the first check that could run long."""
        super().__init__(level, rows)
        self._worker = _Worker()

    def close(self) -> None:
        """End the worker process."""
        self._worker.close()

    def make(self, rng: random.Random) -> Prompt:
        """`name ana, age 31. json: {schema}`: two or three facts, at least one of them a whole number."""
        facts = [_text_fact(rng), _number_fact(rng)]
        if rng.random() < 0.5:
            facts.append((rng.choice(_FLAGS), rng.random() < 0.5))
        rng.shuffle(facts)
        said = ", ".join(f"{key} {json.dumps(value).strip(chr(34))}" for key, value in facts)
        types = {str: "string", int: "integer", bool: "boolean"}
        schema = _compact(
            {
                "type": "object",
                "properties": {key: {"type": types[type(value)]} for key, value in facts},
            }
        )
        hidden = {
            "schema_str": schema,
            "schema_type": "json",
            "response_mode": "text",
            "answer": dict(facts),
        }
        return Prompt(
            self.name,
            "",
            (Message("user", f"{said}. json: {schema}"),),
            thinking=False,
            hidden=hidden,
        )

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """1 iff the whole answer (or the one call's payload) is a document that keeps the closed schema; nothing around it is stripped."""
        hidden = prompt.hidden
        kind, text = hidden["schema_type"], reply.text
        if hidden["response_mode"] == "tool_call":
            try:
                kind, text = "json", json.dumps(_payload(hidden, reply))
            except (ValueError, RecursionError) as error:
                return Verdict(0.0, str(error)[:200])
        why = (
            check(kind, text, hidden["schema_str"])
            if quick(kind, text, hidden["schema_str"])
            else self._worker.check(kind, text, hidden["schema_str"])
        )
        return Verdict(float(not why), why or "keeps the schema")

    def gold(self, prompt: Prompt) -> Reply:
        """The facts as a JSON object (tiny level only)."""
        if "answer" not in prompt.hidden:
            raise UserError("domain structured: rows hold no gold replies")
        (message,) = self.demonstrate(prompt, random.Random(0), faulty=False)
        return Reply(text=message.content, messages=(message,))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The facts as a compact JSON object; faulty: whole numbers in quotes."""
        answer = prompt.hidden["answer"]
        if faulty:
            answer = {
                key: str(value) if type(value) is int else value for key, value in answer.items()
            }
        return (Message("assistant", _compact(answer)),)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """A released row: `schema_str`, `schema_type` (json), newer `response_mode`, `tool_name`, `tool_payload_key`."""
        where = f"row {index} (domain structured)"
        schema, kind, mode = (
            row.get("schema_str"),
            row.get("schema_type") or "json",
            row.get("response_mode") or "text",
        )
        try:
            closed = closed_schema(schema) if isinstance(schema, str) else None
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(
                f"{where}: schema_str is not the JSON text of a schema: {error}"
            ) from error
        if not isinstance(closed, (dict, bool)):
            raise UserError(
                f"{where}: schema_str must be the JSON text of a schema, found {str(schema)[:60]!r}"
            )
        if not isinstance(kind, str) or kind.lower() not in KINDS:
            raise UserError(f"{where}: schema_type is {kind!r}; allowed: {', '.join(KINDS)}")
        if mode not in ("text", "tool_call"):
            raise UserError(f"{where}: response_mode is {mode!r}; allowed: text, tool_call")
        hidden = {"schema_str": schema, "schema_type": kind.lower(), "response_mode": mode}
        hidden |= {
            "tool_name": row.get("tool_name"),
            "tool_payload_key": row.get("tool_payload_key"),
        }
        identity = str(row.get("id", row.get("source_record_id") or index))
        return Prompt(
            self.name,
            identity,
            request_messages(row, index),
            True,
            request_tools(row, index),
            hidden,
        )


def _payload(hidden: Mapping[str, Any], reply: Reply) -> Any:
    """What the reply's one call hands over; raises ValueError where there is not exactly one, or not the right one."""
    calls = [
        call
        for message in reply.messages
        if message.role == "assistant"
        for call in message.tool_calls
    ]
    if len(calls) != 1:
        raise ValueError(f"{len(calls)} calls; exactly one is wanted")
    name, key, arguments = (
        hidden.get("tool_name"),
        hidden.get("tool_payload_key"),
        calls[0].arguments,
    )
    if name and calls[0].name != name:
        raise ValueError(f"called {calls[0].name[:60]!r} instead of {name!r}")
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not key:
        return dict(arguments) if isinstance(arguments, Mapping) else arguments
    if not isinstance(arguments, Mapping) or key not in arguments:
        raise ValueError(f"the call lacks {key!r}")
    return arguments[key]


class _Worker:
    """A process that checks documents one at a time under a CPU limit, started when first needed and again after it was killed."""

    _WALL_SECONDS = 30.0
    """Waiting longer than this for a process that is allowed a fraction of a second means that the machine is at fault."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def check(self, kind: str, text: str, schema_text: str) -> str:
        """As `documents.check`; a check that ran out of CPU time or memory is a reply that failed."""
        with self._lock:
            process = (
                self._start()
                if self._process is None or self._process.poll() is not None
                else self._process
            )
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([kind, text, schema_text]).encode() + b"\n")
                process.stdin.flush()
                answer = self._read(process)
            except BrokenPipeError:
                answer = None
            if answer is None:
                self._stop()
                return "validation ran out of time or memory"
            return str(answer["why"])

    def _start(self) -> subprocess.Popen[bytes]:
        self._stop()
        paths = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "linn.domains.structured.documents"]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": paths},
            )
        except OSError as error:
            raise InfrastructureError(f"the schema checker did not start: {error}") from error
        if self._read(self._process) is None:
            self._stop()
            raise InfrastructureError(
                "the schema checker ended while it started; run: python -m linn.domains.structured.documents"
            )
        return self._process

    def _read(self, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """The next line as an object; None when the process ended."""
        assert process.stdout is not None
        line, end = b"", time.monotonic() + self._WALL_SECONDS
        while not line.endswith(b"\n"):
            if not select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                self._stop()
                raise InfrastructureError(
                    f"the schema checker gave no answer in {self._WALL_SECONDS:.0f} s; the machine may be overloaded"
                )
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                return None
            line += part
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()


# ---------------------------------------------------------------- the tiny generator


def _text_fact(rng: random.Random) -> tuple[str, str | int | bool]:
    key = rng.choice(list(_TEXTS))
    return key, rng.choice(_TEXTS[key])


def _number_fact(rng: random.Random) -> tuple[str, str | int | bool]:
    return rng.choice(_NUMBERS), rng.randint(1, 99)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
