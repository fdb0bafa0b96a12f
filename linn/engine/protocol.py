"""The seam behind which every engine stands: a laptop's processes today, a GPU or a cluster later.

Stages, evaluation, judges and filters know these three protocols and nothing else of an engine.
`linn.engine.open.open_engine` makes one; `tests/test_engine_contract.py` is what each must pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from linn.types import Completion, Loss, Optim, Sample, Sampling


class Sampler(Protocol):
    """Samples from one model. Tokens in, tokens out."""

    async def generate(self, ids: Sequence[int], how: Sampling, seed: int) -> Completion:
        """Continue the prompt `ids`.

        Requests form batches. The same weights and the same sequence of batches give the same
        tokens, however long anything else takes.
        """
        ...

    def flush(self) -> None:
        """Tell the sampler that no further request comes until these are answered.

        Engines that batch continuously ignore it.
        """
        ...


class Trainer(Protocol):
    """One optimiser step over samples, wherever the processes are."""

    def step(self, samples: Sequence[Sample], loss: Loss, lr: float) -> dict[str, float]:
        """Forward, backward, clip, AdamW; afterwards the engine's sampler uses the new weights.

        Returns the step's metrics. Raises RunFailed and changes nothing when the loss or a
        gradient is not finite.
        """
        ...


class Engine(Protocol):
    """One policy with its optimiser, its sampler, and one other model at a time for scoring."""

    @property
    def width(self) -> int:
        """Tokens of a packed row; no sample may be longer."""
        ...

    @property
    def sampler(self) -> Sampler:
        """Samples from the policy as it is after the last `load`, `restore` or `step`."""
        ...

    @property
    def trainer(self) -> Trainer:
        """Trains the policy."""
        ...

    def load(self, folder: Path, optim: Optim) -> None:
        """Take the policy from a Hugging Face folder, with a fresh optimiser."""
        ...

    def score(
        self, folder: Path, sequences: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[list[float]]:
        """Log-prob of every token of each sequence under the checkpoint in `folder`.

        Logits are divided by `temperature` first. Entry 0 of each list is 0.0: nothing precedes
        it. The checkpoint stays loaded until another is asked for.
        """
        ...

    def sampler_of(self, folder: Path) -> Sampler:
        """A sampler over another checkpoint (a judge, a teacher), in the place `score` uses."""
        ...

    def save(self, folder: Path) -> None:
        """Write a resumable state in the engine's own layout: complete or absent."""
        ...

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote; training then continues as if it had never stopped."""
        ...

    def export(self, folder: Path) -> None:
        """Write the policy's config.json and safetensors into an existing Hugging Face folder.

        Weights above 5 GB are written as shards with an index.
        """
        ...

    def cpu_seconds(self) -> float:
        """Processor time of all workers since they started."""
        ...

    def close(self) -> None:
        """End the workers. The engine can be loaded again afterwards."""
        ...
