"""`linn chat`: the conversation, its screen, its tools, and what a hostile model can do to it."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from linn.chat.request import render_row
from linn.chat.stream import Delta
from linn.cli import chat
from linn.errors import UserError
from linn.serve.functions import Functions
from linn.serve.screen import Screen
from linn.serve.session import MOST_STEPS, Part, Session, Step
from linn.types import Message, Sampling, ToolCall

TOOLS = '''
"""My tools."""
import math
from typing import Literal

def root(of: float, digits: int = 3) -> float:
    """The square root.

    Args:
        of: a number from 0
        digits: behind the point
    """
    return round(math.sqrt(of), digits)

def where(name: str, kind: Literal["town", "river"], near: list[str] | None = None) -> dict:
    return {"name": name, "kind": kind, "near": near}

def fails() -> str:
    raise ValueError("no luck")

def _hidden(): ...
'''


class Says:
    """A speaker that says what it is told to, a part at a time, and notes what it was shown."""

    def __init__(self, *turns: Sequence[Delta]) -> None:
        self.turns = list(turns)
        self.seen: list[list[Message]] = []
        self.modes: list[bool] = []
        self.seeds: list[int] = []

    async def say(
        self, messages: Sequence[Message], tools: Any, thinking: bool, how: Sampling, seed: int
    ) -> AsyncGenerator[Part, None]:
        self.seen.append(list(messages))
        self.modes.append(thinking)
        self.seeds.append(seed)
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        for delta in turn:
            await asyncio.sleep(0)
            yield Part(delta, tokens=1)
        yield Part(Delta(), "stop")


def session(*turns: Sequence[Delta], **options: Any) -> Session:
    return Session(Says(*turns), Sampling(20), seed=1, **options)


def all_of(steps: AsyncGenerator[Step, None]) -> list[Step]:
    async def gather() -> list[Step]:
        return [step async for step in steps]

    return asyncio.run(gather())


@pytest.fixture
def functions(tmp_path: Path):
    (tmp_path / "tools.py").write_text(TOOLS)
    loaded = Functions.load(tmp_path / "tools.py")
    yield loaded
    loaded.close()


# ---------------------------------------------------------------- tools


def test_hints_and_docstrings_become_definitions(functions: Functions) -> None:
    root, where, fails = (one["function"] for one in functions.definitions)
    assert (root["name"], root["description"]) == ("root", "The square root.")
    assert root["parameters"] == {
        "type": "object",
        "properties": {
            "of": {"type": "number", "description": "a number from 0"},
            "digits": {"type": "integer", "description": "behind the point"},
        },
        "required": ["of"],
    }
    properties = where["parameters"]["properties"]
    assert properties["kind"] == {"enum": ["town", "river"]}
    strings = {"type": "array", "items": {"type": "string"}}
    assert properties["near"] == {"anyOf": [strings, {"type": "null"}]}
    assert fails["parameters"]["properties"] == {}


@pytest.mark.parametrize("text", ["def f(*a): ...", "x = 1", "def f(:", ""])
def test_a_file_without_functions_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tools.py").write_text(text)
    with pytest.raises(UserError, match="--tools"):
        Functions.load(tmp_path / "tools.py")


@pytest.mark.slow
def test_calls_are_carried_out_in_the_sandbox(functions: Functions) -> None:
    assert functions.call(ToolCall("root", {"of": 2})) == "1.414"
    told = functions.call(ToolCall("where", {"name": "Rome", "kind": "town"}))
    assert json.loads(told) == {"name": "Rome", "kind": "town", "near": None}
    for call, said in (
        (ToolCall("fails", {}), "no luck"),
        (ToolCall("root", {"off": 2}), "error"),
        (ToolCall("_hidden", {}), "no function"),
        (ToolCall("__import__", {"name": "os"}), "no function"),
        (ToolCall("root", "{of:"), "cannot be read"),
    ):
        assert said in functions.call(call)


def test_definitions_alone_are_shown_and_not_run(tmp_path: Path) -> None:
    definition = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    (tmp_path / "tools.json").write_text(json.dumps([definition]))
    loaded = Functions.load(tmp_path / "tools.json")
    talk = session([Delta(calls=(ToolCall("f", {}),))], functions=loaded)
    assert [step.kind for step in all_of(talk.ask("Hi"))] == ["content", "call", "end"]


# ---------------------------------------------------------------- the conversation


@pytest.mark.slow
def test_the_loop_of_tools_ends_with_an_answer(functions: Functions) -> None:
    call = Delta(calls=(ToolCall("root", {"of": 16}, "c1"),))
    talk = session([Delta("hm"), call], [Delta(content="It is 4.")], functions=functions)
    steps = [step for step in all_of(talk.ask("Root of 16?")) if step.text or step.call]
    assert [step.kind for step in steps] == ["thought", "call", "end", "result", "content", "end"]
    assert steps[3].text == "4.0"
    roles = [message.role for message in talk.messages]
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert talk.messages[2].tool_call_id == "c1"

    talk = session([call], functions=functions)
    assert all_of(talk.ask("Again"))[-1] == Step("cut", f"{MOST_STEPS} rounds of calls")


def test_history_mode_system_and_retry() -> None:
    talk = session([Delta("a", "one")], system="Be brief.")
    speaker = talk._speaker
    all_of(talk.ask("first"))
    talk.thinking = False
    all_of(talk.ask("second"))
    assert [message.content for message in speaker.seen[1]] == [
        "Be brief.", "first", "one", "second"
    ]  # fmt: skip
    assert speaker.modes == [True, False]
    all_of(talk.retry())
    assert speaker.seen[2] == speaker.seen[1], "the answer that is tried again is forgotten"
    assert len(set(speaker.seeds)) == 3
    talk.clear()
    with pytest.raises(UserError, match="nothing"):
        all_of(talk.retry())


def test_what_was_said_until_it_was_stopped_stays() -> None:
    talk = session([Delta(content="a "), Delta(content="b "), Delta(content="c")])

    async def part() -> None:
        steps = talk.ask("Hi")
        async for step in steps:
            if step.text == "b ":
                break
        await steps.aclose()

    asyncio.run(part())
    assert talk.messages[-1] == Message("assistant", "a b ")


def test_a_saved_conversation_is_a_row(tmp_path: Path) -> None:
    talk = session([Delta("hm", "Hello.")], system="Be brief.")
    all_of(talk.ask("Hi"))
    talk.save(tmp_path / "talk.jsonl")
    text = render_row(json.loads((tmp_path / "talk.jsonl").read_text()))
    assert "Be brief." in text and "<think>\nhm\n</think>\nHello." in text


@pytest.mark.parametrize("name", ["file/talk.jsonl", ""])
def test_where_nothing_can_be_written_the_conversation_goes_on(tmp_path: Path, name: str) -> None:
    talk = session([Delta(content="Hello.")])
    all_of(talk.ask("Hi \udc80"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="another file"):
        talk.save(tmp_path / name)
    talk.save(tmp_path / "talk.jsonl")
    assert (
        json.loads((tmp_path / "talk.jsonl").read_text())["messages"][0]["content"] == "Hi \udc80"
    )


class Narrow(Says):
    """A speaker that takes short conversations alone, and none with two turns of the user."""

    async def say(self, messages: Sequence[Message], *rest: Any) -> AsyncGenerator[Part, None]:
        roles = [message.role for message in messages]
        if sum(len(message.content) for message in messages) > 100:
            raise UserError("too long")
        if any(one == other == "user" for one, other in itertools.pairwise(roles)):
            raise UserError("two turns of the user")
        async with aclosing(super().say(messages, *rest)) as parts:
            async for part in parts:
                yield part


def test_a_message_that_is_too_long_does_not_end_the_conversation() -> None:
    talk = Session(Narrow([Delta(content="one")]), Sampling(20), seed=1)
    all_of(talk.ask("first"))
    with pytest.raises(UserError, match="too long"):
        all_of(talk.ask("x" * 101))
    all_of(talk.ask("second"))
    assert [message.content for message in talk.messages] == ["first", "one", "second", "one"]


def test_a_message_that_got_no_answer_goes_along_with_the_next() -> None:
    talk = Session(Narrow([Delta(content="one")]), Sampling(20), seed=1)

    async def stopped() -> None:
        steps = talk.ask("Hi")
        task = asyncio.ensure_future(anext(steps))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await steps.aclose()

    asyncio.run(stopped())
    all_of(talk.ask("Are you there?"))
    assert [message.content for message in talk.messages] == ["Hi\n\nAre you there?", "one"]
    all_of(talk.retry())
    assert talk.messages[0].content == "Hi\n\nAre you there?"


def test_every_call_has_a_result_where_the_loop_was_stopped() -> None:
    calls = tuple(ToolCall("add", {"a": place}, id=f"c{place}") for place in range(3))
    functions = Functions([], source="")
    talk = session([Delta(calls=calls)], functions=functions)

    async def stopped() -> None:
        steps = talk.ask("Hi")
        async for step in steps:
            if step.kind == "result":
                break
        await steps.aclose()

    asyncio.run(stopped())
    assert [message.role for message in talk.messages] == ["user", "assistant"] + ["tool"] * 3
    assert [message.tool_call_id for message in talk.messages[2:]] == ["c0", "c1", "c2"]
    assert "stopped" not in talk.messages[2].content and "stopped" in talk.messages[4].content


# ---------------------------------------------------------------- the screen


def shown(steps: Sequence[Step], capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    screen = Screen(**options)
    for step in steps:
        screen.show(step)
    screen.end()
    return capsys.readouterr().out


def seen_on(output: str, columns: int = 80) -> list[str]:
    """The lines that stand on a terminal in the end."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\d*[A-Za-z]|.|\n", output, re.DOTALL):
        if part.endswith("A") and part.startswith("\x1b"):
            row = max(0, row - int(part[2:-1] or 1))
        elif part == "\x1b[J":
            lines[row:] = [lines[row][:column]]
        elif part.startswith("\x1b"):
            continue
        elif part == "\r":
            column = 0
        elif part == "\n" or column == columns:
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        if len(part) == 1 and part not in "\r\n":
            lines[row] = lines[row][:column].ljust(column) + part
            column += 1
    return [line.rstrip() for line in lines]


