"""Rows of the released layouts through domains: blends shared out by agent, bad rows counted or
refused, memory flat, order a function of the seed."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linn.chat import render as chat
from linn.chat.request import render_row
from linn.chat.template import Nemotron
from linn.data.agents import check_signal, is_for, owner, owner_in_words
from linn.data.names import is_remote, located
from linn.data.rows import BadRow, write_rows
from linn.data.tally import Tally
from linn.domains.base import Domain, content_key
from linn.domains.load import load
from linn.domains.splits import split_of
from linn.errors import UserError
from linn.offline.decontaminate import Against
from linn.offline.describe import describe
from linn.recipe.stages import SftConfig
from linn.stages.prompts import Position
from linn.stages.sft import samples_of_files
from linn.types import Message


def mcqa(n: int, agent: str | None = "mcqa_simple_agent", **more: Any) -> dict[str, Any]:
    row = {
        "uuid": f"u{n}",
        "responses_create_params": {"input": [{"role": "user", "content": f"question {n}"}]},
        "options": [{"A": "x"}, {"B": "y"}],
        "expected_answer": "B",
        "grading_mode": "strict_single_letter_boxed",
    }
    return (
        row
        | ({"agent_ref": {"type": "responses_api_agents", "name": agent}} if agent else {})
        | more
    )


def structured(n: int) -> dict[str, Any]:
    return {
        "responses_create_params": {"input": [{"role": "user", "content": f"schema {n}"}]},
        "schema_str": '{"type": "object"}',
        "schema_type": "json",
        "agent_ref": {"type": "responses_api_agents", "name": "structured_outputs_simple_agent"},
    }


def blend(path: Path) -> Path:
    """200 mcqa rows of which 10 have no verifier signal and 5 an unknown mode; 100 structured rows;
    20 of an agent nobody knows."""
    rows = [mcqa(n) for n in range(185)] + [mcqa(n, expected_answer=None) for n in range(185, 195)]
    rows += [mcqa(n, grading_mode="by mood") for n in range(195, 200)] + [
        structured(n) for n in range(100)
    ]
    write_rows(path, rows + [mcqa(n, "chess_agent") for n in range(20)])
    return path


def judged_options(name: str) -> dict[str, Any]:
    """What a domain needs whose rows nobody but a judge can grade."""
    return {"judged": True} if name == "preference" else {}


def everything(domain: Any) -> list[Any]:
    return [
        prompt
        for split in ("test", "validation", "train", "train")
        for prompt in domain.prompts(split)
    ]


def test_a_domain_takes_its_own_rows_of_a_blend_and_counts_the_others(tmp_path: Path) -> None:
    path = blend(tmp_path / "blend.jsonl")
    domain = load("mcqa", {"rows": str(path), "skip_bad": True})
    found = everything(domain)
    assert {p.id for p in found} == {f"u{n}" for n in range(185)}
    tally = domain.tally
    assert tally.good == 185 and tally.bad == {"no verifier signal": 10, "grading_mode": 5}
    assert tally.others == {
        "of other domains": 100,
        "of agent chess_agent, which no domain knows": 20,
    }
    assert (
        tally.first["no verifier signal"]
        == f"{path} line 186: no verifier signal: expected_answer is missing or empty"
    )
    again = Tally()
    again.restore(json.loads(json.dumps(tally.record())))
    assert str(again) == str(
        tally
    ) and "15 bad and skipped (10 no verifier signal, 5 grading_mode)" in str(tally)
    other = load("structured", {"rows": path})
    assert len({p.id for p in everything(other)}) == 100 and not other.tally.bad
    domain.close()
    other.close()


def test_without_skip_bad_a_bad_row_is_refused_with_its_place_and_the_way_on(
    tmp_path: Path,
) -> None:
    domain = load("mcqa", {"rows": blend(tmp_path / "blend.jsonl")})
    with pytest.raises(
        UserError,
        match=r"blend.jsonl line 1(8|9)\d: no verifier signal: expected_answer "
        r".*domains.mcqa.skip_bad: true",
    ):
        everything(domain)
    path = tmp_path / "broken.jsonl"
    path.write_bytes(b'{"half": \n')
    with pytest.raises(UserError, match=r"broken.jsonl line 1: not JSON.*skip_bad"):
        list(load("mcqa", {"rows": path}).prompts("train"))


def test_rows_that_name_no_agent_are_anyones() -> None:
    assert owner(mcqa(0, None)) is None and is_for(None, "mcqa")
    for row in (mcqa(0), mcqa(0, "mcqa"), mcqa(0, None) | {"agent_ref": "mcqa_simple_agent"}):
        assert owner(row) == "mcqa" and is_for("mcqa", "mcqa")
    assert not is_for("mcqa", "math") and not is_for("mcqa", "mine")
    assert owner(mcqa(0, "my_agent")) == "my_agent"
    assert is_for("my_agent", "mine") and not is_for("my_agent", "mcqa")
    assert owner_in_words("mcqa") == "of other domains"
    assert owner_in_words("my_agent") == "of agent my_agent, which no domain knows"
    for reference in ({"name": 3}, ["x"], {"name": ""}):
        with pytest.raises(BadRow, match="agent_ref"):
            owner(mcqa(0) | {"agent_ref": reference})


def test_a_row_that_a_verifier_cannot_go_by_is_bad() -> None:
    check_signal(mcqa(0), "mcqa")
    with pytest.raises(BadRow, match="_hf_placeholder"):
        check_signal(mcqa(0) | {"_hf_placeholder": {"row": 3}}, "mcqa")
    with pytest.raises(BadRow, match="no verifier signal: ground_truth"):
        check_signal({"ground_truth": []}, "workplace")


PATCH = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
SWE = {
    "instance_id": "o__r-1",
    "base_commit": "0" * 40,
    "problem_statement": "broken",
    "golden_patch": PATCH,
}


def asked(agent: str | None, **more: Any) -> dict[str, Any]:
    request = {
        "responses_create_params": {"input": [{"role": "user", "content": f"question {more}"}]}
    }
    return (
        request
        | ({"agent_ref": {"type": "responses_api_agents", "name": agent}} if agent else {})
        | more
    )


LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "instruct": [
        asked(
            "instruction_following_simple_agent",
            id=1,
            instruction_id_list=["punctuation:no_comma"],
            kwargs=[None],
            prompt="p",
        ),
        asked(
            "ifbench_simple_agent",
            verifier_metadata={
                "instruction_id_list": ["punctuation:no_comma"],
                "kwargs": [{}],
                "grading_mode": "fraction",
            },
        ),
        {
            "prompt": "p",
            "instruction_id_list": ["keywords:existence"],
            "kwargs": [{"keywords": ["a"], "num_words": None}],
        },
    ],
    "mcqa": [
        mcqa(0),
        mcqa(1, "mmlu_pro_mcqa_simple_agent", template_metadata={"output_regex": ["x: (.)"]}),
    ],
    "structured": [structured(0)],
    "workplace": [
        asked(
            "workplace_assistant_simple_agent",
            id=2,
            category="email",
            environment_name="workplace_assistant",
            ground_truth=[
                {
                    "name": "email_send_email",
                    "arguments": '{"recipient": "a@b.c", "subject": "s", "body": "b"}',
                }
            ],
        )
    ],
    "math": [
        asked("math_with_judge_simple_agent", question="1+1", expected_answer="2"),
        asked("aime24_math_with_judge_simple_agent", expected_answer="2"),
        {"problem": "1+1", "answer": "2", "source": "DeepScaleR"},
        {"problem": "1+1=?", "answer": "2"},
    ],
    "code": [
        asked(
            "code_gen_simple_agent",
            verifier_metadata={"unit_tests": {"inputs": ["1"], "outputs": ["1"]}},
        )
    ],
    "longctx": [
        asked("lc_judge_simple_agent", expected_answer="a"),
        asked("ruler_simple_agent", outputs=["A", "B"], subset="vt", length=4),
    ],
    "preference": [asked("genrm_simple_agent")],
    "swe_agentless": [
        asked(
            "swerl_gen_simple_agent",
            grading_mode="patch",
            metadata={"relevant_file_contents": json.dumps({"a.py": "x = 1\n"})},
        ),
        {
            "instance_id": "o__r-1",
            "prompt": "fix",
            "golden_patch": PATCH,
            "source": "SWE-Gym",
            "original_prompt": "fix",
            "grading_mode": "patch",
            "relevant_file_contents": [{"file_path": "a.py", "content": "x = 1\n"}],
        },
    ],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_released_layouts_reach_their_domain_and_no_other(tmp_path: Path, name: str) -> None:
    own, told = (
        LAYOUTS[name],
        [row for rows in LAYOUTS.values() for row in rows if "agent_ref" in row],
    )
    unnamed = [row for row in own if "agent_ref" not in row]
    path = tmp_path / "blend.jsonl"
    write_rows(path, [*told, *unnamed])
    domain = load(name, {"rows": path, **judged_options(name)})
    everything(domain)
    assert domain.tally.good == len(own) and not domain.tally.bad
    assert domain.tally.others.get("of other domains") == len(told) + len(unnamed) - len(own)
    domain.close()


# ---------------------------------------------------------------- what is trained is what is shown

TOOL = {
    "type": "function",
    "name": "look_up",
    "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
}
CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": [{"type": "input_text", "text": "Hi "}, {"text": "you"}]}],
    [{"role": "developer", "content": "D"}, {"role": "user", "content": "U"}],
    [
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "<think>X</think>\nA"},
        {"role": "user", "content": "V"},
    ],
    [
        {"role": "user", "content": "U"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "T",
            "tool_calls": [{"id": "1", "function": {"name": "look_up", "arguments": '{"key": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "R"},
    ],
    [
        {"type": "message", "role": "user", "content": "U"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "T"}]},
        {"type": "function_call", "call_id": "1", "name": "look_up", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "R"},
    ],
    [
        {"role": "user", "content": "U"},
        {
            "role": "assistant",
            "tool_calls": [
                {"id": None, "function": {"name": "look_up", "parameters": {"key": "1", "x": None}}}
            ],
        },
        {"role": "function", "content": "R"},
        {"role": "assistant", "content": "", "function_call": {"name": "look_up", "args": "{}"}},
        {"role": "tool", "content": "R"},
    ],
    [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}],
    [{"role": "bot", "content": "U"}],
    [
        {"role": "user", "content": "U"},
        {"role": "assistant", "tool_calls": [{"name": "look_up", "key": "flat"}]},
        {"role": "tool", "content": "R"},
    ],
    [
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A", "reasoning": "T", "reasoning_content": "S"},
        {"role": "user", "content": "V"},
    ],
]
REFUSED = CHATS[-4:]
"""Conversations that released rows may hold; these are refused."""
MODES: list[dict[str, Any]] = [
    {},
    {"enable_thinking": True},
    {"enable_thinking": False},
    {"enable_thinking": "False", "truncate_history_thinking": None},
    {"enable_thinking": None},
    {"enable_thinking": False, "truncate_history_thinking": False},
]
OWN_WORDS = {"problem"}
"""A row that has this field and no conversation is asked in its domain's own words."""


