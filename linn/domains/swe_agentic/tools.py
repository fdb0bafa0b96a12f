"""The tools of a repair conversation, on a copy of the package in a workspace.

Every mistake is answered in words.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from linn.domains.common.tools import parameter, tool
from linn.domains.swe_agentic import package
from linn.sandbox import Ran, Workspace, WorkspaceLimits, scrub
from linn.sandbox.isolation import python
from linn.types import ToolCall

LONGEST_ANSWER = 12_000
"""Characters of one tool's answer."""
_MOST_LINES = 400
_LONGEST_LINE = 400
_LONGEST_FILE = 1 << 19
_LONGEST_COMMAND = 1 << 16
_MOST_HITS = 60
LIMITS = WorkspaceLimits(
    cpu=60.0,
    wall=90.0,
    memory=1 << 30,
    address=2 << 30,
    processes=16,
    file=8 << 20,
    disk=96 << 20,
    output=1 << 17,
)
"""What one command may use."""
_SEARCH_LIMITS = WorkspaceLimits(cpu=5.0, wall=10.0, output=1 << 18)


def _tool(name: str, description: str, required: str, **properties: str) -> dict[str, Any]:
    """`required`: names with spaces between; `properties`: name -> JSON type."""
    schemas = {name: parameter(kind) for name, kind in properties.items()}
    return tool(name, description, schemas, required.split())


TOOLS = (
    _tool(
        "view",
        "Show a file, or its lines from start to end.",
        "path",
        path="string",
        start="integer",
        end="integer",
    ),
    _tool("list", "List the files under a folder.", "", path="string"),
    _tool(
        "search",
        "Find lines that match a regular expression, in files whose path matches a glob.",
        "pattern",
        pattern="string",
        glob="string",
    ),
    _tool(
        "replace",
        "Replace text that is found once in a file.",
        "path old new",
        path="string",
        old="string",
        new="string",
    ),
    _tool(
        "insert",
        "Insert text after a line of a file; line 0 is before the first.",
        "path line text",
        path="string",
        line="integer",
        text="string",
    ),
    _tool("create", "Write a new file.", "path text", path="string", text="string"),
    _tool("run_tests", "Run tests: a file, a test id, or all.", "", path="string"),
    _tool("shell", "Run a shell command in the repository.", "command", command="string"),
)
_PARAMETERS: Mapping[str, Any] = {
    tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS
}
_KINDS: Mapping[str, tuple[type, str]] = {
    "string": (str, "a text"),
    "integer": (int, "a whole number"),
}


