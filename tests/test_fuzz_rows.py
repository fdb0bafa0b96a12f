"""Any JSON at all, and mutations of valid rows: a Prompt or a UserError that says where, never a
crash, never a hang."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from linn.chat import render as chat
from linn.chat.request import render_row, request_of
from linn.chat.tool_calls import read_calls
from linn.data.agents import check_signal, owner
from linn.data.conversations import conversation
from linn.data.overlap import asked, words_of
from linn.data.rows import object_of, read_rows
from linn.data.tally import fault
from linn.domains import code, math, mcqa
from linn.domains.common import diffs, edits
from linn.domains.common.boxes import outer_boxes
from linn.domains.load import NAMES, load
from linn.domains.proof import derivations, lean, lean_text, terms, wording
from linn.domains.structured import documents
from linn.domains.swe_agentic import package, rows
from linn.domains.swe_agentless import scoring, written_tests
from linn.errors import UserError
from linn.judges.equivalence import read_equivalence
from linn.judges.marks import marked
from linn.judges.pairwise import Comparison, read_comparison, score_in
from linn.judges.text import answer_of, inert
from linn.offline.grade import reply_from
from linn.types import Prompt

pytestmark = pytest.mark.slow

INPUT = {
    "responses_create_params": {
        "input": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
        "tools": [{"type": "function", "name": "f"}],
    }
}
TREE = json.dumps({"a.py": "x = 1\n"})
VALID: dict[str, dict[str, Any]] = {
    "instruct": {
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [None],
        "grading_mode": "binary",
        "id": 3,
    },
    "mcqa": {
        "options": [{"A": "x"}, {"B": None}],
        "expected_answer": "A",
        "uuid": "u",
        "template_metadata": {"output_regex": ["x(.)"]},
    },
    "structured": {
        "schema_str": '{"type": "object", "properties": {"a": {"type": "string"}}}',
        "schema_type": "json",
        "id": 1,
    },
    "workplace": {
        "ground_truth": [
            {
                "name": "email_send_email",
                "arguments": '{"recipient": "a@b.c", "subject": "s", "body": "b"}',
            }
        ],
        "id": 2,
    },
    "math": {"question": "1+1", "expected_answer": "$2$", "grading_mode": None, "uuid": "m"},
    "preference": {"id": 4},
    "longctx": {"expected_answer": ["a", "b"], "uuid": "l"},
    "code": {
        "verifier_metadata": {
            "unit_tests": {"inputs": ["1\n"], "outputs": ["1\n"], "fn_name": None}
        }
    },
    "swe_agentless": {
        "metadata": {"relevant_file_contents": TREE, "tests": "def test_a(): pass"},
        "grading_mode": "patch",
    },
    "swe_agentic": {
        "metadata": {
            "problem_statement": "p",
            "files": TREE,
            "tests": "def test_a(): pass",
            "visible_tests": "x",
        }
    },
}
PATCH = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
INSTANCE = {
    "instance_id": "o__r-1",
    "base_commit": "0" * 40,
    "problem_statement": "p",
    "golden_patch": PATCH,
    "FAIL_TO_PASS": '["t"]',
}
PROOF = {
    "problem": "p",
    "reference_solution": "s",
    "rubric": "r",
    "proof": "q",
    "score": 0.5,
    "ground_truth_judgement": "j",
}
OTHERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "instruct",
        {},
        INPUT
        | {
            "verifier_metadata": {
                "instruction_id_list": ["punctuation:no_comma"],
                "kwargs": [{}],
                "grading_mode": "fraction",
            }
        },
    ),
    ("math", {}, {"problem": "1+1", "answer": "2", "source": "s"}),
    ("math", {"tools": "python"}, INPUT | VALID["math"]),
    ("longctx", {"judged": True}, INPUT | {"outputs": ["a", "b"], "subset": "vt", "length": 3}),
    (
        "code",
        {},
        INPUT
        | {
            "verifier_metadata": {
                "test": "def check(f): pass",
                "entry_point": "f",
                "time_limit": 1,
                "language": "python",
            }
        },
    ),
    (
        "genrm",
        {},
        {
            "context": INPUT["responses_create_params"]["input"],
            "response1": "a",
            "response2": "b",
            "overall_preference": -1,
            "score_1": 3,
        },
    ),
    (
        "preference",
        {"judged": True},
        {"context": INPUT["responses_create_params"]["input"], "reference": "r", "principle": "p"},
    ),
    ("proof", {}, {"given": "x = 1", "goal": "x = 1"}),
    ("proof", {"judged": True}, INPUT | PROOF),
    ("proof", {"judged": True, "role": "verifier"}, PROOF),
    (
        "swe_agentless",
        {"judged": True},
        {
            "prompt": "p",
            "golden_patch": PATCH,
            "relevant_file_contents": [{"file_path": "a.py", "content": "x = 1\n"}],
            "original_prompt": "o",
        },
    ),
    (
        "swe_agentless",
        {"variants": "both"},
        {"metadata": {"files": {"a.py": "x = 1\n"}, "tests": "def test_a(): pass"} | INSTANCE},
    ),
    (
        "swe_agentic",
        {},
        {"responses_create_params": {"input": [], "metadata": INSTANCE | {"instance_dict": "{}"}}},
    ),
    ("swe_agentic", {}, {"responses_create_params": {"input": []}} | INSTANCE),
    (
        "swe_agentic",
        {"level": "full", "rows": "r"},
        {
            "metadata": INSTANCE
            | {
                "package": "p==1",
                "python": package.PYTHON,
                "values": {"t": [[0, 0]]},
                "spared": {"m": [1]},
            }
        },
    ),
]
"""Layouts besides those of VALID: (domain, options, row)."""
CHAT = {
    "messages": [
        {"role": "system", "content": "<tools>{}</tools>"},
        {"role": "user", "content": "q"},
        {
            "role": "assistant",
            "content": "<think>t</think>a",
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"x": 1}'}}],
        },
        {"role": "tool", "content": "r", "tool_call_id": "1"},
        {
            "role": "assistant",
            "content": '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>',
        },
        {"role": "user", "content": "<tool_response>\nr\n</tool_response>"},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "f",
                "parameters": {"required": ["x"], "properties": {"x": {"type": "integer"}}},
            },
        }
    ],
    "domain": "d",
}

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            " ",
            "<think>",
            "</think>",
            "<tool_call>",
            "</tool_call>",
            "{",
            "[]",
            "null",
            "1e999",
            "\ud800",
            "\x00",
            "A",
            "assistant",
            "9" * 5000,
            "{}",
            "[" * 100_000,
            '{"a": ' * 100_000,
            "<tool_response>",
            "</tool_response>",
            '{"type": 3}',
            '{"$ref": "#"}',
            "(" * 50,
            "[" * 2000,
            "a" * 5000,
            "<function=f>\n<parameter=x>\n1\n</parameter>\n</function>",
        ]
    ),
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(), TEXTS)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
HANG = 20
"""CPU-seconds. A linear reader takes well under one for any value of `JSON`; a quadratic one takes
minutes on a text of half a megabyte."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value but the root."""
    for key, inner in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def mutated(draw: Any, row: dict[str, Any]) -> dict[str, Any]:
    """A valid row in which up to three places are replaced by anything or taken away."""
    changed = copy.deepcopy(row)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(changed))
        if not found:
            break
        *path, last = draw(st.sampled_from(found))
        parent: Any = changed
        for key in path:
            parent = parent[key]
        if draw(st.integers(0, 3)):
            parent[last] = draw(JSON)
        else:
            del parent[last]
    return changed