@functools.cache
def reading(name: str) -> Domain:
    return load(name, judged_options(name))


@pytest.mark.slow
@settings(max_examples=400)
@given(
    st.sampled_from([(name, row) for name, rows in LAYOUTS.items() for row in rows]),
    st.sampled_from([None, *CHATS]),
    st.sampled_from(["", "Be brief."]),
    st.sampled_from([[], [TOOL]]),
    st.sampled_from(MODES),
    st.booleans(),
)
def test_a_prompt_is_what_render_shows_or_a_refusal(
    layout: tuple[str, dict[str, Any]],
    turns: list[dict[str, Any]] | None,
    instructions: str,
    tools: list[dict[str, Any]],
    mode: dict[str, Any],
    in_metadata: bool,
) -> None:
    name, plain = layout
    row: dict[str, Any] = {**plain}
    if turns is not None:
        params = {"input": turns, "instructions": instructions, "tools": tools}
        row["responses_create_params"] = params
    if in_metadata and "responses_create_params" in row:
        metadata = {"chat_template_kwargs": json.dumps(mode)}
        row["responses_create_params"] = row["responses_create_params"] | {"metadata": metadata}
    else:
        row["chat_template_kwargs"] = mode

    try:
        prompt = reading(name).from_row(row, 0)
    except UserError as error:
        assert turns is not None, error
        assert turns in REFUSED or mode.get("truncate_history_thinking") is False, error
        return
    assert turns not in REFUSED
    expected = {"False": False, None: name != "workplace"}
    stated = mode.get("enable_thinking")
    assert prompt.thinking is expected.get(stated, stated)
    if OWN_WORDS & row.keys() and "responses_create_params" not in row:
        with pytest.raises(UserError, match="responses_create_params.input is missing"):
            render_row(row)
        return
    if stated is None:
        row["chat_template_kwargs"] = {"enable_thinking": prompt.thinking}
    assert chat.render(prompt.messages, prompt.tools, prompt.thinking) == render_row(row)
    if turns is not None:
        assert bool(prompt.tools) == bool(tools)
        assert (prompt.messages[0] == Message("system", "Be brief.")) == bool(instructions)


