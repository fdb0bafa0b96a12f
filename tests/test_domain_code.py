"""The code domain: right programs earn 1, others 0; rows are read or refused by name."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from linn.domains.code import Code
from linn.domains.code.outputs import same_output
from linn.domains.code.programs import program_of
from linn.domains.common import toy_functions
from linn.domains.common.values import same_value
from linn.errors import UserError
from linn.sandbox import compiler
from linn.types import Prompt, Reply


@pytest.fixture(scope="module")
def domain() -> Iterator[Code]:
    made = Code()
    yield made
    made.close()


@pytest.fixture(scope="module")
def prompts(domain: Code) -> list[Prompt]:
    return list(itertools.islice(domain.prompts("test"), 450))


@pytest.mark.slow
def test_clean_earns_one_and_faulty_nothing(domain: Code, prompts: list[Prompt]) -> None:
    for index, prompt in enumerate(prompts[:20]):
        clean = domain.demonstrate(prompt, random.Random(index), faulty=False)[-1]
        faulty = domain.demonstrate(prompt, random.Random(index), faulty=True)[-1]
        assert domain.verify(prompt, Reply(clean.content)).reward == 1.0, clean
        assert domain.verify(prompt, Reply(faulty.content)).reward == 0.0, faulty
        assert domain.gold(prompt).text == clean.content
        assert clean.content.count("\n") == 1 and len(clean.content) < 60


def test_every_template_says_what_its_body_does(domain: Code) -> None:
    for template in toy_functions.TEMPLATES:
        function = toy_functions.Function(template, 3, "f", "x")
        tests = toy_functions.inputs(function, random.Random(1))
        outcomes = domain.sandbox.call(function.source(), "f", [[x] for x in tests])
        assert [o.value for o in outcomes] == [function.value(x) for x in tests]


def test_program_is_the_last_block_or_the_whole() -> None:
    assert program_of("x = 1") == ("python", "x = 1")
    assert program_of("so\n```python\na = 1\n```\nor\n```\nb = 2\n```\nend") == (
        "python",
        "a = 1\n",
    )
    assert program_of("```python\na = 1") == ("python", "```python\na = 1")


def test_outputs_agree_by_line_and_number() -> None:
    assert same_output("1 2 \n3.0\n\n", "1 2\n3")
    assert not same_output("1 2", "1\n2")
    assert not same_output("a", "b")
    assert not same_output("nan", "1") and not same_output("", "1")


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        (0.1 + 0.2, 0.3, True),
        ([0.1 + 0.2], [0.3], True),
        (1e-9, 0, True),
        (0.3001, 0.3, False),
        (100000, 100001, False),
        (10**400, 1.0, False),
        ((1, (2, 3)), [1, [2, 3]], True),
        ({1: "a"}, {"1": "a"}, True),
        ({1: "a", "1": "a"}, {"1": "a"}, False),
        ({"a": 1}, {"b": 1}, False),
        (float("nan"), float("nan"), True),
        (float("inf"), float("inf"), True),
        (float("inf"), 1.0, False),
        (1.0, float("inf"), False),
        ("1", 1, False),
        (1e-9, False, False),
        (None, 0, False),
        ([1], [1, 1], False),
    ],
)
def test_returned_values_agree_as_json_and_floats_when_near(
    found: Any, expected: Any, same: bool
) -> None:
    assert same_value(found, expected) is same


HOSTILE = {
    "empty": "",
    "spaces": " \n\t\n",
    "words": "I cannot do that.",
    "expected": "{outputs}",
    "print": "def {name}(x):\n    print(x)",
    "exit": "import os\nos._exit(0)",
    "sys exit": "import sys\nsys.exit(0)",
    "equal": "class A:\n    def __eq__(self, o): return True\ndef {name}(x):\n    return A()",
    "equal list": (
        "class A(list):\n    def __eq__(self, o): return True\n    def __len__(self): "
        "return 5\ndef {name}(x):\n    return A()"
    ),
    "mutates": (
        "def {name}(x):\n    globals()['__builtins__']['repr'] = lambda v: 'ok'\n    return 1"
    ),
    "patches": "import builtins\nbuiltins.len = lambda v: 0\ndef {name}(x):\n    return None",
    "writes": (
        'import os\nfor fd in range(3, 20):\n    try: os.write(fd, b\'{{"value": '
        "true}}\\n' * 5)\n    except OSError: pass\nos._exit(0)"
    ),
    "frames": (
        "import sys\ndef {name}(x):\n    f = sys._getframe()\n    while f:\n"
        "        if 'outputs' in f.f_locals: return f.f_locals['outputs']\n"
        "        f = f.f_back"
    ),
    "reads files": "def {name}(x):\n    return open('/etc/passwd').read()",
    "reads itself": "def {name}(x):\n    return open('/proc/self/cmdline').read()",
    "recursion": "def {name}(x):\n    return {name}(x)",
    "generator": "def {name}(x):\n    yield x",
    "nul": "def {name}(x):\n    return 1\0",
    "surrogate": "def {name}(x):\n    return '\ud800'",
    "marks": "<think></think><|im_end|>\n```",
    "megabyte": "#" * (1 << 20),
    "fences": "```\n" * (1 << 16),
    "nested": "(" * 5000,
    "kills": "import os\ndef {name}(x):\n    os.kill(-1, 9)",
    "loop": "def {name}(x):\n    while True: pass",
    "memory": "def {name}(x):\n    return [0] * (1 << 40)",
    "lambda": "{name} = 5",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_earn_nothing(name: str, domain: Code, prompts: list[Prompt]) -> None:
    prompt = next(
        p for p in prompts if "+" in p.hidden.solution.body and "sum" not in p.hidden.solution.body
    )
    text = (
        HOSTILE[name]
        .replace("{name}", prompt.hidden.function)
        .replace("{outputs}", repr(prompt.hidden.outputs))
        .replace("{{", "{")
        .replace("}}", "}")
    )
    start = time.monotonic()
    verdict = domain.verify(prompt, Reply(text))
    assert verdict.reward == 0.0 and verdict.note
    assert time.monotonic() - start < 30.0
    verdict.note.encode()


def test_another_prompts_answer_earns_nothing(domain: Code, prompts: list[Prompt]) -> None:
    for left, right in zip(prompts[:40], prompts[40:80], strict=True):
        if (left.hidden.function, left.hidden.solution.body) != (
            right.hidden.function,
            right.hidden.solution.body,
        ) and left.hidden.function != right.hidden.function:
            assert domain.verify(left, domain.gold(right)).reward == 0.0


def row(meta: Any) -> dict[str, Any]:
    return {
        "responses_create_params": {"input": [{"role": "user", "content": "solve it"}]},
        "verifier_metadata": meta,
    }


def test_rows_of_each_layout_are_graded(domain: Code) -> None:
    script = domain.from_row(
        row({"unit_tests": {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7"]}}), 0
    )
    assert (
        domain.verify(script, Reply("```python\nprint(sum(map(int, input().split())))\n```")).reward
        == 1.0
    )
    assert domain.verify(script, Reply("print(3)")).reward == 0.0, "every test must pass"
    values = domain.from_row(
        row(
            {
                "unit_tests": {
                    "inputs": ["[1, 2]\n3", "[]\n0"],
                    "outputs": ["[1, 2, 3]", "[0]"],
                    "fn_name": "add",
                }
            }
        ),
        1,
    )
    assert (
        domain.verify(
            values,
            Reply("class Solution:\n    def add(self, a, b):\n        return tuple(a) + (b,)"),
        ).reward
        == 1.0
    )
    assert domain.verify(values, Reply("def add(a, b):\n    return a + [3]")).reward == 0.0
    near = Code(servers=1, tolerance=1e-6)
    try:
        assert (
            near.verify(values, Reply("def add(a, b):\n    return [10 ** 400] * (len(a) + 1)")).note
            == "test 1: wrong value"
        )
    finally:
        near.close()
    check = domain.from_row(
        row(
            {"test": "def check(candidate):\n    assert candidate(2) == 4\n", "entry_point": "dbl"}
        ),
        2,
    )
    assert domain.verify(check, Reply("def dbl(x):\n    return x + x")).reward == 1.0
    assert domain.verify(check, Reply("def dbl(x):\n    return x")).reward == 0.0
    assert len({script.id, values.id, check.id}) == 3


def test_a_check_uses_the_tasks_own_helpers(domain: Code) -> None:
    """A function that the task gives and its test calls is the test's own copy of it."""
    given = (
        "import math\n\ndef poly(xs, x):\n    return sum(c * math.pow(x, i) "
        "for i, c in enumerate(xs))\n\ndef zero(xs):\n    ...\n"
    )
    test = (
        "def check(candidate):\n    for xs in ([1, 2], [-6, 3]):\n        "
        "assert abs(poly(xs, candidate(xs))) < 1e-4\n"
    )
    right, bent = (
        "def zero(xs):\n    return -xs[0] / xs[1]\n",
        "def poly(*a):\n    return 0\n\ndef zero(xs):\n    return 0\n",
    )
    for text in (given, f"Complete this.\n```python\n{given}```\nThanks."):
        asked = row({"test": test, "entry_point": "zero"})
        asked["responses_create_params"]["input"][0]["content"] = text
        prompt = domain.from_row(asked, 0)
        assert domain.verify(prompt, Reply(f"```python\n{given}\n{right}```")).reward == 1.0
        assert (
            domain.verify(prompt, Reply(right)).reward == 1.0
            and domain.verify(prompt, Reply(bent)).reward == 0.0
        )


