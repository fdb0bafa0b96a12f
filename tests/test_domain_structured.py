"""The structured domain: closed schemas, kinds of document, calls, hostile replies and schemas."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from linn.domains.structured import Structured
from linn.domains.structured.documents import closed_schema, is_quick
from linn.errors import UserError
from linn.types import Message, Prompt, Reply, ToolCall

PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}


@pytest.fixture(scope="module")
def domain() -> Iterator[Structured]:
    made = Structured()
    yield made
    made.close()


def row(schema: Any = PERSON, kind: str = "json", **fields: Any) -> dict[str, Any]:
    return {
        "schema_str": json.dumps(schema),
        "schema_type": kind,
        "responses_create_params": {"input": [{"role": "user", "content": "Go."}]},
        **fields,
    }


def reward(domain: Structured, text: str, schema: Any = PERSON, kind: str = "json") -> float:
    return domain.verify(domain.from_row(row(schema, kind), 0), Reply(text=text)).reward


# ---------------------------------------------------------------- validity


def test_the_reference_closes_through_objects_but_not_through_lists() -> None:
    inner = {"type": "object", "properties": {"k": {"type": "string"}}}
    closed = closed_schema(
        json.dumps(
            {
                "properties": {"a": inner, "b": {"anyOf": [inner]}, "c": {"items": inner}},
                "required": [],
            }
        ),
        reference=True,
    )
    assert closed["required"] == ["a", "b", "c"] and closed["additionalProperties"] is False
    assert (
        closed["properties"]["a"]["required"]
        == ["k"]
        == closed["properties"]["c"]["items"]["required"]
    )
    assert "required" not in closed["properties"]["b"]["anyOf"][0]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"name":"a","age":1}', 1),
        (' \n{"age": 1.0, "name": ""}\n', 1),
        ('{"name":"a","age":"1"}', 0),
        ('{"name":"a","age":true}', 0),
        ('{"name":"a"}', 0),
        ('{"name":"a","age":1,"x":2}', 0),
        ('```json\n{"name":"a","age":1}\n```', 0),
        ('Here: {"name":"a","age":1}', 0),
        ('{"name":"a","age":1} {}', 0),
        ('[{"name":"a","age":1}]', 0),
        ("null", 0),
        ("", 0),
    ],
)
def test_json_must_be_the_whole_answer(domain: Structured, text: str, wanted: float) -> None:
    assert reward(domain, text) == wanted


def test_in_the_reference_alternatives_stay_open_and_formats_unchecked() -> None:
    domain = Structured(reference=True)
    inner = {"type": "object", "properties": {"k": {"type": "string"}}}
    schema = {
        "type": "object",
        "properties": {
            "x": {"anyOf": [inner, {"type": "null"}]},
            "d": {"type": "string", "format": "date"},
        },
    }
    assert reward(domain, '{"x":{"k":"s","more":1},"d":"no date"}', schema) == 1
    assert reward(domain, '{"x":{},"d":""}', schema) == 1
    assert reward(domain, '{"x":null}', schema) == 0
    assert reward(domain, '{"x":5,"d":""}', schema) == 0
    domain.close()


TABLE = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": ["number", "null"]}},
    },
}
ROOT = {
    "type": "object",
    "properties": {
        "root": {
            "type": "object",
            "properties": {
                "a": {"type": "integer"},
                "b": {"type": "array", "items": {"type": "string"}},
            },
        }
    },
}


@pytest.mark.parametrize(
    ("kind", "schema", "text", "wanted"),
    [
        ("yaml", PERSON, "name: a\nage: 1", 1),
        ("yaml", PERSON, "name: a\nage: '1'", 0),
        ("yaml", PERSON, "name: !!python/object/apply:os.getcwd []\nage: 1", 0),
        ("toml", PERSON, 'name = "a"\nage = 1', 1),
        ("toml", PERSON, 'name = "a"\nage = "1"', 0),
        ("csv", TABLE, "a,b\n1,2.5\n2,", 1),
        ("csv", TABLE, "a,b\n1,2.5,3", 0),
        ("csv", TABLE, "a,b\nx,2.5", 0),
        ("xml", ROOT, "<root><a>1</a><b>x</b><b>y</b></root>", 1),
        ("xml", ROOT, "<root><a>1</a><b><item>x</item></b></root>", 1),
        ("xml", ROOT, '<root id="1"><a>1</a><b>x</b></root>', 0),
        ("xml", ROOT, "<root><a>one</a><b>x</b></root>", 0),
        ("xml", ROOT, '<!DOCTYPE r [<!ENTITY e "1">]><root><a>&e;</a><b>x</b></root>', 0),
    ],
)
def test_other_kinds(domain: Structured, kind: str, schema: Any, text: str, wanted: float) -> None:
    assert reward(domain, text, schema, kind) == wanted


def called(*calls: ToolCall) -> Reply:
    return Reply(text="", messages=(Message("assistant", "", tool_calls=calls),))


def test_tool_call_rows(domain: Structured) -> None:
    prompt = domain.from_row(
        row(response_mode="tool_call", tool_name="save", tool_payload_key="data"), 0
    )
    good = {"data": {"name": "a", "age": 1}}
    assert domain.verify(prompt, called(ToolCall("save", good))).reward == 1
    assert domain.verify(prompt, called(ToolCall("save", json.dumps(good)))).reward == 1
    for bad in (
        called(),
        called(ToolCall("save", good), ToolCall("save", good)),
        called(ToolCall("other", good)),
        called(ToolCall("save", {"name": "a", "age": 1})),
        called(ToolCall("save", '{"data":')),
        called(ToolCall("save", {"data": {"name": "a", "age": "1"}})),
        Reply(text=json.dumps(good)),
    ):
        assert domain.verify(prompt, bad).reward == 0
    direct = domain.from_row(row(response_mode="tool_call"), 0)
    assert domain.verify(direct, called(ToolCall("any", good["data"]))).reward == 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"schema_str": None}, "schema_str"),
        ({"schema_str": "{"}, "schema_str"),
        ({"schema_str": "[1]"}, "schema_str"),
        ({"schema_type": "protobuf"}, "schema_type.*json, yaml, xml, toml, csv"),
        ({"response_mode": "audio"}, "response_mode"),
        ({"responses_create_params": {}}, "responses_create_params.input"),
    ],
)
def test_wrong_rows_name_the_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=f"row 5.*{named}"):
        Structured().from_row(
            row(**fields) if "schema_str" not in fields else {**row(), **fields}, 5
        )


# ---------------------------------------------------------------- the tiny level


def graded(domain: Structured, prompt: Prompt, faulty: bool) -> float:
    (message,) = domain.demonstrate(prompt, random.Random(1), faulty)
    return domain.verify(prompt, Reply(text=message.content, messages=(message,))).reward


def test_clean_demonstrations_earn_1_and_faulty_ones_0(domain: Structured) -> None:
    for index in range(200):
        prompt = domain.make(random.Random(index))
        assert is_quick("json", "{}", prompt.hidden.schema)
        assert graded(domain, prompt, faulty=False) == 1, prompt
        assert graded(domain, prompt, faulty=True) == 0, prompt
        assert len(prompt.messages[0].content) <= 160


def test_tiny_prompts_are_many(domain: Structured) -> None:
    assert len({domain.make(random.Random(index)).messages for index in range(8000)}) >= 6000
    assert (
        len(
            {prompt.id for prompt, _ in zip(domain.prompts("validation"), range(450), strict=False)}
        )
        == 450
    )


# ---------------------------------------------------------------- hostile


BIG = 1_000_000
HOSTILE = [
    "",
    " ",
    "\n" * BIG,
    "[" * BIG,
    "{" * BIG,
    '{"a":' * (BIG // 5),
    "[" * 50_000 + "]" * 50_000,
    "1" * BIG,
    '"' + "x" * BIG,
    '"' + "x" * BIG + '"',
    "[" + "{}," * (BIG // 3) + "{}]",
    "{" + '"name":"a",' * (BIG // 11) + '"age":"1"}',
    "\x00",
    "\ud800",
    '"\\ud800"',
    "NaN",
    "-Infinity",
    "1e999",
    "&a [" + "*a," * 1000 + "]",
    "<a>" * (BIG // 3),
    "a: " * (BIG // 3),
    "- " * 50_000,
    "a,b\n" * (BIG // 4),
    "[[" * 50_000,
    "a.b." * 30_000 + "c=1",
    '<!DOCTYPE a [<!ENTITY a "x"><!ENTITY b "&a;&a;&a;">]><a>&b;</a>',
    "? " * 100_000,
    '"""' * 1000,
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["json", "yaml", "xml", "toml", "csv"])
def test_hostile_replies_earn_nothing(domain: Structured, kind: str) -> None:
    """Each is answered: `check` runs directly where it is quick, else within a CPU limit."""
    for text in HOSTILE:
        assert reward(domain, text, kind=kind) == 0, text[:20]


