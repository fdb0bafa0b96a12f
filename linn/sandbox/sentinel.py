"""A program whose answer is known: what tells a sick server from a failing program.

It looks at what an earlier program could have left, and uses a little of everything that a right
program may need.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from linn.sandbox.inside.plain import NotPlain, decode, encode
from linn.sandbox.outcome import Execution

_OWN_ERRORS = (
    "ArithmeticError AssertionError AttributeError EOFError FloatingPointError IndentationError "
    "IndexError KeyError LookupError NameError NotImplementedError NotPlain OverflowError "
    "RecursionError StopIteration SyntaxError SystemExit TabError TypeError UnboundLocalError "
    "UnicodeDecodeError UnicodeEncodeError UnicodeError ValueError ZeroDivisionError"
).split()
"""What a program raises by its own logic: no sick server makes a right program raise it.

All others may come from files, memory, threads or the library, which a sick server lacks; those
that a program defines itself are among the others.
"""
_OWN_ERROR = "|".join(_OWN_ERRORS)
_SUSPICIOUS = re.compile(
    rf"""^\{{"(?:memory"|error"(?!: "(?:{_OWN_ERROR})[:" ]))""".encode(), re.MULTILINE
)
"""How the lines begin by which a program says that it failed, and not by its own logic."""
_OWN_CODES = range(64)
"""Exit codes that programs choose. Children of ours that fail have larger ones (`child.py`)."""

_PROGRAM = """
import os

def look(x):
    import colorsys
    try:
        notes = os.listxattr('.')
    except OSError:
        notes = []
    found = [os.listdir('.'), oct(os.stat('.').st_mode), notes]

    with open('sentinel', 'x') as file:
        file.write('x' * 20000)
    size = os.path.getsize('sentinel')
    room = len(bytearray(1 << 18))
    assert colorsys.rgb_to_hsv(1, 1, 1) == (0, 0, 1)
    return [x + 1, size, room, *found]
"""
_INPUT = 41
_EXPECTED = [42, 20000, 1 << 18, [], "0o40700", []]
"""What it answers."""
_LIMITS = {
    "cpu": 5.0,
    "wall": 20.0,
    "memory": 1 << 28,
    "threads": 2,
    "file": 1 << 20,
    "output": 1 << 16,
}
WALL = _LIMITS["wall"]
"""Seconds that it may take."""

BODY = json.dumps(
    {"program": _PROGRAM, "prelude": False, "calls": [["look", encode([_INPUT])]]}
).encode()
"""The one body of its request."""


def is_needed(execution: Execution) -> bool:
    """Whether a program failed in a way that its server may be to blame for.

    The program may be hostile and name another cause: that spoils its own verdict only. What a
    right program says, on a sick server too, is true.
    """
    is_own = execution.ending == "ended" and execution.code in _OWN_CODES
    return not is_own or _SUSPICIOUS.search(execution.lines) is not None


def header_like(header: Mapping[str, Any]) -> dict[str, Any]:
    """The header of its request (see `inside/server.py`): after a program with this one.

    Its limits are that program's, where they are large enough: to change a control group's limits
    is dear.
    """
    limits = {name: max(least, header[name]) for name, least in _LIMITS.items()}
    fixed = {"cpu": _LIMITS["cpu"], "wall": WALL, "sizes": [len(BODY)]}
    return {"kind": "call", "answers": 1, "prelude": False, **limits, **fixed}


def is_right(lines: bytes) -> bool:
    """Whether these are the lines by which it answers on a server that is well."""
    try:
        value = decode(lines.strip().removeprefix(b'{"value": ').removesuffix(b"}"))
    except NotPlain:
        return False
    return isinstance(value, list) and value == _EXPECTED
