"""Documents against a JSON schema: parsing five kinds of text, closing the schema, validating.

`check` is the whole contract and may run long on hostile input. The domain calls it directly only
where `is_quick` says that it cannot, otherwise in a process with a limit of processor time.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from linn.domains.structured import yaml_text
from linn.domains.structured.closing import closed
from linn.domains.structured.typist import Typist

KINDS = ("json", "yaml", "xml", "toml", "csv")
"""The kinds of document that are read."""
CPU_SECONDS = 0.6
"""Processor time that the worker may spend on one check."""
_QUICK_CHARS = 20_000
_LONGEST_NOTE = 200
_DEEPEST = 400
"""Nesting of a document."""
_PLAIN_KEYS = frozenset(
    (
        "$schema $id title description default examples format type properties required"
        " additionalProperties items enum const deprecated minimum maximum exclusiveMinimum"
        " exclusiveMaximum minLength maxLength minItems maxItems minProperties maxProperties"
    ).split()
)
"""Words of a schema that take time in proportion to the document."""
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def check(kind: str, text: str, schema_text: str, reference: bool = False) -> str:
    """Why a document of this kind breaks the closed schema; empty where it keeps it.

    `reference`: closed and typed as nemo-gym does, which leaves alternatives open and types no
    text behind a reference. May run long or kill the interpreter; never raises.
    """
    if not text.strip():
        return "empty reply"
    why = _fault(kind, text, schema_text, reference)
    if why and kind == "yaml" and not reference:
        # YAML has two versions, and a document keeps the schema where it does so in one of them.
        return why if _fault(kind, text, schema_text, core=True) else ""
    return why


def _fault(
    kind: str, text: str, schema_text: str, reference: bool = False, core: bool = False
) -> str:
    """As `check`, for a text that is not empty; `core`: YAML in version 1.2."""
    try:
        value = parse(kind, text, reference, core)
    except Exception as error:
        # Parsers raise many kinds; whatever they raise, the text is not such a document.
        return f"not {kind}: {type(error).__name__}: {error}"[:_LONGEST_NOTE]

    try:
        validator = _validator(schema_text, reference)
        if kind in ("xml", "csv"):
            value = _typed(kind, value, validator, reference)
        fault = next(validator.iter_errors(value), None)
    except Exception as failure:
        # An unusable schema or value: invalid, as in the reference.
        return f"cannot be validated: {type(failure).__name__}: {failure}"[:_LONGEST_NOTE]

    if fault is None:
        return ""
    place = "/".join(map(str, fault.absolute_path)) or "document"
    return f"{place}: {fault.message}"[:_LONGEST_NOTE]


def _typed(kind: str, value: Any, validator: Any, reference: bool) -> Any:
    """XML's or CSV's text as the types of the validator's schema."""
    schema = validator.schema
    if reference:
        return _xml_typed(value, schema) if kind == "xml" else _csv_typed(value, schema)

    typist = Typist(schema, lambda part, each: bool(validator.evolve(schema=each).is_valid(part)))
    return typist.xml_document(value, schema) if kind == "xml" else typist.csv(value, schema)


def load_check() -> Callable[[str, str, str, bool], str]:
    """In the worker: import what checks need, so that none is charged for it; return `check`."""
    import jsonschema  # noqa: F401

    return check


def is_quick(kind: str, text: str, schema_text: str) -> bool:
    """Whether `check` is bound to be quick.

    So it is for a short JSON text and a schema without patterns, references, alternatives or
    uniqueness.
    """
    return kind == "json" and len(text) <= _QUICK_CHARS and _has_plain_text(schema_text)


@lru_cache(maxsize=1024)
def _has_plain_text(schema_text: str) -> bool:
    try:
        return len(schema_text) <= _QUICK_CHARS and _is_plain(json.loads(schema_text))
    except (ValueError, RecursionError):
        return False


def _is_plain(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return isinstance(schema, bool)
    if not set(schema) <= _PLAIN_KEYS:
        return False
    # Only these words hold schemas themselves.
    parts = [schema[key] for key in ("items", "additionalProperties") if key in schema]
    if isinstance(schema.get("properties"), dict):
        parts += schema["properties"].values()
    return all(_is_plain(part) for part in parts)


# ---------------------------------------------------------------- the schema


def closed_schema(schema_text: str, reference: bool = False) -> Any:
    """The schema with every property required and no others allowed (see `closing.closed`).

    `reference`: at every object reached through object values, not through lists.
    """
    if not reference:
        return closed(schema_text)
    schema = json.loads(schema_text)
    _close(schema)
    return schema


def _close(schema: Any) -> None:
    if not isinstance(schema, dict):
        return
    # As in the reference, a word of the user's own named "properties" counts as well.
    if "properties" in schema:
        schema["required"] = list(schema["properties"])
        schema["additionalProperties"] = False
    for part in schema.values():
        _close(part)


@lru_cache(maxsize=1024)
def _validator(schema_text: str, reference: bool) -> Any:
    """A validator (draft 2020-12, formats unchecked).

    It knows the published meta-schemas and fetches nothing.
    """
    from jsonschema import Draft202012Validator
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    schema = closed_schema(schema_text, reference)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, registry=REGISTRY)


# ---------------------------------------------------------------- the five kinds


