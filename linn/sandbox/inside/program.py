"""What a forked child does with one untrusted program: call its functions, run it as a script, or check it by a test text.

For a check two children work: one holds the program and answers calls by plain data, the other holds the test text. So neither the
test's numbers nor its verdict are ever in the process of the program.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import linecache
import os
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from .plain import NotPlain, decode, encode

# Kept from before the program runs: a program that patches these modules spoils its own answers only, but need not spoil our messages.
_write, _read, _exit = os.write, os.read, os._exit

# What the public graders of contest problems import for every program: their modules, and all public names in these, in this order.
_PRELUDE_MODULES = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools", "functools", "operator",
    "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
_PRELUDE_DEPTH = 50_000
_prelude: dict[str, Any] = {}

# Modules a test text may name without importing them, because the program does.
_STDLIB_IN_TESTS = (
    "collections",
    "copy",
    "functools",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "re",
    "string",
    "sys",
)


def load_prelude() -> None:
    """Import what programs use often, once for all forks."""
    modules = {name: importlib.import_module(name) for name in _PRELUDE_MODULES}
    for module in modules.values():
        names = getattr(module, "__all__", None) or [
            name for name in vars(module) if not name.startswith("_")
        ]
        _prelude.update({name: getattr(module, name) for name in names})
    _prelude.update(
        {name: module for name, module in modules.items() if name not in ("builtins", "typing")},
        **vars(builtins),
    )


def _begin(module: types.ModuleType, prelude: bool) -> None:
    """The names are given as built-in ones, so that a function the program does not write is still missing."""
    if prelude:
        vars(module)["__builtins__"] = _prelude
        sys.setrecursionlimit(_PRELUDE_DEPTH)


def say(fd: int, text: str) -> None:
    """Write one line, whole."""
    data = text.encode("utf-8", "backslashreplace") + b"\n"
    while data:
        data = data[_write(fd, data) :]


def describe(error: BaseException, names: Mapping[str, str]) -> str:
    """`KeyError: 'x' (line 3)`: kind, message, and the last line of the program in the trace; never raises, however hostile the error."""
    try:
        line, trace = "", error.__traceback__
        while trace is not None:
            name = names.get(trace.tb_frame.f_code.co_filename)
            if name is not None:
                line = f" ({name}line {trace.tb_lineno})"
            trace = trace.tb_next
        if isinstance(error, SyntaxError):
            return f"{type(error).__name__}: {error.msg} (line {error.lineno})"[:300]
        text = str(error)[:200]
        return f"{type(error).__name__}: {text}{line}" if text else f"{type(error).__name__}{line}"
    except BaseException:
        return "error without a message"


def failure(error: BaseException, names: Mapping[str, str]) -> str:
    """The line that reports an error."""
    kind = "memory" if isinstance(error, MemoryError) else "error"
    return json.dumps({kind: describe(error, names)})


class Loaded:
    """A program in this process: one text, or a folder of files whose modules are imported on demand."""

    def __init__(
        self, program: str | None, files: Mapping[str, str] | None, prelude: bool = False
    ) -> None:
        self.names = {"<program>": ""}
        self.module: types.ModuleType | None = None
        if files is not None:
            root = os.getcwd()
            for path, text in files.items():
                full = os.path.join(root, path)
                os.makedirs(os.path.dirname(full), exist_ok=True)
                with open(
                    full, "w", encoding="utf-8", errors="surrogateescape", newline=""
                ) as file:
                    file.write(text)
                self.names[full] = f"{path} "
            sys.path.insert(0, root)
        if program is not None:
            self.module = types.ModuleType("solution")
            sys.modules["solution"] = self.module
            _begin(self.module, prelude)
            code = compile(program, "<program>", "exec", dont_inherit=True)
            exec(code, self.module.__dict__)

    def find(self, target: str) -> Any:
        """The object at `name`, `Class.method` of the program, or `module:name` of the files."""
        module, _, name = target.rpartition(":")
        found: Any = importlib.import_module(module) if module else self.module
        if not module and "." not in name and name not in vars(found) and "Solution" in vars(found):
            found = found.Solution()  # the convention of one well-known family of problems
        for part in name.split("."):
            found = getattr(found, part)
        return found


def run_calls(job: Mapping[str, Any], out: int) -> None:
    """Answer a list of calls, a line each; a program that does not load answers with one line of error for all."""
    program: Loaded | None = None
    names: Mapping[str, str] = {"<program>": ""}
    try:
        program = Loaded(job.get("program"), job.get("files"), job.get("prelude", False))
        names = program.names
    except BaseException as error:
        say(out, failure(error, names))
        return
    for target, arguments in job["calls"]:
        try:
            value = program.find(target)(*decode(arguments))
            say(out, '{"value": ' + encode(value) + "}")
        except BaseException as error:
            say(out, failure(error, names))


def run_script(text: str, out: int, prelude: bool) -> None:
    """Run the program as `__main__` on the three standard streams; what it prints is its answer."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    _begin(main, prelude)
    try:
        exec(compile(text, "<program>", "exec", dont_inherit=True), main.__dict__)
        sys.stdout.flush()
    except SystemExit as error:
        sys.stdout.flush()
        if error.code not in (None, 0):
            say(out, failure(error, {"<program>": ""}))
    except BaseException as error:
        say(out, failure(error, {"<program>": ""}))


