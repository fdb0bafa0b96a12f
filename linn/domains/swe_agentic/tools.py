"""The tools of a repair conversation, on a copy of the package in a workspace; every mistake is answered in words."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from linn.domains.swe_agentic import package
from linn.sandbox import Ran, Workspace, WorkspaceLimits, scrub
from linn.sandbox.isolation import python
from linn.types import ToolCall

LONGEST_ANSWER = 12_000
"""Characters of one tool's answer."""
_LINES = 400
_LONGEST_LINE = 400
_LONGEST_FILE = 1 << 19
_MOST_HITS = 60
_LIMITS = WorkspaceLimits(
    cpu=60.0,
    wall=90.0,
    memory=1 << 30,
    address=2 << 30,
    processes=16,
    file=8 << 20,
    disk=96 << 20,
    output=1 << 17,
)


def _tool(name: str, description: str, required: str, **properties: str) -> dict[str, Any]:
    kinds = {name: {"type": kind} for name, kind in properties.items()}
    schema = {"type": "object", "properties": kinds, "required": required.split()}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }


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
_KINDS: Mapping[str, type] = {"string": str, "integer": int}


class Desk:
    """One copy of a package's tree and the tools on it. Raises InfrastructureError when the machine fails, nothing else."""

    def __init__(self, files: Mapping[str, str], root: str) -> None:
        """`files`: the tree, tests included; `root`: the folder in it to import from."""
        tools = package.tools()
        self.work = Workspace(_LIMITS, files, readable=[tools])
        paths = dict.fromkeys([f"{self.work.root}/{root}".rstrip("/"), self.work.root, str(tools)])
        self._setting = f"export PYTHONPATH={shlex.quote(':'.join(paths))} PATH={shlex.quote(str(PurePosixPath(python()).parent))}:$PATH\n"

    def use(self, call: ToolCall) -> str:
        """Carry out one call."""
        wanted = next(
            (
                tool["function"]["parameters"]
                for tool in TOOLS
                if tool["function"]["name"] == call.name
            ),
            None,
        )
        if wanted is None:
            return f"error: no tool of that name; there are {', '.join(tool['function']['name'] for tool in TOOLS)}"
        given = call.arguments
        kinds = {name: _KINDS[kind["type"]] for name, kind in wanted["properties"].items()}
        if isinstance(given, str) or not set(wanted["required"]) <= set(given) <= set(kinds):
            names = ", ".join(
                name + ("" if name in wanted["required"] else " (optional)") for name in kinds
            )
            return f"error: {call.name} takes {names}"
        for name, value in given.items():
            if type(value) is not kinds[name]:
                return (
                    f"error: {name} must be {'a text' if kinds[name] is str else 'a whole number'}"
                )
        try:
            return _bounded(getattr(self, f"_{call.name}")(**given))
        except ValueError as error:  # a path that leaves the folder, is missing, or is no file
            return f"error: {scrub(str(error))}"

    def close(self) -> None:
        """Remove the copy."""
        self.work.close()

    def _view(self, path: str, start: int = 1, end: int | None = None) -> str:
        lines = self.work.read(_clean(path)).split("\n")
        first, last = (
            max(1, start),
            min(len(lines), end if end is not None else len(lines), max(1, start) + _LINES - 1),
        )
        if first > last:
            return f"error: the file has {len(lines)} lines"
        shown = [f"{number}\t{_line(lines[number - 1])}" for number in range(first, last + 1)]
        return "\n".join(shown) + (
            f"\n… {len(lines) - last} more lines" if last < len(lines) else ""
        )

    def _list(self, path: str = "") -> str:
        under = _clean(path) + "/" if _clean(path) not in ("", ".") else ""
        found = [name for name in self.work.files() if name.startswith(under)]
        return "\n".join(found) or "error: no files there"

    def _search(self, pattern: str, glob: str = "*") -> str:
        # grep, in the sandbox: a pattern may be one that takes for ever
        paths = [
            path
            for path in self.work.files()
            if fnmatch.fnmatch(path, glob) or fnmatch.fnmatch(PurePosixPath(path).name, glob)
        ]
        if not paths:
            return "error: no file matches the glob"
        ran = self.work.run(
            ["xargs", "-0", "grep", "-nHIE", "-m", str(_MOST_HITS), "-e", pattern, "--"],
            stdin="\0".join(paths),
            limits=_SEARCH,
        )
        if ran.status in ("timeout", "memory"):
            return "error: the search took too long"
        lines = ran.stdout.split("\n")[:_MOST_HITS]
        if not any(lines):
            return f"error: {ran.stderr.strip()[:200]}" if ran.stderr.strip() else "no match"
        return "\n".join(_line(line) for line in lines if line)

    def _replace(self, path: str, old: str, new: str) -> str:
        text = self.work.read(_clean(path))
        count = text.count(old) if old else 0
        if count != 1:
            return f"error: old is found {count} times, not once"
        return self._written(path, text.replace(old, new))

    def _insert(self, path: str, line: int, text: str) -> str:
        lines = self.work.read(_clean(path)).split("\n")
        if not 0 <= line <= len(lines):
            return f"error: line must be 0 to {len(lines)}"
        lines[line:line] = text.removesuffix("\n").split("\n")
        return self._written(path, "\n".join(lines))

    def _create(self, path: str, text: str) -> str:
        if _clean(path) in self.work.files():
            return "error: the file is there already; use replace or insert"
        return self._written(path, text)

    def _written(self, path: str, text: str) -> str:
        if len(text) > _LONGEST_FILE:
            return "error: the file would be too long"
        self.work.write(_clean(path), text)
        return "ok"

    def _run_tests(self, path: str = "") -> str:
        return self._shell(
            f"python3 -m pytest -q -p no:cacheprovider --tb=short {shlex.quote(_clean(path)) if path else ''}"
        )

    def _shell(self, command: str) -> str:
        if "\0" in command:
            return "error: a command holds no NUL"
        if len(command) > 1 << 16:
            return "error: the command is too long"
        return _told(self.work.run(["sh", "-c", self._setting + command]))


_SEARCH = WorkspaceLimits(cpu=5.0, wall=10.0, output=1 << 18)


def _told(ran: Ran) -> str:
    """What a command said and how it ended."""
    ends = {
        "ok": "",
        "error": f"[exit code {ran.code}]",
        "timeout": "[time limit exceeded]",
        "memory": "[memory limit exceeded]",
        "output": "[too much output]",
    }
    said = "\n".join(
        part.rstrip() for part in (ran.stdout, ran.stderr, ends[ran.status]) if part.strip()
    )
    return said or "[no output]"


def _clean(path: str) -> str:
    """A path as a model may write it, relative to the repository."""
    return path.strip().removeprefix("/tmp/workspace/").removeprefix("./").rstrip("/")


def _line(text: str) -> str:
    return text if len(text) <= _LONGEST_LINE else text[:_LONGEST_LINE] + "…"


def _bounded(text: str) -> str:
    """At most `LONGEST_ANSWER` characters, the middle left out; always text that can be written as UTF-8."""
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "?", text).encode("utf-8", "replace").decode()
    if len(text) <= LONGEST_ANSWER:
        return text
    half = LONGEST_ANSWER // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
