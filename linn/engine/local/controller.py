"""The engine of one machine: worker processes that sample and train the same weights.

No torch in this process.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from linn.engine.local.dealing import deal_samples, score_shares, undeal
from linn.engine.local.processes import WorkerOptions, Workers
from linn.engine.local.sampler import LocalSampler, Pool
from linn.engine.local.streams import LiveWorkers, LocalStreams
from linn.engine.protocol import SHARD_BYTES, ModelCheck
from linn.engine.training.token_weights import StepFailed, moves, token_weights
from linn.engine.training.trees import MICRO_BATCH
from linn.types import Loss, Optim, Sample

GPU_MICRO_BATCH = 8192
"""Tokens that a GPU computes together: enough to fill it. On a CPU `MICRO_BATCH`."""


class LocalEngine:
    """N workers, each with one policy, its optimiser, and one other model at a time.

    In a worker, sampler and trainer share the policy's tensors. Every result is a function of the
    calls made, not of timing.
    """

    def __init__(
        self,
        processes: int = 2,
        dtype: str = "float32",
        width: int = 2048,
        capacity: int = 256,
        cache_bytes: int | None = None,
        autocast: bool = False,
        recompute: bool = False,
        share_prompts: bool = False,
        device: str = "cpu",
        host_moments: bool = False,
    ) -> None:
        """`width`: tokens of a packed row. `capacity`: rows that a process decodes together.

        `cache_bytes`: what the states of these rows may take; of long conversations fewer are
        decoded together. None: 192 MiB, on a GPU a quarter of its memory.

        `autocast`: train in bf16 over `dtype` weights. `recompute`: keep only the inputs of each
        layer for the backward pass. `share_prompts`: siblings' prompts are computed once.

        `device`: `cpu` or `cuda`; one GPU has one process. `host_moments`: AdamW's moments wait
        in the host's memory.
        """
        self.width = width
        tokens = MICRO_BATCH if device == "cpu" else GPU_MICRO_BATCH
        self._most = max(width, tokens) if share_prompts else None
        """Tokens of siblings that share their prompt; None: they do not."""
        options = WorkerOptions(
            world=processes,
            device=device,
            dtype=dtype,
            width=width,
            tokens=tokens,
            capacity=capacity,
            cache_bytes=cache_bytes,
            autocast=autocast,
            recompute=recompute,
            host_moments=host_moments,
            share_prompts=share_prompts,
        )
        self.workers = Workers(options)
        self.live = LiveWorkers(options)
        self.sampler = LocalSampler(self.workers)
        self.trainer = LocalTrainer(self.workers, self.sampler, self._most)

    def load(self, folder: Path, optim: Optim) -> None:
        """Take the policy from a Hugging Face folder, with a fresh optimiser."""
        self.sampler.forget()
        self.workers.call("load", Path(folder), optim)

    def check(self, folder: Path) -> ModelCheck:
        """Try the model of a folder, in one of the processes."""
        findings: ModelCheck = self.workers.call("check", Path(folder))[0]
        return findings

    def score(
        self,
        folder: Path,
        sequences: Sequence[Sequence[int]],
        temperature: float = 1.0,
        prompts: Sequence[int] | None = None,
    ) -> list[list[float]]:
        """Log-prob of every token under the checkpoint; dealt as training deals its samples."""
        shares, told = score_shares(sequences, prompts, self.workers.count, self._most)
        messages = [(Path(folder), own, temperature, skipped) for own, skipped in told]
        return undeal(shares, self.workers.call_each("score", messages))

    def sampler_of(self, folder: Path) -> LocalSampler:
        """A sampler over another checkpoint (a judge, a teacher), in the place `score` uses."""
        return LocalSampler(self.workers, Path(folder))

    def streams_of(self, folder: Path) -> LocalStreams:
        """Streams from a checkpoint, in processes of their own."""
        return LocalStreams(self.live, Path(folder))

    def save(self, folder: Path) -> None:
        """Write policy and optimiser; complete or absent at any instant."""
        self.workers.call("save", Path(folder))

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote into the loaded policy; training goes on bit for bit."""
        self.sampler.forget()
        self.workers.call("restore", Path(folder))

    def export(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        """Write the policy's config.json and safetensors into an existing folder."""
        self.workers.call("export", Path(folder), shard_bytes)

    def cpu_seconds(self) -> float:
        """Processor time of all workers since they started."""
        if not self.workers.pids:
            return 0.0
        return float(sum(self.workers.call("cpu_seconds")))

    def fingerprints(self) -> list[str]:
        """A hash of the policy's weights in every process; all are equal. For tests."""
        return self.workers.call("fingerprint")

    def close(self) -> None:
        """End the workers; the engine can be loaded again afterwards."""
        self.sampler.forget()
        self.workers.close()
        self.live.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class LocalTrainer:
    """The `Trainer` of processes that step together: samples are dealt to them by length."""

    def __init__(self, workers: Pool, sampler: LocalSampler, most: int | None = None) -> None:
        """`sampler`: the policy's, which forgets what it computed when the weights change.

        `most`: tokens of siblings that share their prompt; None: they do not.
        """
        self._workers = workers
        self._sampler = sampler
        self._most = most

    def step(self, samples: Sequence[Sample], loss: Loss, lr: float) -> dict[str, float]:
        """One optimiser step over all samples.

        Raises StepFailed, carrying `samples` and changing nothing, where it is not finite.
        """
        weights = token_weights(samples, loss)
        # A sample without a gradient is not computed, so it costs its worker nothing.
        moving = [moves(sample, loss) for sample in samples]
        messages = []
        for share in deal_samples(samples, moving, self._workers.count, self._most):
            own_samples = [samples[i] for i in share]
            own_weights = [weights[i] for i in share]
            messages.append((own_samples, own_weights, loss, lr))
        self._sampler.forget()
        try:
            # All ranks return the same metrics.
            metrics: dict[str, float] = self._workers.call_each("step", messages)[0]
        except StepFailed as error:
            error.samples = samples
            raise
        return metrics
