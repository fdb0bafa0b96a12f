"""Peak memory of the engine's processes against the plan's figures.

    python -m bench.speed.memory FOLDER [--lengths 256 1024] [--processes 1 2] [--widths 1024]

Each line is an engine of its own, three steps long: SFT on random tokens, or sampling and a GRPO
step. `measured`: the largest resident size (VmHWM) of a process, from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

from linn.engine.open import open_engine
from linn.pricing.memory import memory_of
from linn.pricing.shape import read_shape
from linn.recipe.schema import ScaleConfig
from linn.types import Completion, Loss, Optim, Sample, Sampling

SIBLINGS = 4


def peak_bytes(pids: Sequence[int]) -> int:
    """The largest resident size that one of these processes ever had."""
    peaks = []
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                peaks.append(int(line.split()[1]) * 1024)
    return max(peaks)


def measured(
    folder: Path, scale: ScaleConfig, kind: str, length: int, batch: int, steps: int
) -> int:
    """Peak of a process over some steps (or rounds of sampling) of `batch` sequences."""
    draw = random.Random(0)
    engine = open_engine(scale)
    try:
        engine.load(folder, Optim())
        for _ in range(steps):
            if kind == "sft":
                sequences = [random_ids(draw, length) for _ in range(batch)]
                samples = [sample_of(ids, 1, [0.0] * length) for ids in sequences]
                engine.trainer.step(samples, Loss("sft"), 1e-6)
                continue
            prompts = [random_ids(draw, length // 2) for _ in range(batch // SIBLINGS)]
            requests = [prompt for prompt in prompts for _ in range(SIBLINGS)]
            done = asyncio.run(sampled(engine.sampler, requests, length - length // 2))
            if kind == "eval":
                continue
            samples = []
            for number, (prompt, completion) in enumerate(zip(requests, done, strict=True)):
                ids = [*prompt, *completion.ids]
                behaviour = [0.0] * len(prompt) + list(completion.logprobs)
                sample = sample_of(ids, len(prompt), behaviour, (-1.0) ** number)
                samples.append(sample)
            engine.trainer.step(samples, Loss("grpo"), 1e-6)
        return peak_bytes(engine.workers.pids)  # type: ignore[attr-defined]
    finally:
        engine.close()


def random_ids(draw: random.Random, length: int) -> list[int]:
    """Tokens that every vocabulary has."""
    return [draw.randrange(5, 300) for _ in range(length)]


def sample_of(
    ids: Sequence[int], prompt: int, behaviour: Sequence[float], advantage: float = 1.0
) -> Sample:
    """A sample that trains what follows the prompt."""
    mask = [False] * prompt + [True] * (len(ids) - prompt)
    return Sample(tokens=ids, mask=mask, advantage=[advantage] * len(ids), behaviour=behaviour)


async def sampled(sampler: object, requests: Sequence[list[int]], most: int) -> list[Completion]:
    """Completions of all requests, as one batch."""
    tasks = []
    for seed, ids in enumerate(requests):
        how = Sampling(max_tokens=most)
        tasks.append(asyncio.ensure_future(sampler.generate(ids, how, seed)))  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    sampler.flush()  # type: ignore[attr-defined]
    return list(await asyncio.gather(*tasks))


def main() -> None:
    """Print one line per setting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kinds", nargs="+", default=["eval", "sft", "grpo"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--batch", type=int, default=8, help="sequences per process")
    parser.add_argument("--widths", nargs="+", type=int, default=[1024])
    parser.add_argument("--processes", nargs="+", type=int, default=[1])
    parser.add_argument("--recompute", nargs="+", type=int, default=[0, 1], choices=[0, 1])
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()

    shape = read_shape(options.folder)
    print("kind length batch width processes recompute measured plan plan/measured")
    for kind in options.kinds:
        # An evaluation trains nothing, so it has nothing to recompute.
        for recompute in options.recompute if kind != "eval" else [0]:
            for processes in options.processes:
                for width in options.widths:
                    for length in options.lengths:
                        scale = ScaleConfig(
                            processes=processes, width=width, recompute=bool(recompute)
                        )
                        batch = options.batch * processes
                        cached = 0.0
                        if kind != "sft":
                            cached = options.batch * shape.state_bytes(length)
                        memory = memory_of(
                            shape, width, options.batch * length, cached, bool(recompute)
                        )
                        plan = memory.evaluating if kind == "eval" else memory.whole
                        peak = measured(options.folder, scale, kind, length, batch, options.steps)
                        print(
                            f"{kind:5}{length:6}{batch:6}{width:6}{processes:6}{recompute:6}"
                            f"{peak / 1e9:10.2f}{plan / 1e9:8.2f}{plan / peak:8.2f}",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
