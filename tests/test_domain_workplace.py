"""The workplace domain: tools, state comparison, the environment, the tiny generator, hostile
replies.
"""

from __future__ import annotations

import csv
import inspect
import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from linn.domains.workplace import Workplace
from linn.domains.workplace.office.state import Office
from linn.domains.workplace.office.table import BLANK
from linn.domains.workplace.office.tables import drawn, load, small
from linn.domains.workplace.office.tools import READS, TOOLS, WRITES, call
from linn.domains.workplace.tasks import draw as tasks
from linn.domains.workplace.tasks import mail as mail_tasks
from linn.domains.workplace.tasks.desk import Unfit, extreme, only
from linn.errors import UserError
from linn.types import Message, Prompt, Reply, ToolCall


def office() -> Office:
    return load(None).copy()


# ---------------------------------------------------------------- tools


def test_there_are_27_tools_and_reads_change_nothing() -> None:
    assert len(TOOLS) == 27 and len(WRITES) == 14
    one = office()
    for name in READS:
        call(one, name, {})
        for argument in (
            "name",
            "query",
            "email_id",
            "event_id",
            "task_id",
            "visitor_id",
            "task_name",
            "customer_name",
            "time_min",
        ):
            call(one, name, {argument: "00000001"})
    assert one.same(load(None))


def test_email() -> None:
    one = office()
    first = one.emails.records()[0]
    assert call(
        one,
        "email_get_email_information_by_id",
        {"email_id": first["email_id"], "field": "subject"},
    ) == {"subject": first["subject"]}
    assert (
        call(one, "email_send_email", {"recipient": "A@b.example", "subject": "s", "body": "b"})
        == "Email sent successfully."
    )
    assert one.emails.rows[-1] == ("500", "outbox", "a@b.example", "s", "2023-11-30 23:59:00", "b")
    assert (
        call(one, "email_send_email", {"recipient": "bob", "subject": "s", "body": "b"})
        == "Invalid recipient email address."
    )
    assert (
        call(
            one, "email_forward_email", {"email_id": first["email_id"], "recipient": "c@d.example"}
        )
        == "Email forwarded successfully."
    )
    assert (
        one.emails.rows[-1][3] == f"FW: {first['subject']}"
        and one.emails.rows[-1][5] == first["body"]
    )
    assert (
        call(one, "email_reply_email", {"email_id": first["email_id"], "body": "ok"})
        == "Email replied successfully."
    )
    assert one.emails.rows[-1][2:4] == (first["sender/recipient"], f"RE: {first['subject']}")
    assert (
        call(one, "email_delete_email", {"email_id": first["email_id"]})
        == "Email deleted successfully."
    )
    assert call(one, "email_delete_email", {"email_id": first["email_id"]}) == "Email not found."
    found = call(one, "email_search_emails", {"query": "budget", "page_size": 2})
    assert len(found["emails"]) == 2 and found["pagination"]["page_size"] == 2
    assert found["emails"][0]["sent_datetime"] >= found["emails"][1]["sent_datetime"]
    assert call(one, "email_search_emails", {"query": "no such words"}) == "No emails found."


def test_calendar() -> None:
    one = office()
    event = {
        "event_name": "Review",
        "participant_email": "X@y.example",
        "event_start": "2023-12-01 09:00:00",
        "duration": "30",
    }
    assert call(one, "calendar_create_event", event) == "00000300"
    assert one.events.rows[-1][2] == "x@y.example" and one.events.labels[-1] == 0
    assert (
        call(one, "calendar_create_event", {**event, "duration": "-1"})
        == "Duration must be a positive number of minutes."
    )
    assert call(one, "calendar_create_event", {**event, "event_start": "soon"}).startswith(
        "Invalid event_start format"
    )
    assert (
        call(
            one,
            "calendar_update_event",
            {"event_id": "00000300", "field": "duration", "new_value": "60"},
        )
        == "Event updated successfully."
    )
    assert call(
        one, "calendar_get_event_information_by_id", {"event_id": "00000300", "field": "duration"}
    ) == {"duration": "60"}
    assert call(
        one, "calendar_update_event", {"event_id": "300", "field": "duration", "new_value": "60"}
    ).startswith("Invalid event ID")
    assert (
        call(one, "calendar_search_events", {"query": "review", "time_min": "2023-12-01 08:00:00"})[
            "pagination"
        ]["total_events"]
        >= 1
    )
    assert (
        call(one, "calendar_delete_event", {"event_id": "00000300"})
        == "Event deleted successfully."
    )
    assert one.same(load(None))


