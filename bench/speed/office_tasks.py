"""What the full level of `workplace` asks: tasks by category and number of gold calls, over the
first prompts of its training split.

python -m bench.speed.office_tasks [--prompts 2000]
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter, defaultdict

from linn.domains.workplace import Workplace
from linn.domains.workplace.office.tools import WRITES

_LENGTHS = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 24))


def main() -> None:
    """Print a row a category, then the forms, the changes a task makes, and how many tools, offices
    and different prompts there are.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=2000)
    prompts = list(
        itertools.islice(Workplace("full").prompts("train"), parser.parse_args().prompts)
    )
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    forms, changes, tools = Counter[str](), Counter[int](), Counter[str]()
    for prompt in prompts:
        calls = prompt.hidden.calls
        length = next(f"{low}-{high}" for low, high in _LENGTHS if low <= len(calls) <= high)
        for category in (prompt.hidden.category, "all"):
            rows[category][length] += 1
        forms[prompt.hidden.form] += 1
        changes[sum(call.name in WRITES for call in calls)] += 1
        tools.update(call.name for call in calls)
    print(f"{'category':48} " + " ".join(f"{low}-{high:<4}" for low, high in _LENGTHS) + " all")
    for category, found in sorted(rows.items(), key=lambda row: row[1].total()):
        print(
            f"{category:48} "
            + " ".join(f"{found[f'{low}-{high}']:<6}" for low, high in _LENGTHS)
            + f" {found.total()}"
        )
    print(f"forms: {dict(forms.most_common())}\nchanges a task: {dict(sorted(changes.items()))}")
    print(
        f"{len(tools)} tools (rarest: {tools.most_common()[-1]}), "
        f"{len({p.hidden.office for p in prompts})} offices, ",
        end="",
    )
    print(f"{len({p.messages for p in prompts})} different prompts of {len(prompts)}")


if __name__ == "__main__":
    main()
