"""What a forked child does with one untrusted program: call its functions, or run it as a script.

This file runs inside the sandbox, in the program's own process. How a test text checks a program
stands in `check.py`.
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import sys
import types
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from typing import Any

from .plain import decode, encode

# Kept from before the program runs. A program that patches this module spoils its own answers
# only, but need not spoil our messages.
_write = os.write

_PRELUDE_MODULES = (
    "string re datetime collections heapq bisect copy math random statistics itertools "
    "functools operator io sys json builtins typing"
).split()
"""What the public graders of contest problems import for every program, in this order."""
_PRELUDE_DEPTH = 50_000
_prelude: dict[str, Any] = {}
"""The names of these modules, and all public names in them."""

Job = Mapping[str, Any]
"""A request's first body: a `program` or `files`, `calls`, `prelude`; of a check: `test` …"""
PROGRAM = "<program>"
"""File name of a program's text."""
_NAMES = {PROGRAM: ""}
"""Names of the program's files, for messages."""


def load_prelude() -> None:
    """Import what programs use often, once for all forks."""
    modules = {name: importlib.import_module(name) for name in _PRELUDE_MODULES}
    for module in modules.values():
        public = [name for name in vars(module) if not name.startswith("_")]
        for name in getattr(module, "__all__", None) or public:
            _prelude[name] = getattr(module, name)
    for name, module in modules.items():
        if name not in ("builtins", "typing"):
            _prelude[name] = module
    _prelude.update(vars(builtins))


def allow_long_integers() -> None:
    """Let programs read and write integers of any length; their time limit bounds the work.

    Python refuses more than 4,300 digits unless told otherwise, to protect servers. A contest's
    program may print factorials.
    """
    sys.set_int_max_str_digits(0)


def _begin(module: types.ModuleType, prelude: bool) -> None:
    """Give a module the prelude's names.

    They are given as built-in ones, so that a function the program does not write is still
    missing.
    """
    if prelude:
        vars(module)["__builtins__"] = _prelude
        sys.setrecursionlimit(_PRELUDE_DEPTH)


def say(fd: int, text: str) -> None:
    """Write one line, whole."""
    data = text.encode("utf-8", "backslashreplace") + b"\n"
    while data:
        data = data[_write(fd, data) :]


def describe(error: BaseException, names: Mapping[str, str]) -> str:
    """`KeyError: 'x' (line 3)`: kind, message, and the last line of the program in the trace.

    Never raises, however hostile the error.
    """
    try:
        # The innermost frame of the program's own text: what it called is of no interest.
        line, trace = "", error.__traceback__
        while trace is not None:
            name = names.get(trace.tb_frame.f_code.co_filename)
            if name is not None:
                line = f" ({name}line {trace.tb_lineno})"
            trace = trace.tb_next

        kind = type(error).__name__
        if isinstance(error, SyntaxError):
            return f"{kind}: {error.msg} (line {error.lineno})"[:300]
        text = str(error)[:200]
        return f"{kind}: {text}{line}" if text else f"{kind}{line}"
    except BaseException:
        return "error without a message"


def failure(error: BaseException, names: Mapping[str, str]) -> str:
    """The line that reports an error."""
    kind = "memory" if isinstance(error, MemoryError) else "error"
    return json.dumps({kind: describe(error, names)})


