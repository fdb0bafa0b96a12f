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


def _schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    kind = rng.choice(
        ("object", "array", "string", "integer", "number", "boolean", "null")
        if depth < 3
        else ("string", "integer", "boolean")
    )
    if depth == 0:
        kind = rng.choice(("object", "object", "object", "array"))
    made: dict[str, Any] = {"type": kind}
    if kind == "object":
        made["properties"] = {
            rng.choice(_KEYS): _schema(rng, depth + 1) for _ in range(rng.randint(0, 4))
        }
        if rng.random() < 0.3:
            made |= rng.choice(
                (
                    {"required": []},
                    {"required": ["name"]},
                    {"additionalProperties": True},
                    {"minProperties": 2},
                    {"required": {"item": ["a"]}},
                )
            )
    elif kind == "array":
        made["items"] = _schema(rng, depth + 1)
        made |= rng.choice(({}, {}, {"minItems": 1}, {"maxItems": 1}, {"uniqueItems": True}))
    elif kind == "string":
        made |= rng.choice(
            (
                {},
                {},
                {"enum": ["ana", "12"]},
                {"minLength": 2},
                {"pattern": "^[a-z]+$"},
                {"format": rng.choice(_FORMATS)},
                {"const": "ana"},
            )
        )
    elif kind in ("integer", "number"):
        made |= rng.choice(
            ({}, {}, {"minimum": 0}, {"maximum": 10}, {"multipleOf": 3}, {"enum": [1, 2, "1"]})
        )
    if rng.random() < 0.1:
        other, copy = _schema(rng, depth + 1), dict(made)
        word = rng.choice(
            (
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
        )
        odd = {
            "anyOf": [copy, other],
            "oneOf": [copy, other],
            "allOf": [copy],
            "not": other,
            "nullable": True,
            "type": [kind, "null"],
            "$ref": "#/$defs/a",
        }
        made |= {
            word: {**odd, "$defs": {"a": other}, "if": other, "contains": other, "strange": other}[
                word
            ]
        }
    if rng.random() < 0.02:
        made |= rng.choice(
            (
                {"type": "text"},
                {"properties": 5},
                {"properties": ["name"]},
                {"required": "name"},
                {"additionalProperties": "false"},
                {"items": []},
            )
        )
    return made


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
        found = {
            key: _value(rng, part)
            for key, part in (properties.items() if isinstance(properties, dict) else ())
        }
        if found and rng.random() < 0.05:
            found.pop(rng.choice(list(found)))
        return found | ({"extra": 1} if rng.random() < 0.04 else {})
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
        return (
            f"<{name}>" + "".join(_xml("item", part) for part in value) + f"</{name}>"
            if len(value) % 2
            else "".join(_xml(name, part) for part in value)
        )
    else:
        inner = (
            "" if value is None else escape(value if isinstance(value, str) else json.dumps(value))
        )
    return f"<{name}>{inner}</{name}>"


def _csv(rng: random.Random, value: Any) -> str:
    rows = [row for row in (value if isinstance(value, list) else [value]) if isinstance(row, dict)]
    out = io.StringIO()
    writer = csv.DictWriter(out, list({key: None for row in rows for key in row}), restval="")
    writer.writeheader()
    writer.writerows(
        {
            key: json.dumps(part) if isinstance(part, (dict, list, bool)) else part
            for key, part in row.items()
        }
        for row in rows
    )
    return out.getvalue() + ("1,2,3,4,5,6\n" if rng.random() < 0.05 else "")


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
        text = (
            "\n".join(f"{json.dumps(key)} = {_inline(part)}" for key, part in value.items())
            if isinstance(value, dict)
            else _inline(value)
        )
    elif kind == "xml":
        root, part = (
            next(iter(value.items()))
            if isinstance(value, dict) and len(value) == 1
            else ("root", value)
        )
        text = _xml(root, part)
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


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(key)} = {_inline(part)}" for key, part in value.items())
            + "}"
        )
    return (
        "[" + ", ".join(map(_inline, value)) + "]" if isinstance(value, list) else json.dumps(value)
    )


def main() -> int:
    folder, cases, rng = arguments(__doc__, 10_000)
    grader = server(
        load(folder, "structured_outputs"),
        "StructuredOutputsResourcesServer",
        xml_coerce_types=True,
    )
    domain = Structured()
    tallies = {kind: Tally(f"structured, {kind}") for kind in _KINDS}
    rows = [
        row
        for name in ("structured_outputs_v3_example", "structured_outputs_v4_example")
        for row in examples(folder, "structured_outputs", name)
    ]
    for index in range(cases):
        schema = (
            json.loads(rng.choice(rows)["schema_str"])
            if rows and rng.random() < 0.1
            else _schema(rng)
        )
        kind = rng.choice(_KINDS)
        row = {
            "schema_str": json.dumps(schema),
            "schema_type": "json" if kind == "tool_call" else kind,
            "response_mode": "text",
        }
        if kind == "csv" and rng.random() < 0.7:  # what a table can hold
            row["schema_str"] = json.dumps(
                schema := {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {k: _schema(rng, 3) for k in _KEYS[:3]},
                    },
                }
            )
        value = _value(rng, schema)
        if kind == "tool_call":
            row |= {
                "response_mode": "tool_call",
                "tool_name": rng.choice((None, "save")),
                "tool_payload_key": rng.choice((None, "payload")),
            }
            called = _calls(rng, row, value)
            turn = [
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "1", "function": {"name": name, "arguments": text}}
                        for name, text in called
                    ],
                }
            ]
            entry, response = {"messages": turn}, call(*called)
        else:
            text = _document(rng, kind, value)
            entry, response = {"text": text}, message(text)
        tallies[kind].add(
            *_graded(domain, grader, row, entry, response, index),
            lambda row=row: _why(grader, row),
            case=(row, entry),
        )  # type: ignore[misc]
    domain.close()
    return report(folder, list(tallies.values()))


def _calls(rng: random.Random, row: dict[str, Any], value: Any) -> list[tuple[str, str]]:
    payload = {row["tool_payload_key"]: value} if row["tool_payload_key"] else value
    text = json.dumps(payload)
    text = rng.choice(
        (text,) * 12
        + (
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
    )
    names = rng.choice((["save"],) * 10 + ([], ["save", "save"], ["keep"], ["Save"]))
    return [(name, text) for name in names]


def _graded(
    domain: Structured, grader: Any, row: Any, entry: Any, response: Body, index: int
) -> tuple[Any, Any]:
    """(linn's reward, the reference's), or the words for that the row cannot be graded."""
    request = Body(**row, response=response)
    try:
        theirs = asyncio.run(grader.verify(request)).reward
    except Exception:
        theirs = "raises"
    try:
        prompt = domain.from_row(
            {"responses_create_params": {"input": [{"role": "user", "content": "?"}]}, **row}, index
        )
    except UserError:
        return "raises", theirs
    return domain.verify(prompt, reply_from({"row": 0, **entry})[1]).reward, theirs


def _why(grader: Any, row: Any) -> str | None:
    try:
        grader.strictify_schema(json.loads(row["schema_str"]))
    except Exception:
        return "a schema that cannot be closed: the reference fails, linn names the row"
    return None


if __name__ == "__main__":
    sys.exit(main())
