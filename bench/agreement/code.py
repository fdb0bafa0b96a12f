"""Code: which outputs and returned values pass, and which program is taken out of an answer, by
linn and by nemo-gym's `code_gen` server.

    python -m bench.agreement.code --reference FOLDER [--cases 5000] [--seed 0]

FOLDER: see `reference.py`. The reference runs a program that prints an output, or returns a value;
linn compares the same output or value. Recorded replies: `rollouts.py`.
"""

from __future__ import annotations

import json
import random
import sys
from functools import partial
from typing import Any

from bench.agreement.reference import Tally, arguments, load, report
from linn.domains.code.outputs import same_output
from linn.domains.code.programs import program_of
from linn.domains.common.values import same_value

_TOKENS = (
    "1",
    "1.0",
    "01",
    "1e0",
    "-0",
    "0",
    "+2",
    "2",
    "3.14",
    "3.140",
    "3.1400001",
    "0.1000000001",
    "1000000.5",
    "1000001",
    "nan",
    "NaN",
    "inf",
    "abc",
    "YES",
    "Yes",
    "no",
    "é",
    "1_0",
)
_ENDS = ("\n", "\n", "\n", " \n", "\n\n", "\r\n", "", "\t\n", "\x0c\n")
_SCALARS = (
    0,
    1,
    -3,
    100000,
    100001,
    10**20,
    0.3,
    0.1 + 0.2,
    0.30001,
    1e-9,
    1.0,
    "1",
    "0.3",
    "a",
    "",
    True,
    False,
    None,
    float("inf"),
)


def _output(rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randint(1, 3)):
        tokens = [rng.choice(_TOKENS) for _ in range(rng.randint(0, 3))]
        lines.append(" ".join(tokens))
    output = rng.choice(("", "", " ", "\n"))
    for line in lines:
        output += line + rng.choice(_ENDS)
    return output


def _near(rng: random.Random, text: str) -> str:
    """The same output, written differently in places."""
    kind = rng.choice(("same", "spaces", "token", "other", "lines"))
    if kind == "spaces":
        return text.replace(" ", rng.choice(("  ", "\t"))).strip() + rng.choice(("", "\n", " "))
    if kind == "token" and text.split():
        return text.replace(rng.choice(text.split()), rng.choice(_TOKENS), 1)
    if kind == "same":
        return text
    return _output(rng) if kind == "other" else text + "\n1"


def _value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.choice(("scalar", "scalar", "list", "tuple", "dict")) if depth < 2 else "scalar"
    if kind == "scalar":
        return rng.choice(_SCALARS)
    parts = [_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if kind == "dict":
        return {rng.choice((1, "1", "a", 2)): part for part in parts}
    return tuple(parts) if kind == "tuple" else parts


def _altered(rng: random.Random, value: Any) -> Any:
    """The same value in most cases, else a near one."""
    if rng.random() < 0.5:
        return value
    if isinstance(value, list | tuple):
        return rng.choice((list, tuple))(_altered(rng, part) for part in value)
    if isinstance(value, dict):
        return {rng.choice((key, str(key))): _altered(rng, part) for key, part in value.items()}
    return rng.choice(_SCALARS)


def _printed(module: Any, tally: Tally, rng: random.Random) -> None:
    expected = _output(rng)
    output = _near(rng, expected)
    program = f"import sys\nsys.stdout.write({output!r})"
    results, _ = module.grade_stdio(program, [""], [expected], 10)
    theirs = all(result is True for result in results)

    why = None
    if theirs and same_output(output.replace("\r\n", "\n").lower(), expected.lower(), 1e-6):
        why = "0.7.0: decimals may differ by 1e-6, yes and no may be written in any case"
    tally.add(same_output(output, expected, exact=True), theirs, lambda: why, (output, expected))


def _returned(module: Any, tally: Tally, rng: random.Random) -> None:
    original = _value(rng)
    value = _altered(rng, original)
    try:
        text = json.dumps(original)
    except ValueError:
        return
    expected = json.loads(text)
    program = f"def f(x):\n    inf = float('inf')\n    return {value!r}"
    results, *_ = module.grade_call_based(program, ["1"], [text], "f", 10)
    ours = same_value(value, expected)
    why = partial(_why, module, value, expected, ours)
    tally.add(ours, results[0] is True, why, (value, text))


def _why(module: Any, value: Any, expected: Any, ours: bool) -> str | None:
    if isinstance(value, list | tuple | dict):
        if ours:
            return (
                "floats of a collection may be near at every depth, for the reference (0.7.0) "
                "only in a plain list"
            )
        return (
            "a list of bool, text and float that are near as numbers: equal for the reference alone"
        )
    if isinstance(expected, str | bool) or isinstance(value, str | bool):
        return "a text or bool that is near as a number: equal for the reference alone"
    if hasattr(module, "values_are_close"):
        return None
    return "0.4.0: whole numbers may differ by 1e-5 of their value"


def _blocks(module: Any, styles: Any, tally: Tally, rng: random.Random) -> None:
    bodies = ("print(0)", "print(1)", "print(2)")
    marks = ("```python",) * 12 + ("```", "```py", "```text", "```cpp", "``` python", "```Python")
    count = rng.randint(1, 3)
    blocks = [f"{rng.choice(marks)}\n{body}\n```" for body in bodies[:count]]
    text = "Well.\n" + "\nso\n".join(blocks)
    odd = (f"{text}\n```", f"{text} done", text.replace("```", "````", 1), "print(9)")
    text = rng.choice((text,) * 20 + odd)

    ours = program_of(text)[1].strip()
    theirs = module.extract_code(text, styles.LMStyle.OpenAIChat).strip()
    tally.add(ours, theirs, lambda: _block_reason(text, ours, theirs), text)


def _block_reason(text: str, ours: str, theirs: str) -> str | None:
    if "```" not in text:
        return "no fence: linn takes the whole answer, the reference nothing"
    if text.count("```") % 2 or "````" in text:
        return (
            "a fence without its pair, or of four marks: linn pairs fences as Markdown does, the "
            "reference takes the last two lines that hold one"
        )
    return (
        "blocks of other marks: linn takes the last that is marked as Python, else the last "
        "without a mark; the reference the last of all"
    )


def main() -> int:
    folder, cases, rng = arguments(__doc__, 5_000)
    module = load(folder, "code_gen", "lcb_integration.testing_util")
    extraction = load(folder, "code_gen", "lcb_integration.extraction_utils")
    styles = load(folder, "code_gen", "lcb_integration.lm_styles")
    printed = Tally("code, outputs")
    returned = Tally("code, returned values")
    blocks = Tally("code, the program of an answer")
    for _ in range(cases):
        _printed(module, printed, rng)
        _returned(module, returned, rng)
        _blocks(extraction, styles, blocks, rng)
    return report(folder, [printed, returned, blocks])


if __name__ == "__main__":
    sys.exit(main())
