"""Workplace assistant: multi-step tool calls in an office; reward 1 iff its tables end as the true
calls leave them.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from linn.chat.request import request_of
from linn.domains.base import Domain
from linn.domains.common.tools import text_tool
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
    "You work for Sam, with the tools of Sam's office. It is Thursday, 2023-11-30, and the clock "
    f"shows {NOW[11:]}; days in requests count from "
    "there. A meeting begins at 9 am at the earliest and has to be over by 6 pm. Do what is asked "
    "with the tools, then say that it is done."
)
_TOPICS = (
    "budget report party plan trip lunch house garden boat train bird horse dog cat tree lake hill "
    "road bridge school market farm "
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


@dataclass(frozen=True)
class OfficeTask:
    """What the grader knows of a prompt. Exactly one of `seed` and `office` or neither is set."""

    calls: tuple[ToolCall, ...]
    """The true calls. Of rows, arguments may be JSON text."""
    seed: int | None = None
    """Tiny level: seed of the small office."""
    person: str = ""
    """Tiny level: whose address has to be looked up."""
    office: int | None = None
    """Full level: seed of the drawn office. Where neither is set, the office is the rows' own."""
    category: str = ""
    """Full level: the tool group, as the released rows call it."""
    form: str = ""
    """Full level: how the request is put together."""


class Workplace(Domain):
    """Tool calls in an office.

    Tiny: look an address up, then send an email or set a meeting. Full: tasks over all 27 tools.
    Or the released rows.
    """

    name: ClassVar[str] = "workplace"
    levels: ClassVar[tuple[str, ...]] = ("tiny", "full")
    max_turns = 4

    def __init__(self, level: str = "tiny", rows: str | Path | None = None) -> None:
        """As `Domain`.

        Rows read their tables from the folder that `LINN_WORKPLACE_DATA` names, else from linn's
        own generator.
        """
        super().__init__(level, rows)
        if rows is not None or level == "full":
            self.max_turns = _LONG_TURNS  # longer tasks than the tiny ones

    def make(self, rng: random.Random) -> Prompt:
        """Tiny: `email bob about the budget: see you soon`. Full: a request over its own office."""
        if self.level == "full":
            return self._make_full(rng)
        person, topic, seed = rng.choice(SMALL_NAMES), rng.choice(_TOPICS), rng.randrange(1000)
        (address,) = find_email_address(small(seed), person)
        if rng.random() < 0.5:
            body = rng.choice(_BODIES)
            text = f"email {person} about the {topic}: {body}"
            arguments = {"recipient": address, "subject": topic, "body": body}
            call = ToolCall(_SEND, arguments)
        else:
            day, minutes = f"2023-12-{rng.randint(1, 28):02d}", rng.choice(("15", "30", "45", "60"))
            text = f"meet {person} about the {topic} on {day} for {minutes} minutes"
            arguments = {
                "event_name": topic,
                "participant_email": address,
                "event_start": day,
                "duration": minutes,
            }
            call = ToolCall(_MEET, arguments)

        return Prompt(
            domain=self.name,
            id="",
            messages=(Message("user", text),),
            thinking=False,
            tools=_TINY_TOOLS,
            hidden=OfficeTask((call,), seed=seed, person=person),
        )

    def _make_full(self, rng: random.Random) -> Prompt:
        office = rng.randrange(_OFFICES)
        task = tasks.draw(drawn(office), rng)
        return Prompt(
            domain=self.name,
            id="",
            messages=(Message("system", _SYSTEM), Message("user", task.text)),
            thinking=False,
            tools=DEFINITIONS,
            hidden=OfficeTask(
                calls=task.calls,
                office=office,
                category=f"{self.name}_{task.category}",
                form=task.form,
            ),
        )

    def env(self, prompt: Prompt) -> OfficeEnv:
        """A fresh office for one conversation."""
        return OfficeEnv(_office(_task(prompt)))

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Replay the reply's calls and the true calls, each on fresh tables; compare the tables."""
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
        task = _task(prompt)
        expected, actual = _office(task), _office(task)
        _replay(expected, task.calls)
        _replay(actual, calls)
        # Released rows were graded by the reference, to which a number in a text's place is empty.
        exact = task.seed is not None or task.office is not None
        different = [
            name
            for name in ("emails", "events", "tasks", "customers", "plots")
            if not getattr(actual, name).same(getattr(expected, name), exact)
        ]
        if different:
            return Verdict(0.0, f"other than wanted: {', '.join(different)}", metrics)

        return Verdict(1.0, "all tables as wanted", metrics)

    def gold(self, prompt: Prompt) -> Reply:
        """The true calls, one per turn, then `done.`."""
        calls = [ToolCall(call.name, _arguments(call.arguments)) for call in _task(prompt).calls]
        turns = self._turns(prompt, calls)
        return Reply(text=turns[-1].content, messages=turns)

    def demonstrate(
        self,
        prompt: Prompt,
        rng: random.Random,
        faulty: bool,
    ) -> tuple[Message, ...]:
        """Look the address up, act, say `done.`.

        The fault: no lookup, and the bare name stands where the address belongs. At the full level
        the demonstration is the gold calls, and the fault is that the last change is left out.
        """
        task = _task(prompt)
        if task.office is not None:
            calls = list(task.calls)
            if faulty:
                last = max(at for at, call in enumerate(calls) if call.name in tools.WRITES)
                del calls[last]
            return self._turns(prompt, calls)

        (true,) = task.calls
        arguments = dict(_arguments(true.arguments))
        if not faulty:
            lookup = ToolCall(_FIND, {"name": task.person})
            return self._turns(prompt, [lookup, ToolCall(true.name, arguments)])

        addressee = "recipient" if "recipient" in arguments else "participant_email"
        arguments[addressee] = task.person

        return self._turns(prompt, [ToolCall(true.name, arguments)])

    def _turns(self, prompt: Prompt, calls: Sequence[ToolCall]) -> tuple[Message, ...]:
        """A conversation that makes these calls in order, with the environment's answers."""
        env = self.env(prompt)
        turns: list[Message] = []
        for call in calls:
            turns.append(Message("assistant", "", tool_calls=(call,)))
            turns += env.step(turns[-1]) or ()
        return (*turns, Message("assistant", "done."))

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """A released row: `ground_truth` and the conversation with its tools.

        `ground_truth` is a list of {name, arguments}, or that as JSON text. Non-thinking, as agents
        are trained (paper §3.2), unless the row sets `enable_thinking`.
        """
        where = f"row {index} (domain workplace)"
        calls = _true_calls(where, row.get("ground_truth"))
        request = request_of(row, index, thinking=False)
        prompt = request.prompt(self.name, str(row.get("id", index)), OfficeTask(calls))

        if calls and _data() is None and _changes_nothing(calls):
            raise UserError(
                f"{where}: ground_truth changes nothing in linn's own tables, so it was made for "
                "others; set LINN_WORKPLACE_DATA to the folder of their six CSV files"
            )

        return prompt