# ---------------------------------------------------------------- checks by a test text: two processes


def _send(fd: int, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[_write(fd, data) :]


def _receive(fd: int, cap: int) -> str | None:
    def exactly(count: int) -> bytes | None:
        parts = []
        while count:
            part = _read(fd, min(count, 1 << 16))
            if not part:
                return None
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    head = exactly(4)
    size = int.from_bytes(head, "big") if head is not None else cap + 1
    body = exactly(size) if size <= cap else None
    return None if body is None else body.decode("utf-8", "replace")


def serve_program(job: Mapping[str, Any], calls: int, answers: int, cap: int) -> None:
    """The program's side of a check: load it, then answer calls until the other side closes."""
    names: Mapping[str, str] = {"<program>": ""}
    try:
        program = Loaded(job.get("program"), job.get("files"))
        names = program.names
        _send(answers, "loaded")
    except BaseException as error:
        _send(answers, describe(error, names))
        return
    while (text := _receive(calls, cap)) is not None:
        try:
            target, arguments, keywords = decode(text)
            found = program.find(target)
            value = found(*arguments, **keywords) if callable(found) else found
            answer = json.dumps({"value": encode(value)})
        except BaseException as error:
            answer = json.dumps({"raise": type(error).__name__, "text": describe(error, names)})
        _send(answers, answer)


def run_check(job: Mapping[str, Any], out: int, calls: int, answers: int, cap: int) -> None:
    """The judge's side of a check: run the test text against stand-ins that ask the program's process. Never holds the program."""
    loaded = _receive(answers, cap)
    if loaded != "loaded":
        say(out, json.dumps({"error": loaded or "the program ended while it was loaded"}))
        return

    def ended() -> None:
        say(out, json.dumps({"error": "the program ended before it answered"}))
        _exit(0)

    def stand_in(target: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            try:
                _send(calls, encode((target, arguments, keywords)))
            except OSError:
                ended()
            text = _receive(answers, cap)
            if text is None:
                ended()
            try:
                answer = json.loads(text or "")
                if isinstance(answer, dict) and isinstance(answer.get("value"), str):
                    return decode(answer["value"])
                kind, said = str(answer["raise"]), str(answer["text"])
            except (NotPlain, ValueError, KeyError, TypeError, RecursionError):
                kind, said = "RuntimeError", "the program's answer is not plain data"
            known = getattr(builtins, kind, None)
            usable = (
                isinstance(known, type)
                and issubclass(known, Exception)
                and not issubclass(known, (UnicodeError, StopIteration))
            )
            # (StopIteration would end a test's loop over cases as if all of them had been seen.)
            raise (known if usable and known is not None else RuntimeError)(said)

        return call

    names = {"<test>": "test "}
    linecache.cache.clear()
    try:
        tree = ast.parse(job["test"], "<test>")
        for path in job.get("modules", ()):
            _stand_in_module(path, stand_in)
        scope: dict[str, Any] = {"__name__": "test"}
        entry = job.get("entry_point")
        bound = {
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
        }
        for node in ast.walk(tree):
            # Names the test expects from the program's own namespace; never a builtin, which a program could bend.
            if (
                isinstance(node, ast.Name)
                and node.id not in bound
                and not hasattr(builtins, node.id)
            ):
                scope[node.id] = (
                    importlib.import_module(node.id)
                    if node.id in _STDLIB_IN_TESTS
                    else stand_in(node.id)
                )
        exec(compile(tree, "<test>", "exec", dont_inherit=True), scope)
        if entry is not None:
            scope["check"](stand_in(entry))
        else:
            tests = [
                scope[name]
                for name in list(scope)
                if name.startswith("test") and _made_by_test(scope[name])
            ]
            if not tests:
                raise LookupError("the test text defines no test function")
            for test in tests:
                test()
        say(out, '{"value": true}')
    except BaseException as error:
        say(out, failure(error, names))


def _made_by_test(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and value.__code__.co_filename == "<test>"


def _stand_in_module(path: str, stand_in: Callable[[str], Callable[..., Any]]) -> None:
    """Let `import a.b` in a test text give a module whose every attribute asks the program's process."""
    parts = path.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        if not isinstance(sys.modules.get(name), _Remote):
            sys.modules[name] = _Remote(name, stand_in)
        if depth > 1:
            setattr(sys.modules[".".join(parts[: depth - 1])], parts[depth - 1], sys.modules[name])


class _Remote(types.ModuleType):
    def __init__(self, name: str, stand_in: Callable[[str], Callable[..., Any]]) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self._stand_in = stand_in

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._stand_in(f"{self.__name__}:{name}")