def tries(what: Callable[[Any], Any], value: Any) -> Any:
    """What comes of a value: a result, or a UserError of one line; before `HANG`."""
    began = time.process_time()
    try:
        return what(value)
    except UserError as error:
        message, reason = fault(error)
        assert message and "\n" not in str(error) and 0 < len(reason) <= 80, str(error)
        return None
    finally:
        assert time.process_time() - began < HANG, "hangs"


@pytest.fixture(scope="module")
def domains() -> Iterator[dict[str, Any]]:
    # Rows of preferences are a judge's alone.
    made = {name: load(name, {"judged": True} if name == "preference" else {}) for name in NAMES}
    yield made
    for domain in made.values():
        domain.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_domain(name: str, domains: dict[str, Any]) -> None:
    domain, row = domains[name], INPUT | VALID.get(name, {})
    if name in VALID:
        assert isinstance(domain.from_row(copy.deepcopy(row), 0), Prompt)
    hold_all(domain, row)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "row"), OTHERS, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(OTHERS)]
)
def test_rows_of_other_layouts(name: str, options: dict[str, Any], row: dict[str, Any]) -> None:
    domain = load(name, options)
    try:
        if "instance_id" not in str(row) or "files" in str(row):
            assert isinstance(domain.from_row(copy.deepcopy(row), 0), Prompt)
        hold_all(domain, row)
    finally:
        domain.close()


