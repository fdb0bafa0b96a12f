"""Reasoning with Python: state, the limit of calls, the limit of a call, only the answer earns."""

from dataclasses import replace

import pytest
from support.codec import END
from support.solving import SUM, one, solving

from linn.domains.arithmetic import Arithmetic
from linn.solve.tir import TirRules, WithPython, tir


def call(code: str) -> str:
    name = "stateful_python_code_exec"
    return (
        f"<tool_call>\n<function={name}>\n<parameter=code>\n{code}\n</parameter>\n</function>\n"
        f"</tool_call>{END}"
    )


def computed(rules: TirRules, turns, tmp_path, **how):
    """A solve whose every conversation says `turns` in order, and what the model read last."""
    read = []

    def reply(asked: str, seed: int) -> str:
        read.append(asked)
        return turns[asked.count("<tool_response>")]

    domain = WithPython(Arithmetic(), rules)
    task = one(tir, domain.equipped(SUM), rules)
    (solved,), _ = solving([task], reply, tmp_path, domains=[domain], **how)
    return solved, read


def test_state_lasts_within_a_conversation_and_not_beyond_it(tmp_path):
    turns = [call("x = 30 if 'x' not in dir() else 0"), call("x + 12"), "42" + END]
    solved, read = computed(TirRules(2), turns, tmp_path)
    assert solved.result.score == 1.0
    assert solved.result.counts == {"replies": 2, "answers": 1, "votes": 2.0, "python_calls": 4}
    assert all("<tool_response>\n42\n</tool_response>" in asked for asked in read[-2:])
    assert "You may run Python" in read[0]


def test_what_python_prints_earns_nothing(tmp_path):
    turns = [call("print(42)"), "41" + END]
    solved, _ = computed(TirRules(1), turns, tmp_path)
    assert (solved.result.answer, solved.result.score) == ("41", 0.0)


def test_calls_beyond_the_limit_are_told_so_and_the_conversation_ends(tmp_path):
    turns = [call("1"), call("2"), call("3"), call("4")]
    solved, read = computed(TirRules(1, calls=2), turns, tmp_path)
    assert solved.result.answer == "" and solved.result.counts["python_calls"] == 3
    assert len(read) == 3, "two calls, and a last turn"


def test_a_call_that_overruns_is_ended_and_costs_the_state_alone(tmp_path):
    turns = [call("x = 1\nwhile True: pass"), call("x"), "42" + END]
    solved, read = computed(TirRules(1, seconds=0.5), turns, tmp_path)
    assert "did not end within 0.5 seconds" in read[1] and "NameError" in read[2]
    assert solved.result.score == 1.0


def test_a_conversation_that_outgrows_its_limit_is_over(tmp_path):
    turns = [call("print('long' * 200)"), "42" + END]
    solved, read = computed(TirRules(1, max_sequence=900), turns, tmp_path)
    assert len(read) == 1 and solved.result.answer == ""


@pytest.mark.slow
def test_a_kill_between_batches_changes_nothing(tmp_path):
    rules = TirRules(4)
    domain = WithPython(Arithmetic(), rules)

    def reply(asked: str, seed: int) -> str:
        return call(f"{seed % 3} + 40") if "<tool_response>" not in asked else asked[-60:] + END

    def tasks():
        return [replace(one(tir, domain.equipped(SUM), rules), name=f"t{k}") for k in range(2)]

    # A conversation's turns are batches of the sampler; what is recorded is whole conversations.
    (first, _), sampler = solving(tasks(), reply, tmp_path / "a", domains=[domain], at_once=2)
    assert len(sampler.batches) == 4
    (again, _), sampler = solving(tasks(), reply, tmp_path / "a", domains=[domain], at_once=2)
    assert not sampler.batches and again.result == first.result


@pytest.mark.parametrize("rules", [{"calls": 101}, {"calls": 0}, {"seconds": 0}, {"samples": 0}])
def test_rules_have_their_limits(rules):
    with pytest.raises(ValueError, match=next(iter(rules))):
        TirRules(**rules)
