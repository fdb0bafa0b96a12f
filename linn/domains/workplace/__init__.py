"""Workplace assistant: multi-step tool calls in an office; reward 1 iff its tables end as the true calls leave them."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from linn.chat.request import request_messages, request_tools
from linn.domains.base import Domain
from linn.domains.workplace.office import tools
from linn.domains.workplace.office.definitions import DEFINITIONS
from linn.domains.workplace.office.directory import find_email_address
from linn.domains.workplace.office.state import NOW, Office
from linn.domains.workplace.office.tables import SMALL_NAMES, drawn, load, small
from linn.domains.workplace.tasks import draw as tasks
from linn.errors import UserError
from linn.types import Message, Prompt, Reply, ToolCall, Verdict

_MAX_CALLS = 500
"""A reply with more calls than this earns nothing; the released tasks need about a dozen."""
_LONG_TURNS = 32
"""Assistant turns at most at the full level and on rows: one call a turn, searches included."""
_OFFICES = 10_000
"""Different offices of the full level."""
_SYSTEM = (
    f"You work for Sam, with the tools of Sam's office. It is Thursday, 2023-11-30, and the clock shows {NOW[11:]}; days in requests count from "
    "there. A meeting begins at 9 am at the earliest and has to be over by 6 pm. Do what is asked with the tools, then say that it is done."
)
_TOPICS = (
    "budget report party plan trip lunch house garden boat train bird horse dog cat tree lake hill road bridge school market farm "
    "forest ship bus car bike clock chair table book song letter drum coat shoe"
).split()
_BODIES = (
    "thank you",
    "see you soon",
    "good day",
    "call me",
    "all is done",
    "come by",
    "it is late",
    "i like it",
    "bring the book",
    "more to come",
)
_FIND, _SEND, _MEET = (
    "company_directory_find_email_address",
    "email_send_email",
    "calendar_create_event",
)


class Workplace(Domain):
    """Look an address up, then send an email or set a meeting (tiny); tasks over all 27 tools (full); or the released rows."""

    name: ClassVar[str] = "workplace"
    levels: ClassVar[tuple[str, ...]] = ("tiny", "full")
    max_turns = 4

    def __init__(self, level: str = "tiny", rows: str | Path | None = None) -> None:
        """As `Domain`; rows read their tables from the folder `LINN_WORKPLACE_DATA` names, else from linn's own generator."""
        super().__init__(level, rows)
        if rows is not None or level == "full":
            self.max_turns = _LONG_TURNS  # longer tasks than the tiny ones

    def make(self, rng: random.Random) -> Prompt:
        """Tiny: `email bob about the budget: see you soon`; full: a request over an office of its own (`office/tasks.py`)."""
        if self.level == "full":
            return self._make_full(rng)
        name, topic, seed = rng.choice(SMALL_NAMES), rng.choice(_TOPICS), rng.randrange(1000)
        (address,) = find_email_address(small(seed), name)
        if rng.random() < 0.5:
            body = rng.choice(_BODIES)
            text = f"email {name} about the {topic}: {body}"
            arguments = {"recipient": address, "subject": topic, "body": body}
            call = {"name": _SEND, "arguments": json.dumps(arguments)}
        else:
            day, minutes = f"2023-12-{rng.randint(1, 28):02d}", rng.choice(("15", "30", "45", "60"))
            text = f"meet {name} about the {topic} on {day} for {minutes} minutes"
            arguments = {
                "event_name": topic,
                "participant_email": address,
                "event_start": day,
                "duration": minutes,
            }
            call = {"name": _MEET, "arguments": json.dumps(arguments)}
        hidden = {"ground_truth": [call], "seed": seed, "name": name}
        return Prompt(
            self.name,
            "",
            (Message("user", text),),
            thinking=False,
            tools=_TINY_TOOLS,
            hidden=hidden,
        )

    def _make_full(self, rng: random.Random) -> Prompt:
        office = rng.randrange(_OFFICES)
        task = tasks.draw(drawn(office), rng)
        truth = [{"name": call.name, "arguments": call.arguments} for call in task.calls]
        hidden = {
            "ground_truth": truth,
            "office": office,
            "category": f"{self.name}_{task.category}",
            "form": task.form,
        }
        messages = (Message("system", _SYSTEM), Message("user", task.text))
        return Prompt(self.name, "", messages, thinking=False, tools=DEFINITIONS, hidden=hidden)

    def env(self, prompt: Prompt) -> OfficeEnv:
        """A fresh office for one conversation."""
        return OfficeEnv(_office(prompt))

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Replay the reply's calls and the true calls, each on fresh tables, and compare the states."""
        calls = [
            call
            for message in reply.messages
            if message.role == "assistant"
            for call in message.tool_calls
        ]
        metrics = {"calls": float(len(calls))}
        if not calls and not reply.text.strip():
            return Verdict(0.0, "no reply", metrics)
        if len(calls) > _MAX_CALLS:
            return Verdict(0.0, f"{len(calls)} calls; at most {_MAX_CALLS} are replayed", metrics)
        want, got = _office(prompt), _office(prompt)
        _replay(want, prompt.hidden["ground_truth"])
        _replay(got, [{"name": call.name, "arguments": call.arguments} for call in calls])
        tables = [
            name
            for name in ("emails", "events", "tasks", "customers", "plots")
            if not getattr(got, name).same(getattr(want, name))
        ]
        note = f"other than wanted: {', '.join(tables)}" if tables else "all tables as wanted"
        return Verdict(float(not tables), note, metrics)

    def gold(self, prompt: Prompt) -> Reply:
        """The true calls, one a turn, then `done.`."""
        turns = self._turns(
            prompt,
            [
                ToolCall(call["name"], _arguments(call["arguments"]))
                for call in prompt.hidden["ground_truth"]
            ],
        )
        return Reply(text=turns[-1].content, messages=turns)

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """Look the address up, act, say `done.`; faulty: the lookup is skipped and the bare name stands where the address belongs.

        At the full level: the gold calls; faulty: the last change is left out, though said to be done.
        """
        if "office" in prompt.hidden:
            calls = [
                ToolCall(call["name"], call["arguments"]) for call in prompt.hidden["ground_truth"]
            ]
            last = max(at for at, call in enumerate(calls) if call.name in tools.WRITES)
            return self._turns(prompt, calls[:last] + calls[last + 1 :] if faulty else calls)
        (true,) = prompt.hidden["ground_truth"]
        arguments, name = dict(_arguments(true["arguments"])), prompt.hidden["name"]
        if not faulty:
            return self._turns(
                prompt, [ToolCall(_FIND, {"name": name}), ToolCall(true["name"], arguments)]
            )
        arguments["recipient" if "recipient" in arguments else "participant_email"] = name
        return self._turns(prompt, [ToolCall(true["name"], arguments)])

    def _turns(self, prompt: Prompt, calls: Sequence[ToolCall]) -> tuple[Message, ...]:
        """A conversation that makes these calls in order, with the environment's answers."""
        env = self.env(prompt)
        turns: list[Message] = []
        for call in calls:
            turns.append(Message("assistant", "", tool_calls=(call,)))
            turns += env.step(turns[-1]) or ()
        return (*turns, Message("assistant", "done."))

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """A released row: `ground_truth` (a list of {name, arguments}, or that as JSON text) and the conversation with its tools."""
        where = f"row {index} (domain workplace)"
        truth = row.get("ground_truth")
        if isinstance(truth, str):
            try:
                truth = json.loads(truth)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where}: ground_truth is not JSON: {error}") from error
        if not isinstance(truth, list) or not all(
            isinstance(call, Mapping) and isinstance(call.get("name"), str) and "arguments" in call
            for call in truth
        ):
            raise UserError(
                f"{where}: ground_truth must be a list of calls with name and arguments"
            )
        calls = [{"name": call["name"], "arguments": call["arguments"]} for call in truth]
        prompt = Prompt(
            self.name,
            str(row.get("id", index)),
            request_messages(row, index),
            False,
            request_tools(row, index),
            {"ground_truth": calls},
        )
        if calls and _data() is None and _changes_nothing(calls):
            raise UserError(
                f"{where}: ground_truth changes nothing in linn's own tables, so it was made for others; "
                "set LINN_WORKPLACE_DATA to the folder of their six CSV files"
            )
        return prompt


