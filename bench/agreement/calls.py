"""Function calls: linn's `calls` grader and the AST checker of `bfcl-eval` on changed true calls.

    pip install --no-deps --target FOLDER bfcl-eval==2026.3.23
    python -m bench.agreement.calls --reference FOLDER [--cases 4000] [--seed 0]

Rows are those of the package. A case takes a row's allowed values, leaves arguments out, takes
others, wrong ones, of other types, swaps, drops or doubles calls.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

from linn.evals.graders.calls import Calls
from linn.play.conversation import reply_of
from linn.types import Message, ToolCall

_CATEGORIES = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
)
_WRONG: tuple[Any, ...] = ("x", "", 0, 1, -1, 2.5, True, None, [], ["a"], {}, {"a": 1}, "10")


def main() -> None:
    """Print how many cases agree, and the first that do not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    check = _reference(given.reference)
    rows = _rows(given.reference)
    grader, rng = Calls(), random.Random(given.seed)
    tally: Counter[str] = Counter()
    shown: list[str] = []
    for number in range(given.cases):
        row = rows[number % len(rows)]
        calls = _made(row, rng)
        reply = reply_of([Message("assistant", "", None, tuple(ToolCall(n, a) for n, a in calls))])
        own = grader.verify(grader.from_row(row, 0), reply)
        theirs = check(row, [{name: arguments} for name, arguments in calls])
        word = f"reference {theirs}, linn {own.reward:g}"
        tally[word] += 1
        if theirs not in ("True" if own.reward else "False",) and len(shown) < 12:
            shown.append(f"{row['id']} {word}: {own.note} | {calls} | {row['ground_truth']}"[:400])
    for word, count in sorted(tally.items()):
        print(f"{count:>7,}  {word}")
    for line in shown:
        print(line)


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for name in _CATEGORIES:
        data = folder / "bfcl_eval" / "data"
        answers = {}
        for line in (data / "possible_answer" / f"BFCL_v4_{name}.json").read_text().splitlines():
            entry = json.loads(line)
            answers[entry["id"]] = entry["ground_truth"]
        for line in (data / f"BFCL_v4_{name}.json").read_text().splitlines():
            row = json.loads(line)
            rows.append({**row, "ground_truth": answers[row["id"]], "category": name})
    random.Random(0).shuffle(rows)
    return rows


def _made(row: dict[str, Any], rng: random.Random) -> list[tuple[str, dict[str, Any]]]:
    """The true calls, changed at random; half of all cases are not."""
    calls = []
    for entry in row["ground_truth"]:
        ((name, allowed),) = entry.items()
        arguments = {}
        for key, values in allowed.items():
            value = _plain(rng.choice(values or [""]), rng)
            if value != "" or (rng.random() < 0.1 and "" not in values):
                arguments[key] = value
        calls.append((name, arguments))
    if rng.random() < 0.5:
        return calls
    name, arguments = rng.choice(calls)
    kind = rng.randrange(6)
    if kind == 0 and arguments:
        arguments.pop(rng.choice(list(arguments)))
    elif kind == 1 and arguments:
        arguments[rng.choice(list(arguments))] = copy.deepcopy(rng.choice(_WRONG))
    elif kind == 2:
        arguments["other"] = 1
    elif kind == 3:
        calls = calls[1:] if rng.random() < 0.5 else [*calls, calls[0]]
    elif kind == 4:
        rng.shuffle(calls)
    else:
        for key, value in arguments.items():
            if isinstance(value, str):
                arguments[key] = value.upper().replace(" ", "-")
    return calls


def _plain(value: Any, rng: random.Random) -> Any:
    """An allowed value as a call holds it: objects name their allowed values by key, too."""
    if isinstance(value, dict):
        chosen = {k: rng.choice(v) if isinstance(v, list) and v else v for k, v in value.items()}
        return {key: _plain(inner, rng) for key, inner in chosen.items() if inner != ""}
    if isinstance(value, list):
        return [_plain(each, rng) for each in value]
    return value


def _reference(folder: Path) -> Any:
    """(row, calls) -> `True`, `False`, or the error that the checker raises."""
    sys.path.insert(0, str(folder))
    # The table of models imports a client of each; the checker asks it about one model alone.
    stand_in = types.ModuleType("bfcl_eval.constants.model_config")
    stand_in.MODEL_CONFIG_MAPPING = {"m": types.SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
    sys.modules[stand_in.__name__] = stand_in
    from bfcl_eval.constants.enums import Language  # type: ignore[import-not-found]
    from bfcl_eval.eval_checker.ast_eval.ast_checker import (  # type: ignore[import-not-found]
        ast_checker,
    )

    def check(row: dict[str, Any], calls: list[dict[str, Any]]) -> str:
        try:
            found = ast_checker(
                row["function"], calls, row["ground_truth"], Language.PYTHON, row["category"], "m"
            )
        except Exception as error:
            return type(error).__name__
        return str(bool(found["valid"]))

    return check


if __name__ == "__main__":
    main()