THOUGHT = "I think.\n" + "long " * 60 + "\nend"


def test_a_thought_is_folded_when_it_ends(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "40")
    pieces = [Step("thought", THOUGHT[i : i + 7]) for i in range(0, len(THOUGHT), 7)]
    out = shown([*pieces, Step("content", "Yes."), Step("end", "stop")], capsys, live=True)
    assert "\x1b[2m" in out
    assert seen_on(out)[:2] == ["▸ thought, 63 words (/thought shows it)", "Yes."]


def test_without_a_terminal_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [
        Step("thought", "hm"),
        Step("content", "I look."),
        Step("call", call=ToolCall("root", {"of": 4})),
        Step("result", "2.0", ToolCall("root", {"of": 4})),
        Step("content", "Two."),
    ]
    out = shown(steps, capsys, live=False)
    assert out == "[thought] hm\nI look.\n→ root(of=4)\n← 2.0\nTwo.\n"


HOSTILE = "\x1b[2J\x1b]0;title\x07\u202egnirts\r\x9b1A"


def test_what_a_model_says_moves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    call = ToolCall(f"f{HOSTILE}", {HOSTILE: HOSTILE})
    steps = [
        Step("thought", HOSTILE),
        Step("content", HOSTILE),
        Step("call", call=call),
        Step("result", HOSTILE, call),
        Step("call", call=ToolCall("f", HOSTILE)),
    ]
    out = shown(steps, capsys, live=True)
    allowed = re.sub(r"\x1b\[(?:[012]m|\d*A|J)|\r", "", out)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", allowed)
    assert "\x1b[2J" not in out and "<U+001B>" in out


