"""Workplace: end states and tool answers over the original tables, by linn and by nemo-gym's
`workplace_assistant` server.

    pip install pandas
    python -m bench.agreement.workplace --reference FOLDER [--cases 1000] [--seed 0]

FOLDER: see `reference.py`; the tables are the wheel's own. A case of the first kind is a pair of
call lists, the true ones random or an example row's, the model's the same, reordered, perturbed or
others; of the second kind an answer of a tool in a conversation of ten random calls.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.agreement.reference import Tally, arguments, examples, load, report
from linn.domains.workplace import Workplace
from linn.domains.workplace.office import tools
from linn.domains.workplace.office.state import Office
from linn.domains.workplace.office.tables import load as tables
from linn.offline.grade import reply_from

Call = tuple[str, Any]
_GROUPS = ("email", "calendar", "analytics", "project_management", "customer_relationship_manager")
_ODD: tuple[Any, ...] = (
    "",
    None,
    5,
    -1,
    True,
    [],
    {"a": 1},
    "nonsense",
    "2023-13-45",
    "00000000",
    "(",
    ".",
    "a@b.c",
    "NaN",
    "ä",
)


class _Values:
    """What arguments are drawn from: cells of the tables, dates, and what the tools' definitions
    name.
    """

    def __init__(self, office: Office) -> None:
        self.cells: dict[str, list[Any]] = {}
        for table in (office.emails, office.events, office.tasks, office.customers):
            for record in table.records():
                for column, cell in record.items():
                    self.cells.setdefault(column, []).append(cell)
        self.cells["visitor_id"] = [row[1] for row in office.visits]
        self.people = list(office.directory)

    def of(self, rng: random.Random, tool: str, name: str, given: Mapping[str, Any]) -> Any:
        """A value for an argument; rarely an odd one."""
        if rng.random() < 0.04:
            return rng.choice(_ODD)
        day = f"2023-{rng.choice((11, 12))}-{rng.randint(1, 30):02d}"
        if name == "field":
            columns = []
            for column in self.cells:
                if column.split("_")[0] in tool or rng.random() < 0.4:
                    columns.append(column)
            return rng.choice(columns)
        if name == "new_value" and str(given.get("field")) in self.cells:
            cell = rng.choice(self.cells[given["field"]])
            word = rng.choice(("Qualified", "Completed", "Design", "60", day))
            return rng.choice((cell, word)) or "x"
        by_name = {
            "body": "See you soon",
            "query": rng.choice(("update", "Team meeting", "sam", "e")),
            "plot_type": rng.choice(("bar", "line", "pie")),
            "value_to_plot": rng.choice(("total_visits", "user_engaged", "visits_direct", "all")),
            "page": rng.randint(-1, 9),
            "page_size": rng.choice((1, 5, 50)),
            "name": rng.choice(self.people).split(".")[0],
            "traffic_source": rng.choice(("direct", "referral")),
        }
        if name in by_name:
            return by_name[name]
        if name in self.cells:
            cell = rng.choice(self.cells[name])
            return cell.upper() if isinstance(cell, str) and rng.random() < 0.1 else cell
        if "email" in name or name in ("recipient", "assigned_to"):
            return rng.choice(self.people)
        if any(word in name for word in ("time", "date", "start", "min", "max")):
            return rng.choice((day, f"{day} 10:30:00"))
        return "Plan"


def _call(
    rng: random.Random, schemas: Mapping[str, Any], values: _Values, names: Sequence[str]
) -> Call:
    name = rng.choice(names)
    properties = schemas[name]["parameters"]["properties"]
    given: dict[str, Any] = {}
    for key in properties:
        if rng.random() < (0.93 if name in tools.WRITES else 0.5):
            given[key] = values.of(rng, name, key, given)
    return name, given


def _perturbed(rng: random.Random, calls: list[Call], other: Call) -> list[Call]:
    """The same calls in most cases; else with another order, letter case, argument, call, or broken
    arguments.
    """
    calls = list(calls)
    at = rng.randrange(len(calls)) if calls else 0
    kind = rng.choice(
        (
            "same",
            "same",
            "same",
            "search",
            "shuffle",
            "case",
            "drop",
            "add",
            "twice",
            "argument",
            "broken",
            "unknown",
        )
    )
    if kind == "search":
        return [("email_search_emails", {"query": "x"}), *calls]
    if kind == "shuffle":
        rng.shuffle(calls)
    elif kind == "add":
        calls.insert(at, other)
    elif calls and kind == "drop":
        del calls[at]
    elif calls and kind == "twice":
        calls.insert(at, calls[at])
    elif calls and kind in ("case", "argument", "broken", "unknown"):
        calls[at] = _altered(rng, kind, calls[at])
    return calls


def _altered(rng: random.Random, kind: str, call: Call) -> Call:
    """The call with another argument or name, or with broken arguments; as it is without any."""
    name, given = call
    if not isinstance(given, dict) or not given:
        return call
    changed = dict(given)
    key = rng.choice(list(changed))
    if kind == "case":
        changed[key] = str(changed[key]).swapcase()
    elif kind == "argument":
        changed[key] = "changed"
    broken = rng.choice((json.dumps(changed)[:-1], "[]", "null", "", '{"a": 1}'))
    if kind == "unknown":
        name = "nothing_" + name
    return name, broken if kind == "broken" else changed


def _texts(calls: Sequence[Call]) -> list[dict[str, str]]:
    texts = []
    for name, given in calls:
        text = given if isinstance(given, str) else json.dumps(given)
        texts.append({"name": name, "arguments": text})
    return texts


def main() -> int:
    folder, cases, rng = arguments(__doc__, 1_000)
    data = folder / "resources_servers" / "workplace_assistant" / "csv_data"
    os.environ["LINN_WORKPLACE_DATA"] = str(data)
    module = load(folder, "workplace_assistant", "utils")
    schemas = {schema["name"]: schema for schema in module.get_tools(_GROUPS)["schemas"]}
    values = _Values(tables(data))
    domain = Workplace(rows="rows")
    states, answers = Tally("workplace, end states"), Tally("workplace, tool answers")
    own = [
        [(call["name"], json.loads(call["arguments"])) for call in row["ground_truth"]]
        for row in examples(folder, "workplace_assistant")
    ]
    writes = list(tools.WRITES)
    for index in range(cases):
        drawn = [_call(rng, schemas, values, writes) for _ in range(rng.randint(1, 3))]
        truth = rng.choice(own) if own and rng.random() < 0.2 else drawn
        calls = _perturbed(rng, truth, _call(rng, schemas, values, list(schemas)))
        states.add(*_end_states(domain, module, truth, calls, index), case=(truth, calls))
    for _ in range(cases // 2):
        calls = [_call(rng, schemas, values, list(schemas)) for _ in range(10)]
        _conversation(module, data, calls, answers)
    return report(folder, [states, answers])


def _end_states(
    domain: Workplace, module: Any, truth: list[Call], calls: list[Call], index: int
) -> tuple[bool, bool]:
    row = {
        "responses_create_params": {"input": [{"role": "user", "content": "?"}]},
        "ground_truth": _texts(truth),
    }
    turns: list[dict[str, Any]] = []
    for number, function in enumerate(_texts(calls)):
        tool_call = {"id": str(number), "function": function}
        turns.append({"role": "assistant", "tool_calls": [tool_call]})
    turns.append({"role": "assistant", "content": "done"})
    reply = reply_from({"row": 0, "messages": turns})
    ours = domain.verify(domain.from_row(row, index), reply).reward == 1
    with contextlib.redirect_stdout(io.StringIO()):  # it prints every error
        return ours, bool(module.is_correct(_texts(calls), _texts(truth), None))


def _conversation(module: Any, data: Path, calls: Sequence[Call], tally: Tally) -> None:
    """Every answer of ten calls one after another."""
    office, functions = tables(data).copy(), module.get_tools(_GROUPS)["functions"]
    for name, given in calls:
        given = {key: value for key, value in given.items() if value is not None}
        try:
            theirs = functions[name](**given)
        except Exception as error:
            theirs = f"Error executing tool '{name}': {error}"
        ours, theirs = _plain(tools.call(office, name, given)), _plain(theirs)
        tally.add(ours, theirs, partial(_why, given, ours, theirs), (name, given))


def _plain(answer: Any) -> str:
    """What the model reads: JSON, empty cells as null."""
    return json.dumps(answer, default=str).replace("NaN", "null")


def _why(given: Mapping[str, Any], ours: str, theirs: str) -> str | None:
    if ours.startswith('"Error ') and theirs.startswith('"Error '):
        return "both fail, in other words"
    if "Cannot mask with non-boolean array" in theirs:
        return "the reference's search fails over an empty cell, linn's passes it over"
    if re.sub(r'(session_duration_seconds": )(\d+)\.0', r'\1"\2"', theirs) == ours:
        return (
            "once an average was asked for, the reference says durations as numbers, linn as before"
        )
    if sorted(ours) == sorted(theirs):
        return "emails of the same second, in another order: the reference's sort is not stable"
    if "NaN" in given.values():
        return "NaN: a time for the reference"
    if any(
        isinstance(value, (bool, list, dict)) or isinstance(value, int) != ("page" in key)
        for key, value in given.items()
    ):
        return "an argument of the wrong type"
    return None


if __name__ == "__main__":
    sys.exit(main())