def test_agentic_rows_that_need_an_image_are_one_reason_wherever_their_fields_stand(
    tmp_path: Path,
) -> None:
    agent = {"agent_ref": {"name": "swe_agents_train"}}
    in_request = {"responses_create_params": {"input": [], "metadata": SWE}} | agent
    rows = [
        in_request,
        {"responses_create_params": {"input": []}, "metadata": SWE} | agent,
        {"responses_create_params": {"input": []}} | SWE,
    ]
    path = tmp_path / "rows.jsonl"
    write_rows(path, [*rows, {"responses_create_params": {"input": []}} | agent])
    domain = load("swe_agentic", {"rows": path, "skip_bad": True})
    assert not everything(domain) and domain.tally.bad == {
        "needs its container image": 3,
        "no verifier signal": 1,
    }
    domain.close()


def test_a_file_for_somebody_else_says_so_where_prompts_are_wanted(tmp_path: Path) -> None:
    from linn.evals.evaluate import Evaluation
    from linn.recipe.schema import EvaluateConfig

    path = tmp_path / "rows.jsonl"
    write_rows(path, [mcqa(n, "chess_agent") for n in range(30)])
    with pytest.raises(
        UserError, match="no test prompts .*30 of agent chess_agent, which no domain knows"
    ):
        Evaluation({"mcqa": load("mcqa", {"rows": path})}, EvaluateConfig(test=1, validation=1))


