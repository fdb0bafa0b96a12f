"""A person's functions as tools: definitions from type hints and docstrings, calls in a sandbox.

The file is Python of the user's own, but what calls it is a model: it runs in the sandbox, where
it sees no network and no files of the user's, and for a limited time.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from linn.chat.tools import tools_of
from linn.errors import UserError
from linn.sandbox import Limits, Outcome, Sandbox
from linn.types import ToolCall

_TYPES = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "dict": {"type": "object"},
    "list": {"type": "array"},
    "tuple": {"type": "array"},
    "None": {"type": "null"},
}
_LISTS = ("list", "List", "Sequence", "tuple", "Iterable", "set")
_ARGUMENT = re.compile(r"^\s*(?::param\s+)?(\w+)\s*(?:\([^)]*\))?\s*:\s*(.+)$")
"""A line of a docstring that says what an argument means."""
_CALLER = "\n\ndef linn_call(name, given):\n    return globals()[name](**given)\n"
"""What calls a function of the file by its name."""
LONGEST_RESULT = 20_000
"""Characters of a result that a model is shown."""


class Functions:
    """Tools that a model may call in a conversation."""

    def __init__(self, definitions: Sequence[Mapping[str, Any]], source: str | None = None) -> None:
        """`source`: the program that holds the functions; None: nobody carries calls out."""
        self.definitions = tuple(definitions)
        """OpenAI-style."""
        self._source = source
        self._sandbox: Sandbox | None = None

    @classmethod
    def load(cls, path: Path) -> Functions:
        """From FILE.py, or definitions alone from FILE.json; UserError says what is wrong."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--tools {path}: {error}") from None
        if path.suffix == ".py":
            return cls(_definitions(text, path), text)
        try:
            content = json.loads(text)
        except ValueError as error:
            raise UserError(f"--tools {path}: not JSON ({error})") from None
        tools = content if isinstance(content, Mapping) else {"tools": content}
        return cls(tools_of(tools))

    @property
    def runs(self) -> bool:
        """Whether calls can be carried out."""
        return self._source is not None

    def call(self, call: ToolCall) -> str:
        """A call's result as the model reads it; errors are results too."""
        if self._source is None:
            return "error: nobody carries out calls here"
        if isinstance(call.arguments, str):
            return "error: the arguments cannot be read"
        names = [one["function"]["name"] for one in self.definitions]
        if call.name not in names:
            return f"error: no function {call.name!r}; there are {', '.join(names)}"
        # Started with the first call: most conversations have none.
        if self._sandbox is None:
            self._sandbox = Sandbox(servers=1)
        # A call by name with the model's own values: they are data, never part of the program.
        arguments = [[call.name, dict(call.arguments)]]
        limits = Limits(cpu=10.0, wall=30.0)
        outcome = self._sandbox.call(self._source + _CALLER, "linn_call", arguments, limits)[0]
        return _shown(outcome)

    def close(self) -> None:
        """End the sandbox."""
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None


def _shown(outcome: Outcome) -> str:
    """What came of a call, as text."""
    if outcome.status != "ok":
        return f"error: {outcome.error}"[:LONGEST_RESULT]
    value = outcome.value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > LONGEST_RESULT:
        text = f"{text[:LONGEST_RESULT]}… ({len(text):,} characters)"
    return text


# ---------------------------------------------------------------- definitions


def _definitions(source: str, path: Path) -> list[dict[str, Any]]:
    """A definition of every function whose name does not begin with `_`; the file is not run."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise UserError(f"--tools {path} line {error.lineno}: {error.msg}") from None
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            found.append(_definition(node, path))
    if not found:
        raise UserError(f"--tools {path}: no function; write `def name(argument: type) -> type`")
    return found


def _definition(node: ast.FunctionDef, path: Path) -> dict[str, Any]:
    arguments = node.args
    if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
        raise UserError(
            f"--tools {path} line {node.lineno}: {node.name} takes arguments without names; "
            "give each a name and a type"
        )
    about, meanings = _docstring(ast.get_docstring(node) or "")
    defaults: list[ast.expr | None] = [*arguments.defaults]
    missing: list[ast.expr | None] = [None] * (len(arguments.args) - len(defaults))
    # Defaults belong to the last of the arguments, and each keyword has one or None.
    named = [*arguments.args, *arguments.kwonlyargs]
    values = [*missing, *defaults, *arguments.kw_defaults]

    properties: dict[str, Any] = {}
    required = []
    for argument, default in zip(named, values, strict=True):
        schema = dict(_schema(argument.annotation))
        if argument.arg in meanings:
            schema["description"] = meanings[argument.arg]
        if default is None:
            required.append(argument.arg)
        properties[argument.arg] = schema
    parameters = {"type": "object", "properties": properties, "required": required}
    function = {"name": node.name, "description": about, "parameters": parameters}
    return {"type": "function", "function": function}


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """(what a function does, what its arguments mean)."""
    about: list[str] = []
    meanings: dict[str, str] = {}
    in_arguments = False
    for line in text.splitlines():
        heading = line.strip().lower().rstrip(":")
        if heading in ("args", "arguments", "parameters", "returns", "raises"):
            in_arguments = heading.startswith(("arg", "par"))
            if not in_arguments:
                break
            continue
        argument = _ARGUMENT.match(line)
        if argument and (in_arguments or line.lstrip().startswith(":param")):
            meanings[argument[1]] = argument[2].strip()
        elif not in_arguments:
            about.append(line)
    return "\n".join(about).strip(), meanings


def _schema(hint: ast.expr | None) -> Mapping[str, Any]:
    """The JSON schema of a type hint; one that has none allows everything."""
    if hint is None:
        return {}
    if isinstance(hint, ast.Constant) and hint.value is None:
        return _TYPES["None"]
    if isinstance(hint, ast.Constant) and isinstance(hint.value, str):
        return _schema(ast.parse(hint.value, mode="eval").body)
    # `int | None`; no other operator stands in a hint.
    if isinstance(hint, ast.BinOp):
        return {"anyOf": [_schema(hint.left), _schema(hint.right)]}
    name = ast.unparse(hint.value if isinstance(hint, ast.Subscript) else hint).split(".")[-1]
    if isinstance(hint, ast.Subscript):
        return _schema_of_parts(name, hint.slice)
    return _TYPES.get(name, {})


def _schema_of_parts(name: str, inside: ast.expr) -> Mapping[str, Any]:
    """`list[int]`, `dict[str, int]`, `Literal["a", "b"]`, `Optional[int]`."""
    parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    if name == "Literal":
        return {"enum": [ast.literal_eval(part) for part in parts]}
    if name in ("Optional", "Union"):
        schemas = [_schema(part) for part in parts]
        return {"anyOf": [*schemas, _TYPES["None"]] if name == "Optional" else schemas}
    if name in _LISTS:
        return {"type": "array", "items": dict(_schema(parts[0]))}
    return _TYPES.get(name.lower(), {})
