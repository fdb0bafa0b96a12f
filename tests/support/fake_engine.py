"""An engine without a model or a process: a scripted policy, and a trainer that takes notes."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

from linn.engine.protocol import SHARD_BYTES, ModelCheck, Token
from linn.errors import RunFailed, UserError
from linn.types import Finding, Loss, Optim, Sample, Sampling

Scorer = Callable[[Path, Sequence[int]], list[float]]
"""Log-probs of a sequence under the checkpoint in a folder."""


def flat_scores(folder: Path, ids: Sequence[int]) -> list[float]:
    """The log-probs that `Scripted` reports: -1.0 for every token but the first."""
    return [0.0] + [-1.0] * (len(ids) - 1)


class FakeEngine:
    """Meets the `Engine` protocol. Its weights are one number: how many steps made them.

    `sampler`: what `Scripted` or any other sampler answers; a script that looks at
    `engine.weights` changes with training. `samplers`: those of other checkpoints, by folder name.
    """

    def __init__(
        self,
        sampler: Any,
        width: int = 64,
        samplers: dict[str, Any] | None = None,
        score: Scorer = flat_scores,
    ) -> None:
        self.sampler = sampler
        self.width = width
        self.trainer = FakeTrainer(self)
        self.samplers = samplers or {}
        self.scorer = score
        self.weights = 0
        """Optimiser steps that made the policy, those of its checkpoint included."""
        self.is_open = False

    def load(self, folder: Path, optim: Optim) -> None:
        self.weights = weights_in(folder)
        self.is_open = True

    def check(self, folder: Path) -> ModelCheck:
        there = (folder / "config.json").exists()
        return ModelCheck((Finding("weights", there, "" if there else f"{folder}: none"),))

    def score(
        self,
        folder: Path,
        sequences: Sequence[Sequence[int]],
        temperature: float = 1.0,
        prompts: Sequence[int] | None = None,
    ) -> list[list[float]]:
        return [self.scorer(folder, ids) for ids in sequences]

    def sampler_of(self, folder: Path) -> Any:
        return self.samplers[folder.name]

    def streams_of(self, folder: Path) -> FakeStreams:
        return FakeStreams(self, folder)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.export(folder)
        (folder / "trainer.json").write_text("{}")

    def restore(self, folder: Path) -> None:
        if not (folder / "trainer.json").exists():
            raise UserError(f"{folder}: not a checkpoint of a training run: no trainer.json")
        self.weights = weights_in(folder)

    def export(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(json.dumps(self.weights))

    def cpu_seconds(self) -> float:
        return 0.0

    def close(self) -> None:
        self.is_open = False


class FakeStreams:
    """Streams what the checkpoint's scripted sampler says, a token at a time or all at once."""

    def __init__(self, engine: FakeEngine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.is_open = False
        self.live = 0
        """Requests that are being answered."""
        self.error: Exception | None = None
        """Raised behind the first token, if anything is."""
        self.pause: Callable[[], Any] | None = None
        """Awaited before every token, if anything is."""

    async def open(self) -> int | None:
        if not (self.folder / "config.json").is_file():
            raise UserError(f"{self.folder}: no such model")
        self.is_open = True
        return None

    async def stream(
        self, ids: Sequence[int], how: Sampling, seed: int, is_whole: bool = False
    ) -> AsyncGenerator[Sequence[Token], None]:
        if not self.is_open:
            raise UserError(f"{self.folder}: this checkpoint is not open")
        scripted = self.engine.samplers[self.folder.name]
        said = scripted.codec.encode(scripted.reply(scripted.codec.decode(ids), seed))
        self.live += 1
        whole: list[Token] = []
        try:
            for token in said[: how.max_tokens]:
                if self.pause is not None:
                    await self.pause()
                top = tuple((token, -1.0) for _ in range(how.top))
                whole.append(Token(token, -1.0, top))
                if not is_whole:
                    yield whole[-1:]
                if self.error is not None:
                    raise self.error
                if token in how.stop:
                    break
            if is_whole:
                yield whole
        finally:
            self.live -= 1

    async def score(self, ids: Sequence[int], top: int = 0) -> list[Token]:
        logprobs = self.engine.scorer(self.folder, ids)
        return [Token(token, value) for token, value in zip(ids, logprobs, strict=True)]

    async def close(self) -> None:
        self.is_open = False


class FakeTrainer:
    """Notes its batches; each step changes the engine's weights."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.batches: list[list[Sample]] = []
        """The samples of every step."""
        self.metrics: dict[str, float] = {"loss": 0.0}
        """What a step returns."""
        self.fails_at: int | None = None
        """The step, counted from 0, that raises `error`."""
        self.error: BaseException = RunFailed("the loss is not finite")

    def step(self, samples: Sequence[Sample], loss: Loss, lr: float) -> dict[str, float]:
        if len(self.batches) == self.fails_at:
            raise self.error
        for sample in samples:
            if not all(map(math.isfinite, sample.advantage)):
                raise RunFailed(f"sample {sample.source}: `advantage` holds a value not finite")
        self.batches.append(list(samples))
        self.engine.weights += 1
        return dict(self.metrics)


def weights_in(folder: Path) -> int:
    """The number in a folder that `FakeEngine.export` wrote; 0 for any other, or for none."""
    try:
        return int(json.loads((folder / "model.safetensors").read_text()))
    except (OSError, ValueError):
        return 0
