"""Agentic repair of files in memory: tools answer in words, hidden tests grade the files at last.

Demonstrations hold what the tools would say.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from linn.domains.swe_agentic import SweAgentic
from linn.domains.swe_agentic.tiny import TOOLS, TinyTask
from linn.errors import UserError
from linn.types import Message, Prompt, Reply, ToolCall


@pytest.fixture(scope="module")
def domain() -> Iterator[SweAgentic]:
    made = SweAgentic()
    yield made
    made.close()


@pytest.fixture(scope="module")
def prompts(domain: SweAgentic) -> list[Prompt]:
    return list(itertools.islice(domain.prompts("test"), 450))


def task_of(prompt: Prompt) -> TinyTask:
    assert isinstance(prompt.hidden, TinyTask)
    return prompt.hidden


def replay(domain: SweAgentic, prompt: Prompt, turns: tuple[Message, ...]) -> list[Message]:
    """The tool turns the environment gives for the assistant turns of a conversation."""
    env = domain.env(prompt)
    found: list[Message] = []
    for turn in turns:
        if turn.role == "assistant":
            found += env.step(turn) or ()
    env.close()
    return found


@pytest.mark.slow
def test_clean_earns_one_and_faulty_nothing(domain: SweAgentic, prompts: list[Prompt]) -> None:
    assert len({p.messages[0].content for p in prompts}) == 450
    for index, prompt in enumerate(prompts[:30]):
        assert not prompt.thinking and prompt.tools == TOOLS
        clean = domain.demonstrate(prompt, random.Random(index), faulty=False)
        faulty = domain.demonstrate(prompt, random.Random(index), faulty=True)
        assert domain.verify(prompt, Reply(clean[-1].content, messages=clean)).reward == 1.0, clean
        assert domain.verify(prompt, Reply(faulty[-1].content, messages=faulty)).reward == 0.0, (
            faulty
        )
        assert sum(turn.role == "assistant" for turn in clean) <= domain.max_turns
        assert clean == domain.gold(prompt).messages
        for turns in (clean, faulty):
            assert replay(domain, prompt, turns) == [turn for turn in turns if turn.role == "tool"]


@pytest.mark.slow
def test_visible_tests_show_the_fault(domain: SweAgentic, prompts: list[Prompt]) -> None:
    for prompt in prompts[:30]:
        (answer,) = (
            domain.env(prompt).step(
                Message("assistant", "", tool_calls=(ToolCall("run_tests", {}, "c1"),))
            )
            or ()
        )
        assert (
            answer.content.startswith("1 failed: ")
            and len(answer.content) < 200
            and answer.tool_call_id == "c1"
        )


@pytest.mark.slow
def test_a_turn_without_a_call_ends_it(domain: SweAgentic, prompts: list[Prompt]) -> None:
    assert domain.env(prompts[0]).step(Message("assistant", "done")) is None
    right = domain.gold(prompts[0]).messages
    late = (Message("assistant", "wait"), *right)
    assert domain.verify(prompts[0], Reply("done", messages=late)).reward == 0.0, (
        "edits after the end do not count"
    )


MISTAKES: list[tuple[str, Mapping[str, Any] | str]] = [
    ("rm", {}),
    ("", {}),
    ("view", {}),
    ("view", {"path": 3}),
    ("view", {"path": "no.py"}),
    ("view", {"path": "/etc/passwd"}),
    ("view", {"path": "../x"}),
    ("view", "{broken"),
    ("view", {"path": "F", "more": "x"}),
    ("edit", {"path": "F", "old": "", "new": "x"}),
    ("edit", {"path": "F", "old": "zzz", "new": "x"}),
    ("edit", {"path": "F", "old": "e", "new": "x"}),
    ("edit", {"path": "F", "old": "return", "new": "return"}),
    ("edit", {"path": "F", "old": "return"}),
    ("edit", {"path": "F", "old": None, "new": []}),
    ("edit", {"path": "new.py", "old": "a", "new": "b"}),
    ("run_tests", {"path": "F"}),
    ("run_tests", "x"),
    ("edit", {"path": "F", "old": "return", "new": "x" * (1 << 20)}),
    ("submit", {}),
    ("VIEW", {"path": "F"}),
    ("view", {"path": "\0"}),
    ("view", {"path": "\ud800"}),
]


@pytest.mark.parametrize("index", range(len(MISTAKES)))
def test_mistakes_are_answered_in_words(
    index: int, domain: SweAgentic, prompts: list[Prompt]
) -> None:
    name, arguments = MISTAKES[index]
    path = task_of(prompts[0]).path
    given = (
        arguments
        if isinstance(arguments, str)
        else {k: path if v == "F" else v for k, v in arguments.items()}
    )
    turn = Message("assistant", "", tool_calls=(ToolCall(name, given),))
    (answer,) = domain.env(prompts[0]).step(turn) or ()
    assert (
        answer.role == "tool" and answer.content.startswith("error: ") and len(answer.content) < 200
    )
    assert domain.verify(prompts[0], Reply("", messages=(turn, answer))).reward == 0.0


HOSTILE = (
    "__import__('os')._exit(0)",
    "__import__('sys').exit(0)",
    "type('A', (), {'__eq__': lambda *a: True})()",
    "__import__('os').kill(-1, 9)",
    "__import__('os').fork()",
    "open('/etc/passwd').read()",
    "[0] * 2 ** 50",
    "9 ** 9 ** 9 if 0 else None",
    "print(42)",
    "0\nimport os\nos._exit(0)",
    "0\nwhile True: pass",
    "0\nraise SystemExit",
    "\0",
    "\ud800",
    "(",
    "0\nimport sys\nsys.modules.clear()",
    "__import__('gc').get_objects()",
    "(yield)",
    "1 << (1 << 22)",
    "'x' * (1 << 22)",
    "lambda: 1",
    "0\nimport atexit, os\natexit.register(os.write, 3, b'{\"value\": 1}')",
    "__import__('time').sleep(0.1)",
)


@pytest.mark.slow
def test_hostile_repairs_earn_nothing(domain: SweAgentic, prompts: list[Prompt]) -> None:
    assert len(HOSTILE) >= 20
    for prompt, new in zip(prompts, HOSTILE, strict=False):
        task = task_of(prompt)
        call = ToolCall("edit", {"path": task.path, "old": task.bug, "new": new})
        turns = (Message("assistant", "", tool_calls=(call, ToolCall("run_tests", {}))),)
        answers = domain.env(prompt).step(turns[0]) or ()
        assert answers[0].content == "ok" and "failed" in answers[1].content, (new, answers)
        answers[1].content.encode()
        assert domain.verify(prompt, Reply("done", messages=turns)).reward == 0.0, new


def test_calls_of_a_turn_are_bounded(domain: SweAgentic, prompts: list[Prompt]) -> None:
    turn = Message("assistant", "", tool_calls=(ToolCall("run_tests", {}),) * 50)
    answers = domain.env(prompts[0]).step(turn) or ()
    assert len(answers) == 50 and all("at most" in answer.content for answer in answers[4:])


def test_rows_with_files_and_tests(domain: SweAgentic) -> None:
    meta = {
        "problem_statement": "f must add 2",
        "files": {"a.py": "def f(x):\n    return x + 1\n"},
        "tests": "from a import f\n\ndef test_f():\n    assert f(1) == 3\n",
    }
    prompt = domain.from_row({"metadata": meta}, 0)
    turn = Message(
        "assistant",
        "",
        tool_calls=(ToolCall("edit", {"path": "a.py", "old": "x + 1", "new": "x + 2"}),),
    )
    assert domain.verify(prompt, Reply("", messages=(turn,))).reward == 1.0
    assert domain.verify(prompt, Reply("", messages=(turn,))).metrics["unreliable"] == 1, (
        "it passed, but never said that it was done"
    )
    done = Message("assistant", "done")
    assert domain.verify(prompt, Reply("done", messages=(turn, done))).metrics["unreliable"] == 0
    assert (
        domain.verify(prompt, Reply("done", messages=(turn, done), finished=False)).metrics[
            "unreliable"
        ]
        == 1
    )
    for new, cut in (
        ("[0] * 10**10", 1),
        ("x", 0),
    ):  # more memory than the tests may take; plainly wrong
        turn = Message(
            "assistant",
            "",
            tool_calls=(ToolCall("edit", {"path": "a.py", "old": "x + 1", "new": new}),),
        )
        verdict = domain.verify(prompt, Reply("done", messages=(turn, done)))
        assert verdict.reward == 0.0 and verdict.metrics["unreliable"] == cut, (new, verdict)
    assert domain.verify(prompt, Reply("")).reward == 0.0
    for broken in (
        {},
        {"problem_statement": "x", "instance_dict": "{}"},
        {**meta, "files": {"../a": ""}},
        {**meta, "tests": None},
    ):
        with pytest.raises(UserError, match="swe_agentic row 2"):
            domain.from_row({"metadata": broken}, 2)