# ---------------------------------------------------------------- the program

PROGRAM = """
import asyncio, sys
sys.path.insert(0, "tests")
from test_talk import Says, Delta, Session, Sampling
from linn import stopping
from linn.cli.chat import _converse
from linn.serve.screen import Screen
stopping.listen()
slow = [Delta(content=f"w{i} ") for i in range(10**6)]
talk = Session(Says(slow, [Delta("hm", "Done.")]), Sampling(5), seed=1)
asyncio.run(_converse(talk, Screen(), "scripted"))
print("ended")
"""


@pytest.mark.slow
def test_ctrl_c_stops_the_reply_and_not_the_program() -> None:
    root = Path(__file__).parent.parent
    pid, fd = pty.fork()
    if pid == 0:
        # Tests in the background are started with Ctrl-C ignored, and so are their children.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.environ["PYTHONPATH"] = str(root)
        os.chdir(root)
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM])
    screen = ""

    def until(text: str) -> None:
        nonlocal screen
        while text not in screen:
            # Silence would be a hang: the program writes all the time.
            assert select.select([fd], [], [], 120)[0], f"no {text!r} on the screen: {screen!r}"
            screen += os.read(fd, 4096).decode(errors="replace")

    try:
        until("Ctrl-D ends")
        until("> ")
        os.write(fd, b"Hi\n")
        until("w20 ")
        os.kill(pid, signal.SIGINT)
        # What is typed before the prompt stands belongs to nobody: a terminal may drop a Ctrl-D.
        until("[stopped]\x1b[0m\r\n> ")
        screen = ""
        os.write(fd, b"And now?\n")
        until("Done.\r\n> ")
        os.write(fd, b"\x04")
        until("ended")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)


@pytest.mark.slow
def test_what_is_piped_in_is_answered_line_by_line() -> None:
    root = Path(__file__).parent.parent
    program = PROGRAM.replace("10**6", "3")
    done = subprocess.run(
        [sys.executable, "-c", program], input="Hi\n/no-think\nAgain\n", text=True,
        capture_output=True, timeout=300, cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.stdout == "w0 w1 w2 \n[thought] hm\nDone.\nended\n"
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("text", ["/usr/bin/x: no such file", "/quit", "/exit\nnow"])
def test_what_stands_in_quotes_is_no_command(text: str, monkeypatch, capsys) -> None:
    talk = session([Delta(content="Hello.")])
    monkeypatch.setattr("sys.stdin", io.StringIO(f'"""\n{text}\n"""\n/quit\nnever\n'))
    asyncio.run(chat._converse(talk, Screen(live=False), "scripted"))
    assert [message.content for message in talk.messages] == [text, "Hello."]


def test_a_command_that_nobody_knows_is_told_the_ones_there_are() -> None:
    with pytest.raises(UserError, match=r"/no-thnk.*/no-think") as error:
        asyncio.run(chat._command("/no-thnk", session([Delta()]), Screen(live=False)))
    assert ",," not in str(error.value)
