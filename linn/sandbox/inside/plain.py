"""Plain data as JSON text: the only thing that crosses between a program and whoever judges it.

Only builtin values of exactly known kinds come out of `decode`, so no object made by a program (with its own `__eq__`, say) is ever
compared.
"""

from __future__ import annotations

import json
from typing import Any

DEPTH = 60
"""Deepest nesting that is carried."""


class NotPlain(TypeError):
    """The value is not plain data, or is too deep."""


def _pack(value: Any, depth: int) -> Any:
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is int or isinstance(value, int):
        value = int.__add__(value, 0)
        return value if -(1 << 60) < value < 1 << 60 else {"int": hex(value)}
    if isinstance(value, float):
        return (
            float.__add__(value, 0.0) if value else float.__mul__(value, 1.0)
        )  # the product keeps the sign of -0.0
    if isinstance(value, str):
        return str.__str__(value) if kind is str else "".join(str.__iter__(value))
    if depth >= DEPTH:
        raise NotPlain("value is nested too deeply")
    if isinstance(value, list):
        return [_pack(item, depth + 1) for item in list.__iter__(value)]
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, depth + 1) for item in tuple.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[_pack(k, depth + 1), _pack(v, depth + 1)] for k, v in dict.items(value)]}
    if isinstance(value, (set, frozenset)):
        return {"set": [_pack(item, depth + 1) for item in value]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    raise NotPlain(f"a value of type {kind.__name__} is not plain data")


def _unpack(value: Any, depth: int, left: list[float]) -> Any:
    if depth > 2 * DEPTH + 4:
        raise NotPlain("value is nested too deeply")
    if isinstance(value, list):
        return [_unpack(item, depth + 1, left) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise NotPlain("not an encoded value")
    ((tag, body),) = value.items()
    if tag == "int":
        return int(body, 16)
    if tag == "tuple":
        return tuple(_unpack(item, depth + 1, left) for item in body)
    if tag == "dict":
        _spend(left, [k for k, _ in body])
        return {_unpack(k, depth + 2, left): _unpack(v, depth + 2, left) for k, v in body}
    if tag == "set":
        _spend(left, body)
        return {_unpack(item, depth + 1, left) for item in body}
    if tag == "bytes":
        return bytes.fromhex(body)
    if tag == "complex":
        return complex(float(body[0]), float(body[1]))
    raise NotPlain("not an encoded value")


def _spend(left: list[float], keys: list[Any]) -> None:
    left[0] -= sum(not isinstance(key, str) for key in keys)
    if left[0] < 0:
        raise NotPlain("too many members of sets and keys of dictionaries that are not text")


def encode(value: Any) -> str:
    """One line of JSON for a plain value; raises NotPlain for anything else. Subclasses of builtins become the builtin."""
    return json.dumps(_pack(value, 0))


def decode(text: str | bytes, keys: float = float("inf")) -> Any:
    """The value of a line made by `encode`; raises NotPlain on any other text, however hostile.

    `keys`: at most so many set members and dictionary keys that are not text: numbers and tuples can be chosen to have equal hashes,
    and a table of n such takes n² comparisons.
    """
    try:
        return _unpack(json.loads(text), 0, [keys])
    except NotPlain:
        raise
    except (
        ValueError,
        TypeError,
        RecursionError,
        OverflowError,
        KeyError,
        IndexError,
        AttributeError,
    ) as error:
        raise NotPlain(f"not an encoded value ({type(error).__name__})") from None
