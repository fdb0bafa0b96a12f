"""Conversations over repair tasks: what earns, what is not trained, how tools answer mistakes."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.scripted import Scripted
from support.toy_package import (
    DONE,
    REPAIR,
    held,
    row_of,
    use,
)

import linn
from linn.chat.codec import Codec
from linn.data.rows import write_rows
from linn.domains.swe_agentic import (
    SweAgentic,
    episode,
    run_tests,
)
from linn.domains.swe_agentic.suite import Suite
from linn.domains.swe_agentic.tools import LONGEST_ANSWER
from linn.errors import UserError
from linn.play.credit import samples_of
from linn.play.rollout import Job, play
from linn.types import Group, Message, Prompt, Reply, Sampling, ToolCall, Verdict

pytest_plugins = ["support.toy_package"]
pytestmark = pytest.mark.slow


def test_a_repair_earns_and_limits_make_it_unreliable(domain: SweAgentic, prompt: Prompt) -> None:
    verdict, answers = held(
        domain, prompt, use("view", path="toy/core.py"), REPAIR, use("run_tests"), DONE
    )
    assert verdict.reward == 1.0 and verdict.metrics == {
        "changed": 1.0,
        "fixed": 1.0,
        "unreliable": 0.0,
    }
    assert "result -= number" in answers[0] and answers[1] == "ok" and "passed" in answers[2]
    assert held(domain, prompt, REPAIR)[0].metrics["unreliable"] == 1.0, (
        "it never said that it was done"
    )
    assert held(domain, prompt, REPAIR, DONE, finished=False)[0].metrics["unreliable"] == 1.0
    wrong = held(
        domain,
        prompt,
        use("replace", path="toy/core.py", old="result -= number", new="result = number"),
        DONE,
    )[0]
    assert (
        wrong.reward == 0.0 and wrong.metrics["unreliable"] == 0.0 and wrong.metrics["fixed"] == 0.0
    )


def test_a_conversation_is_held_again_where_its_end_is_not_known(
    domain: SweAgentic, prompt: Prompt
) -> None:
    shell = use("shell", command="sed -i 's/result -= /result += /' toy/core.py")
    assert (
        domain.verify(prompt, Reply("done", messages=(shell, Message("tool", ""), DONE))).reward
        == 1.0
    )
    assert domain.verify(prompt, Reply("done", messages=(DONE, shell))).reward == 0.0, (
        "nothing after the end counts"
    )


def test_a_removed_module_stays_removed(domain: SweAgentic, prompt: Prompt) -> None:
    for turns in (
        (REPAIR, use("shell", command="rm toy/text.py"), DONE),
        (use("shell", command="rm -rf toy"), DONE),
    ):
        verdict, _ = held(domain, prompt, *turns)
        assert verdict.reward == 0.0
        assert domain.verify(prompt, Reply("done", messages=turns)) == verdict, (
            "held again, the same comes out"
        )


def test_a_repair_in_a_new_module_counts(domain: SweAgentic, prompt: Prompt) -> None:
    turns = (
        use("shell", command="sed 's/-=/+=/' toy/core.py > toy/better.py"),
        use("shell", command="echo 'from toy.better import *' > toy/core.py"),
        DONE,
    )
    assert held(domain, prompt, *turns)[0].reward == 1.0


def test_rows_hold_no_demonstrations(domain: SweAgentic, prompt: Prompt) -> None:

    with pytest.raises(UserError, match="no demonstrations"):
        domain.demonstrate(prompt, random.Random(0), faulty=False)


def test_a_repair_that_breaks_something_else_earns_nothing(
    domain: SweAgentic, prompt: Prompt
) -> None:
    verdict, _ = held(
        domain,
        prompt,
        REPAIR,
        use("replace", path="toy/core.py", old="value < low", new="value <= low + 5"),
        DONE,
    )
    assert (
        verdict.reward == 0.0
        and "passing tests fail now" in verdict.note
        and verdict.metrics["fixed"] == 1.0
    )


def test_a_loop_in_the_tests_is_not_trained(
    domain: SweAgentic, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        run_tests.run, "__defaults__", (replace(run_tests.LIMITS, cpu=2.0, wall=10.0),)
    )
    verdict, _ = held(
        domain,
        prompt,
        use("replace", path="toy/core.py", old="result -= number", new="while True: pass"),
        DONE,
    )
    assert (
        verdict.reward == 0.0 and verdict.metrics["unreliable"] == 1.0 and "limit" in verdict.note
    )


def call(name: str, **arguments: str) -> str:
    """An assistant turn as a model writes it."""
    inner = "".join(
        f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments.items()
    )
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call><|im_end|>"


def test_rewards_that_cannot_be_relied_on_train_nothing(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the model's tokens to the mask, at every limit.

    Limits of turns, of a turn's and the conversation's tokens, of time, and of the hidden tests.
    """
    write_rows(tmp_path / "rows.jsonl", [row_of(suite)])
    domain = SweAgentic("full", tmp_path / "rows.jsonl", max_turns=3)
    prompt = next(p for split in ("train", "validation", "test") for p in domain.prompts(split))  # type: ignore[arg-type]
    codec = Codec.load(Path(linn.__file__).parent / "bases" / "tiny-0")
    repair = call("replace", path="toy/core.py", old="result -= number", new="result += number")
    looped = call("replace", path="toy/core.py", old="result -= number", new="while True: pass")
    look, done = call("view", path="toy/core.py"), "done<|im_end|>"

    def played(*turns: str, max_tokens: int = 300, **limits: Any) -> tuple[float, str, bool]:
        """(reward, status, whether anything of it is trained) of a conversation.

        It stands in a group beside a sibling with another reward.
        """
        sampler = Scripted(codec, lambda text, seed: turns[text.count("<tool_response>")])
        job = Job(prompt, 0, Sampling(max_tokens), 0, **limits)
        (rollout,) = asyncio.run(play([job], {domain.name: domain}, sampler, codec))
        sibling = replace(rollout, verdict=Verdict(0.5))
        group = Group((rollout, sibling), (rollout.verdict.reward, 0.5))
        (sample, _) = samples_of([group])
        assert rollout.prompt.thinking is False and "<think></think>" in rollout.turns[0].text
        return rollout.verdict.reward, rollout.status, any(sample.mask)

    assert played(repair, done) == (1.0, "ok", True)
    assert played(look, done) == (0.0, "ok", True)
    assert played(look, look, look, done) == (0.0, "ok", True), (
        "a repair was not reached: that is reliable"
    )
    assert played(look, look, repair, done) == (1.0, "ok", False), "the limit of turns"
    assert played(repair, look, done, max_turns=2) == (1.0, "ok", False), (
        "the stage's limit of turns"
    )
    assert played(repair, "word " * 400 + done) == (1.0, "truncated", False), "a turn's tokens"
    assert played(repair, look, done, max_sequence=len(codec.prompt_ids(prompt)) + 150) == (
        1.0,
        "truncated",
        False,
    ), "the conversation's tokens"
    monkeypatch.setattr(
        run_tests.run, "__defaults__", (replace(run_tests.LIMITS, cpu=2.0, wall=10.0),)
    )
    assert played(looped, done) == (0.0, "ok", False), "the hidden tests ended at a limit"
    monkeypatch.setattr(run_tests.run, "__defaults__", (replace(run_tests.LIMITS, memory=8 << 20),))
    assert played(repair, done) == (0.0, "ok", False), "the hidden tests took too much memory"
    monkeypatch.undo()
    for turns, wall in (((repair, done), 0.0), ((look, done), -1.0)):
        monkeypatch.setattr(episode, "WALL_SECONDS", wall)
        assert played(*turns) == (0.0, "ok", False), "the conversation's time"


