"""The workplace domain: rows, the environment, both generators, hostile replies."""

from __future__ import annotations

import inspect
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from linn.domains.workplace import Workplace
from linn.domains.workplace.office.tables import drawn, load, small
from linn.domains.workplace.office.tools import READS, TOOLS, WRITES, call
from linn.domains.workplace.tasks import draw as tasks
from linn.domains.workplace.tasks import mail as mail_tasks
from linn.domains.workplace.tasks.desk import Unfit, extreme, only
from linn.errors import UserError
from linn.types import Message, Prompt, Reply, ToolCall
from tests.support.office import write_tables

# ---------------------------------------------------------------- rows


def row(truth: Any) -> dict[str, Any]:
    turns = [
        {"role": "system", "content": "Today is Thursday."},
        {"role": "user", "content": "Do it."},
    ]
    return {
        "id": 3,
        "ground_truth": truth,
        "category": "c",
        "environment_name": "e",
        "responses_create_params": {"input": turns, "tools": []},
    }


def call_turn(*calls: ToolCall) -> Message:
    return Message("assistant", "", tool_calls=calls)


def reply(*calls: ToolCall, text: str = "done.") -> Reply:
    """A reply that makes the calls one after another."""
    turns: list[Message] = []
    for one in calls:
        turns += [call_turn(one), Message("tool", "ok")]
    return Reply(text=text, messages=(*turns, Message("assistant", text)))


SEND = {"recipient": "a@b.c", "subject": "s", "body": "b"}


def test_rows_are_graded_by_state() -> None:
    domain = Workplace()
    truth = [{"name": "email_send_email", "arguments": json.dumps(SEND)}]
    prompt = domain.from_row(row(truth), 0)
    assert [message.role for message in prompt.messages] == ["system", "user"]
    assert domain.from_row(row(json.dumps(truth)), 0) == prompt

    def reward(*calls: ToolCall) -> float:
        return domain.verify(prompt, reply(*calls)).reward

    good = ToolCall("email_send_email", SEND)
    look = ToolCall("email_search_emails", {"query": "x"})
    cut, unknown = ToolCall("email_send_email", "{"), ToolCall("zzz", {})
    assert domain.verify(prompt, domain.gold(prompt)).reward == 1
    assert reward(look, good) == 1, "reads change nothing"
    assert reward(cut, unknown, good) == 1, "errors change nothing"
    assert reward(ToolCall("email_send_email", json.dumps(SEND))) == 1

    other = ToolCall("email_send_email", {**SEND, "body": "c"})
    for bad in ((), (look,), (good, good), (other,)):
        assert reward(*bad) == 0, bad


def test_a_row_may_ask_for_no_change() -> None:
    domain = Workplace()
    prompt = domain.from_row(row([]), 0)
    look = ToolCall("email_search_emails", {"query": "x"})
    assert domain.verify(prompt, reply(look)).reward == 1
    assert domain.verify(prompt, Reply(text="There is nothing to do.")).reward == 1
    assert domain.verify(prompt, Reply(text="")).reward == 0
    assert domain.verify(prompt, reply(ToolCall("email_send_email", SEND))).reward == 0


@pytest.mark.parametrize("truth", [None, "{", {"name": "x"}, [{"name": "x"}], ["x"]])
def test_wrong_rows_name_the_field(truth: Any) -> None:
    with pytest.raises(UserError, match="row 4 .*ground_truth"):
        Workplace().from_row(row(truth), 4)


def test_a_row_made_for_other_tables_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    truth = [{"name": "email_delete_email", "arguments": '{"email_id": "00009999"}'}]
    monkeypatch.delenv("LINN_WORKPLACE_DATA", raising=False)
    with pytest.raises(UserError, match="LINN_WORKPLACE_DATA"):
        Workplace().from_row(row(truth), 0)
    write_tables(tmp_path)
    monkeypatch.setenv("LINN_WORKPLACE_DATA", str(tmp_path))
    domain = Workplace()
    prompt = domain.from_row(row(truth), 0)
    assert domain.verify(prompt, domain.gold(prompt)).reward == 1
    assert domain.verify(prompt, reply()).reward == 0
    with pytest.raises(UserError, match=r"emails\.csv"):
        load(tmp_path / "missing")


# ---------------------------------------------------------------- the tiny level


def test_tiny_prompts_are_short_and_claiming_is_not_doing() -> None:
    domain = Workplace()
    claim = Reply(text="done.", messages=(Message("assistant", "done."),))
    for index in range(300):
        prompt = domain.make(random.Random(index))
        turns = domain.demonstrate(prompt, random.Random(1), faulty=False)
        assert sum(turn.role == "assistant" for turn in turns) <= domain.max_turns
        assert max(len(turn.content) for turn in turns) <= 100
        assert len(prompt.messages[0].content) <= 150 and not prompt.thinking
        assert domain.verify(prompt, claim).reward == 0