class OfficeEnv:
    """One conversation's office: runs the calls of each assistant turn, ends at a turn without calls."""

    def __init__(self, office: Office) -> None:
        self.office = office

    def step(self, message: Message) -> tuple[Message, ...] | None:
        """One `tool` turn a call, in order; None when there is no call."""
        if not message.tool_calls:
            return None
        return tuple(
            Message("tool", self._answer(call), tool_call_id=call.id)
            for call in message.tool_calls[:_MAX_CALLS]
        )

    def close(self) -> None:
        """Nothing to free."""

    def _answer(self, call: ToolCall) -> str:
        try:
            arguments = _arguments(call.arguments)
        except (ValueError, TypeError) as error:
            return f"Invalid tool call arguments: {str(error)[:200]}"
        answer = tools.call(
            self.office,
            call.name,
            {key: value for key, value in arguments.items() if value is not None},
        )
        return (
            answer
            if isinstance(answer, str)
            else json.dumps(answer, ensure_ascii=False, default=str)
        )


# ---------------------------------------------------------------- shared parts


def _data() -> Path | None:
    folder = os.environ.get("LINN_WORKPLACE_DATA")
    return Path(folder) if folder else None


def _office(prompt: Prompt) -> Office:
    """A fresh office with the tables that the prompt is about."""
    hidden = prompt.hidden
    office = (
        small(hidden["seed"])
        if "seed" in hidden
        else drawn(hidden["office"])
        if "office" in hidden
        else load(_data())
    )
    return office.copy()


def _arguments(arguments: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """Arguments as an object; raises ValueError or TypeError where they are not."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except RecursionError as error:
            raise ValueError("arguments are nested too deeply") from error
    if not isinstance(arguments, Mapping):
        raise TypeError("arguments must be an object")
    return arguments


def _replay(office: Office, calls: Sequence[Mapping[str, Any]]) -> None:
    """Make the calls that can change a table; broken ones change nothing."""
    for call in calls:
        if call["name"] in tools.WRITES:
            try:
                tools.call(office, call["name"], _arguments(call["arguments"]))
            except (ValueError, TypeError):
                continue


def _changes_nothing(calls: Sequence[Mapping[str, Any]]) -> bool:
    office = load(None).copy()
    _replay(office, calls)
    return office.same(load(None))


def _tool(name: str, description: str, *parameters: str) -> Mapping[str, Any]:
    properties = {parameter: {"type": "string"} for parameter in parameters}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }


_TINY_TOOLS = (
    _tool(_FIND, "find an address", "name"),
    _tool(_SEND, "send an email", "recipient", "subject", "body"),
    _tool(_MEET, "set a meeting", "event_name", "participant_email", "event_start", "duration"),
)
