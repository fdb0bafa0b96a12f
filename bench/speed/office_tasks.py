"""What the full level of `workplace` asks: tasks by category and number of gold calls, over the
first prompts of its training split.

    python -m bench.speed.office_tasks [--prompts 2000]
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence

from linn.domains.workplace import Workplace
from linn.domains.workplace.office.tools import WRITES
from linn.types import Prompt

LENGTHS = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 24))
"""Numbers of gold calls: the first and the last of each column."""
COLUMNS = [f"{low}-{high}" for low, high in LENGTHS]


def column_of(calls: int) -> str:
    return next(f"{low}-{high}" for low, high in LENGTHS if low <= calls <= high)


def print_categories(prompts: Sequence[Prompt]) -> None:
    """A row per category: tasks per number of gold calls; the largest category last."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for prompt in prompts:
        column = column_of(len(prompt.hidden.calls))
        rows[prompt.hidden.category][column] += 1
        rows["all"][column] += 1

    print(f"{'category':48} " + " ".join(f"{name:<6}" for name in COLUMNS) + " all")
    for category, counts in sorted(rows.items(), key=lambda row: row[1].total()):
        cells = " ".join(f"{counts[name]:<6}" for name in COLUMNS)
        print(f"{category:48} {cells} {counts.total()}")


def print_variety(prompts: Sequence[Prompt]) -> None:
    """Forms, changes per task, tools, offices, different prompts."""
    forms, changes, tools = Counter[str](), Counter[int](), Counter[str]()
    for prompt in prompts:
        calls = prompt.hidden.calls
        forms[prompt.hidden.form] += 1
        changes[sum(call.name in WRITES for call in calls)] += 1
        tools.update(call.name for call in calls)

    offices = {prompt.hidden.office for prompt in prompts}
    texts = {prompt.messages for prompt in prompts}
    print(f"forms: {dict(forms.most_common())}")
    print(f"changes per task: {dict(sorted(changes.items()))}")
    print(f"{len(tools)} tools (rarest: {tools.most_common()[-1]}), {len(offices)} offices")
    print(f"{len(texts)} different prompts of {len(prompts)}")


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=2000)
    count = parser.parse_args().prompts
    prompts = list(itertools.islice(Workplace("full").prompts("train"), count))
    print_categories(prompts)
    print_variety(prompts)


if __name__ == "__main__":
    main()