def parse(kind: str, text: str, reference: bool = False, core: bool = False) -> Any:
    """The value a document stands for; raises whatever its parser raises.

    JSON has no NaN and no Infinity, which Python's parser takes; nor can a schema speak of them in
    YAML and TOML. An object of one name twice says two things, of which parsers take the last.
    `reference`: they pass. Dates and times of TOML are texts, as JSON writes them. `core`: YAML in
    version 1.2.
    """
    if kind == "json":
        if reference:
            return json.loads(text)
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=_distinct)
    if reference:
        return _parse_as_reference(kind, text)
    value = _parse_other(kind, text, core)
    _check_finite(value, 0)
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError where a name comes twice: then readers differ on what it says."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object names a property twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _check_finite(value: Any, depth: int) -> None:
    """Raises ValueError where a value holds NaN or an infinity."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, float) and not math.isfinite(value):
        _no_number(str(value))
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, list | type({}.values())):
        for part in value:
            _check_finite(part, depth + 1)


def _parse_as_reference(kind: str, text: str) -> Any:
    """As nemo-gym does, for the kinds beside JSON."""
    if kind == "yaml":
        return yaml_text.parse_as_reference(text)
    if kind == "csv":
        return list(csv.DictReader(io.StringIO(text)))
    return _parse_toml(text) if kind == "toml" else _parse_xml(text)


def _parse_other(kind: str, text: str, core: bool) -> Any:
    """As `parse`, for the other kinds."""
    if kind == "yaml":
        return yaml_text.parse(text, core)
    if kind == "toml":
        return _timeless(_parse_toml(text), 0)
    if kind == "csv":
        return _parse_csv(text.lstrip("\r\n"))
    assert kind == "xml", kind
    # Nothing may stand before an XML declaration, but a reply may begin with a blank line.
    return _parse_xml(text.lstrip())


def _parse_toml(text: str) -> Any:
    import tomllib

    return tomllib.loads(text)


def _timeless(value: Any, depth: int) -> Any:
    """A value of TOML with its dates and times as texts; ValueError where it is nested deeply."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {key: _timeless(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list):
        return [_timeless(part, depth + 1) for part in value]
    return value


def _parse_csv(text: str) -> list[dict[str, Any]]:
    """The rows of a table, each as wide as its header."""
    table = csv.DictReader(io.StringIO(text))
    _distinct([(name, None) for name in table.fieldnames or ()])
    rows = list(table)
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a row has more or fewer cells than the header")
    return rows


class _XmlObjects:
    """Handlers for an XML parser that build nested objects.

    Attributes stand under `@name`, text beside them under `#text`; repeated elements become lists,
    empty ones None.
    """

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}
        """What is read so far: one key, the root element."""
        self._open: list[tuple[str, dict[str, Any], list[str]]] = [("", self.document, [])]
        """Elements not yet closed, outermost first: name, attributes and children, text."""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        item: dict[str, Any] = {f"@{key}": value for key, value in attributes.items()}
        self._open.append((name, item, []))

    def characters(self, data: str) -> None:
        self._open[-1][2].append(data)

    def end(self, name: str) -> None:
        _, item, parts = self._open.pop()
        # Blanks between elements are not text.
        text = "".join(parts).strip() or None
        if item and text:
            _add(item, "#text", text)
        parent = self._open[-1][1]
        _add(parent, name, item or text)

    def entity(self, *_: Any) -> None:
        raise ValueError("entity declarations are refused")


def _parse_xml(text: str) -> Any:
    from xml.parsers import expat

    objects = _XmlObjects()
    parser = expat.ParserCreate()
    parser.ordered_attributes = False
    parser.buffer_text = True
    parser.StartElementHandler = objects.start
    parser.EndElementHandler = objects.end
    parser.CharacterDataHandler = objects.characters
    parser.EntityDeclHandler = objects.entity
    parser.Parse(text, True)
    return objects.document


def _add(item: dict[str, Any], key: str, value: Any) -> None:
    if key not in item:
        item[key] = value
    elif isinstance(item[key], list):
        item[key].append(value)
    else:
        item[key] = [item[key], value]


# ---------------------------------------------------------------- text as the schema's types


def _xml_typed(value: Any, schema: Any) -> Any:
    """XML's text as the types the schema asks for.

    What cannot be converted stays as it is and fails validation.
    """
    if not isinstance(schema, dict) or "type" not in schema:
        return value

    kind = schema["type"]
    if kind == "object" and isinstance(value, dict):
        return _xml_object(value, schema.get("properties", {}))
    if kind == "array":
        inner = schema.get("items", {})
        return [_xml_typed(part, inner) for part in _xml_items(value)]
    if value is None and kind == "string":
        return ""
    return _scalar(value, kind) if isinstance(value, str) else value


def _xml_object(value: dict[str, Any], properties: Any) -> dict[str, Any]:
    typed = {}
    for key, part in value.items():
        typed[key] = _xml_typed(part, properties[key]) if key in properties else part
    return typed


def _xml_items(value: Any) -> list[Any]:
    """The items of a list, which may stand in an element of their own."""
    if isinstance(value, dict) and len(value) == 1:  # <tags><tag>a</tag><tag>b</tag></tags>
        (value,) = value.values()
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def _csv_typed(rows: list[dict[str, Any]], schema: Any) -> list[dict[str, Any]]:
    properties = schema.get("items", schema).get("properties", {})
    typed = []
    for row in rows:
        cells = {}
        for key, cell in row.items():
            cells[key] = _csv_cell(cell, properties.get(key, {}).get("type", "string"))
        typed.append(cells)
    return typed


def _csv_cell(cell: Any, kind: Any) -> Any:
    if not isinstance(kind, list):
        return _scalar(cell, kind) if cell else cell
    if not cell and "null" in kind:
        return None

    # The first of the allowed types that the text can be converted to.
    for option in kind:
        if option != "null":
            value = _csv_cell(cell, option)
            if not isinstance(value, str) or option == "string":
                return value
    return cell


def _scalar(text: Any, kind: Any) -> Any:
    try:
        if kind == "integer":
            return int(text)
        if kind == "number":
            return float(text)
        if kind == "boolean":
            return _BOOLEANS.get(text.lower(), text)
    except (ValueError, TypeError, AttributeError):
        pass
    return text