class RepairTools:
    """One copy of a package's tree and the tools on it.

    Raises InfrastructureError when the machine fails, nothing else.
    """

    def __init__(self, files: Mapping[str, str], root: str) -> None:
        """`files`: the tree, tests included; `root`: the folder in it to import from."""
        tools = package.tools()
        self.work = Workspace(LIMITS, files, readable=[tools])
        source_root = f"{self.work.root}/{root}".rstrip("/")
        import_path = ":".join(dict.fromkeys([source_root, self.work.root, str(tools)]))
        programs = str(PurePosixPath(python()).parent)
        self._setting = (
            f"export PYTHONPATH={shlex.quote(import_path)} PATH={shlex.quote(programs)}:$PATH\n"
        )

    def use(self, call: ToolCall) -> str:
        """Carry out one call and answer it."""
        if call.name not in _PARAMETERS:
            return f"error: no tool of that name; there are {', '.join(_PARAMETERS)}"
        fault = _fault_in(call)
        if fault:
            return f"error: {fault}"

        assert not isinstance(call.arguments, str)
        method = getattr(self, f"_{call.name}")
        try:
            return _bounded(method(**call.arguments))
        except ValueError as error:  # a path that leaves the folder, is missing, or is not a file
            return f"error: {scrub(str(error))}"

    def close(self) -> None:
        """Remove the copy."""
        self.work.close()

    # ------------------------------------------------------------ one method per tool

    def _view(self, path: str, start: int = 1, end: int | None = None) -> str:
        text = self.work.read(_clean(path))
        lines = text.split("\n")
        count = len(lines)

        # A window that begins where the model asks, of bounded length.
        first = max(1, start)
        last = min(count, first + _MOST_LINES - 1)
        if end is not None:
            last = min(last, end)
        if first > last:
            return f"error: the file has {count} lines"

        view = []
        for number in range(first, last + 1):
            line = _cut(lines[number - 1])
            view.append(f"{number}\t{line}")
        if last < count:
            view.append(f"… {count - last} more lines")
        return "\n".join(view)

    def _list(self, path: str = "") -> str:
        folder = _clean(path)
        prefix = "" if folder in ("", ".") else folder + "/"
        names = [name for name in self.work.files() if name.startswith(prefix)]
        return "\n".join(names) or "error: no files there"

    def _search(self, pattern: str, glob: str = "*") -> str:
        paths = [path for path in self.work.files() if _matches(path, glob)]
        if not paths:
            return "error: no file matches the glob"

        # grep, in the sandbox: a pattern may be one that takes for ever.
        ran = self.work.run(
            ["xargs", "-0", "grep", "-nHIE", "-m", str(_MOST_HITS), "-e", pattern, "--"],
            stdin="\0".join(paths),
            limits=_SEARCH_LIMITS,
        )

        if ran.status in ("timeout", "memory"):
            return "error: the search took too long"

        # `-m` bounds the hits per file, this bounds all.
        lines = ran.stdout.split("\n")[:_MOST_HITS]
        if any(lines):
            return "\n".join(_cut(line) for line in lines if line)
        if ran.stderr.strip():
            return f"error: {ran.stderr.strip()[:200]}"
        return "no match"

    def _replace(self, path: str, old: str, new: str) -> str:
        text = self.work.read(_clean(path))
        count = text.count(old) if old else 0
        if count != 1:
            return f"error: old is found {count} times, not once"
        return self._write(path, text.replace(old, new))

    def _insert(self, path: str, line: int, text: str) -> str:
        lines = self.work.read(_clean(path)).split("\n")
        if not 0 <= line <= len(lines):
            return f"error: line must be 0 to {len(lines)}"
        lines[line:line] = text.removesuffix("\n").split("\n")
        return self._write(path, "\n".join(lines))

    def _create(self, path: str, text: str) -> str:
        if _clean(path) in self.work.files():
            return "error: the file is there already; use replace or insert"
        return self._write(path, text)

    def _run_tests(self, path: str = "") -> str:
        target = shlex.quote(_clean(path)) if path else ""
        return self._shell(f"python3 -m pytest -q -p no:cacheprovider --tb=short {target}")

    def _shell(self, command: str) -> str:
        if "\0" in command:
            return "error: a command holds no NUL"
        if len(command) > _LONGEST_COMMAND:
            return "error: the command is too long"
        return _answer(self.work.run(["sh", "-c", self._setting + command]))

    def _write(self, path: str, text: str) -> str:
        if len(text) > _LONGEST_FILE:
            return "error: the file would be too long"
        self.work.write(_clean(path), text)
        return "ok"


def _fault_in(call: ToolCall) -> str:
    """What is wrong with the arguments of a call of a known tool; empty where nothing is."""
    parameters = _PARAMETERS[call.name]
    properties = parameters["properties"]
    required = set(parameters["required"])

    # A text is what could not be parsed as JSON.
    arguments = call.arguments
    if isinstance(arguments, str) or not required <= set(arguments) <= set(properties):
        names = []
        for name in properties:
            names.append(name if name in required else f"{name} (optional)")
        return f"{call.name} takes {', '.join(names)}"

    for name, value in arguments.items():
        kind, words = _KINDS[properties[name]["type"]]
        if type(value) is not kind:  # a boolean is not a whole number
            return f"{name} must be {words}"
    return ""


def _answer(ran: Ran) -> str:
    """What a command printed and how it ended."""
    endings = {
        "ok": "",
        "error": f"[exit code {ran.code}]",
        "timeout": "[time limit exceeded]",
        "memory": "[memory limit exceeded]",
        "output": "[too much output]",
    }
    parts = [ran.stdout, ran.stderr, endings[ran.status]]
    return "\n".join(part.rstrip() for part in parts if part.strip()) or "[no output]"


def _matches(path: str, glob: str) -> bool:
    return fnmatch.fnmatch(path, glob) or fnmatch.fnmatch(PurePosixPath(path).name, glob)


def _clean(path: str) -> str:
    """A path as a model may write it, relative to the repository."""
    return path.strip().removeprefix("/tmp/workspace/").removeprefix("./").rstrip("/")


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + "…"


def _bounded(text: str) -> str:
    """At most `LONGEST_ANSWER` characters, the middle left out.

    Always text that can be written as UTF-8, without control characters.
    """
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "?", text).encode("utf-8", "replace").decode()
    if len(text) <= LONGEST_ANSWER:
        return text
    half = LONGEST_ANSWER // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
