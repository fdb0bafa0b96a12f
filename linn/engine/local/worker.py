"""One process of the local engine: holds a policy, its optimiser and one other model.

Started by `processes.py` through `start.py`. Its options and all further messages come through a
pipe.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from linn.engine.local import heap, heartbeat
from linn.engine.local.accelerator import cache_bytes, device_of, set_up
from linn.engine.local.answering import die_with_parent, ignore_signals, serve
from linn.engine.local.disk import room_for
from linn.engine.local.processes import WorkerOptions
from linn.engine.local.slot import Slot
from linn.engine.models.check import check_model
from linn.engine.models.export import export
from linn.engine.models.interface import CausalLM
from linn.engine.models.kernels import products
from linn.engine.models.load import load
from linn.engine.protocol import ModelCheck
from linn.engine.sampling.live_batch import BatchSampler, Request
from linn.engine.training.losses import score
from linn.engine.training.trainer import Trainer, size_of
from linn.errors import UserError
from linn.types import Completion, Loss, Optim, Sample


class Worker:
    """What one process holds. Each public method is one message that `Workers.call_each` sends."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        self.device = device_of(options.device)
        self.dtype: torch.dtype = getattr(torch, options.dtype)
        self.trainer: Trainer | None = None
        self.sampler: BatchSampler | None = None
        self.other = Slot(self._read)
        """The model that `score` and other samplers use."""

    def load(self, folder: Path, optim: Optim) -> None:
        self.trainer = self.sampler = None  # frees the old policy before the new one is read
        self.trainer = Trainer(
            self._read(folder),
            optim,
            width=self.options.width,
            tokens=self.options.tokens,
            autocast=self.options.autocast,
            load=self._read,
            share=self.options.share_prompts,
            host_moments=self.options.host_moments,
        )
        self.trainer.model.recompute = self.options.recompute
        self.sampler = self._sampler(self.trainer.model)

    def check(self, folder: Path) -> ModelCheck | None:
        # The others would find the same.
        return check_model(folder) if self.options.rank == 0 else None

    def generate(
        self, folder: Path | None, requests: Sequence[Request], known: Sequence[int]
    ) -> list[Completion]:
        """Under the policy (None), or under the checkpoint in `folder`, which keeps no states."""
        if folder is not None:
            return self._sampler(self.other.take(folder)).generate(requests)
        assert self.sampler is not None, "Engine.load comes first"
        return self.sampler.generate(requests, known)

    def score(
        self,
        folder: Path,
        sequences: Sequence[Sequence[int]],
        temperature: float,
        prompts: Sequence[int] | None,
    ) -> list[list[float]]:
        return score(
            self.other.take(folder),
            sequences,
            temperature,
            width=self.options.width,
            tokens=self.options.tokens,
            autocast=self.options.autocast,
            prompts=prompts,
        )

    def step(
        self, samples: Sequence[Sample], weights: Sequence[float], loss: Loss, lr: float
    ) -> dict[str, float]:
        self._forget()
        if self.options.recompute and self.sampler is not None:
            # Who asks for little memory gives the slots of decoding back, and records them again.
            self.sampler.release()
        try:
            return self._policy().step(samples, loss, lr, weights)
        finally:
            # Until the next step the memory is the sampler's.
            self._policy().free_gradient()
            if self.options.recompute:
                heap.trim()

    def save(self, folder: Path) -> None:
        # The weights are equal in all ranks.
        if self.options.rank == 0:
            policy = self._policy()
            with room_for(folder, policy.size_on_disk()):
                policy.save(folder)

    def export(self, folder: Path, shard_bytes: int) -> None:
        if self.options.rank == 0:
            model = self._policy().model
            with room_for(folder, size_of(model)):
                export(model, folder, shard_bytes)

    def restore(self, folder: Path) -> None:
        self._policy().restore(folder)
        self._forget()

    def cpu_seconds(self) -> float:
        return time.process_time()

    def fingerprint(self) -> str:
        """Hash of the policy's weights."""
        digest = hashlib.blake2b()
        module: torch.nn.Module = self._policy().model  # type: ignore[assignment]
        for name, value in sorted(module.state_dict().items()):
            content = value.cpu().contiguous().view(torch.uint8).numpy()
            digest.update(name.encode() + content.tobytes())
        return digest.hexdigest()

    # ------------------------------------------------------------ models

    def _policy(self) -> Trainer:
        assert self.trainer is not None, "Engine.load comes first"
        return self.trainer

    def _forget(self) -> None:
        """The weights change: states that were computed with the old ones are of no use."""
        if self.sampler is not None:
            self.sampler.forget()

    def _read(self, folder: Path) -> CausalLM:
        return load(folder, self.dtype, self.device)

    def _sampler(self, model: CausalLM) -> BatchSampler:
        return BatchSampler(
            model,
            self.options.capacity,
            cache_bytes=cache_bytes(self.options.cache_bytes, self.device),
            # On a CPU bfloat16 products are no faster here, so its sampler stays exact.
            bfloat16=self.options.autocast and self.device.type == "cuda",
        )


class _Refusing:
    """What serves where there is no device: every message is answered by why."""

    def __init__(self, error: UserError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


def main(arguments: Sequence[str]) -> None:
    """Serve the pipe whose descriptor is the one argument."""
    pipe = Connection(int(arguments[0]))
    ignore_signals()
    options: WorkerOptions = pipe.recv()
    heartbeat.beat(Path(options.heartbeat))
    die_with_parent(options.die_by_kernel)
    set_up()
    if options.recompute:  # who asks for little memory pays for it in time
        heap.keep_little()
        products.forgo()
    else:
        heap.keep_much(os.environ)
    if options.world > 1:
        # The engine notices the death of a peer and ends us; a slow peer is no error.
        dist.init_process_group(
            "gloo",
            init_method=f"file://{options.store}",
            rank=options.rank,
            world_size=options.world,
            timeout=timedelta(days=7),
        )
    worker: Worker | _Refusing
    try:
        worker = Worker(options)
    except UserError as error:
        worker = _Refusing(error)
    serve(worker, f"engine process {options.rank}", pipe)
    os._exit(0)  # no interpreter shutdown: the watching thread holds standard input's lock