def test_tasks_customers_and_analytics() -> None:
    one = office()
    person = one.tasks.rows[0][2]
    task = {
        "task_name": "Plan",
        "assigned_to_email": person.upper(),
        "list_name": "Backlog",
        "due_date": "2023-12-01",
        "board": "Design",
    }
    assert call(one, "project_management_create_task", task) == "00000300"
    assert call(one, "project_management_create_task", {**task, "board": "design"}).startswith(
        "Board not valid"
    )
    assert call(
        one, "project_management_create_task", {**task, "assigned_to_email": "a@b.c"}
    ).startswith("Assignee email not valid")
    assert (
        call(
            one,
            "project_management_update_task",
            {"task_id": "00000300", "field": "list_name", "new_value": "Completed"},
        )
        == "Task updated successfully."
    )
    assert (
        call(
            one,
            "project_management_search_tasks",
            {"task_name": "^plan$", "assigned_to_email": person},
        )[0]["list_name"]
        == "Completed"
    )
    assert (
        call(one, "project_management_delete_task", {"task_id": "00000300"})
        == "Task deleted successfully."
    )
    new = {"customer_name": "Ann Lee", "assigned_to_email": person, "status": "Lead"}
    assert call(one, "customer_relationship_manager_add_customer", new) == "00000200"
    assert one.customers.rows[-1][3] is None and one.customers.rows[-1][-1] == ""
    update = {"customer_id": "00000200", "field": "status", "new_value": "won"}
    assert call(one, "customer_relationship_manager_update_customer", update).startswith(
        "Status not valid"
    )
    assert (
        call(one, "customer_relationship_manager_update_customer", {**update, "new_value": "Won"})
        == "Customer updated successfully."
    )
    assert (
        call(one, "customer_relationship_manager_search_customers", {"customer_name": "ann lee"})[
            "customers"
        ][-1]["status"]
        == "Won"
    )
    assert (
        call(one, "customer_relationship_manager_delete_customer", {"customer_id": "00000200"})
        == "Customer deleted successfully."
    )
    plot = {
        "time_min": "2023-10-01",
        "time_max": "2023-11-01",
        "value_to_plot": "total_visits",
        "plot_type": "bar",
    }
    assert (
        call(one, "analytics_create_plot", plot)
        == "plots/2023-10-01_2023-11-01_total_visits_bar.png"
    )
    assert sum(call(one, "analytics_total_visits_count", {}).values()) == 1000 == len(one.visits)
    engaged, some = (
        call(one, "analytics_engaged_users_count", {}),
        call(one, "analytics_traffic_source_count", {"traffic_source": "direct"}),
    )
    assert 0 < sum(engaged.values()) < 1000 and 0 < sum(some.values()) < 1000
    assert [
        t
        for t in ("plots", "tasks", "customers")
        if not getattr(one, t).same(getattr(load(None), t))
    ] == ["plots"]


def test_mistakes_are_answers() -> None:
    one = office()
    for name, arguments in (
        ("no_such_tool", {}),
        ("email_send_email", {"to": "x"}),
        ("email_send_email", {"recipient": 5, "subject": "s", "body": "b"}),
        ("calendar_search_events", {"query": "("}),
        ("calendar_search_events", {"query": "(a+)+$"}),
        ("email_search_emails", {"page_size": 0}),
        (
            "calendar_update_event",
            {"event_id": "00000001", "field": "event_name", "new_value": ["x"]},
        ),
    ):
        assert str(call(one, name, arguments)).startswith("Error executing tool"), name
    assert one.same(load(None))


# ---------------------------------------------------------------- equality of states


