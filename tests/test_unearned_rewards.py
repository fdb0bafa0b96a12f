"""Replies that once earned without the work: copies, the only number, a look at the source."""

import itertools
import re

import pytest

from linn.domains.longctx import LongContext
from linn.domains.proof import derivations
from linn.domains.swe_agentless import SweAgentless, written_tests
from linn.domains.swe_agentless.tasks import WriteTestTask
from linn.domains.workplace import Workplace
from linn.types import Message, Reply, ToolCall


@pytest.mark.parametrize(
    ("chain", "score"),
    [
        ("x = y + 3 = 2 * z + 3 = 2 * 4 + 3 = 8 + 3 = 11", 1),
        ("x = y + 3 = 2 * z + 3 = 8 + 3 = 11", 0.5),
        ("x = y + 3 = 11", 0),
        ("x = y + 3 = 2 * z + 3 = 11", 0),
        ("x = 8 + 3 = 11", 0),
        ("x = 11", 0),
    ],
)
def test_a_proof_earns_half_for_one_step_left_out_and_nothing_for_a_copy(
    chain: str, score: float
) -> None:
    given = {"x": "y + 3", "y": "2 * z", "z": "4"}
    assert derivations.grade(chain, given, ("x", "11"))[0] == score


def test_a_proof_of_a_short_problem_earns_nothing_for_what_the_problem_says() -> None:
    given = {"x": "y + 3", "y": "4"}
    assert derivations.grade("x = y + 3 = 7", given, ("x", "7"))[0] == 0
    assert derivations.grade("x = 4 + 3 = 7", given, ("x", "7"))[0] == 0.5


def test_the_only_number_of_a_needles_text_is_not_the_answer() -> None:
    for prompt in itertools.islice(
        LongContext(level="full", tokens=900, task="needle").prompts("test"), 8
    ):
        numbers = re.findall(r"\d{7}", prompt.messages[0].content)
        assert len(set(numbers)) == len(numbers) >= 4
        assert len({len(number) for number in numbers}) == 1


def test_a_number_in_an_empty_cell_of_the_office_is_a_change() -> None:
    domain = Workplace(level="full")
    for prompt in itertools.islice(domain.prompts("test"), 200):
        gold = domain.gold(prompt)
        customers = [
            row
            for row in domain.env(prompt).office.customers.records()
            if row["customer_phone"] is None
        ]
        if "customer" in str(gold.messages) or not customers:
            continue
        arguments = {
            "customer_id": customers[0]["customer_id"],
            "field": "customer_phone",
            "new_value": 5,
        }
        extra = ToolCall("customer_relationship_manager_update_customer", arguments)
        more = Message("assistant", "", tool_calls=(extra,))
        reply = Reply(gold.text, messages=(more, *gold.messages))
        assert domain.verify(prompt, gold).reward == 1.0
        assert domain.verify(prompt, reply).reward == 0.0
        return
    raise AssertionError("no office with an empty cell")


READS_SOURCE = (
    "import json\nimport {module}\ndef test_x():\n    seen = {open}({path!r}).read()\n"
    "    assert {bug!r} not in seen\n"
)


@pytest.mark.parametrize(
    "opener",
    [
        "json.codecs.open",
        "json.codecs.builtins.open",
        "__import__('operator').attrgetter('__globals__')(json.loads)['codecs'].open",
    ],
)
def test_a_written_test_cannot_reach_the_source(opener: str) -> None:
    domain = SweAgentless(task="test")
    prompt = next(iter(domain.prompts("test")))
    task = prompt.hidden
    assert isinstance(task, WriteTestTask) and task.toy is not None
    path = task.toy.path
    test = READS_SOURCE.format(
        module=path.removesuffix(".py"), open=opener, path=path, bug=f"return {task.toy.bug}"
    )
    # Without the reader's list of names too: the text is nowhere.
    verdict = written_tests.grade(domain.sandbox, test, task.repository, task.after)
    assert verdict.reward == 0.0, verdict
    assert domain.verify(prompt, domain.gold(prompt)).reward == 1.0
    domain.close()