@pytest.mark.slow
def test_yaml_bombs_and_patterns_are_cut_off(domain: Structured) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            key: {"type": "array", "items": {"$ref": "#/$defs/t"}} for key in "abcdefghi"
        },
    }
    schema["$defs"] = {
        "t": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/t"}}]}
    }
    assert reward(domain, bomb, schema, "yaml") == 0
    bomb_pattern = {"type": "string", "pattern": "^(a+)+$"}
    assert reward(domain, json.dumps("a" * 60 + "!"), bomb_pattern) == 0
    assert reward(domain, json.dumps("a" * 60), bomb_pattern) == 1, (
        "the next check has a fresh worker"
    )


def test_references_stay_inside_the_schema(domain: Structured) -> None:
    assert reward(domain, "5", {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}) == 1
    assert reward(domain, "5", {"$ref": "#"}) == 0, "endless"
    assert reward(domain, "5", {"$ref": "http://127.0.0.1:9/s.json"}) == 0, "remote"
    assert reward(domain, "5", {"$ref": "file:///etc/hostname"}) == 0, "a file"
    verdict = domain.verify(
        domain.from_row(row({"$ref": "http://127.0.0.1:9/s.json"}), 0), Reply(text="5")
    )
    assert "Unresolvable" in verdict.note
    assert reward(domain, "5", {"type": "bogus"}) == 0