class OfficeEnv:
    """One conversation's office: runs the calls of each assistant turn, ends without calls."""

    def __init__(self, office: Office) -> None:
        self.office = office

    def step(self, message: Message) -> tuple[Message, ...] | None:
        """One `tool` turn per call, in order; None when there is no call."""
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
        # Models write null for an argument they leave out.
        arguments = {key: value for key, value in arguments.items() if value is not None}
        answer = tools.call(self.office, call.name, arguments)
        if isinstance(answer, str):
            return answer
        return json.dumps(answer, ensure_ascii=False, default=str)


# ---------------------------------------------------------------- shared parts


def _task(prompt: Prompt) -> OfficeTask:
    assert isinstance(prompt.hidden, OfficeTask), prompt.hidden
    return prompt.hidden


def _true_calls(where: str, truth: object) -> tuple[ToolCall, ...]:
    """The calls of a row's `ground_truth`."""
    if isinstance(truth, str):
        try:
            truth = json.loads(truth)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: ground_truth is not JSON: {error}") from error
    if not isinstance(truth, list) or not all(map(_is_call, truth)):
        raise UserError(f"{where}: ground_truth must be a list of calls with name and arguments")
    return tuple(ToolCall(call["name"], call["arguments"]) for call in truth)


def _is_call(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    return isinstance(value.get("name"), str) and "arguments" in value


def _data() -> Path | None:
    folder = os.environ.get("LINN_WORKPLACE_DATA")
    return Path(folder) if folder else None


def _office(task: OfficeTask) -> Office:
    """A fresh office with the tables that the prompt is about."""
    if task.seed is not None:
        office = small(task.seed)
    elif task.office is not None:
        office = drawn(task.office)
    else:
        office = load(_data())
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


def _replay(office: Office, calls: Sequence[ToolCall]) -> None:
    """Make the calls that can change a table; broken ones change nothing."""
    for call in calls:
        if call.name not in tools.WRITES:
            continue
        try:
            tools.call(office, call.name, _arguments(call.arguments))
        except (ValueError, TypeError):
            continue


def _changes_nothing(calls: Sequence[ToolCall]) -> bool:
    office = load(None).copy()
    _replay(office, calls)
    return office.same(load(None))


_TINY_TOOLS = (
    text_tool(_FIND, "find an address", "name"),
    text_tool(_SEND, "send an email", "recipient", "subject", "body"),
    text_tool(_MEET, "set a meeting", "event_name", "participant_email", "event_start", "duration"),
)