def test_case_counts_only_in_status_list_and_board() -> None:
    def after(name: str, **arguments: Any) -> Office:
        one = office()
        call(one, name, arguments)
        return one

    mail = {"recipient": "a@b.c", "subject": "Hello", "body": "Text"}
    assert after("email_send_email", **mail).same(
        after("email_send_email", **{**mail, "subject": "HELLO", "recipient": "A@B.c"})
    )
    assert not after("email_send_email", **mail).same(
        after("email_send_email", **{**mail, "subject": "Hell0"})
    )
    customer = {"customer_name": "A", "assigned_to_email": "a@b.c", "status": "Lead"}
    name = "customer_relationship_manager_add_customer"
    assert not after(name, **customer).same(after(name, **{**customer, "status": "lead"}))
    assert not after(name, **customer).same(after(name, **customer, notes="x"))
    event = {
        "event_name": "e",
        "participant_email": "a@b.c",
        "event_start": "2023-12-01",
        "duration": "30",
    }
    assert not after("calendar_create_event", **event).same(
        after("calendar_create_event", **{**event, "duration": 30})
    ), "a number is not text"


def test_order_and_labels_count_as_in_the_reference() -> None:
    send, drop = (
        ("email_send_email", {"recipient": "a@b.c", "subject": "s", "body": "b"}),
        ("email_delete_email", {"email_id": "00000007"}),
    )
    one, two = office(), office()
    for name, arguments in (send, drop):
        call(one, name, arguments)
    for name, arguments in (drop, send):
        call(two, name, arguments)
    assert one.emails.rows == two.emails.rows and not one.same(two)


# ---------------------------------------------------------------- rows


def row(truth: Any, **fields: Any) -> dict[str, Any]:
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
        **fields,
    }


def reply(*calls: ToolCall, text: str = "done.") -> Reply:
    turns = [
        turn
        for call in calls
        for turn in (Message("assistant", "", tool_calls=(call,)), Message("tool", "ok"))
    ]
    return Reply(text=text, messages=(*turns, Message("assistant", text)))


SEND = {"recipient": "a@b.c", "subject": "s", "body": "b"}


def test_rows_are_graded_by_state() -> None:
    domain = Workplace()
    truth = [{"name": "email_send_email", "arguments": json.dumps(SEND)}]
    prompt = domain.from_row(row(truth), 0)
    assert [m.role for m in prompt.messages] == ["system", "user"]
    assert domain.from_row(row(json.dumps(truth)), 0) == prompt
    good, look = ToolCall("email_send_email", SEND), ToolCall("email_search_emails", {"query": "x"})
    assert domain.verify(prompt, domain.gold(prompt)).reward == 1
    assert domain.verify(prompt, reply(look, good)).reward == 1, "reads change nothing"
    assert (
        domain.verify(
            prompt, reply(ToolCall("email_send_email", "{"), ToolCall("zzz", {}), good)
        ).reward
        == 1
    ), "errors change nothing"
    assert domain.verify(prompt, reply(ToolCall("email_send_email", json.dumps(SEND)))).reward == 1
    for bad in ((), (look,), (good, good), (ToolCall("email_send_email", {**SEND, "body": "c"}),)):
        assert domain.verify(prompt, reply(*bad)).reward == 0
    nothing = domain.from_row(row([]), 0)
    assert domain.verify(nothing, reply(look)).reward == 1
    assert domain.verify(nothing, Reply(text="There is nothing to do.")).reward == 1
    assert domain.verify(nothing, Reply(text="")).reward == 0
    assert domain.verify(nothing, reply(good)).reward == 0


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
    data(tmp_path)
    monkeypatch.setenv("LINN_WORKPLACE_DATA", str(tmp_path))
    domain = Workplace()
    prompt = domain.from_row(row(truth), 0)
    assert domain.verify(prompt, domain.gold(prompt)).reward == 1
    assert domain.verify(prompt, reply()).reward == 0
    with pytest.raises(UserError, match=r"emails\.csv"):
        load(tmp_path / "missing")