def test_order_is_a_function_of_the_seed_and_splits_are_disjoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linn.data.rows.BLOCK_ROWS", 50)
    path = tmp_path / "rows.jsonl.gz"
    write_rows(path, (mcqa(n % 300) for n in range(600)))
    domain = load("mcqa", {"rows": path})
    one, two = ([p.id for p in domain.prompts("train", seed)] for seed in (1, 2))
    assert (
        one == [p.id for p in load("mcqa", {"rows": path}).prompts("train", 1)]
        and one != two
        and sorted(one) == sorted(two)
    )
    held = [
        content_key(p)
        for split in ("test", "validation")
        for p in domain.prompts(split)  # type: ignore[arg-type]
    ]
    assert len(held) == len(set(held)) and not {split_of(key) for key in held} & {"train"}
    assert [p.id for p in domain.prompts("test", 1)] == [p.id for p in domain.prompts("test", 2)]


STREAM = """
import itertools, resource, sys
from linn.data.rows import Lines
from linn.domains.load import load

read, line_of = 0, Lines.__next__
def counted(lines):
    global read
    read += 1
    return line_of(lines)
Lines.__next__ = counted

domain = load("mcqa", {"rows": sys.argv[1]})
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
stream = domain.prompts("train", 1)
batch = list(itertools.islice(stream, 64)) + list(itertools.islice(domain.prompts("test"), 64))
first = read
before = peak()
print(first, before, peak() - before, sum(1 for _ in stream), peak() - before)
"""