def hold_all(domain: Any, row: dict[str, Any]) -> None:
    """Mutations of a row, and rows of any JSON under its fields: a prompt that can be rendered, or
    an error that `tries` allows."""
    name = domain.name

    @given(
        st.one_of(
            mutated(row), st.dictionaries(st.sampled_from([*row, "agent_ref", "prompt"]), JSON)
        )
    )
    def holds(found: dict[str, Any]) -> None:
        def read(row: dict[str, Any]) -> Prompt:
            owner(row)
            check_signal(row, name)
            prompt = domain.from_row(row, 7)
            assert isinstance(prompt, Prompt) and prompt.messages and isinstance(prompt.id, str)
            chat.render(prompt.messages, prompt.tools, prompt.thinking)
            return prompt

        tries(read, found)

    holds()


@given(
    st.one_of(
        mutated(CHAT), st.dictionaries(st.sampled_from(["messages", "tools", "domain", "x"]), JSON)
    )
)
def test_sft_rows(row: dict[str, Any]) -> None:
    found = tries(conversation, row)
    if found is not None:
        assert found.messages[-1].role == "assistant"
        text = "".join(piece for piece, _ in chat.spans(found.messages, found.tools))
        assert text == chat.render(found.messages, found.tools, generation_prompt=False)


@given(
    st.one_of(
        mutated(INPUT),
        st.dictionaries(
            st.sampled_from(["responses_create_params", "prompt", "messages", "tools"]), JSON
        ),
    )
)
def test_requests(row: dict[str, Any]) -> None:
    request = tries(request_of, row)
    text = tries(render_row, row)
    if request is not None:
        assert text == chat.render(request.messages, request.tools, request.thinking)
    tries(asked, row)


@pytest.mark.slow
@given(st.one_of(TEXTS, st.lists(TEXTS, max_size=12).map("".join)), st.booleans())
def test_replies(text: str, thinking: bool) -> None:
    message = chat.parse(text, thinking)
    assert message.role == "assistant" and isinstance(message.content, str)
    read_calls(text)
    words_of(text)


@given(st.dictionaries(st.sampled_from(["row", "text", "messages"]), JSON))
def test_reply_lines(entry: dict[str, Any]) -> None:
    tries(reply_from, entry)


@given(mutated({"row": 0, "messages": CHAT["messages"]}))
def test_mutated_reply_lines(entry: dict[str, Any]) -> None:
    tries(reply_from, entry)


@given(JSON)
def test_lines_of_any_json(value: Any) -> None:
    row = tries(lambda v: object_of(json.dumps(v).encode()), value)
    assert (row is not None) == isinstance(value, dict)