class Loaded:
    """A program in this process: one text, or a folder of files whose modules are imported."""

    def __init__(
        self,
        program: str | None,
        files: Mapping[str, str] | None,
        prelude: bool = False,
        unseen: bool = False,
    ) -> None:
        """`unseen`: the files' modules are loaded from memory, and their text is nowhere.

        Nothing but what they define can then be found: no code object, nobody else's module.
        """
        self.names = dict(_NAMES)
        self.module: types.ModuleType | None = None
        self._seen: frozenset[str] | None = None
        if files is not None and unseen:
            loader = FromMemory(files)
            sys.meta_path.insert(0, loader)
            self._seen = loader.modules
            files = {path: text for path, text in files.items() if not path.endswith(".py")}
        if files is not None:
            self._write_files(files)

        if program is not None:
            self.module = types.ModuleType("solution")
            sys.modules["solution"] = self.module
            _begin(self.module, prelude)

            # Nothing of this file's own `from __future__` holds for the program.
            code = compile(program, PROGRAM, "exec", dont_inherit=True)
            exec(code, self.module.__dict__)

    def _write_files(self, files: Mapping[str, str]) -> None:
        """Put the files into the working directory, where importing finds them."""
        root = os.getcwd()
        for path, text in files.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                file.write(text)
            if path.endswith(".py"):
                self.names[full] = f"{path} "
        sys.path.insert(0, root)

    def find(self, target: str) -> Any:
        """The object at `name`, `Class.method` of the program, or `module:name` of the files."""
        module, _, name = target.rpartition(":")
        if self._seen is not None:
            # By a dotted name a test could read a function's code; by another module, anything.
            is_own = module in self._seen and name.isidentifier() and not name.startswith("_")
            if not is_own:
                raise AttributeError(f"{target[:100]!r} is not for a test")
        value: Any = importlib.import_module(module) if module else self.module
        is_function = not module and "." not in name
        if is_function and name not in vars(value) and "Solution" in vars(value):
            value = value.Solution()  # the convention of one well-known family of problems
        for part in name.split("."):
            value = getattr(value, part)
        return value


class FromMemory:
    """Imports modules whose code was compiled from texts that are on no disk.

    A finder and a loader by what it does: the library's own classes for these import twenty modules
    that every fork would carry.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._codes: dict[str, types.CodeType | SyntaxError | ValueError] = {}
        self._packages = {""}
        for path, text in files.items():
            if not path.endswith(".py"):
                continue
            name = path.removesuffix(".py").replace("/", ".")
            if name == "__init__" or name.endswith(".__init__"):
                name = name.removesuffix("__init__").rstrip(".")
                self._packages.add(name)
            parents = name.split(".")[:-1]
            self._packages |= {".".join(parents[: at + 1]) for at in range(len(parents))}

            # A file that is broken fails where it is imported, as it would on disk.
            try:
                self._codes[name] = compile(text, "<module>", "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                self._codes[name] = error
        self.modules = frozenset({*self._codes, *self._packages} - {""})
        """Full names of the modules that it holds."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        is_package = name in self._packages
        if name not in self._codes and not is_package:
            return None
        return ModuleSpec(name, self, is_package=is_package)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """The usual module."""

    def exec_module(self, module: types.ModuleType) -> None:
        code = self._codes.get(module.__name__)
        if isinstance(code, Exception):
            raise code
        if code is not None:
            exec(code, module.__dict__)


def run_calls(job: Job, out: int) -> None:
    """Answer a list of calls, a line each.

    A program that does not load answers with one line of error for all.
    """
    allow_long_integers()
    try:
        program = Loaded(job.get("program"), job.get("files"), job.get("prelude", False))
    except BaseException as error:
        say(out, failure(error, _NAMES))
        return

    # Whatever a call does, the next one is tried.
    for target, arguments in job["calls"]:
        try:
            function = program.find(target)
            value = function(*decode(arguments))
            say(out, '{"value": ' + encode(value) + "}")
        except BaseException as error:
            say(out, failure(error, program.names))


def run_script(text: str, out: int, prelude: bool) -> None:
    """Run the program as `__main__` on the three standard streams; what it prints is its answer."""
    allow_long_integers()
    # Bytes that are not UTF-8 go through unchanged.
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    _begin(main, prelude)

    try:
        exec(compile(text, PROGRAM, "exec", dont_inherit=True), main.__dict__)
        sys.stdout.flush()

    except SystemExit as error:
        sys.stdout.flush()
        if error.code not in (None, 0):
            say(out, failure(error, _NAMES))
    except BaseException as error:
        say(out, failure(error, _NAMES))