def data(folder: Path) -> None:
    """linn's own tables as the six CSV files, one email's id changed."""
    own = office()
    own.emails.set("00000007", "email_id", "00009999")
    tables = {
        "emails": own.emails,
        "calendar_events": own.events,
        "project_tasks": own.tasks,
        "customer_relationship_manager_data": own.customers,
    }
    for name, table in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [
                    table.columns,
                    *([("" if cell is BLANK else cell) for cell in line] for line in table.rows),
                ]
            )
    with (folder / "analytics_data.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                (
                    "date_of_visit",
                    "visitor_id",
                    "page_views",
                    "session_duration_seconds",
                    "traffic_source",
                    "user_engaged",
                ),
                *own.visits,
            ]
        )
    (folder / "email_addresses.csv").write_text("\n".join(own.directory))


def test_csv_files_read_back_as_they_were(tmp_path: Path) -> None:
    data(tmp_path)
    read, own = load(tmp_path), office()
    own.emails.set("00000007", "email_id", "00009999")
    assert (
        read.same(own)
        and list(read.visits) == list(own.visits)
        and list(read.directory) == list(own.directory)
    )


# ---------------------------------------------------------------- the tiny level


def played(domain: Workplace, prompt: Prompt, faulty: bool) -> tuple[float, tuple[Message, ...]]:
    turns = domain.demonstrate(prompt, random.Random(1), faulty)
    return domain.verify(prompt, Reply(text=turns[-1].content, messages=turns)).reward, turns


def test_clean_demonstrations_earn_1_and_faulty_ones_0() -> None:
    domain = Workplace()
    for index in range(1000):
        prompt = domain.make(random.Random(index))
        clean, turns = played(domain, prompt, faulty=False)
        wrong, _ = played(domain, prompt, faulty=True)
        assert (clean, wrong) == (1, 0), prompt
        assert sum(turn.role == "assistant" for turn in turns) <= domain.max_turns
        assert (
            all(len(turn.content) <= 100 for turn in turns)
            and len(prompt.messages[0].content) <= 150
            and not prompt.thinking
        )
        assert (
            domain.verify(
                prompt, Reply(text="done.", messages=(Message("assistant", "done."),))
            ).reward
            == 0
        ), "claiming is not doing"


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
    answers = env.step(Message("assistant", "", tool_calls=calls))
    assert (
        answers is not None
        and [a.role for a in answers] == ["tool"] * 4
        and answers[0].tool_call_id == "c1"
    )
    assert all(
        a.content.startswith(("Invalid tool call arguments", "Error executing tool"))
        for a in answers
    )


def test_tiny_prompts_are_many_addresses_differ_and_grading_is_fast() -> None:
    domain = Workplace()
    prompts = [domain.make(random.Random(index)) for index in range(12_000)]
    assert len({prompt.messages for prompt in prompts}) >= 6000
    assert (
        len({prompt.id for prompt, _ in zip(domain.prompts("test"), range(450), strict=False)})
        == 450
    )
    assert len({small(seed).directory[0] for seed in range(50)}) == 6, (
        "an address cannot be known without looking it up"
    )
    golds = [domain.gold(prompt) for prompt in prompts[:500]]
    start = time.process_time()
    assert all(
        domain.verify(prompt, gold).reward == 1
        for prompt, gold in zip(prompts, golds, strict=False)
    )
    assert time.process_time() - start < 0.5


# ---------------------------------------------------------------- the full level


@pytest.fixture(scope="module")
def full() -> list[Prompt]:
    domain = Workplace("full")
    return [domain.make(random.Random(index)) for index in range(250)]


def as_reply(turns: tuple[Message, ...]) -> Reply:
    return Reply(text=turns[-1].content, messages=turns)


def test_full_gold_earns_and_nothing_less_does(full: list[Prompt]) -> None:
    domain = Workplace("full")
    assert {one.name for prompt in full for one in prompt.hidden.calls} == set(TOOLS)
    for prompt in full[:100]:
        gold = domain.gold(prompt)
        assert domain.verify(prompt, gold).reward == 1, prompt
        assert sum(turn.role == "assistant" for turn in gold.messages) <= domain.max_turns
        calls = [one for turn in gold.messages for one in turn.tool_calls]
        looks = [one for one in calls if one.name in READS]
        changes = [one for one in calls if one.name in WRITES]
        assert domain.verify(prompt, reply(*looks)).reward == 0, "looking is not doing"
        assert domain.verify(prompt, reply()).reward == 0, "claiming is not doing"
        assert domain.verify(prompt, reply(*changes)).reward == 1, "looking is no duty"
        assert domain.verify(prompt, reply(*changes, changes[-1])).reward == (
            1 if again_is_nothing(prompt, changes) else 0
        )
        assert (
            domain.verify(
                prompt, as_reply(domain.demonstrate(prompt, random.Random(0), faulty=True))
            ).reward
            == 0
        )
        at_once = (Message("assistant", "", tool_calls=tuple(calls)), Message("assistant", "done."))
        assert domain.verify(prompt, as_reply(at_once)).reward == 1, "calls may be parallel"


