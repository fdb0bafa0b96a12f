"""Structured output: validity of random documents and tool calls under random schemas, by linn and
by nemo-gym's `structured_outputs` server.

    pip install xmltodict==1.0.2 openapi-schema-validator==0.6.3
    python -m bench.agreement.structured --reference FOLDER [--cases 10000] [--seed 0]

FOLDER: see `reference.py`.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import sys
from functools import partial
from typing import Any
from xml.sax.saxutils import escape

from bench.agreement.reference import (
    Body,
    Tally,
    arguments,
    call,
    examples,
    load,
    message,
    report,
    server,
)
from linn.domains.structured import Structured
from linn.errors import UserError
from linn.offline.grade import reply_from

_KINDS = ("json", "yaml", "xml", "toml", "csv", "tool_call")
_KEYS = (*("name", "age", "tags", "open", "note", "a-b", "item", "é") * 3, "#text", "@id", "2nd")
_TEXTS = (
    "ana",
    "",
    "12",
    "1.5",
    "true",
    "no",
    "2024-01-01",
    "a, b",
    "x: y",
    'q"q',
    "null",
    " padded ",
    "<b>",
    "[1]",
    "line\nline",
    "0o7",
    "1e3",
    "~",
    "é",
    "-",
)
_FORMATS = ("date", "email", "uri")


_BROKEN: tuple[dict[str, Any], ...] = (
    {"type": "text"},
    {"properties": 5},
    {"properties": ["name"]},
    {"required": "name"},
    {"additionalProperties": "false"},
    {"items": []},
)
"""Keywords that make a schema invalid."""
_OF_OBJECTS: tuple[dict[str, Any], ...] = (
    {"required": []},
    {"required": ["name"]},
    {"additionalProperties": True},
    {"minProperties": 2},
    {"required": {"item": ["a"]}},
)
_OF_ARRAYS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"minItems": 1},
    {"maxItems": 1},
    {"uniqueItems": True},
)
_OF_NUMBERS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"minimum": 0},
    {"maximum": 10},
    {"multipleOf": 3},
    {"enum": [1, 2, "1"]},
)
_COMPOSED = (
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "nullable",
    "type",
    "$ref",
    "$defs",
    "if",
    "contains",
    "strange",
)


def _schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    kind = rng.choice(
        ("object", "array", "string", "integer", "number", "boolean", "null")
        if depth < 3
        else ("string", "integer", "boolean")
    )
    if depth == 0:
        kind = rng.choice(("object", "object", "object", "array"))
    schema: dict[str, Any] = {"type": kind}
    if kind == "object":
        schema["properties"] = {
            rng.choice(_KEYS): _schema(rng, depth + 1) for _ in range(rng.randint(0, 4))
        }
        if rng.random() < 0.3:
            schema |= rng.choice(_OF_OBJECTS)
    elif kind == "array":
        schema["items"] = _schema(rng, depth + 1)
        schema |= rng.choice(_OF_ARRAYS)
    elif kind == "string":
        schema |= _of_string(rng)
    elif kind in ("integer", "number"):
        schema |= rng.choice(_OF_NUMBERS)

    if rng.random() < 0.1:
        other = _schema(rng, depth + 1)
        word = rng.choice(_COMPOSED)
        schema[word] = _composed(word, dict(schema), other)
    if rng.random() < 0.02:
        schema |= rng.choice(_BROKEN)
    return schema


def _of_string(rng: random.Random) -> dict[str, Any]:
    choices: tuple[dict[str, Any], ...] = (
        {},
        {},
        {"enum": ["ana", "12"]},
        {"minLength": 2},
        {"pattern": "^[a-z]+$"},
        {"format": rng.choice(_FORMATS)},
        {"const": "ana"},
    )
    return rng.choice(choices)


def _composed(word: str, schema: dict[str, Any], other: dict[str, Any]) -> Any:
    """What a keyword that combines schemas holds."""
    match word:
        case "anyOf" | "oneOf":
            return [schema, other]
        case "allOf":
            return [schema]
        case "nullable":
            return True
        case "type":
            return [schema["type"], "null"]
        case "$ref":
            return "#/$defs/a"
        case "$defs":
            return {"a": other}
        case _:
            return other


def _value(rng: random.Random, schema: Any) -> Any:
    """A value that mostly keeps the schema."""
    if not isinstance(schema, dict) or rng.random() < 0.06:
        return rng.choice((None, True, 0, 7, 1.5, "", *_TEXTS, [], {}, ["a"], {"name": "x"}))
    for word in ("const", "enum"):
        if word in schema:
            return schema[word] if word == "const" else rng.choice(schema[word])
    kind = schema.get("type")
    kind = rng.choice(kind) if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            properties = {}
        values = {key: _value(rng, part) for key, part in properties.items()}
        if values and rng.random() < 0.05:
            values.pop(rng.choice(list(values)))
        if rng.random() < 0.04:
            values["extra"] = 1
        return values
    if kind == "array":
        return [_value(rng, schema.get("items")) for _ in range(rng.choice((0, 1, 2, 2, 3)))]
    plain = {
        "string": rng.choice(_TEXTS),
        "integer": rng.randint(-3, 12),
        "number": rng.choice((1, 2.5, -3, 9.0)),
        "boolean": rng.random() < 0.5,
    }
    return plain.get(str(kind))


def _xml(name: str, value: Any) -> str:
    if isinstance(value, dict):
        inner = "".join(_xml(key, part) for key, part in value.items())
    elif isinstance(value, list):
        if len(value) % 2 == 0:  # a list is written in one of two ways
            return "".join(_xml(name, part) for part in value)
        inner = "".join(_xml("item", part) for part in value)
    elif value is None:
        inner = ""
    else:
        inner = escape(value if isinstance(value, str) else json.dumps(value))
    return f"<{name}>{inner}</{name}>"


def _csv(rng: random.Random, value: Any) -> str:
    rows = [row for row in (value if isinstance(value, list) else [value]) if isinstance(row, dict)]
    out = io.StringIO()
    writer = csv.DictWriter(out, list({key: None for row in rows for key in row}), restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(part) for key, part in row.items()})
    return out.getvalue() + ("1,2,3,4,5,6\n" if rng.random() < 0.05 else "")


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list | bool) else value


def _document(rng: random.Random, kind: str, value: Any) -> str:
    if kind == "json":
        text = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 2)))
    elif kind == "yaml":
        import yaml

        text = yaml.safe_dump(
            value,
            allow_unicode=True,
            default_flow_style=rng.choice((True, False, None)),
            sort_keys=False,
        )
        text = text.replace("'", "") if rng.random() < 0.3 else text
    elif kind == "toml":
        text = _toml(value)
    elif kind == "xml":
        if isinstance(value, dict) and len(value) == 1:
            ((root, part),) = value.items()
            text = _xml(root, part)
        else:
            text = _xml("root", value)
    else:
        text = _csv(rng, value)
    frames = ("%s",) * 16 + (
        "```\n%s\n```",
        "Here it is:\n%s",
        "%s\nDone.",
        "\ufeff%s",
        "\n\n%s\n",
        "%s}",
        "<?xml version='1.0'?>\n%s",
        "---\n%s",
        "%s %%",
    )
    return rng.choice(frames).replace("%s", text)


def _toml(value: Any) -> str:
    if not isinstance(value, dict):
        return _inline(value)
    return "\n".join(f"{json.dumps(key)} = {_inline(part)}" for key, part in value.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {_inline(part)}" for key, part in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


def main() -> int:
    folder, cases, rng = arguments(__doc__, 10_000)
    module = load(folder, "structured_outputs")
    grader = server(module, "StructuredOutputsResourcesServer", xml_coerce_types=True)
    domain = Structured(reference=True)
    tallies = {kind: Tally(f"structured, {kind}") for kind in _KINDS}
    rows = examples(folder, "structured_outputs", "structured_outputs_v3_example")
    rows += examples(folder, "structured_outputs", "structured_outputs_v4_example")
    schemas = [json.loads(row["schema_str"]) for row in rows]

    for index in range(cases):
        kind, row, value = _case(rng, schemas)
        if kind == "tool_call":
            calls = _calls(rng, row, value)
            reply, response = {"messages": [_turn(calls)]}, call(*calls)
        else:
            text = _document(rng, kind, value)
            reply, response = {"text": text}, message(text)
        ours, theirs = _graded(domain, grader, row, reply, response, index)
        tallies[kind].add(ours, theirs, partial(_why, grader, row), case=(row, reply))
    domain.close()
    return report(folder, list(tallies.values()))


def _case(rng: random.Random, schemas: list[Any]) -> tuple[str, dict[str, Any], Any]:
    """(kind, row, a value that mostly keeps the row's schema)."""
    if schemas and rng.random() < 0.1:
        schema = rng.choice(schemas)
    else:
        schema = _schema(rng)
    kind = rng.choice(_KINDS)
    if kind == "csv" and rng.random() < 0.7:  # what a table can hold
        columns = {key: _schema(rng, 3) for key in _KEYS[:3]}
        schema = {"type": "array", "items": {"type": "object", "properties": columns}}

    value = _value(rng, schema)
    row: dict[str, Any] = {
        "schema_str": json.dumps(schema),
        "schema_type": "json" if kind == "tool_call" else kind,
        "response_mode": "text",
    }
    if kind == "tool_call":
        row |= {
            "response_mode": "tool_call",
            "tool_name": rng.choice((None, "save")),
            "tool_payload_key": rng.choice((None, "payload")),
        }
    return kind, row, value


def _turn(calls: list[tuple[str, str]]) -> dict[str, Any]:
    tool_calls = [
        {"id": "1", "function": {"name": name, "arguments": text}} for name, text in calls
    ]
    return {"role": "assistant", "tool_calls": tool_calls}


def _calls(rng: random.Random, row: dict[str, Any], value: Any) -> list[tuple[str, str]]:
    payload = {row["tool_payload_key"]: value} if row["tool_payload_key"] else value
    text = json.dumps(payload)
    odd = (
        text[:-1],
        "",
        "null",
        "[]",
        '"{}"',
        json.dumps({"other": value}),
        "NaN",
        text + "}",
        '{"a": 1, "a": 2}',
    )
    text = rng.choice((text,) * 12 + odd)
    names = rng.choice((["save"],) * 10 + ([], ["save", "save"], ["keep"], ["Save"]))
    return [(name, text) for name in names]


def _graded(
    domain: Structured, grader: Any, row: Any, reply: Any, response: Body, index: int
) -> tuple[Any, Any]:
    """(linn's reward, the reference's), or the words for that the row cannot be graded."""
    request = Body(**row, response=response)
    try:
        theirs = asyncio.run(grader.verify(request)).reward
    except Exception:
        theirs = "raises"
    question = {"input": [{"role": "user", "content": "?"}]}
    try:
        prompt = domain.from_row({"responses_create_params": question, **row}, index)
    except UserError:
        return "raises", theirs
    answer = reply_from({"row": 0, **reply})
    return domain.verify(prompt, answer).reward, theirs


def _why(grader: Any, row: Any) -> str | None:
    try:
        grader.strictify_schema(json.loads(row["schema_str"]))
    except Exception:
        return "a schema that cannot be closed: the reference fails, linn names the row"
    return None


if __name__ == "__main__":
    sys.exit(main())