def test_the_program_is_the_block_of_the_wanted_language() -> None:
    both = "```cpp\nint main() {}\n```\nor\n```Python3\nx = 1\n```\nwhich prints\n```text\n1\n```\n"
    assert program_of(both) == ("python", "x = 1\n")
    assert program_of(both, "cpp") == ("cpp", "int main() {}\n")
    assert program_of(both, "any") == ("python", "x = 1\n")
    assert program_of("```java\nclass A {}\n```") == ("python", ""), (
        "another language is no program"
    )
    assert program_of("```\nx\n```", "any") == ("python", "x\n")
    assert program_of("````python\ns = [\n```\n]\n````")[1] == "s = [\n```\n]\n"
    assert program_of("```python\na\n```python\nb\n```")[1] == "a\n```python\nb\n", (
        "a marked fence closes nothing"
    )
    assert program_of("  ```py\n  a\n  ```  ")[1] == "a\n"
    assert program_of("```python```") == ("python", "```python```"), (
        "no fence at all: the answer itself"
    )
    assert program_of("x" * 10 + "`" * 100_000)[1]


def test_rows_set_limits_and_the_number_of_tests() -> None:
    tests = {"inputs": [f"{i}\n" for i in range(100)], "outputs": [f"{i}" for i in range(100)]}
    capped = Code(servers=1, seconds=0.4, python_times=2.0, tests=7, tolerance=1e-6)
    try:
        prompt = capped.from_row(row({"unit_tests": tests}), 0)
        assert (
            prompt.hidden.inputs == [f"{i * 100 // 7}\n" for i in range(7)]
            and prompt.hidden.budget.seconds == 0.4
        )
        assert capped.verify(prompt, Reply("print(float(input()) + 1e-9)")).reward == 1.0, (
            "within the tolerance"
        )
        assert capped.verify(prompt, Reply("print(float(input()) + 1e-3)")).reward == 0.0
        slow = (
            "import time\ne = time.process_time() + 0.5\nwhile time.process_time() "
            "< e: pass\nprint(input())"
        )
        single = {"inputs": ["1"], "outputs": ["1"]}
        assert (
            capped.verify(capped.from_row(row({"unit_tests": single}), 1), Reply(slow)).reward
            == 1.0
        ), "Python has twice the time"
        strict = capped.from_row(
            row({"unit_tests": single, "time_limit": 0.1, "memory_limit": 128}), 2
        )
        assert capped.verify(strict, Reply(slow)).note == "test 1: time limit exceeded"
        assert capped.verify(strict, Reply("x = bytearray(1 << 28)")).note.startswith(
            "test 1: MemoryError"
        )
    finally:
        capped.close()
    for key, value in {
        "servers": 0,
        "seconds": 0,
        "python_times": -1,
        "memory": 1,
        "tests": 0,
        "language": "rust",
        "tolerance": -1,
    }.items():
        with pytest.raises(UserError, match=f"{key} is {value!r}; allowed"):
            Code(**{key: value})  # type: ignore[arg-type]


