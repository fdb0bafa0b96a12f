"""Checking a program by a test text, in two processes.

One process holds the program and answers calls by plain data; the other holds the test text. So
neither the test's numbers nor its verdict are ever in the process of the program.

This file runs inside the sandbox, on both sides.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import linecache
import os
import resource
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from .plain import NotPlain, decode, encode
from .program import PROGRAM, Job, Loaded, describe, failure, say

# Kept from before the program runs: see `program.py`.
_write, _read, _exit = os.write, os.read, os._exit

_STDLIB_IN_TESTS = (
    "collections copy functools itertools json math operator random re string sys".split()
)
"""Modules a test text may name without importing them, because the program does."""
_IMPORTED_LATE = ("_strptime", "collections.abc", "encodings.idna", "locale", "typing", "weakref")
"""Modules that those of the library import when they are first needed."""
_TEST = "<test>"
"""File name of a test text."""
_SIZE_BYTES = 4
_ANSWER_ERRORS = (NotPlain, ValueError, KeyError, TypeError, RecursionError)
"""What reading an answer of a hostile program can raise."""


# ------------------------------------------------------------ messages between the two


def _send(fd: int, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    data = len(data).to_bytes(_SIZE_BYTES, "big") + data
    while data:
        data = data[_write(fd, data) :]


def _receive(fd: int, cap: int) -> str | None:
    """One message; None where the other side has closed, or announces more than `cap` bytes."""
    head = _exactly(fd, _SIZE_BYTES)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    if size > cap:
        return None
    body = _exactly(fd, size)
    return None if body is None else body.decode("utf-8", "replace")


def _exactly(fd: int, count: int) -> bytes | None:
    parts = []
    while count:
        part = _read(fd, min(count, 1 << 16))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


# ------------------------------------------------------------ the program's side


def serve_program(job: Job, calls: int, answers: int, cap: int) -> None:
    """The program's side of a check: load it, then answer calls until the other side closes."""
    try:
        program = Loaded(job.get("program"), job.get("files"), unseen=job.get("unseen", False))
        _send(answers, "loaded")
    except BaseException as error:
        _send(answers, describe(error, {PROGRAM: ""}))
        return

    while (text := _receive(calls, cap)) is not None:
        try:
            target, arguments, keywords = decode(text)

            # A test may also read a constant of the program, by calling its name.
            value = program.find(target)
            if callable(value):
                value = value(*arguments, **keywords)

            answer = json.dumps({"value": encode(value)})
        except BaseException as error:
            kind = type(error).__name__
            message = describe(error, program.names)
            answer = json.dumps({"raise": kind, "text": message})
        _send(answers, answer)


# ------------------------------------------------------------ the judge's side


class _Link:
    """The connection to the program's process, as the test text uses it."""

    def __init__(self, out: int, calls: int, answers: int, cap: int) -> None:
        self.out, self.calls, self.answers, self.cap = out, calls, answers, cap

    def stand_in(self, target: str) -> Callable[..., Any]:
        """A function that has the program's process call `target`."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            try:
                _send(self.calls, encode((target, arguments, keywords)))
            except OSError:
                self._end()
            text = _receive(self.answers, self.cap)
            if text is None:
                self._end()
            return _value_of(text)

        return call

    def _end(self) -> NoReturn:
        say(self.out, json.dumps({"error": "the program ended before it answered"}))
        _exit(0)


def _value_of(text: str) -> Any:
    """The value that the program's process answered; raises what it raised."""
    try:
        answer = json.loads(text)
        if isinstance(answer, dict) and isinstance(answer.get("value"), str):
            return decode(answer["value"])
        name, message = str(answer["raise"]), str(answer["text"])
    except _ANSWER_ERRORS:
        name, message = "RuntimeError", "the program's answer is not plain data"
    raise _exception_of(name)(message)


def _exception_of(name: str) -> type[Exception]:
    """The builtin exception of that name, where it may be raised into a test text."""
    kind = getattr(builtins, name, None)
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        return RuntimeError
    # UnicodeErrors take more than a message. StopIteration would end a test's loop over cases as
    # if all of them had been seen.
    if issubclass(kind, (UnicodeError, StopIteration)):
        return RuntimeError
    return kind


def run_check(job: Job, out: int, calls: int, answers: int, cap: int) -> None:
    """The judge's side of a check: run the test text against stand-ins for the program's names.

    The stand-ins ask the program's process; this one never holds the program.
    """
    loaded = _receive(answers, cap)
    if loaded != "loaded":
        say(out, json.dumps({"error": loaded or "the program ended while it was loaded"}))
        return

    link = _Link(out, calls, answers, cap)
    linecache.cache.clear()
    try:
        tree = ast.parse(job["test"], _TEST)
        for path in job.get("modules", ()):
            _stand_in_module(path, link)

        # What the text names without defining it is the program's.
        library = job.get("library")
        known = _STDLIB_IN_TESTS if library is None else library
        scope: dict[str, Any] = {"__name__": "test"}
        for name in _free_names(tree):
            if name in known:
                scope[name] = importlib.import_module(name)
            else:
                scope[name] = link.stand_in(name)

        if library is not None:
            _shut(library)
        exec(compile(tree, _TEST, "exec", dont_inherit=True), scope)

        # HumanEval's convention, or that of pytest.
        entry = job.get("entry_point")
        if entry is not None:
            scope["check"](link.stand_in(entry))
        else:
            for test in _tests_of(scope):
                test()

        say(out, '{"value": true}')
    except BaseException as error:
        say(out, failure(error, {_TEST: "test "}))


def _shut(library: Sequence[str]) -> None:
    """Let this process open no file from here on: what a text may import is imported before."""
    for name in (*library, *_IMPORTED_LATE):
        importlib.import_module(name)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _free_names(tree: ast.Module) -> list[str]:
    """Names that a test text expects from the program's own namespace.

    Never a builtin, which a program could bend.
    """
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    return [node.id for node in names if node.id not in bound and not hasattr(builtins, node.id)]


def _tests_of(scope: Mapping[str, Any]) -> list[Callable[[], None]]:
    """The test functions that the text defines, in its order; raises LookupError without any."""
    tests = []
    for name, value in scope.items():
        is_function = isinstance(value, types.FunctionType)
        if name.startswith("test") and is_function and value.__code__.co_filename == _TEST:
            tests.append(value)
    if not tests:
        raise LookupError("the test text defines no test function")
    return tests


def _stand_in_module(path: str, link: _Link) -> None:
    """Let `import a.b` in a test text give a module whose attributes ask the program's process."""
    parts = path.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        if not isinstance(sys.modules.get(name), _Remote):
            sys.modules[name] = _Remote(name, link)
        if depth > 1:
            parent = sys.modules[".".join(parts[: depth - 1])]
            setattr(parent, parts[depth - 1], sys.modules[name])


class _Remote(types.ModuleType):
    """A module of the program, seen from the test text."""

    def __init__(self, name: str, link: _Link) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self._stand_in = link.stand_in

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._stand_in(f"{self.__name__}:{name}")
