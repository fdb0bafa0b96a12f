"""Documents against a JSON schema: parsing five kinds of text, closing the schema, validating; also the CPU-limited process for it.

`check` is the whole contract and may run long on hostile input; `structured.py` calls it directly only where `quick` says that it cannot.
Run as a module it is the worker: a JSON line in, a JSON line out, killed by the system when one line takes too much CPU time.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

KINDS = ("json", "yaml", "xml", "toml", "csv")
"""The kinds of document that are read."""
CPU_SECONDS = 0.6
"""CPU time that the worker may spend on one check."""
_MEMORY_BYTES = 2 << 30
_QUICK_CHARS = 20_000
_LONGEST_OWN_YAML = 50_000
_PLAIN_KEYS = frozenset(
    "$schema $id title description default examples format type properties required additionalProperties items enum const "
    "deprecated minimum maximum exclusiveMinimum exclusiveMaximum minLength maxLength minItems maxItems minProperties maxProperties".split()
)


def check(kind: str, text: str, schema_text: str) -> str:
    """Why a document of this kind breaks the closed schema; empty when it keeps it. May run long or kill the interpreter; never raises."""
    if not text.strip():
        return "empty reply"
    try:
        value = parse(kind, text)
    except (
        Exception
    ) as error:  # parsers raise many kinds; whatever they raise, the text is no such document
        return f"not {kind}: {type(error).__name__}: {error}"[:200]
    try:
        if kind == "xml":
            value = _xml_typed(value, closed_schema(schema_text))
        if kind == "csv":
            value = _csv_typed(value, closed_schema(schema_text))
        fault = next(_validator(schema_text).iter_errors(value), None)
    except Exception as failure:  # an unusable schema or value: invalid, as in the reference
        return f"cannot be validated: {type(failure).__name__}: {failure}"[:200]
    return (
        ""
        if fault is None
        else f"{'/'.join(map(str, fault.absolute_path)) or 'document'}: {fault.message}"[:200]
    )


def quick(kind: str, text: str, schema_text: str) -> bool:
    """Whether `check` is bound to be quick: a short JSON text and a schema without patterns, references, alternatives or uniqueness."""
    return kind == "json" and len(text) <= _QUICK_CHARS and _plain(schema_text)


@lru_cache(maxsize=1024)
def _plain(schema_text: str) -> bool:
    try:
        return len(schema_text) <= _QUICK_CHARS and _plain_schema(json.loads(schema_text))
    except (ValueError, RecursionError):
        return False


def _plain_schema(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return isinstance(schema, bool)
    inner = (
        list(schema["properties"].values()) if isinstance(schema.get("properties"), dict) else []
    )
    inner += [schema[key] for key in ("items", "additionalProperties") if key in schema]
    return set(schema) <= _PLAIN_KEYS and all(_plain_schema(part) for part in inner)


# ---------------------------------------------------------------- the schema


def closed_schema(schema_text: str) -> Any:
    """The schema with every property required and no others allowed, at every object reached through object values (not through lists)."""
    schema = json.loads(schema_text)
    _close(schema)
    return schema


def _close(schema: Any) -> None:
    if not isinstance(schema, dict):
        return
    if "properties" in schema:
        schema["required"] = list(schema["properties"])
        schema["additionalProperties"] = False
    for part in schema.values():
        _close(part)


@lru_cache(maxsize=1024)
def _validator(schema_text: str) -> Any:
    """A validator (draft 2020-12, formats unchecked) that knows the published meta-schemas and fetches nothing."""
    from jsonschema import Draft202012Validator
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    schema = closed_schema(schema_text)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, registry=REGISTRY)


# ---------------------------------------------------------------- the five kinds


def parse(kind: str, text: str) -> Any:
    """The value a document stands for; raises whatever its parser raises."""
    if kind == "json":
        return json.loads(text)
    if kind == "yaml":
        import yaml

        # As in the reference, PyYAML's own parser decides; libyaml differs in `{a:[1]}`, but reads long texts within the time limit.
        return yaml.load(
            text,
            Loader=yaml.SafeLoader
            if len(text) <= _LONGEST_OWN_YAML
            else getattr(yaml, "CSafeLoader", yaml.SafeLoader),
        )
    if kind == "toml":
        import tomllib

        return tomllib.loads(text)
    if kind == "csv":
        return list(csv.DictReader(io.StringIO(text)))
    assert kind == "xml", kind
    return _parse_xml(text)


def _parse_xml(text: str) -> Any:
    """XML as nested objects: attributes under `@name`, text beside them under `#text`, repeated elements as lists, empty ones None."""
    from xml.parsers import expat

    stack: list[tuple[str, dict[str, Any], list[str]]] = [("", {}, [])]

    def opened(name: str, attributes: Mapping[str, str]) -> None:
        stack.append((name, {f"@{key}": value for key, value in attributes.items()}, []))

    def closed(name: str) -> None:
        _, item, parts = stack.pop()
        said = "".join(parts).strip() or None
        if item and said:
            _put(item, "#text", said)
        _put(stack[-1][1], name, item or said)

    def refuse(*_: Any) -> None:
        raise ValueError("entity declarations are refused")

    parser = expat.ParserCreate()
    parser.ordered_attributes = False
    parser.buffer_text = True
    parser.StartElementHandler = opened
    parser.EndElementHandler = closed
    parser.CharacterDataHandler = lambda data: stack[-1][2].append(data)
    parser.EntityDeclHandler = refuse
    parser.Parse(text, True)
    return stack[0][1]


def _put(item: dict[str, Any], key: str, value: Any) -> None:
    if key not in item:
        item[key] = value
    elif isinstance(item[key], list):
        item[key].append(value)
    else:
        item[key] = [item[key], value]


def _xml_typed(value: Any, schema: Any) -> Any:
    """XML's text as the types the schema asks for; what cannot be converted stays and fails validation."""
    if not isinstance(schema, dict) or "type" not in schema:
        return value
    kind = schema["type"]
    if kind == "object" and isinstance(value, dict):
        properties = schema.get("properties", {})
        return {
            key: _xml_typed(part, properties[key]) if key in properties else part
            for key, part in value.items()
        }
    if kind == "array":
        if isinstance(value, dict) and len(value) == 1:  # <tags><tag>a</tag><tag>b</tag></tags>
            (value,) = value.values()
        parts = value if isinstance(value, list) else [] if value is None else [value]
        return [_xml_typed(part, schema.get("items", {})) for part in parts]
    if value is None and kind == "string":
        return ""
    return _scalar(value, kind) if isinstance(value, str) else value


def _csv_typed(rows: list[dict[str, Any]], schema: Any) -> list[dict[str, Any]]:
    properties = schema.get("items", schema).get("properties", {})
    return [
        {
            key: _cell(cell, properties.get(key, {}).get("type", "string"))
            for key, cell in row.items()
        }
        for row in rows
    ]


def _cell(cell: Any, kind: Any) -> Any:
    if isinstance(kind, list):
        if not cell and "null" in kind:
            return None
        for one in kind:
            if one != "null":
                value = _cell(cell, one)
                if not isinstance(value, str) or one == "string":
                    return value
        return cell
    return _scalar(cell, kind) if cell else cell


def _scalar(text: Any, kind: Any) -> Any:
    try:
        if kind == "integer":
            return int(text)
        if kind == "number":
            return float(text)
        if kind == "boolean":
            return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    except (ValueError, TypeError, AttributeError):
        pass
    return text


# ---------------------------------------------------------------- the worker


def _serve() -> None:
    """Answer checks line by line; SIGPROF's default action ends the process, even inside C code, when one takes too long."""
    import resource
    import signal

    import jsonschema  # noqa: F401  # now, so that its import is not charged to the first check

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        why = check(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps({"why": why}), flush=True)


if __name__ == "__main__":
    _serve()
