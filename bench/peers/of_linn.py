"""linn's side: the local engine with one worker, as `scale: {processes: 1}` opens it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from bench.peers import workload
from bench.peers.turns import Turns
from linn.engine.open import open_engine
from linn.engine.protocol import Engine
from linn.engine.training.trees import first_trained
from linn.play.credit import advantages
from linn.recipe.scale import ScaleConfig
from linn.types import Completion, Loss, Optim, Sample, Sampling


@contextmanager
def _engine(task: dict[str, Any], turns: Turns) -> Iterator[Engine]:
    engine = open_engine(ScaleConfig(processes=1, device="cpu"))
    try:
        engine.load(Path(task["folder"]), Optim())
        turns.rest_of_cpu = engine.cpu_seconds
        yield engine
    finally:
        # Its worker is gone: nobody answers that question any more.
        turns.rest_of_cpu = lambda: 0.0
        engine.close()


class _Batches:
    """Replies to the prompts of a piece of work, with other draws each time."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.groups = workload.GROUPS[task["work"]]
        lengths = workload.LENGTHS[task["lengths"]]
        self._how = Sampling(lengths.most, stop=lengths.stops)
        self._prompts = [tuple(ids) for ids in workload.prompts_of(self.groups)]
        self._seeds = count()

    async def sampled(self, engine: Engine) -> list[Completion]:
        """As a stage asks: all at once, then the word that there are no more."""
        waiting = []
        for prompt in self._prompts:
            for _ in range(self.groups.siblings):
                asked = engine.sampler.generate(prompt, self._how, next(self._seeds))
                waiting.append(asyncio.ensure_future(asked))
        await asyncio.sleep(0)  # every request is queued before the sampler runs
        engine.sampler.flush()
        return list(await asyncio.gather(*waiting))

    def samples(self, engine: Engine) -> list[Sample]:
        """Samples to train, every other reply of a group with a reward of 1."""
        completions = asyncio.run(self.sampled(engine))
        siblings = self.groups.siblings
        earned = advantages([float(number % 2) for number in range(siblings)])
        samples = []
        for place, completion in enumerate(completions):
            prompt = self._prompts[place // siblings]
            skipped, made = len(prompt), len(completion.ids)
            samples.append(
                Sample(
                    tokens=[*prompt, *completion.ids],
                    mask=[False] * skipped + [True] * made,
                    advantage=[0.0] * skipped + [earned[place % siblings]] * made,
                    behaviour=[0.0] * skipped + [*completion.logprobs],
                    group=place // siblings,
                )
            )
        return samples


def rollout(task: dict[str, Any], turns: Turns) -> None:
    """Replies alone."""
    batches = _Batches(task)
    with _engine(task, turns) as engine:
        turns.play(lambda: _count(asyncio.run(batches.sampled(engine))))


def _count(completions: list[Completion]) -> int:
    return sum(len(completion.ids) for completion in completions)


def grpo(task: dict[str, Any], turns: Turns) -> None:
    """Sample, credit, update."""
    batches = _Batches(task)

    def step() -> int:
        samples = batches.samples(engine)
        return int(engine.trainer.step(samples, Loss("grpo"), workload.LR)["tokens"])

    with _engine(task, turns) as engine:
        turns.play(step)


def mopd(task: dict[str, Any], turns: Turns) -> None:
    """Sample, score under the teacher, update."""
    batches = _Batches(task)
    teacher = Path(task["folder"]) / workload.TEACHER

    def step() -> int:
        samples = batches.samples(engine)
        skipped = [first_trained(sample) for sample in samples]
        scores = engine.score(teacher, [sample.tokens for sample in samples], 1.0, skipped)
        taught = [replace(one, teacher=own) for one, own in zip(samples, scores, strict=True)]
        return int(engine.trainer.step(taught, Loss("mopd"), workload.LR)["tokens"])

    with _engine(task, turns) as engine:
        turns.play(step)


def sft(task: dict[str, Any], turns: Turns) -> None:
    """A step over packed rows."""
    samples = []
    for row in workload.rows_of_text():
        mask = [False] + [True] * (len(row) - 1)
        samples.append(Sample(tokens=row, mask=mask, advantage=[1.0] * len(row)))

    def step() -> int:
        return int(engine.trainer.step(samples, Loss("sft"), workload.LR)["tokens"])

    with _engine(task, turns) as engine:
        turns.play(step)