def test_a_demonstration_is_what_the_environment_answers() -> None:
    domain = Workplace()
    prompt = domain.make(random.Random(5))
    env = domain.env(prompt)
    answers: list[Message] = []
    for turn in domain.demonstrate(prompt, random.Random(1), faulty=False):
        if turn.role == "tool":
            assert turn == answers.pop(0)
        else:
            answers = list(env.step(turn) or ())
    env.close()
    assert env.step(Message("assistant", "done.")) is None


def test_broken_calls_are_answered_in_words() -> None:
    domain = Workplace()
    env = domain.env(domain.make(random.Random(5)))
    calls = (
        ToolCall("email_send_email", "{", id="c1"),
        ToolCall("email_send_email", "[1]"),
        ToolCall("rm", {}),
        ToolCall("calendar_create_event", {"x": 1}),
    )
    answers = env.step(call_turn(*calls))
    assert answers is not None
    assert [answer.role for answer in answers] == ["tool"] * 4
    assert answers[0].tool_call_id == "c1"
    for answer in answers:
        assert answer.content.startswith(("Invalid tool call arguments", "Error executing tool"))


def test_tiny_prompts_are_many_and_addresses_differ() -> None:
    domain = Workplace()
    prompts = [domain.make(random.Random(index)) for index in range(8_000)]
    assert len({prompt.messages for prompt in prompts}) >= 4000
    addresses = {small(seed).directory[0] for seed in range(50)}
    assert len(addresses) == 6, "an address cannot be known without looking it up"


# ---------------------------------------------------------------- the full level


@pytest.fixture(scope="module")
def full() -> list[Prompt]:
    domain = Workplace("full")
    return [domain.make(random.Random(index)) for index in range(250)]


def as_reply(turns: tuple[Message, ...]) -> Reply:
    return Reply(text=turns[-1].content, messages=turns)


@pytest.mark.long
def test_full_gold_earns_and_nothing_less_does(full: list[Prompt]) -> None:
    domain = Workplace("full")
    assert {one.name for prompt in full for one in prompt.hidden.calls} == set(TOOLS)
    for prompt in full[:40]:

        def reward(*calls: ToolCall, prompt: Prompt = prompt) -> float:
            return domain.verify(prompt, reply(*calls)).reward

        gold = domain.gold(prompt)
        assert sum(turn.role == "assistant" for turn in gold.messages) <= domain.max_turns
        calls = [one for turn in gold.messages for one in turn.tool_calls]
        looks = [one for one in calls if one.name in READS]
        changes = [one for one in calls if one.name in WRITES]

        assert reward(*looks) == 0, "looking is not doing"
        assert reward() == 0, "claiming is not doing"
        assert reward(*changes) == 1, "looking is no duty"
        twice = reward(*changes, changes[-1])
        assert twice == again_is_nothing(prompt, changes)

        at_once = (call_turn(*calls), Message("assistant", "done."))
        assert domain.verify(prompt, as_reply(at_once)).reward == 1, "calls may be parallel"


def again_is_nothing(prompt: Prompt, changes: list[ToolCall]) -> bool:
    """Whether the last change, made a second time, leaves the office as it was."""
    office = drawn(prompt.hidden.office).copy()
    for change in changes:
        call(office, change.name, change.arguments)
    before = office.copy()
    call(office, changes[-1].name, changes[-1].arguments)
    return office.same(before)


def details(change: ToolCall) -> list[str]:
    """The ids and addresses that a call names."""
    return re.findall(r"\b\d{8}\b|[\w.]+@[\w.]+", json.dumps(change.arguments))


@pytest.mark.slow
def test_full_tasks_can_be_solved_by_looking(full: list[Prompt]) -> None:
    """Every id and address that a change names was said by the user or by a tool before."""
    domain = Workplace("full")
    for prompt in full[40:90]:
        request = prompt.messages[-1].content
        seen = request
        for turn in domain.gold(prompt).messages:
            for one in turn.tool_calls:
                if one.name in WRITES:
                    assert all(detail in seen for detail in details(one)), (request, one)
            if turn.role == "tool":
                seen += turn.content
                assert "Error" not in turn.content and "Invalid" not in turn.content


@pytest.mark.slow
def test_full_definitions_are_complete_and_gold_keeps_them(full: list[Prompt]) -> None:
    functions = [tool["function"] for tool in full[0].tools]
    definitions = {function["name"]: function["parameters"] for function in functions}
    assert set(definitions) == set(TOOLS) and len(functions) == 27

    for name, parameters in definitions.items():
        own = set(inspect.signature(TOOLS[name]).parameters) - {"office", "wanted"}
        assert own <= set(parameters["properties"]), name
        assert all(item["description"] for item in parameters["properties"].values()), name
        Draft202012Validator.check_schema(parameters)

    for prompt in full:
        for one in prompt.hidden.calls:
            Draft202012Validator(definitions[one.name]).validate(one.arguments)


