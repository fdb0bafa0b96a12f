"""A second suite of attacks, of kinds that the first does not hold: none is rewarded.

Programs run through the domain or the sandbox in each kind of isolation. `-q` prints the count.
"""

from __future__ import annotations

import contextlib
import dis
import itertools
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.attacks import programs, replies
from support.hostile.leavers import LOOK
from support.users import run_as_nobody

from bench import hostile as measured
from linn.domains.code import Code
from linn.domains.code.unit_tests import Budget, CallTests, PrintedTests
from linn.domains.genrm import GenRM
from linn.domains.instruct import Instruct
from linn.domains.longctx import LongContext
from linn.domains.math import Math
from linn.domains.mcqa import Choice, MultipleChoice
from linn.domains.proof import Proof, derivations
from linn.domains.structured import DocumentTask, Structured
from linn.domains.swe_agentic import SweAgentic
from linn.domains.swe_agentless import SweAgentless, written_tests
from linn.domains.workplace import Workplace
from linn.sandbox import Limits, Sandbox, groups, isolation
from linn.types import Message, Prompt, Reply, ToolCall

KINDS = isolation.kinds()
LIMITS = Limits(cpu=0.3, wall=0.8)
RIGHT = "def f(x):\n    return 14 * x  # {}"
TEST = (
    "import math, random\n"
    "def check(c):\n"
    "    assert c(1) == 10\n"
    "    try: c(2)\n"
    "    except AssertionError: pass\n"
    "    assert abs(c(3) - 30) < 1e-6 and math.isclose(c(4), 40)\n"
    "    assert all(c(x) == 10 * x for x in range(5, 9))\n"
)
SWEPT = {**programs.LEAVERS, **programs.FORGERS, **programs.OVERRUNNERS}


def asked(domain: str, hidden: Any) -> Prompt:
    return Prompt(domain, "x", (Message("user", "x"),), hidden=hidden)


# ------------------------------------------------------------ programs


def rewarded_and_touched(kind: str) -> tuple[list[str], list[str]]:
    """The programs that earned, and those after which a right program did not, or saw another
    world."""
    rewarded, touched = [], []
    code = Code(servers=1)
    code.sandbox.close()
    code.sandbox = Sandbox(LIMITS, servers=1, kind=kind)
    tests = CallTests("f", [[3]], [42])
    # What a program sees is asked of a sandbox of its own, whose limits no attack needs.
    try:
        seen = code.sandbox.call(LOOK, "f", [[1]])[0].value
        for number, (name, (_, text)) in enumerate(SWEPT.items()):
            program = text if "def f(x)" in text else f"{text}\ndef f(x):\n    return 41\n"
            verdict = code.verify(asked("code", tests), Reply(f"```python\n{program}\n```"))
            if verdict.reward:
                rewarded.append(name)
            right = code.verify(
                asked("code", tests), Reply(f"```python\n{RIGHT.format(number)}\n```")
            )
            look = code.sandbox.call(f"{LOOK}# {number}", "f", [[1]])[0]
            if right.reward != 1.0 or look.value != seen:
                touched.append(name)
    finally:
        code.close()
    return rewarded, touched


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_programs_earn_nothing_and_touch_no_successor(kind: str) -> None:
    assert rewarded_and_touched(kind) == ([], [])


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_programs_of_a_plain_user(kind: str) -> None:
    code = (
        "import json, sys, test_attacks as tests\n"
        "print(json.dumps(tests.rewarded_and_touched(sys.argv[1])))"
    )
    assert json.loads(run_as_nobody(code, kind)) == [[], []]


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_programs_pass_no_check(kind: str) -> None:
    box = Sandbox(LIMITS, servers=1, kind=kind)
    with contextlib.closing(box):
        passed = [
            name
            for name, (_, text) in programs.CHECKS.items()
            if box.check(text, TEST, "g").status == "ok"
        ]
        right = box.check("def g(x):\n    return 10 * x", TEST, "g")
    assert not passed and right.status == "ok"


