"""Plain data as JSON text: all that crosses between a program and whoever judges it.

Only builtin values of exactly known kinds come out of `decode`. So no object that a program made
(with its own `__eq__`, say) is ever compared.
"""

from __future__ import annotations

import json
from typing import Any

DEPTH = 60
"""Deepest nesting that is carried."""
_WIDE_INTEGER = 1 << 60
"""From here on integers are carried as hexadecimal text: JSON readers limit their digits."""

_BROKEN = (
    ValueError,
    TypeError,
    RecursionError,
    OverflowError,
    KeyError,
    IndexError,
    AttributeError,
)
"""What reading a hostile text can raise."""


class NotPlain(TypeError):
    """The value is not plain data, or is too deep."""


def _pack(value: Any, depth: int) -> Any:
    """A value as what JSON can write. The builtin types' own methods are called by name.

    An object of a subclass may have methods of its own that lie.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        value = int.__add__(value, 0)
        is_narrow = -_WIDE_INTEGER < value < _WIDE_INTEGER
        return value if is_narrow else {"int": hex(value)}
    if isinstance(value, float):
        # A sum makes a plain float; for zeros it is the product that keeps the sign of -0.0.
        return float.__add__(value, 0.0) if value else float.__mul__(value, 1.0)
    if isinstance(value, str):
        return str.__str__(value) if type(value) is str else "".join(str.__iter__(value))

    if depth >= DEPTH:
        raise NotPlain("value is nested too deeply")
    if isinstance(value, list):
        return [_pack(item, depth + 1) for item in list.__iter__(value)]
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, depth + 1) for item in tuple.__iter__(value)]}
    if isinstance(value, dict):
        pairs = dict.items(value)
        return {"dict": [[_pack(key, depth + 1), _pack(item, depth + 1)] for key, item in pairs]}
    if isinstance(value, (set, frozenset)):
        return {"set": [_pack(item, depth + 1) for item in value]}

    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    raise NotPlain(f"a value of type {type(value).__name__} is not plain data")


def _unpack(value: Any, depth: int, budget: list[float]) -> Any:
    """The value that `_pack` gave this for. `budget`: hashes that may still be taken."""
    if depth > 2 * DEPTH + 4:
        raise NotPlain("value is nested too deeply")
    if isinstance(value, list):
        return [_unpack(item, depth + 1, budget) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise NotPlain("not an encoded value")

    ((tag, body),) = value.items()
    match tag:
        case "int":
            return int(body, 16)
        case "tuple":
            return tuple(_unpack(item, depth + 1, budget) for item in body)
        case "dict":
            _spend(budget, [key for key, _ in body])
            return {
                _unpack(key, depth + 2, budget): _unpack(item, depth + 2, budget)
                for key, item in body
            }
        case "set":
            _spend(budget, body)
            return {_unpack(item, depth + 1, budget) for item in body}
        case "bytes":
            return bytes.fromhex(body)
        case "complex":
            return complex(float(body[0]), float(body[1]))
    raise NotPlain("not an encoded value")


def _spend(budget: list[float], keys: list[Any]) -> None:
    budget[0] -= sum(not isinstance(key, str) for key in keys)
    if budget[0] < 0:
        raise NotPlain("too many members of sets and keys of dictionaries that are not text")


def encode(value: Any) -> str:
    """One line of JSON for a plain value; raises NotPlain for anything else.

    Objects of a builtin type's subclass become that builtin type.
    """
    return json.dumps(_pack(value, 0))


def decode(text: str | bytes, keys: float = float("inf")) -> Any:
    """The value of a line made by `encode`; raises NotPlain on any other text, however hostile.

    `keys`: at most so many set members and dictionary keys that are not text. Numbers and tuples
    can be chosen to have equal hashes, and a table of n such takes n² comparisons.
    """
    try:
        return _unpack(json.loads(text), 0, [keys])
    except NotPlain:
        raise
    except _BROKEN as error:
        raise NotPlain(f"not an encoded value ({type(error).__name__})") from None