@pytest.mark.slow
def test_full_tasks_are_many_and_their_offices_differ(full: list[Prompt]) -> None:
    assert len({prompt.messages for prompt in full}) >= 245
    assert len({prompt.hidden.office for prompt in full}) >= 220
    assert not drawn(1).same(drawn(2)) and drawn(3).directory != drawn(4).directory
    assert {prompt.hidden.category for prompt in full} == {
        "workplace_email",
        "workplace_calendar",
        "workplace_analytics",
        "workplace_project_management",
        "workplace_customer_relationship_manager",
        "workplace_multi",
    }
    forms = {prompt.hidden.form for prompt in full}
    assert forms == {"one", "two", "first, then", "if, else", "if, anyway"}
    assert any(len(prompt.hidden.calls) >= 8 for prompt in full)


@pytest.mark.slow
def test_requests_that_could_be_read_in_two_ways_are_refused() -> None:
    """Two emails sent in either order leave different tables: no request sends two in any order."""
    for index in range(40):
        with pytest.raises(Unfit):
            tasks._independent(drawn(index), mail_tasks.send, mail_tasks.send, (0.1, 0.2))
    with pytest.raises(Unfit):
        only([])
    with pytest.raises(Unfit):
        extreme([{"a": 1, "b": 1}, {"a": 2, "b": 1}], "b", last=True)


def test_broken_calls_at_the_full_level_can_be_tried_again() -> None:
    domain = Workplace("full")
    prompt = domain.make(random.Random(0))
    event = {"event_name": 3, "participant_email": ["a"], "event_start": {}, "duration": True}
    plot = {
        "time_min": "2023-10-01",
        "time_max": "2023-10-02",
        "value_to_plot": ["x"],
        "plot_type": "bar",
    }
    bad = call_turn(
        ToolCall("email_search_emails", {"query": "x", "page": "many"}),
        ToolCall("calendar_create_event", event),
        ToolCall("analytics_create_plot", plot),
        ToolCall("email_delete_mail", {"email_id": "00000001"}),
    )
    answers = domain.env(prompt).step(bad)
    assert answers is not None and len(answers) == 4
    assert all(isinstance(answer.content, str) for answer in answers)

    good = domain.gold(prompt)
    later = Reply(good.text, messages=(bad, *good.messages))
    assert domain.verify(prompt, later).reward == 1


# ---------------------------------------------------------------- hostile


BIG = "x" * 1_000_000
DEEP: Any = {}
for _ in range(500):
    DEEP = {"a": DEEP}


def send(arguments: Any) -> ToolCall:
    return ToolCall("email_send_email", arguments)


def event(start: str, duration: str) -> ToolCall:
    arguments = {"event_name": "e", "participant_email": "a"}
    arguments |= {"event_start": start, "duration": duration}
    return ToolCall("calendar_create_event", arguments)


HOSTILE = [
    # texts without a call
    reply(text=""),
    reply(text=BIG),
    Reply(text=BIG),
    Reply(text="", finished=False),
    # large and deep calls
    reply(ToolCall(BIG, {})),
    reply(send(BIG)),
    reply(send("[" * 1_000_000)),
    reply(send('{"recipient":' * 50_000)),
    reply(send(DEEP)),
    reply(send({"recipient": BIG + "@b.c", "subject": BIG, "body": BIG})),
    # many calls
    reply(*[send({**SEND, "body": BIG})] * 400),
    reply(*[send(SEND)] * 20_000),
    reply(*[event("2023-12-01", "1" * 5000)] * 300),
    # patterns and dates that are slow to read
    reply(event(BIG, "1")),
    reply(ToolCall("calendar_search_events", {"query": "(a+)+" * 1000})),
    reply(ToolCall("email_search_emails", {"query": "e " * 500_000})),
    # names and arguments of Python, not of the office
    reply(ToolCall("__class__", {})),
    reply(ToolCall("call", {})),
    reply(ToolCall("copy", {})),
    reply(ToolCall("", "")),
    reply(send("null")),
    reply(send({"self": 1})),
    reply(ToolCall("email_delete_email", {"email_id": {"$ne": ""}})),
    reply(
        ToolCall(
            "project_management_update_task",
            {"task_id": "00000001", "field": "task_id", "new_value": "zz"},
        ),
        ToolCall("project_management_create_task", {}),
    ),
    reply(send({"recipient": "\ud800@.", "subject": "\x00", "body": "\ud800"})),
]


@pytest.mark.parametrize("bad", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_replies_earn_nothing(bad: Reply) -> None:
    domain = Workplace()
    for prompt in (
        domain.make(random.Random(1)),
        Workplace("full").make(random.Random(1)),
        domain.from_row(row([{"name": "email_send_email", "arguments": json.dumps(SEND)}]), 0),
    ):
        assert domain.verify(prompt, bad).reward == 0
        env = domain.env(prompt)
        for turn in bad.messages[:8]:
            if turn.role == "assistant":
                env.step(turn)