@pytest.mark.long
@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize("kind", KINDS)
def test_limits_hold_within_a_fifth(kind: str, user: str) -> None:
    group = groups.new_group()
    if group is None:
        pytest.skip("nothing counts what is used")
    group.remove()

    # pytest's own folders are shut to other users whenever another pytest starts.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        paths = []
        for name, (what, text) in programs.OVERRUNNERS.items():
            # Without mounts a disk is looked at now and then: docs/sandbox.md gives the numbers.
            if what == "disk" and user != "root":
                continue
            paths.append(Path(folder, f"{name.replace(' ', '-')}.py"))
            paths[-1].write_text(text)
            paths[-1].chmod(0o644)
        check_limits(kind, user, paths)


def check_limits(kind: str, user: str, paths: list[Path]) -> None:
    """Assert that no program passed a limit, left a thing or touched the next."""
    # The bench counts the sandbox's own processes, which look every few milliseconds for as long
    # as a program runs, and the next program too.
    for row, (memory, _, seconds) in measured.measure(kind, user, paths):
        limits = measured.SCRIPT if row.how == "script" else measured.COMMAND
        own = 1.0 + 0.05 * row.seconds
        assert memory < 1.2 * (limits.memory >> 20) + 16, row
        assert seconds < 1.2 * limits.cpu + own, row
        assert row.left == [] and row.successor == "right", row


@pytest.mark.parametrize(
    ("name", "expected", "printed"),
    [
        ("near for its size", "1000000007", "1000000006.5"),
        ("a fraction of a large count", "123456789012", "123456789000.25"),
        ("underscores that split", "1000", "1_00"),
        ("a yes for a no", "NO", "YES NO"),
        ("both verdicts", "NO", "YES\nNO"),
        ("infinity", "5", "inf"),
        ("everything", "7", "\n".join(map(str, range(10)))),
        ("an invisible digit", "7", "\u200b7"),
    ],
)
def test_printed_guesses_earn_nothing(name: str, expected: str, printed: str) -> None:
    tests = PrintedTests(["x"], [expected], Budget(1.0, 256), "python")
    with contextlib.closing(Code(servers=1)) as code:
        reply = Reply(f"```python\nprint({printed!r})\n```")
        assert code.verify(asked("code", tests), reply).reward == 0.0


@pytest.mark.parametrize("value", ["10**9 + 0.5", "10**9 - 4000.25", "float('nan')", "True"])
def test_returned_guesses_earn_nothing(value: str) -> None:
    tests = CallTests("f", [[3]], [10**9])
    with contextlib.closing(Code(servers=1)) as code:
        reply = Reply(f"def f(x):\n    return {value}")
        assert code.verify(asked("code", tests), reply).reward == 0.0


# ------------------------------------------------------------ tests and repairs


def _test_reply(text: str) -> Reply:
    return Reply(f"<solution>\n```python\n{text}\n```\n</solution>")


