"""Make rows for recipes/smollm2.yaml.

    python recipes/smollm2/rows.py FOLDER

FOLDER/sft_think.jsonl  sums of reasoning-gym worked term by term, as `messages` with a thought
FOLDER/math.jsonl       other sums of reasoning-gym: {problem, answer}
FOLDER/instruct.jsonl   writing tasks with one or two constraints, in the layout of IFBench

The sums come from the package reasoning-gym (Apache-2.0), the writing tasks from this file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

GYM = "reasoning-gym==0.1.25"
SUMS = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}
"""How hard the sums are: two or three numbers of one or two digits."""
BOXED = "\n\nReason step by step and put the final answer, and nothing else, in \\boxed{}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)

    with tempfile.TemporaryDirectory() as site:
        install(GYM, site)
        trained = sums(count=1200, seed=0)
        demonstrated = sums(count=800, seed=1, besides=trained)
    write(folder / "math.jsonl", trained)
    write(folder / "sft_think.jsonl", map(worked, demonstrated))
    write(folder / "instruct.jsonl", writing_tasks(count=900, seed=0))


def install(package: str, site: str) -> None:
    """Install a package into the folder `site`, and put that onto the path."""
    print(f"installing {package}")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "install", "--target", site, package], check=True)
    sys.path.insert(0, site)


def write(path: Path, rows: Iterable[Row]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
    print(f"{path}: {len(lines)} rows")


# ---------------------------------------------------------------- sums


def sums(count: int, seed: int, besides: Iterable[Row] = ()) -> list[Row]:
    """`count` different sums, none of which is among `besides`."""
    import reasoning_gym

    seen = {row["problem"] for row in besides}
    rows = []
    for item in reasoning_gym.create_dataset("chain_sum", size=count * 4, seed=seed, **SUMS):
        problem = item["question"]
        if problem not in seen and len(rows) < count:
            seen.add(problem)
            rows.append({"problem": problem, "answer": str(item["answer"])})
    return rows


def worked(row: Row) -> Row:
    """A sum as a conversation whose thought adds term after term."""
    total = 0
    steps = []
    terms = re.findall(r"([+-]?)\s*(\d+)", row["problem"].split(":")[1])
    for place, (sign, digits) in enumerate(terms):
        before = total
        if sign == "-":
            total -= int(digits)
        else:
            total += int(digits)
        if place > 0:
            steps.append(f"{before} {sign} {digits} = {total}")
    assert str(total) == row["answer"], row

    thought = "\n".join(steps)
    reply = f"<think>\n{thought}\n</think>\n\\boxed{{{total}}}"
    return {
        "messages": [
            {"role": "user", "content": row["problem"] + BOXED},
            {"role": "assistant", "content": reply},
        ]
    }


# ---------------------------------------------------------------- writing tasks


FORMS = (
    "Write two sentences about {}.",
    "Tell a child what {} is good for.",
    "Describe {} to someone who has never seen one.",
    "Why do people like {}? Answer briefly.",
    "Write a short message to a friend about {}.",
)
TOPICS = (
    "a bicycle,a lighthouse,a cup of tea,the sea,an old book,a garden,a train,snow,a violin,"
    "a market,a bridge,the moon,a kitchen,a dog,a cat,a map,a clock,a river,a mountain,bread,"
    "a library,a candle,an umbrella,a telescope,a school,a farm,honey,a ship,a drum,a window,"
    "a letter,a forest,rain,a camera,a museum,a ladder,chess,a lake,a kite,a harbour"
).split(",")
WORDS = "copper lantern pepper ribbon saddle timber velvet walnut anchor basket".split()
ENDINGS = ("That is all for today.", "Ask me again tomorrow.", "I hope that helps.")


def writing_tasks(count: int, seed: int) -> Iterator[Row]:
    """Writing tasks with one or two constraints that a program can check."""
    rng = random.Random(seed)
    subjects = list(itertools.product(FORMS, TOPICS))
    for key in range(count):
        form, topic = subjects[key % len(subjects)]
        if key % len(subjects) == 0:
            rng.shuffle(subjects)
        constraints = rng.sample(constraints_of(rng), rng.choice((1, 2)))
        asks = [ask for ask, _, _ in constraints]
        yield {
            "key": str(key),
            "prompt": " ".join([form.format(topic), *asks]),
            "instruction_id_list": [name for _, name, _ in constraints],
            "kwargs": [arguments for _, _, arguments in constraints],
        }


def constraints_of(rng: random.Random) -> list[tuple[str, str, Row]]:
    """(sentence, instruction, its arguments) of constraints that can all hold together."""
    word = rng.choice(WORDS)
    ending = rng.choice(ENDINGS)
    most = rng.choice((20, 30, 40))
    return [
        (f"Include the word {word}.", "keywords:existence", {"keywords": [word]}),
        ("Do not use any commas.", "punctuation:no_comma", {}),
        (f'End with the sentence "{ending}"', "startend:end_checker", {"end_phrase": ending}),
        (
            f"Use fewer than {most} words.",
            "length_constraints:number_words",
            {"relation": "less than", "num_words": most},
        ),
        ("Use only lowercase letters.", "change_case:english_lowercase", {}),
        ("Begin with a title in double angular brackets, such as <<title>>.",
         "detectable_format:title", {}),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