def test_a_wrong_function_is_found_out_before_every_test_is_run(domain: Code) -> None:
    tests = {
        "inputs": [str(i) for i in range(100)],
        "outputs": [str(i) for i in range(100)],
        "fn_name": "f",
    }
    prompt = domain.from_row(row({"unit_tests": tests}), 0)
    before = domain.totals()["executions"]
    assert (
        domain.verify(prompt, Reply("def f(x):\n    return x if x < 5 else 0")).note
        == "test 6: wrong value"
    )
    assert domain.totals()["executions"] == before + 1
    assert domain.verify(prompt, Reply("def f(x):\n    return x")).note == "all 100 tests passed"
    assert domain.totals()["executions"] == before + 4


def test_large_tests_are_read_and_compared(domain: Code) -> None:
    text = "".join(f"{i} {i * i}\n" for i in range(200_000))
    prompt = domain.from_row(
        row({"unit_tests": {"inputs": [text], "outputs": [text.replace("\n", " \r\n") + "\n\n"]}}),
        0,
    )
    assert (
        domain.verify(prompt, Reply("import sys\nsys.stdout.write(sys.stdin.read())")).reward == 1.0
    )
    assert (
        domain.verify(prompt, Reply("import sys\nsys.stdout.write(sys.stdin.read()[:-3])")).note
        == "test 1: wrong output"
    )