@pytest.mark.slow
def test_a_long_file_starts_at_once_in_memory_that_stays_flat(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, (mcqa(n, pad="x" * 20_000) for n in range(3000)))
    assert path.stat().st_size > 60_000_000
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, _, _, rest, grown = done.stdout.split()
    assert int(first) < 2000, f"two batches read two thirds of the file: {done.stdout}"
    assert int(rest) > 2000 and int(grown) < 40, done.stdout


# ---------------------------------------------------------------- SFT files


def chat_row(n: int) -> dict[str, Any]:
    said = (
        {"role": "assistant", "content": f"answer {n}"}
        if n % 7
        else {"role": "assistant", "content": None}
    )
    return {"messages": [{"role": "user", "content": f"question {n}"}, said]}


def stage(path: Path, taken: dict[str, int] | None = None, skip_bad: bool = True) -> Any:
    codec = types.SimpleNamespace(
        samples=Nemotron().samples,
        encode_spans=lambda spans, most: (
            [len(text) for text, _ in spans],
            [flag for _, flag in spans],
        ),
    )
    position = Position(taken or {})
    config = SftConfig(name="sft", kind="sft", data=str(path), skip_bad=skip_bad)
    return position, samples_of_files(config, codec, 3, position)  # type: ignore[arg-type]


def test_sft_rows_come_in_another_order_each_epoch_and_resume_where_they_stood(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, map(chat_row, range(140)))
    run, rows = stage(path)
    drawn = [next(rows).source for _ in range(300)]
    assert sorted(drawn[:120]) == sorted(drawn[120:240]) and drawn[:120] != drawn[120:240]
    assert run.tally.good == 120 and run.tally.bad == {"no content": 20}, "an epoch counts once"
    for stop in (1, 77, 120, 121, 250):
        first, rows = stage(path)
        for _ in range(stop):
            next(rows)
        _, again = stage(path, dict(first.taken))
        assert [s.source for s in itertools.islice(again, 300 - stop)] == drawn[stop:]


def test_sft_rows_that_cannot_be_trained_on_are_refused_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, map(chat_row, range(10)))
    _, rows = stage(path, skip_bad=False)
    with pytest.raises(
        UserError,
        match=r"line \d+: messages\[1\].content: expected text, found null; "
        r"--set sft.skip_bad=true",
    ):
        list(itertools.islice(rows, 20))
    path.write_bytes(b'{"messages": []}\n\xff\n')
    with pytest.raises(
        UserError,
        match=r"holds no rows to train on: 0 good, 2 bad and skipped "
        r"\(1 no messages, 1 not UTF-8\)",
    ):
        next(stage(path)[1])
    path.write_bytes(b"\n\n")
    with pytest.raises(UserError, match="holds no rows to train on"):
        next(stage(path, skip_bad=False)[1])


# ---------------------------------------------------------------- names


