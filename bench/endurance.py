"""A long run of the smallest recipe: does anything grow?

    python -m bench.endurance                          # 10,000 GRPO steps, about 9 CPU-minutes
    python -m bench.endurance --steps 500 --folder F   # shorter, in a folder of one's own

The domain is `arithmetic` without its working (`short_sums.py`), the model a hybrid of a Mamba-2
and an attention layer, a step four replies of a few tokens with a KL term: so every step samples,
grades, asks the reference, trains and writes, whatever its rewards are. A state is saved every 100
steps, the curve is measured every 1,000, and texts of the last 20 steps are kept.

While `linn run` goes on, this process reads the memory and the CPU time of each of its processes,
and the files of the run's folder. It prints each tenth of the run, and how far the last of them
stands from the second: the first is warm-up. CPU time is counted because wall clocks lie on a
shared machine. It lies as well, by as much as neighbours slow a core down; so at every look the
same small work is done here, and steps are told beside it too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from linn.assets import copy_assets
from linn.bases.make import tiny_config
from linn.checkpoints import BASES

_LOOK_S = 2.0
_PARTS = 10
_ALLOWED = 0.05


@dataclass(frozen=True)
class Look:
    """What stood in memory and on disk at one moment."""

    step: int
    """Steps of the long stage that are on record."""
    rss: tuple[float, ...]
    """MB of each process: the run's own, then its workers."""
    cpu: float
    """CPU seconds of all of them so far."""
    files: int
    """In the run's folder."""
    size: float
    """MB of them."""
    gauge: float
    """CPU milliseconds of the same small work, done here."""


# ---------------------------------------------------------------- the run