def again_is_nothing(prompt: Prompt, changes: list[ToolCall]) -> bool:
    one = drawn(prompt.hidden.office).copy()
    for change in changes:
        call(one, change.name, change.arguments)
    before = one.copy()
    call(one, changes[-1].name, changes[-1].arguments)
    return one.same(before)


def test_full_tasks_can_be_solved_by_looking(full: list[Prompt]) -> None:
    """Every id and address that a change names was said by the user or by a tool before."""
    domain = Workplace("full")
    for prompt in full[100:200]:
        seen, mistakes = prompt.messages[-1].content, 0
        for turn in domain.gold(prompt).messages:
            for one in turn.tool_calls:
                if one.name in WRITES:
                    for token in re.findall(r"\b\d{8}\b|[\w.]+@[\w.]+", json.dumps(one.arguments)):
                        assert token in seen, (prompt.messages[-1].content, one)
            if turn.role == "tool":
                seen += turn.content
                mistakes += "Error" in turn.content or "Invalid" in turn.content
        assert not mistakes


def test_full_definitions_are_complete_and_gold_keeps_them(full: list[Prompt]) -> None:
    definitions = {
        tool["function"]["name"]: tool["function"]["parameters"] for tool in full[0].tools
    }
    assert set(definitions) == set(TOOLS) and len(full[0].tools) == 27
    for name, parameters in definitions.items():
        own = set(inspect.signature(TOOLS[name]).parameters) - {"office", "wanted"}
        assert own <= set(parameters["properties"]) and all(
            item["description"] for item in parameters["properties"].values()
        ), name
        Draft202012Validator.check_schema(parameters)
    for prompt in full:
        for one in prompt.hidden.calls:
            Draft202012Validator(definitions[one.name]).validate(one.arguments)


def test_full_tasks_are_many_and_their_offices_differ(full: list[Prompt]) -> None:
    assert len({prompt.messages for prompt in full}) >= 245
    assert len({prompt.hidden.office for prompt in full}) >= 220
    assert not drawn(1).same(drawn(2)) and drawn(3).directory != drawn(4).directory
    assert {prompt.hidden.category for prompt in full} == {
        f"workplace_{group}"
        for group in (
            "email",
            "calendar",
            "analytics",
            "project_management",
            "customer_relationship_manager",
            "multi",
        )
    }
    assert {prompt.hidden.form for prompt in full} == {
        "one",
        "two",
        "first, then",
        "if, else",
        "if, anyway",
    }
    assert any(len(prompt.hidden.calls) >= 8 for prompt in full)
    again = Workplace("full").make(random.Random(5))
    assert again == full[5]


def test_a_first_name_finds_one_address_and_no_two_things_share_a_moment() -> None:
    for seed in range(20):
        one = drawn(seed)
        for person in one.directory:
            assert call(
                one, "company_directory_find_email_address", {"name": person.split(".")[0]}
            ) == [person]
        for table, column in (
            (one.emails, "sent_datetime"),
            (one.events, "event_start"),
            (one.customers, "customer_name"),
        ):
            values = [record[column] for record in table.records()]
            assert len(set(values)) == len(values), column


def test_requests_that_could_be_read_in_two_ways_are_refused() -> None:
    """Two emails sent in either order leave different tables, so no request sends two without an
    order.
    """
    for index in range(40):
        with pytest.raises(Unfit):
            tasks._independent(drawn(index), mail_tasks.send, mail_tasks.send, (0.1, 0.2))
        with pytest.raises(Unfit):
            only([])
        with pytest.raises(Unfit):
            extreme([{"a": 1, "b": 1}, {"a": 2, "b": 1}], "b", last=True)


