"""Damage: of texts, of JSON values, of bytes, of files in a folder. All drawn from one `Random`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

ODD_TEXTS = (
    "",
    " ",
    "\x00",
    "\ud800",
    "\u202eevil",
    "\x1b[31mred",
    "ä" * 3000,
    "<|im_end|>",
    "<think>",
    "</think>",
    "</tool_call>",
    "\\boxed{",
    "\\frac{1}{0}",
    "9" * 5000,
    "1e999",
    "nan",
    "(" * 3000,
    "[[" * 2000,
    "```python\nwhile True: pass\n```",
    "```python\nimport os; os.kill(os.getppid(), 9)\n```",
    "../../etc/passwd",
    "{{ 7*7 }}{% for i in range(10**9) %}",
    "0 or 1\n---\n? :",
)
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**30,
    -0.0,
    0.1,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    {"": None},
    [None] * 50,
)
YAML_PIECES = (
    "&a ",
    "*a",
    "!!python/object/apply:os.system [ls]",
    "!!binary x",
    "!!timestamp 1",
    "|\n",
    ">-\n",
    "? ",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "#",
    "---\n",
    "...\n",
    "%YAML 9.9\n",
    "<<: *a",
    "\t",
    "\ufeff",
    "'",
    '"',
    "~",
    "0x",
    "1_000",
    "!!set {a}",
    "@x",
    "`y",
)


def text(rng: random.Random, given: str) -> str:
    """A text, damaged in one to three places."""
    for _ in range(rng.randint(1, 3)):
        given = rng.choice(_TEXT_DAMAGE)(rng, given)
    return given


def value(rng: random.Random, given: Any) -> Any:
    """A JSON value with one to three of its parts changed, taken away, doubled or retyped."""
    given = json.loads(json.dumps(given, default=str))
    for _ in range(rng.randint(1, 3)):
        given = _changed(rng, given)
    return given


def content(rng: random.Random, given: bytes) -> bytes:
    """Bytes, damaged."""
    if not given:
        return bytes(rng.randrange(256) for _ in range(rng.randint(1, 40)))
    how = rng.randrange(7)
    at = rng.randrange(len(given))
    if how == 0:
        return given[:at]
    if how == 1:
        return given[at:]
    if how == 2:
        return b""
    if how == 3:
        return given + given[:at]
    if how == 4:
        return given[:at] + bytes(rng.randrange(256) for _ in range(8)) + given[at:]
    changed = bytearray(given)
    # Headers are where sizes and names stand, so most of the damage goes there.
    reach = len(given) if how == 5 else min(len(given), 64)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(reach)] = rng.randrange(256)
    return bytes(changed)


# ---------------------------------------------------------------- texts


def _cut(rng: random.Random, given: str) -> str:
    at = rng.randint(0, len(given))
    return given[:at] if rng.random() < 0.5 else given[at:]


def _inserted(rng: random.Random, given: str) -> str:
    at = rng.randint(0, len(given))
    return given[:at] + rng.choice(ODD_TEXTS) + given[at:]


def _doubled(rng: random.Random, given: str) -> str:
    at, end = sorted(rng.randint(0, len(given)) for _ in range(2))
    return given[:end] + given[at:end] * rng.choice((1, 2, 50)) + given[end:]


def _character(rng: random.Random, given: str) -> str:
    if not given:
        return "\x00"
    at = rng.randrange(len(given))
    other = rng.choice("\x00\n\t{}[]:,'\"-#&*!|>%@`\\/<01eE.+ \u00e4\u4e2d\U0001f600")
    return given[:at] + other + given[at + rng.randint(0, 1) :]


def _line(rng: random.Random, given: str) -> str:
    """A line taken away, doubled, or moved."""
    lines = given.split("\n")
    at = rng.randrange(len(lines))
    taken = lines.pop(at)
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randint(0, len(lines)), taken)
    return "\n".join(lines)


_TEXT_DAMAGE: tuple[Callable[[random.Random, str], str], ...] = (
    _cut,
    _inserted,
    _doubled,
    _character,
    _character,
    _line,
    _line,
)


# ---------------------------------------------------------------- values


def odd(rng: random.Random) -> Any:
    """A value that nobody expects."""
    return rng.choice(ODD_TEXTS) if rng.random() < 0.4 else rng.choice(ODD_VALUES)


def _changed(rng: random.Random, given: Any) -> Any:
    """One part changed, the deeper the rarer."""
    if isinstance(given, Mapping) and given and rng.random() < 0.85:
        key = rng.choice(list(given))
        how = rng.random()
        if how < 0.15:
            return {name: given[name] for name in given if name != key}
        if how < 0.3:
            renamed = text(rng, str(key))
            return {renamed if name == key else name: given[name] for name in given}
        return {**given, key: _changed(rng, given[key])}
    if isinstance(given, list) and given and rng.random() < 0.85:
        at = rng.randrange(len(given))
        how = rng.random()
        if how < 0.15:
            return given[:at] + given[at + 1 :]
        if how < 0.3:
            return given + [given[at]] * rng.choice((1, 3, 200))
        return [*given[:at], _changed(rng, given[at]), *given[at + 1 :]]
    if isinstance(given, str) and rng.random() < 0.6:
        return text(rng, given)
    if isinstance(given, int | float) and not isinstance(given, bool) and rng.random() < 0.5:
        return rng.choice((-given, given * 1000, str(given), given + 0.5, [given]))
    return odd(rng)
