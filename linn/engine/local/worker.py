"""One process of the local engine: holds a policy, its optimiser and one other model, and does what the pool asks."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist

from linn.engine.models.interface import CausalLM
from linn.engine.models.load import load
from linn.engine.sampling.live_batch import BatchSampler, Request
from linn.engine.training.losses import score
from linn.engine.training.trainer import Trainer
from linn.errors import InfrastructureError, LinnError
from linn.types import Completion, Loss, Optim, Sample


class Worker:
    """Every public method is one message of the pool."""

    def __init__(self, rank: int, dtype: str, width: int, capacity: int, autocast: bool) -> None:
        self.rank, self.width, self.capacity, self.autocast = rank, width, capacity, autocast
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.trainer: Trainer | None = None
        self.other: tuple[tuple[object, ...], CausalLM] | None = None
        self.sampler: BatchSampler | None = None

    def load(self, folder: Path, optim: Optim) -> None:
        self.trainer = self.sampler = None  # frees the old policy before the new one is read
        self.trainer = Trainer(
            self._read(folder),
            optim,
            width=self.width,
            autocast=self.autocast,
            load=self._read,
            assets=folder,
        )
        self.sampler = BatchSampler(self.trainer.model, self.capacity)

    def generate(
        self, folder: Path | None, requests: Sequence[Request], known: Sequence[int]
    ) -> list[Completion]:
        if folder is None and self.sampler is not None:
            return self.sampler.generate(requests, known)
        return BatchSampler(self._model(folder), self.capacity).generate(requests)

    def score(
        self, folder: Path | None, sequences: Sequence[Sequence[int]], temperature: float
    ) -> list[list[float]]:
        if folder is None:
            return self._policy().score(sequences, temperature)
        return score(
            self._model(folder), sequences, temperature, self.width, autocast=self.autocast
        )

    def step(
        self, samples: Sequence[Sample], weights: Sequence[float], loss: Loss, lr: float
    ) -> dict[str, float]:
        if self.sampler is not None:
            self.sampler.forget()
        return self._policy().step(samples, loss, lr, weights)

    def save(self, folder: Path) -> None:
        if self.rank == 0:
            self._policy().save(folder)

    def export(self, folder: Path) -> None:
        if self.rank == 0:
            self._policy().model.save(folder)

    def restore(self, folder: Path) -> int:
        self._policy().restore(folder)
        if self.sampler is not None:
            self.sampler.forget()
        return self._policy().version

    def cpu_seconds(self) -> float:
        return time.process_time()

    def fingerprint(self) -> str:
        """Hash of the policy's weights."""
        digest = hashlib.blake2b()
        module: torch.nn.Module = self._policy().model  # type: ignore[assignment]
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode() + value.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _policy(self) -> Trainer:
        assert self.trainer is not None, "Engine.load comes first"
        return self.trainer

    def _model(self, folder: Path | None) -> CausalLM:
        if folder is None:
            return self._policy().model
        key = (folder, *_identity(folder))
        if self.other is None or self.other[0] != key:
            self.other = None  # never three models at once
            self.other = (key, self._read(folder))
        return self.other[1]

    def _read(self, folder: Path) -> CausalLM:
        return load(folder, self.dtype)


def _identity(folder: Path) -> tuple[int, ...]:
    """Changes when another checkpoint takes the folder's name; empty where there is none, which the reader reports."""
    try:
        found = folder.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns


def _serve(worker: Worker, pipe: Connection) -> None:
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        try:
            reply = (True, getattr(worker, name)(*arguments))
        except (LinnError, ValueError) as error:
            if hasattr(error, "samples"):
                error.samples = ()  # the pool holds the whole batch and puts it back
            reply = (False, error)
        except (OSError, MemoryError) as error:
            reply = (
                False,
                InfrastructureError(
                    f"engine process {worker.rank}: {name}: {type(error).__name__}: {error}"
                ),
            )
        except Exception:
            about = f" {arguments[0]}" if arguments and isinstance(arguments[0], Path) else ""
            reply = (
                False,
                RuntimeError(
                    f"engine process {worker.rank}: {name}{about}:\n{traceback.format_exc()}"
                ),
            )
        pipe.send(reply)


def _die_with_parent(by_kernel: bool) -> None:
    """The parent holds our standard input open: when it ends, however it was killed, so do we, even in the middle of a computation.

    `by_kernel` also asks Linux for a signal; only where the parent's main thread started us, since that signal follows the thread.
    """

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    if by_kernel and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main(arguments: Sequence[str]) -> None:
    """`python -m linn.engine.local.worker FD RANK WORLD STORE DTYPE WIDTH CAPACITY AUTOCAST BY_KERNEL`, started by the pool."""
    fd, rank, world, store, dtype, width, capacity, autocast, by_kernel = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with_parent(by_kernel == "1")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if int(world) > 1:
        # Death of a peer is noticed by the pool, which ends us; a slow peer is no error.
        dist.init_process_group(
            "gloo",
            init_method=f"file://{store}",
            rank=int(rank),
            world_size=int(world),
            timeout=timedelta(days=7),
        )
    _serve(
        Worker(int(rank), dtype, int(width), int(capacity), autocast == "1"), Connection(int(fd))
    )
    os._exit(0)  # no interpreter shutdown: the watching thread holds standard input's lock


if __name__ == "__main__":
    main(sys.argv[1:])