def test_names_of_the_hub_come_from_the_cache_or_say_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    name = "hf://datasets/owner/repo/IF-RL/train.jsonl"
    with pytest.raises(
        UserError, match="hf download owner/repo IF-RL/train.jsonl --repo-type dataset$"
    ):
        located(name)
    with pytest.raises(UserError, match="--revision v2$"):
        located("hf://datasets/owner/repo@v2/IF-RL/train.jsonl")
    kept = tmp_path / "datasets--owner--repo"
    write_rows(kept / "snapshots" / ("a" * 40) / "IF-RL" / "train.jsonl", [{"a": 1}])
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("a" * 40)
    assert located(name).read_text() == '{"a": 1}\n'
    assert located(tmp_path) == tmp_path and not is_remote("data/rows.jsonl")
    for wrong in ("hf://owner/repo/x.jsonl", "hf://datasets/owner/x.jsonl", "hf:rows.jsonl"):
        with pytest.raises(UserError, match="expected hf://datasets/OWNER/REPO/PATH"):
            located(wrong)


def test_a_dry_run_does_not_look_for_files_of_the_hub(tmp_path: Path) -> None:
    from linn.pricing.plan import check_inputs
    from linn.recipe import load as recipes

    tree = {
        "name": "r",
        "domains": {"mcqa": {"rows": "hf://datasets/owner/repo/multi-domain-RL/train.jsonl"}},
        "stages": [{"name": "sft", "kind": "sft", "data": "hf://datasets/owner/repo/chat.jsonl"}],
    }
    check_inputs(recipes.parse(tree, "t"), tmp_path / "run")
    tree["domains"] = {"mcqa": {"rows": "hf://owner"}}
    with pytest.raises(UserError, match="expected hf://datasets"):
        check_inputs(recipes.parse(tree, "t"), tmp_path / "run")


TEXT = "Why?"
FLAT = {
    "prompt": "f must add 1",
    "golden_patch": "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n",
    "relevant_file_contents": [{"file_path": "a.py", "content": "x = 1"}],
}
READABLE = [
    ("math", {"question": TEXT, "expected_answer": "1"}),
    ("math", {"problem": TEXT, "answer": "1", "source": "AceReason-Math"}),
    ("math", {"responses_create_params": {"input": TEXT}, "expected_answer": "1"}),
    (
        "preference",
        {
            "context": [{"role": "user", "content": TEXT}],
            "response1": "a",
            "response2": "b",
            "overall_preference": 1,
        },
    ),
    (
        "genrm",
        {
            "context": [{"role": "user", "content": TEXT}],
            "response1": "a",
            "response2": "b",
            "overall_preference": 1,
        },
    ),
    ("longctx", {"responses_create_params": {"input": TEXT}, "expected_answer": "Bob"}),
    ("proof", {"problem": TEXT, "reference_solution": "Add."}),
    ("proof", {"problem": TEXT, "given": "x = y + 3, y = 4", "goal": "x = 7"}),
    ("swe_agentless", FLAT),
    (
        "swe_agentless",
        {
            "responses_create_params": {"input": TEXT},
            "metadata": {"relevant_file_contents": '{"a.py": "x = 1"}'},
        },
    ),
]


@pytest.mark.parametrize(
    ("name", "row"), READABLE, ids=[f"{name}-{'-'.join(row)[:40]}" for name, row in READABLE]
)
def test_every_layout_is_read_from_a_file_and_told_of(
    name: str, row: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [row])
    judged = (
        {"judged": True}
        if name in ("preference", "proof", "swe_agentless") and "given" not in row
        else {}
    )
    domain = load(name, {"rows": path, **judged})
    try:
        assert (
            {p.domain for p in everything(domain)} == {name}
            and domain.tally.good == 1
            and not domain.tally.others
        )
    finally:
        domain.close()
    told = describe(path, None, name, lambda *_: None)
    assert told.tally.good == 1 and not told.tally.bad, told.tally
    if name == "proof":
        assert Against([f"proof:{path}"], [3]).sets, (
            "rows that only a model can grade are compared with, too"
        )