@given(st.binary(max_size=60))
def test_lines_of_any_bytes(raw: bytes) -> None:
    tries(object_of, raw)


GOOD = b"".join(json.dumps({"n": n, "text": "é" * n}).encode() + b"\n" for n in range(40))
WHOLE = [
    GOOD,
    b"\xef\xbb\xbf" + GOOD,
    gzip.compress(GOOD[:300]) + gzip.compress(GOOD[300:]),
    zstandard.compress(GOOD[:300]) + zstandard.compress(GOOD[300:]),
]


@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), st.binary(max_size=5)), max_size=3),
    st.floats(0, 1),
)
def test_damaged_files_are_read_or_refused(
    data: bytes, damages: list[tuple[float, int, bytes]], kept: float
) -> None:
    for share, cut, put in damages:
        at = int(share * len(data))
        data = data[:at] + put + data[at + cut :]
    if kept < 0.3:
        data = data[: int(kept * len(data))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(data)
        try:
            rows = list(read_rows(path))
        except UserError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
        else:
            assert data not in WHOLE or len(rows) == 40


MARKS = st.sampled_from(
    [
        "<solution>",
        "</solution>",
        "```",
        "### a.py",
        "<<<<<<< SEARCH",
        "=======",
        ">>>>>>> REPLACE",
        "x = 1",
        "",
        "\ud800",
    ]
)


@given(st.lists(MARKS, max_size=15).map("\n".join))
def test_replies_of_the_edit_format_are_read_without_a_crash(text: str) -> None:
    try:
        edits.apply({"a.py": "x = 1\n"}, edits.parse(text))
    except edits.BadEdit as error:
        assert str(error)


PIECES = st.sampled_from(
    [
        "\\boxed{",
        "}",
        "{",
        "A",
        "B.",
        "Answer:",
        "**Answer: (C)**",
        "\\text{",
        "final answer",
        "0.5",
        "1e999",
        "-1",
        "９",
        "##",
        "## Solution",
        "\n",
        "```",
        "```lean4\n",
        "```python\n",
        "theorem t : 1 = 1 := by",
        " omega",
        "sorry",
        "/-",
        "-/",
        "--",
        '"',
        "\\",
        "[[A=B]]",
        '{"score": ',
        "score",
        ": ",
        "<solution>",
        "</solution>",
        "def test_a():",
        "    assert f(1)",
        "--- a/a.py",
        "+++ b/a.py",
        "@@ -1 +1 @@",
        "-x = 1",
        "+x = 2",
        "@@ -9,9 +0,0 @@",
        "x = 1",
        "x = y + 3",
        "= 7",
        "(" * 40,
        "null",
        "- a: &a [*a]",
        "a,b\n1,2",
        "<a>",
        "</a>",
        "[a]\nb = 1",
        "\ud800",
        "\x00",
        "</think>",
        "\u202e",
        "9" * 400,
    ]
)
REPLIES = st.one_of(
    TEXTS,
    JSON.map(json.dumps),
    st.lists(PIECES, max_size=14).map("".join),
    st.lists(PIECES, max_size=14).map("\n".join),
)
OPTIONS = {"A": "x", "B": "two words"}
READERS: dict[str, tuple[Callable[[str], Any], tuple[type[Exception], ...]]] = {
    "mcqa by mode": (
        lambda text: [
            mcqa.by_mode(text, mcqa.Choice(OPTIONS, expected="A", mode=mode, prefix=prefix))
            for mode in mcqa.MODES
            for prefix in ("", "Key:")
        ],
        (),
    ),
    "mcqa by patterns": (
        lambda text: mcqa.by_patterns(text, ["Answer: *(.)", "x"], {"A": "x"}),
        (),
    ),
    "boxes": (lambda text: [outer_boxes(text), math.unwrapped(text)], ()),
    "a proof's score": (wording.score_of, ()),
    "agentless score": (scoring.repair_score, ()),
    "a written test": (written_tests.read, (written_tests.BadTest,)),
    "a patch": (lambda text: diffs.apply({"a.py": "x = 1\n"}, text), (diffs.BadPatch,)),
    "a lean proof": (
        lambda text: lean_text.proof_of(text, "import M\n", "theorem t : 1 = 1 := by\n"),
        (),
    ),
    "bare lean": (
        lambda text: [lean_text.bare(text), lean.messages(text), lean_text.refused(text)],
        (),
    ),
    "a term": (terms.parse, (terms.NotATerm,)),
    "a derivation": (
        lambda text: derivations.grade(text, {"x": "y + 3", "y": "4"}, ("x", "7")),
        (),
    ),
    "a program": (
        lambda text: [code.program_of(text, language) for language in ("python", "cpp", "any")],
        (),
    ),
    "judges": (
        lambda text: [
            score_in(text),
            marked(text, "0" * 16),
            read_equivalence(text),
            answer_of(text),
            inert(text),
        ],
        (),
    ),
    "documents": (
        lambda text: [
            documents.check(kind, text, '{"type": "object"}')
            for kind in ("json", "yaml", "xml", "toml", "csv")
        ],
        (),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", READERS)
def test_whatever_a_reply_holds_is_read_or_refused(what: str) -> None:
    read, refusals = READERS[what]

    @given(REPLIES)
    def holds(text: str) -> None:
        began = time.process_time()
        with contextlib.suppress(*refusals):
            read(text)
        assert time.process_time() - began < HANG, "hangs"

    holds()


@given(
    st.one_of(
        TEXTS,
        JSON.map(json.dumps),
        st.lists(
            st.sampled_from(
                ['"score_1"', ": ", "5", "{", "}", ",", "NaN", '"ranking"', "1e400", " "]
            )
        ).map("".join),
    )
)
def test_judges_answers_are_read_or_not(text: str) -> None:
    found = read_comparison(text)
    assert found is None or isinstance(found, Comparison)


@pytest.mark.slow
def test_rows_of_repair_tasks(domains: dict[str, Any]) -> None:
    """Those that name a package, those that need an image, and any patch over a package's files."""
    gym = {
        "instance_id": "a__b-2",
        "repo": "a/b",
        "base_commit": "f" * 40,
        "problem_statement": "p",
        "patch": "p",
        "FAIL_TO_PASS": '["x"]',
    }
    ours = {
        "instance_id": "i",
        "package": "toy==1",
        "python": package.PYTHON,
        "problem_statement": "p",
        "golden_patch": "g",
        "FAIL_TO_PASS": '["t"]',
        "PASS_TO_PASS": "[]",
        "values": {"t": [[1, 0]]},
        "spared": {"t.py": [2]},
    }
    assert rows.task(ours, "here").values == {"t": [(1, 0)]}
    source = package.Package("toy", "1", "MIT", "", ("a.py",), (), {"a.py": "x = 1\ny = 2\n"})
    patch = "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n-x = 2\n+x = 1\n y = 2\n"
    assert rows.broken(source, patch)["a.py"] == "x = 2\ny = 2\n"

    @given(
        mutated(ours), mutated({"metadata": gym, "responses_create_params": {"input": []}} | gym)
    )
    def holds(first: dict[str, Any], second: dict[str, Any]) -> None:
        tries(lambda row: rows.task(row, "here"), first)
        tries(lambda row: domains["swe_agentic"].from_row(row, 7), second)

    @given(
        st.lists(
            st.one_of(
                st.sampled_from(patch.split("\n")),
                st.from_regex(r"@@ -\d+(,\d+)? \+\d+(,\d+)? @@"),
                TEXTS,
            ),
            max_size=9,
        )
    )
    def patches(lines: list[str]) -> None:
        with contextlib.suppress(ValueError):
            assert rows.broken(source, "\n".join(lines)).keys() == {"a.py"}

    holds()
    patches()
