"""One process of the local engine: holds a policy, its optimiser and one other model.

Started by `processes.py` through `start.py`. Its options and all further messages come through a
pipe.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError

from linn import stopping
from linn.engine.local import heap, heartbeat
from linn.engine.local.processes import WorkerOptions
from linn.engine.models.check import check_model
from linn.engine.models.export import export
from linn.engine.models.interface import CausalLM
from linn.engine.models.load import load
from linn.engine.protocol import ModelCheck
from linn.engine.sampling.live_batch import BatchSampler, Request
from linn.engine.training.losses import score
from linn.engine.training.trainer import Trainer, size_of
from linn.errors import InfrastructureError, LinnError
from linn.types import Completion, Loss, Optim, Sample

_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that this process gets when its parent ends."""


class Worker:
    """What one process holds. Each public method is one message that `Workers.call_each` sends."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        self.dtype: torch.dtype = getattr(torch, options.dtype)
        self.trainer: Trainer | None = None
        self.sampler: BatchSampler | None = None
        self.other: CausalLM | None = None
        """The model that `score` and other samplers use."""
        self.other_key: tuple[object, ...] = ()
        """Which checkpoint it is of."""

    def load(self, folder: Path, optim: Optim) -> None:
        self.trainer = self.sampler = None  # frees the old policy before the new one is read
        self.trainer = Trainer(
            self._read(folder),
            optim,
            width=self.options.width,
            autocast=self.options.autocast,
            load=self._read,
        )
        self.trainer.model.recompute = self.options.recompute
        self.sampler = BatchSampler(self.trainer.model, self.options.capacity)

    def check(self, folder: Path) -> ModelCheck | None:
        # The others would find the same.
        return check_model(folder) if self.options.rank == 0 else None

    def generate(
        self, folder: Path | None, requests: Sequence[Request], known: Sequence[int]
    ) -> list[Completion]:
        """Under the policy (None), or under the checkpoint in `folder`, which keeps no states."""
        if folder is not None:
            sampler = BatchSampler(self._checkpoint(folder), self.options.capacity)
            return sampler.generate(requests)
        assert self.sampler is not None, "Engine.load comes first"
        return self.sampler.generate(requests, known)

    def score(
        self, folder: Path, sequences: Sequence[Sequence[int]], temperature: float
    ) -> list[list[float]]:
        return score(
            self._checkpoint(folder),
            sequences,
            temperature,
            width=self.options.width,
            autocast=self.options.autocast,
        )

    def step(
        self, samples: Sequence[Sample], weights: Sequence[float], loss: Loss, lr: float
    ) -> dict[str, float]:
        self._forget()
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
            with _room_for(folder, policy.size_on_disk()):
                policy.save(folder)

    def export(self, folder: Path, shard_bytes: int) -> None:
        if self.options.rank == 0:
            model = self._policy().model
            with _room_for(folder, size_of(model)):
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
            content = value.contiguous().view(torch.uint8).numpy()
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

    def _checkpoint(self, folder: Path) -> CausalLM:
        # A run may write a new checkpoint under an old name.
        key = (folder, *_identity(folder))
        if self.other is None or self.other_key != key:
            self.other = None  # never three models at once
            self.other = self._read(folder)
            self.other_key = key
        return self.other

    def _read(self, folder: Path) -> CausalLM:
        return load(folder, self.dtype)


def _identity(folder: Path) -> tuple[int, ...]:
    """Changes when another checkpoint takes the folder's name; empty for no folder."""
    try:
        status = folder.stat()
    except OSError:
        return ()  # whoever reads the checkpoint reports it
    return status.st_ino, status.st_mtime_ns


@contextmanager
def _room_for(folder: Path, size: int) -> Iterator[None]:
    """Say which disk is full, and how much is needed, where writing into `folder` fails for that.

    What was there before is intact: it is replaced only by what is whole. `size`: in bytes.
    """
    try:
        yield
    except Exception as error:
        # The writer of weights has a class of its own, and the kernel's words in it.
        number = getattr(error, "errno", None)
        full = (errno.ENOSPC, errno.EDQUOT)
        if number not in full and not any(os.strerror(one) in str(error) for one in full):
            raise
        place = folder if folder.exists() else folder.parent
        free = shutil.disk_usage(place).free
        raise InfrastructureError(
            f"{os.strerror(errno.ENOSPC)}: {folder} needs about {_megabytes(size)}, its disk "
            f"({_mount_of(place)}) has {_megabytes(free)} free; what was saved before is intact"
        ) from None


def _mount_of(folder: Path) -> Path:
    """Where the disk that holds a folder begins."""
    folder = folder.resolve()
    while not folder.is_mount():
        folder = folder.parent
    return folder


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _serve(worker: Worker, pipe: Connection) -> None:
    """Answer messages until the engine closes the pipe."""
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(worker, name, arguments))


def _answer(worker: Worker, name: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """(True, the method's value) or (False, its error), which the engine raises."""
    where = f"engine process {worker.options.rank}: {name}"
    try:
        return True, getattr(worker, name)(*arguments)
    except (LinnError, ValueError) as error:
        if hasattr(error, "samples"):
            error.samples = ()  # the engine holds the whole batch and puts it back
        return False, error
    except (OSError, MemoryError, SafetensorError) as error:
        return False, InfrastructureError(f"{where}: {type(error).__name__}: {error}")
    except Exception:
        about = ""
        if arguments and isinstance(arguments[0], Path):
            about = f" {arguments[0]}"
        return False, RuntimeError(f"{where}{about}:\n{traceback.format_exc()}")


def die_with_parent(by_kernel: bool) -> None:
    """End when the parent ends, however it was killed, even in the middle of a computation.

    The parent holds our standard input open. `by_kernel` also asks Linux for a signal; only where
    the parent's main thread started us, since that signal follows the thread.
    """

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    if by_kernel and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(arguments: Sequence[str]) -> None:
    """Serve the pipe whose descriptor is the one argument."""
    pipe = Connection(int(arguments[0]))
    # The parent handles what asks a run to end, and lets the step under way come to its end.
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.SIGNALS)
    options: WorkerOptions = pipe.recv()
    heartbeat.beat(Path(options.heartbeat))
    die_with_parent(options.die_by_kernel)
    if options.recompute:  # who asks for little memory pays for it in time
        heap.keep_little()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if options.world > 1:
        # The engine notices the death of a peer and ends us; a slow peer is no error.
        dist.init_process_group(
            "gloo",
            init_method=f"file://{options.store}",
            rank=options.rank,
            world_size=options.world,
            timeout=timedelta(days=7),
        )
    _serve(Worker(options), pipe)
    os._exit(0)  # no interpreter shutdown: the watching thread holds standard input's lock