@pytest.mark.slow
@pytest.mark.skipif(not compiler.found(), reason="no C++ compiler")
def test_replies_in_cpp() -> None:
    either = Code(servers=2, language="any")
    try:
        meta = {"unit_tests": {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3", "7"]}}
        right = (
            '#include <cstdio>\nint main() { int a, b; scanf("%d %d", &a, '
            '&b); printf("%d\\n", a + b); }'
        )
        by_row, by_fence = (
            either.from_row(row({**meta, "language": "C++"}), 0),
            either.from_row(row(meta), 1),
        )
        for prompt in (by_row, by_fence):
            assert either.verify(prompt, Reply(f"so\n```cpp\n{right}\n```")).reward == 1.0
            assert (
                either.verify(prompt, Reply(f"so\n```cpp\n{right.replace('+', '-')}\n```")).note
                == "test 1: wrong output"
            )
            assert either.verify(
                prompt, Reply("```c++\nint main() { return x; }\n```")
            ).note.startswith("does not compile: ")
        assert (
            either.verify(
                by_row, Reply("```python\nprint(sum(map(int, input().split())))\n```")
            ).note
            == "no program"
        )
        assert (
            either.verify(
                by_fence, Reply("```python\nprint(sum(map(int, input().split())))\n```")
            ).reward
            == 1.0
        )
    finally:
        either.close()


def test_cpp_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch, domain: Code) -> None:
    monkeypatch.setattr(compiler, "found", lambda: "")
    with pytest.raises(UserError, match="install g"):
        Code(language="any")
    with pytest.raises(UserError, match="code row 4.*install g"):
        domain.from_row(
            row({"unit_tests": {"inputs": ["1"], "outputs": ["1"]}, "language": "cpp"}), 4
        )


_CHECK = {"test": "def check(candidate):\n    assert candidate(1)\n", "entry_point": "f"}


@pytest.mark.parametrize(
    "meta",
    [
        None,
        {},
        {"unit_tests": "{"},
        {"unit_tests": {"inputs": ["1"], "outputs": []}},
        {"unit_tests": {"inputs": [], "outputs": []}},
        {"test": "x"},
        {"unit_tests": {"inputs": [1], "outputs": ["1"]}},
        {"unit_tests": {"inputs": ["x"], "outputs": ["1"], "fn_name": "f"}},
        {"unit_tests": {"inputs": ["1"], "outputs": ["1"], "fn_name": 3}},
        _CHECK | {"test": "x"},
        _CHECK | {"test": "def check("},
        _CHECK | {"language": "cpp"},
        _CHECK | {"language": "rust"},
        *(
            _CHECK | {key: value}
            for key in ("time_limit", "memory_limit")
            for value in (0, -1, "2", True, float("nan"), 1e9, [])
        ),
    ],
)
def test_broken_rows_are_named(meta: Any, domain: Code) -> None:
    with pytest.raises(UserError, match="code row 3"):
        domain.from_row(row(meta), 3)


def test_programs_and_rows_may_hold_integers_of_any_length(domain: Code) -> None:
    long = "7" * 5000
    printed = {"inputs": [f"{long}\n"], "outputs": [f"{long[:-1]}8\n"]}
    called = {"inputs": [long], "outputs": [f"{long[:-1]}8"], "fn_name": "f"}
    for tests, text in ((printed, "print(int(input()) + 1)"), (called, "def f(x): return x + 1")):
        row = {"messages": "add one", "verifier_metadata": {"unit_tests": tests}}
        assert domain.verify(domain.from_row(row, 0), Reply(text)).reward == 1.0