def test_nothing_is_ever_fetched(domain: Structured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/s"
        for schema in (
            {"$ref": url},
            {"$dynamicRef": url},
            {"$schema": url, "type": "integer", "pattern": "x"},
            {"$id": url, "$ref": "other"},
            {"allOf": [{"$ref": f"{url}#/a"}]},
        ):
            verdict = domain.verify(domain.from_row(row(schema), 0), Reply(text="5"))
            assert verdict.reward == 0 or "$schema" in schema
        outside = (
            f'<!DOCTYPE a SYSTEM "{url}"><a><b>1</b></a>',
            f'<!DOCTYPE a [<!ENTITY % e SYSTEM "{url}"> %e;]><a><b>1</b></a>',
        )
        for text in (*outside, f'<a xmlns:xi="x"><xi:include href="{url}"/></a>'):
            reward(
                domain,
                text,
                {
                    "type": "object",
                    "properties": {
                        "a": {"type": "object", "properties": {"b": {"type": "string"}}}
                    },
                },
                "xml",
            )
        assert (
            reward(
                domain,
                f"!!python/object/apply:urllib.request.urlopen ['{url}']",
                {"type": "object"},
                "yaml",
            )
            == 0
        )
        with pytest.raises(TimeoutError):
            server.accept()


LOOP = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
DEEP: dict[str, Any] = {"type": "integer"}
for _ in range(200):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
SCHEMAS = [
    LOOP,
    {"$ref": "#/$ref"},
    {"$ref": "#/$defs/none"},
    {"allOf": [{"$ref": "#"}]},
    {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    {"not": {"$ref": "#"}},
    {"pattern": "(" * 500},
    {"type": "string", "pattern": "(a*)*$", "minLength": 3},
    {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"},
    {"enum": []},
    {"const": {"a": [1] * 10_000}},
    {"type": "object", "minProperties": 10**9},
    {"multipleOf": 0},
    {"type": ["bogus"]},
    {"required": "a"},
    {"dependentSchemas": {"a": {"$ref": "#"}}, "type": "null"},
    {"oneOf": [{}, {}]},
    DEEP,
    {"if": {}, "then": {"$ref": "#"}},
    {"$ref": "#/properties/a", "properties": {"a": {"$ref": "#"}}},
]


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(SCHEMAS)))
def test_hostile_schemas_neither_raise_nor_reward(domain: Structured, index: int) -> None:
    for text in ("5", '"' + "a" * 60 + '!"', "[[[[]]]]", '{"a": {"a": {"a": 1}}}'):
        assert reward(domain, text, SCHEMAS[index]) == 0


def test_yaml_is_read_as_the_reference_reads_it(domain: Structured) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "integer"}}},
    }
    assert (
        reward(domain, "{a:[1, 2]}", schema, "yaml")
        == reward(domain, "{a: [1, 2]}", schema, "yaml")
        == 1
    )


def test_closing_ends_the_worker_and_a_later_check_starts_another() -> None:
    own = Structured()
    assert (
        reward(own, "a: 1", {"type": "object", "properties": {"a": {"type": "integer"}}}, "yaml")
        == 1
    )
    own.close()
    own.close()
    assert (
        reward(own, "a: 1", {"type": "object", "properties": {"a": {"type": "integer"}}}, "yaml")
        == 1
    )
    own.close()