WRITTEN = {
    "a name of the code by dots": (
        "import operator\nimport {module}\n"
        "ask = operator.methodcaller('__getattr__', '{name}.__code__.co_code.hex')({module})\n"
        "def test_x():\n    assert ask() == {code!r}\n"
    ),
    "the code by another module": (
        "import operator\nimport {module}\n"
        "ask = operator.attrgetter('_stand_in')({module})('builtins:eval')\n"
        "def test_x():\n    assert ask({look!r}) == {steps!r}\n"
    ),
    "the garbage": (
        "import operator\nimport {module}\n"
        "ask = operator.attrgetter('_stand_in')({module})('gc:get_count')\n"
        "def test_x():\n    assert ask()\n"
    ),
    "text that is evaluated": (
        "import typing\nimport {module}\n"
        "def g(x: \"__import__('time').sleep(0) or int\"): pass\n"
        "def test_x():\n    typing.get_type_hints(g)\n    assert False\n"
    ),
    "a verdict of its own": (
        "import typing\nimport {module}\n"
        "def g(x: \"__import__('os').write(3, b'{{}}') and __import__('os')._exit(0)\"): pass\n"
        "def test_x():\n    typing.get_type_hints(g)\n"
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_written_tests_that_do_not_call_earn_nothing(name: str) -> None:
    domain = SweAgentless(task="test")
    with contextlib.closing(domain):
        for prompt in itertools.islice(domain.prompts("test"), 2):
            task = prompt.hidden
            path = task.toy.path
            faulty, repaired = task.repository[path], task.after[path]
            functions = re.findall(r"def (\w+)\(\w+\):\n    return (.*)", faulty)
            called = next(name for name, body in functions if body == task.toy.bug)

            # Disguises come before these steps, which are the same in each.
            scope: dict[str, Any] = {}
            exec(repaired, scope)
            code = scope[called].__code__
            steps = [(step.opname, step.argrepr) for step in dis.get_instructions(code)][1:]
            module = path.removesuffix(".py")
            look = (
                f"repr([(i.opname, i.argrepr) for i in __import__('dis').get_instructions("
                f"__import__('{module}').{called})][-{len(steps)}:])"
            )
            text = WRITTEN[name].format(
                module=module, name=called, code=code.co_code.hex(), look=look, steps=repr(steps)
            )
            assert domain.verify(prompt, _test_reply(text)).reward == 0.0
            assert domain.verify(prompt, domain.gold(prompt)).reward == 1.0


def test_no_clock_can_follow_the_order_of_a_tests_runs() -> None:
    """Passing at one time and failing at another once earned: all runs on the repair came first."""
    orders: Counter[tuple[bool, ...]] = Counter()
    for number in range(700):
        runs = written_tests._order_of_runs(f"# {number}", {"core.py": "x = 1\n"})
        assert sorted(runs) == [(repaired, at) for repaired in (False, True) for at in range(4)]
        orders[tuple(repaired for repaired, _ in runs)] += 1
    # Of 70 orders each comes about ten times.
    assert len(orders) > 60 and max(orders.values()) < 30


def test_only_what_the_files_define_answers_a_test_of_unknown_origin() -> None:
    files = {"core.py": "import os\ndef f(x):\n    return x\n", "a/b.py": "def g(): return 3\n"}
    asks = {
        "core": ["f.__code__.co_code", "f.__name__.upper", "os.getcwd", "__name__", "_x", "f."],
        "builtins": ["eval"],
        "os": ["getcwd"],
        "linn": ["x"],
    }
    with contextlib.closing(Sandbox(LIMITS, servers=1)) as box:
        for module, names in asks.items():
            for asked_for in names:
                test = (
                    "import core\nimport operator\ndef test_x():\n"
                    f"    operator.attrgetter('_stand_in')(core)('{module}:{asked_for}')()\n"
                )
                outcome = box.check_files(files, test, ["operator"])
                assert outcome.status == "error", (module, asked_for)
                assert "not for a test" in outcome.error or "no attribute" in outcome.error
        fine = "import core\nfrom a import b\ndef test_x():\n    assert core.f(2) + b.g() == 5\n"
        assert box.check_files(files, fine, []).status == "ok"


REPAIRS = {
    "an answer to all": "type('A', (int,), {'__eq__': lambda a, b: True})()",
    "a look at the caller": "__import__('sys')._getframe(1).f_locals.get('value')",
    "the arguments of all calls": "__import__('sys')._getframe(1).f_locals['job']['calls']",
    "an early end": "__import__('os')._exit(0)",
    "its own line": "__import__('os').write(3, b'{\"value\": true}\\n') and None",
    "a wrapper": "(lambda f: f)(lambda *a: None)",
    "a memory of others": "vars(__import__('builtins')).setdefault('left', [])",
    "nothing, given twice": "None or None",
}


@pytest.mark.parametrize("name", REPAIRS)
def test_repairs_that_bend_the_run_earn_nothing(name: str) -> None:
    with contextlib.closing(SweAgentic()) as domain:
        prompt = next(iter(domain.prompts("test")))
        task = prompt.hidden
        edit = ToolCall("edit", {"path": task.path, "old": task.bug, "new": REPAIRS[name]})
        others = [
            ToolCall("edit", {"path": "conftest.py", "old": "", "new": "x"}),
            ToolCall("edit", {"path": f"./{task.path}", "old": task.bug, "new": task.repair}),
            ToolCall("edit", {"path": f"{task.path}\0", "old": task.bug, "new": task.repair}),
            ToolCall("view", {"path": "/proc/self/environ"}),
        ]
        assert domain.verify(prompt, replies.turns(edit, *others)).reward == 0.0


def edit_of(path: str, old: str, new: str) -> str:
    return f"```python\n### {path}\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n```"


@pytest.mark.parametrize(
    "path",
    ["math.py", "conftest.py", "sitecustomize.py", "../{path}", "/{path}", "{path}/", "./{path}",
     "{path}\u200b", "a/../{path}", "{path} "],
)  # fmt: skip
def test_edits_of_other_files_earn_nothing(path: str) -> None:
    with contextlib.closing(SweAgentless()) as domain:
        prompt = next(iter(domain.prompts("test")))
        toy = prompt.hidden.toy
        line = f"    return {toy.bug}"
        block = edit_of(path.format(path=toy.path), line, f"    return {toy.body}")
        reply = Reply(f"<solution>\n{block}\n</solution>")
        assert domain.verify(prompt, reply).reward == 0.0


# ------------------------------------------------------------ replies


@pytest.fixture(scope="module")
def mathematics() -> Iterator[Math]:
    domain = Math()
    yield domain
    domain.close()


@pytest.mark.parametrize("mode", ["any", "boxed"])
def test_boxes_earn_nothing(mathematics: Math, mode: str) -> None:
    row = {"question": "q", "expected_answer": "14", "grading_mode": mode}
    prompt = mathematics.from_row(row, 0)
    earned = [
        name
        for name, (kind, text) in replies.MATH.items()
        if kind != "cost" and mathematics.verify(prompt, Reply(text)).reward
    ]
    assert not earned
    for text in (r"\boxed{14}", r"\boxed{x = 14}", r"\boxed{14 \text{ cm}}"):
        assert mathematics.verify(prompt, Reply(text)).reward == 1.0


@pytest.mark.slow
def test_boxes_that_cost_earn_nothing(mathematics: Math) -> None:
    row = {"question": "q", "expected_answer": "14", "grading_mode": "boxed"}
    prompt = mathematics.from_row(row, 0)
    for kind, text in replies.MATH.values():
        if kind == "cost":
            assert mathematics.verify(prompt, Reply(text)).reward == 0.0


@pytest.mark.parametrize(
    "box", [r"2 \cdot 7 = 14", r"x = \frac{28}{2} = 14", r"n \equiv 14 \pmod{15}"]
)
def test_chains_that_hold_still_earn(mathematics: Math, box: str) -> None:
    prompt = mathematics.from_row({"question": "q", "expected_answer": "14"}, 0)
    assert mathematics.verify(prompt, Reply(f"\\boxed{{{box}}}")).reward == 1.0


@pytest.mark.parametrize("name", replies.INSTRUCT)
def test_replies_to_instructions_earn_nothing(name: str) -> None:
    _, instruction, arguments, text = replies.INSTRUCT[name]
    row = {"prompt": "q", "instruction_id_list": [instruction], "kwargs": [arguments]}
    domain = Instruct()
    assert domain.verify(domain.from_row(row, 0), Reply(text)).reward == 0.0


@pytest.mark.slow
def test_documents_earn_nothing() -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    }
    with contextlib.closing(Structured()) as domain:
        earned = []
        for name, (_, kind, text) in replies.STRUCTURED.items():
            task = DocumentTask(json.dumps(schema), kind)
            if domain.verify(asked("structured", task), Reply(text)).reward:
                earned.append(name)
    assert not earned


@pytest.mark.parametrize("mode", ["strict_single_letter_boxed", "lenient_boxed"])
@pytest.mark.parametrize("name", replies.HEDGES)
def test_hedges_name_no_letter(name: str, mode: Any) -> None:
    options = {"A": "otter", "B": "apple", "C": "blue", "D": "hammer"}
    domain = MultipleChoice()
    for letter in options:
        prompt = asked("mcqa", Choice(options, letter, mode))
        assert domain.verify(prompt, Reply(replies.HEDGES[name])).reward == 0.0, letter


@pytest.mark.parametrize("name", replies.GENRM)
def test_verdicts_nobody_can_read_earn_nothing(name: str) -> None:
    domain = GenRM()
    prompt = next(iter(domain.prompts("test")))
    reply = Reply(replies.GENRM[name])
    assert domain.verify(prompt, reply).reward == 0.0
    assert domain.judge(prompt, [reply])[0].reward == -domain.c1


@pytest.mark.parametrize("name", replies.PROOFS)
def test_derivations_of_nothing_earn_nothing(name: str) -> None:
    for prompt in itertools.islice(Proof().prompts("test"), 4):
        problem = prompt.hidden
        left, right = problem.goal
        text = replies.PROOFS[name].format(x=left, r=right)
        assert derivations.grade(text, problem.given, problem.goal)[0] == 0.0
        reply = Reply(f"## Solution\n{text}\n## Self Evaluation\n\\boxed{{1}}")
        assert Proof().verify(prompt, reply).reward == 0.0


@pytest.mark.parametrize("separator", [" ", "\n", ", ", " and ", "\u200b", "; "])
def test_a_copy_of_the_context_earns_nothing(separator: str) -> None:
    for domain in (LongContext(), LongContext(level="full", tokens=700)):
        for prompt in itertools.islice(domain.prompts("test"), 4):
            context = prompt.messages[-1].content
            for text in (context, separator.join(re.findall(r"\d+", context))):
                assert domain.verify(prompt, Reply(text)).reward == 0.0


@pytest.mark.parametrize("separator", [", ", " ", "\n", " or "])
def test_a_list_of_all_numbers_is_no_needle(separator: str) -> None:
    numbers = [str(7_000_000 + 37_123 * number) for number in range(40)]
    context = " ".join(f"The number of w{at} is {number}." for at, number in enumerate(numbers))
    row = {"input": f"{context} Which is w3's?", "outputs": [numbers[3]], "subset": "niah"}
    domain = LongContext()
    prompt = domain.from_row(row, 0)
    assert domain.verify(prompt, Reply(separator.join(numbers))).reward == 0.0
    assert domain.verify(prompt, Reply(f"Of w3 it is {numbers[3]}.")).reward == 1.0


def office_attacks(calls: list[ToolCall]) -> dict[str, list[ToolCall]]:
    """Calls that are nearly those wanted."""
    last = calls[-1]
    arguments = dict(last.arguments)
    name = next(iter(arguments))
    return {
        "twice": [*calls, last],
        "with an argument more": [*calls[:-1], ToolCall(last.name, {**arguments, "office": 1})],
        "an argument in a list": [
            *calls[:-1],
            ToolCall(last.name, {**arguments, name: [arguments[name]]}),
        ],
        "an invisible character": [
            *calls[:-1],
            ToolCall(last.name, {**arguments, name: f"{arguments[name]}\u200b"}),
        ],
        "a space": [*calls[:-1], ToolCall(last.name, {**arguments, name: f"{arguments[name]} "})],
        "another name's case": [*calls[:-1], ToolCall(last.name.upper(), arguments)],
        "a null": [*calls[:-1], ToolCall(last.name, {**arguments, name: None})],
        "text that is no object": [*calls[:-1], ToolCall(last.name, json.dumps([arguments]))],
        "arguments wrapped": [*calls[:-1], ToolCall(last.name, {"arguments": arguments})],
    }


@pytest.mark.parametrize("name", office_attacks([ToolCall("x", {"x": 1})]))
def test_calls_that_are_nearly_right_earn_nothing(name: str) -> None:
    domain = Workplace()
    for prompt in itertools.islice(domain.prompts("test"), 6):
        calls = list(prompt.hidden.calls)
        assert domain.verify(prompt, replies.turns(*calls)).reward == 1.0
        reply = replies.turns(*office_attacks(calls)[name])
        assert domain.verify(prompt, reply).reward == 0.0


def test_there_are_more_than_a_hundred() -> None:
    of_programs = len(SWEPT) + len(programs.CHECKS) + len(WRITTEN) + len(REPAIRS)
    tables = (replies.MATH, replies.INSTRUCT, replies.STRUCTURED, replies.HEDGES)
    of_replies = sum(map(len, (*tables, replies.GENRM, replies.PROOFS)))
    print(f"{of_programs} programs, {of_replies} replies and more")
    assert of_programs > 60 and of_replies > 90
