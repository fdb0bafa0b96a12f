"""Siblings' prompts computed once (`scale.share_prompts`) against every sibling's own copy.

    python -m bench.speed.prompts [--models hybrid qwen3] [--shapes 0 1 2] [--rounds 5]

Random samples of three shapes: prompts of 37 to 508 tokens and replies of 48 on average, replies as
long as their prompts, and replies that are much longer. A GRPO step and a teacher's pass, plain and
shared in turn; medians of this process's CPU seconds on one thread. `peak`: by how much its
resident size grows above what it is before, at most (Linux alone says that).
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.peers.workload import new_qwen3
from linn.bases.make import tiny_config
from linn.engine.local import heap
from linn.engine.models.interface import CausalLM
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.training.losses import score
from linn.engine.training.pack import micro_batches
from linn.engine.training.trainer import Trainer
from linn.engine.training.trees import first_trained
from linn.types import Loss, Optim, Sample

VOCAB = 1024
WIDTH = 1024


@dataclass(frozen=True)
class Shape:
    """How long prompts and replies are."""

    name: str
    """For people."""
    prompts: tuple[int, int]
    """Tokens of the shortest and the longest prompt."""
    replies: tuple[int, int]
    """Tokens of replies: on average, and at most."""


SHAPES = (
    Shape("prompts 37-508, replies 48", (37, 508), (48, 256)),
    Shape("prompts 100, replies 100", (100, 100), (100, 256)),
    Shape("prompts 37, replies 230", (37, 37), (230, 256)),
)


def batch(shape: Shape, prompts: int, siblings: int) -> list[Sample]:
    """Random groups of this shape; lengths of replies fall off exponentially."""
    draw = random.Random(0)
    samples = []
    for number in range(prompts):
        shared = [draw.randrange(VOCAB) for _ in range(draw.randint(*shape.prompts))]
        for sibling in range(siblings):
            mean, most = shape.replies
            length = min(most, 1 + int(draw.expovariate(1 / mean)))
            reply = [draw.randrange(VOCAB) for _ in range(length)]
            samples.append(sample_of(shared, reply, number, (-1.0) ** sibling))
    return samples


def sample_of(prompt: Sequence[int], reply: Sequence[int], group: int, advantage: float) -> Sample:
    """A sample that trains its reply."""
    mask = [False] * len(prompt) + [True] * len(reply)
    size = len(mask)
    return Sample(
        tokens=[*prompt, *reply],
        mask=mask,
        advantage=[advantage] * size,
        behaviour=[-7.0 * trained for trained in mask],
        group=group,
    )


def hybrid(folder: Path) -> CausalLM:
    """The laptop's mixture-of-experts hybrid with random weights, 1.2 million parameters."""
    model = NemotronH(tiny_config(VOCAB), folder / "config.json")
    model.initialise(0)
    return model


def qwen3(folder: Path) -> CausalLM:
    """A Qwen3 of 1.0 million parameters with random weights."""
    from linn.engine.models.transformers_lm import TransformersLM

    return TransformersLM(new_qwen3(0))


MODELS = {"hybrid": hybrid, "qwen3": qwen3}


def resident(name: str) -> int:
    """Bytes of this process's `VmRSS` (now) or `VmHWM` (at most so far)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def measured(run: Callable[[], Any]) -> tuple[float, int]:
    """CPU seconds of a call, and the bytes by which the process grows in it at most."""
    heap.trim()
    Path("/proc/self/clear_refs").write_text("5")  # the largest size so far is that of now
    before, start = resident("VmRSS"), time.process_time()
    run()
    return time.process_time() - start, resident("VmHWM") - before


def compare(name: str, shape: Shape, options: argparse.Namespace) -> None:
    """Print a line for the step and one for the teacher's pass."""
    samples = batch(shape, options.prompts, options.siblings)
    sequences = [sample.tokens for sample in samples]
    skipped = [first_trained(sample) for sample in samples]
    packed: dict[bool, int] = {}
    runs: dict[tuple[str, bool], Callable[[], Any]] = {}

    with tempfile.TemporaryDirectory() as scratch:
        model = MODELS[name](Path(scratch))
    trainers = {share: Trainer(model, Optim(), WIDTH, share=share) for share in (False, True)}
    for share, trainer in trainers.items():
        batches = micro_batches(samples, [1.0] * len(samples), WIDTH, share=share)
        packed[share] = sum(int((one.segments >= 0).sum()) for one in batches)

        def step(trainer: Trainer = trainer) -> None:
            trainer.step(samples, Loss("grpo"), 0.0)
            trainer.free_gradient()

        def teach(share: bool = share) -> None:
            score(model, sequences, 1.0, WIDTH, prompts=skipped if share else None)

        runs["step", share], runs["teacher", share] = step, teach

    seconds: dict[tuple[str, bool], list[float]] = {key: [] for key in runs}
    peaks: dict[tuple[str, bool], list[float]] = {key: [] for key in runs}
    for number in range(options.rounds + 1):
        for key, run in runs.items():
            spent, grown = measured(run)
            if number:  # the first warms up
                seconds[key].append(spent)
                peaks[key].append(grown / 1e6)

    for what in ("step", "teacher"):
        plain, shared = (statistics.median(seconds[what, share]) for share in (False, True))
        grown = [statistics.median(peaks[what, share]) for share in (False, True)]
        print(
            f"{name:7} {shape.name:27} {what:8} tokens {packed[False]:6,} {packed[True]:6,}   "
            f"CPU-s {plain:5.2f} {shared:5.2f} ({plain / shared:4.2f} times)   "
            f"peak MB {grown[0]:4.0f} {grown[1]:4.0f}",
            flush=True,
        )


def main() -> None:
    """Print two lines per model and shape, each with plain and shared."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--shapes", nargs="+", type=int, default=[0, 1, 2], help="by number")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--siblings", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for name in options.models:
        for number in options.shapes:
            compare(name, SHAPES[number], options)


if __name__ == "__main__":
    main()