def write_base(folder: Path) -> None:
    """A model of two layers with the tokenizer of linn's own bases."""
    from linn.engine.models.nemotron_h.model import NemotronH

    folder.mkdir(parents=True)
    kept = BASES / "tiny-0"
    copy_assets(kept, folder)
    vocab = json.loads((kept / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 64, "hybrid_override_pattern": "M*", "num_hidden_layers": 2}
    model = NemotronH({**tiny_config(vocab), **sizes}, folder / "config.json")
    model.initialise(0)
    model.save(folder)


def recipe_of(base: Path, steps: int) -> dict[str, Any]:
    """The recipe: a little SFT, so that replies end by themselves, and the long stage."""
    sft = {"name": "sft", "kind": "sft", "steps": 400, "batch": 16, "lr": 3e-3}
    long = {
        "name": "long",
        "kind": "rl",
        "steps": steps,
        "prompts": 2,
        "rollouts": 2,
        "max_tokens": 8,
        "lr": 1e-4,
        "kl": 0.03,
        "save_every": 100,
        "curve_every": 1000,
        "keep_rollouts": 20,
    }
    return {
        "name": "endurance",
        "model": str(base),
        "domains": {str(Path(__file__).with_name("short_sums.py")): {}},
        "evaluate": {"test": 20, "validation": 20, "max_tokens": 8},
        "scale": {"processes": 1, "width": 256, "capacity": 32},
        "stages": [sft, long],
    }


def watch(process: subprocess.Popen[str], run: Path) -> list[Look]:
    """Look at a run until it ends; looks of its long stage."""
    metrics = run / "stages" / "02-long" / "metrics.jsonl"
    looks: list[Look] = []
    while process.poll() is None:
        time.sleep(_LOOK_S)
        if not metrics.exists():
            continue
        step = metrics.read_bytes().count(b"\n")
        # A process that ends within a look leaves none.
        try:
            looks.append(_look(process.pid, step, run))
        except (OSError, IndexError):
            continue
    return looks


def _look(pid: int, step: int, run: Path) -> Look:
    pids = _family(pid)
    sizes = [path.stat().st_size for path in run.rglob("*") if path.is_file()]
    rss = tuple(_rss(one) for one in pids)
    return Look(step, rss, sum(map(_cpu, pids)), len(sizes), sum(sizes) / 1e6, _gauge())


def _gauge() -> float:
    """What a fixed number of small products and Python's own steps cost, in milliseconds."""
    matrix = torch.full((64, 64), 1 / 64)
    start = time.process_time()
    for _ in range(500):
        matrix = matrix @ matrix
    sum(number % 7 for number in range(50_000))
    return (time.process_time() - start) * 1e3


def _family(pid: int) -> list[int]:
    """A process and those below it, oldest first."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]


def _rss(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------- what came of it


@dataclass(frozen=True)
class Tenth:
    """Medians over a tenth of the steps."""

    steps: int
    """The last of them."""
    rss: tuple[float, ...]
    """MB of each process."""
    cost: float
    """CPU milliseconds of a step by the run's own metrics, saving and measuring not included: the
    cheapest tenth of the steps. Other work on the machine makes steps dearer, never cheaper."""
    all_cost: float
    """CPU milliseconds of a step with everything, by the system's count."""
    files: int
    """At its end."""
    size: float
    """MB at its end."""
    gauge: float
    """See `Look`."""


def tenths_of(looks: Sequence[Look], costs: Sequence[float], steps: int) -> list[Tenth]:
    """The looks of each tenth of the steps; tenths that nobody saw are left out."""
    count = max(len(look.rss) for look in looks)
    found = []
    for part in range(_PARTS):
        first, last = part * steps // _PARTS, (part + 1) * steps // _PARTS
        # While a stage begins, its workers are not all there.
        seen = [look for look in looks if first < look.step <= last and len(look.rss) == count]
        if len(seen) < 2 or seen[-1].step == seen[0].step:
            continue
        rss = zip(*(look.rss for look in seen), strict=True)
        used = (seen[-1].cpu - seen[0].cpu) / (seen[-1].step - seen[0].step)
        tenth = Tenth(
            steps=last,
            rss=tuple(map(statistics.median, rss)),
            cost=sorted(costs[first:last])[(last - first) // 10] * 1e3,
            all_cost=used * 1e3,
            files=seen[-1].files,
            size=seen[-1].size,
            gauge=statistics.median(look.gauge for look in seen),
        )
        found.append(tenth)
    return found


def told(tenths: Sequence[Tenth]) -> list[str]:
    """A table, and how the last tenth differs from the second."""
    lines = [
        "| steps | MB of each process | CPU ms a step | with all | the same work | files | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in tenths:
        memory = " + ".join(f"{mb:.1f}" for mb in one.rss)
        cells = [f"{one.steps:,}", memory, f"{one.cost:.1f}", f"{one.all_cost:.1f}"]
        cells += [f"{one.gauge:.2f}", str(one.files), f"{one.size:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")

    if len(tenths) < 3:
        return [*lines, "too short: nobody looked twice within three tenths of it"]
    begin, end = tenths[1], tenths[-1]
    memories = enumerate(zip(begin.rss, end.rss, strict=True))
    changes = {f"memory of process {number}": pair for number, pair in memories}
    changes["CPU of a step"] = begin.cost, end.cost
    changes["CPU of a step, in units of the same work"] = (
        begin.cost / begin.gauge,
        end.cost / end.gauge,
    )
    for name, (before, after) in changes.items():
        change = after / before - 1
        verdict = "flat" if abs(change) <= _ALLOWED else "NOT FLAT"
        lines.append(f"{name}: {change:+.1%} from the second tenth to the last, {verdict}")
    lines.append(f"files: {begin.files} and {end.files}")
    return lines


def endure(folder: Path, steps: int) -> None:
    """Write the base and the recipe, run it, print what was seen."""
    torch.set_num_threads(1)
    write_base(folder / "base")
    recipe, run = folder / "recipe.yaml", folder / "run"
    recipe.write_text(yaml.safe_dump(recipe_of(folder / "base", steps)))
    command = [sys.executable, "-m", "linn.cli", "run", str(recipe), "--out", str(run)]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
        looks = watch(process, run)
    if process.wait():
        raise SystemExit(f"the run ended with {process.returncode}; see {folder / 'log.txt'}")

    lines = (run / "stages" / "02-long" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    print("\n".join(told(tenths_of(looks, [row["cpu_s"] for row in rows], steps))))
    idle = sum(1 for row in rows if row.get("idle"))
    used = max(look.cpu for look in looks)
    print(f"{len(rows)} steps, {idle} of them idle, {used:.0f} CPU seconds in all")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="a new one; default: a temporary one")
    given = parser.parse_args()
    if given.folder is not None:
        endure(given.folder, given.steps)
        return
    with tempfile.TemporaryDirectory() as temporary:
        endure(Path(temporary), given.steps)


if __name__ == "__main__":
    main()