MISTAKES: list[tuple[str, Any]] = [
    ("rm", {}),
    ("", {}),
    ("view", {}),
    ("view", {"path": 3}),
    ("view", "{broken"),
    ("view", {"path": "absent"}),
    ("view", {"path": "/etc/passwd"}),
    ("view", {"path": "../../etc/passwd"}),
    ("view", {"path": "toy"}),
    ("view", {"path": "toy/core.py", "start": 900}),
    ("view", {"path": "toy/core.py", "start": "1"}),
    ("view", {"path": "\0"}),
    ("view", {"path": "\ud800"}),
    ("view", {"path": "toy/core.py", "more": 1}),
    ("list", {"path": "absent"}),
    ("search", {"pattern": "(", "glob": "*.py"}),
    ("search", {"pattern": "x", "glob": "absent*"}),
    ("search", {"pattern": "\0"}),
    ("replace", {"path": "toy/core.py", "old": "", "new": "x"}),
    ("replace", {"path": "toy/core.py", "old": "return", "new": "x"}),
    ("replace", {"path": "toy/core.py", "old": "def total", "new": "x" * (1 << 20)}),
    ("insert", {"path": "toy/core.py", "line": 9999, "text": "x"}),
    ("insert", {"path": "toy/core.py", "line": True, "text": "x"}),
    ("create", {"path": "toy/core.py", "text": ""}),
    ("create", {"path": "../x", "text": ""}),
    ("create", {"path": "toy/core.py/x", "text": ""}),
    ("shell", {"command": "a\0b"}),
    ("shell", {"command": "x" * (1 << 20)}),
    ("__init__", {}),
    ("_shell", {"command": "ls"}),
]


def test_mistakes_are_answered_in_words(domain: SweAgentic, prompt: Prompt) -> None:
    env = domain.env(prompt)
    try:
        for name, arguments in MISTAKES:
            (answer,) = (
                env.step(Message("assistant", "", tool_calls=(ToolCall(name, arguments, "c"),)))
                or ()
            )
            assert (
                answer.content.startswith("error: ")
                and len(answer.content) < 400
                and answer.tool_call_id == "c"
            ), (name, answer)
            answer.content.encode()
    finally:
        env.close()
    assert (
        domain.verify(prompt, Reply("", messages=(use("view"), Message("tool", "")))).reward == 0.0
    )


def test_tools_answer_in_bounds(domain: SweAgentic, prompt: Prompt) -> None:
    env = domain.env(prompt)
    try:
        for call in (
            use("shell", command="yes | head -c 3000000"),
            use("search", pattern="."),
            use("view", path="toy/core.py", start=-5, end=10**9),
        ):
            (answer,) = env.step(call) or ()
            assert 10 < len(answer.content) <= LONGEST_ANSWER + 100
        many = env.step(Message("assistant", "", tool_calls=(ToolCall("list", {}),) * 30)) or ()
        assert len(many) == 30 and all(
            "at most" in a.content for a in many[episode.CALLS_PER_TURN :]
        )
        answers = [
            (env.step(call) or (DONE,))[0].content
            for call in (
                use("insert", path="toy/core.py", line=0, text="# first"),
                use("view", path="toy/core.py", start=1, end=1),
                use("create", path="new/a.py", text="1"),
                use("list", path="new"),
                use("search", pattern="^# fir(st)", glob="core.py"),
                use("shell", command="python3 -c 'import toy; print(toy.total([2]))'; exit 4"),
            )
        ]
        assert (
            answers[0] == "ok"
            and answers[1].startswith("1\t# first\n")
            and answers[3] == "new/a.py"
            and answers[4] == "toy/core.py:1:# first"
        )
        assert answers[5] == "-2\n[exit code 4]"
    finally:
        env.close()