def test_broken_calls_at_the_full_level_can_be_tried_again(full: list[Prompt]) -> None:
    domain = Workplace("full")
    prompt = full[0]
    env = domain.env(prompt)
    bad = (
        ToolCall("email_search_emails", {"query": "x", "page": "many"}),
        ToolCall(
            "calendar_create_event",
            {"event_name": 3, "participant_email": ["a"], "event_start": {}, "duration": True},
        ),
        ToolCall(
            "analytics_create_plot",
            {
                "time_min": "2023-10-01",
                "time_max": "2023-10-02",
                "value_to_plot": ["x"],
                "plot_type": "bar",
            },
        ),
        ToolCall("email_delete_mail", {"email_id": "00000001"}),
    )
    answers = env.step(Message("assistant", "", tool_calls=bad))
    assert (
        answers is not None
        and len(answers) == 4
        and all(isinstance(answer.content, str) for answer in answers)
    )
    good = domain.gold(prompt)
    assert (
        domain.verify(
            prompt,
            Reply(good.text, messages=(Message("assistant", "", tool_calls=bad), *good.messages)),
        ).reward
        == 1
    )


# ---------------------------------------------------------------- hostile


BIG = "x" * 1_000_000
DEEP: Any = {}
for _ in range(500):
    DEEP = {"a": DEEP}
HOSTILE = [
    reply(text=""),
    reply(text=BIG),
    Reply(text=BIG),
    Reply(text="", finished=False),
    reply(ToolCall(BIG, {})),
    reply(ToolCall("email_send_email", BIG)),
    reply(ToolCall("email_send_email", "[" * 1_000_000)),
    reply(ToolCall("email_send_email", '{"recipient":' * 50_000)),
    reply(ToolCall("email_send_email", DEEP)),
    reply(ToolCall("email_send_email", {"recipient": BIG + "@b.c", "subject": BIG, "body": BIG})),
    reply(
        *[ToolCall("email_send_email", {"recipient": "a@b.c", "subject": "s", "body": BIG})] * 400
    ),
    reply(
        *[ToolCall("email_send_email", {"recipient": "a@b.c", "subject": "s", "body": "b"})]
        * 20_000
    ),
    reply(
        *[
            ToolCall(
                "calendar_create_event",
                {
                    "event_name": "e",
                    "participant_email": "a",
                    "event_start": "2023-12-01",
                    "duration": "1" * 5000,
                },
            )
        ]
        * 300
    ),
    reply(
        ToolCall(
            "calendar_create_event",
            {"event_name": "e", "participant_email": "a", "event_start": BIG, "duration": "1"},
        )
    ),
    reply(ToolCall("calendar_search_events", {"query": "(a+)+" * 1000})),
    reply(ToolCall("email_search_emails", {"query": "e " * 500_000})),
    reply(ToolCall("__class__", {})),
    reply(ToolCall("call", {})),
    reply(ToolCall("copy", {})),
    reply(ToolCall("email_send_email", "null")),
    reply(ToolCall("email_delete_email", {"email_id": {"$ne": ""}})),
    reply(ToolCall("email_send_email", {"self": 1})),
    reply(ToolCall("", "")),
    reply(
        ToolCall(
            "project_management_update_task",
            {"task_id": "00000001", "field": "task_id", "new_value": "zz"},
        ),
        ToolCall("project_management_create_task", {}),
    ),
    reply(
        ToolCall("email_send_email", {"recipient": "\ud800@.", "subject": "\x00", "body": "\ud800"})
    ),
]


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_hostile_replies_earn_nothing_fast(index: int) -> None:
    domain = Workplace()
    bad = HOSTILE[index]
    for prompt in (
        domain.make(random.Random(1)),
        Workplace("full").make(random.Random(1)),
        domain.from_row(row([{"name": "email_send_email", "arguments": json.dumps(SEND)}]), 0),
    ):
        start = time.process_time()
        verdict = domain.verify(prompt, bad)
        assert verdict.reward == 0 and time.process_time() - start < 1
        env = domain.env(prompt)
        start = time.process_time()
        for turn in bad.messages[:8]:
            if turn.role == "assistant":
                env.step(turn)
        assert time.process_time() - start < 1
