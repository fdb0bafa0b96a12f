"""One sampler process of a cluster, by linn's own batched sampler: a whole copy of the policy."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import nn

from linn.engine.local.accelerator import cache_bytes, device_of
from linn.engine.local.slot import Slot
from linn.engine.models.interface import CausalLM
from linn.engine.models.load import load
from linn.engine.sampling.live_batch import BatchSampler, Request
from linn.scale.broadcast import WeightGroup
from linn.scale.options import ReplicaOptions
from linn.types import Completion


class Replica:
    """Each public method is one message."""

    def __init__(self, options: ReplicaOptions) -> None:
        self.options = options
        self._device = device_of(options.device)
        if options.device == "cpu":
            torch.set_num_threads(1)
            torch.set_flush_denormal(True)
        self._model: CausalLM | None = None
        self._sampler: BatchSampler | None = None
        self._version = -1
        self._has_states = False
        """Whether the states that the last batch left are still there."""
        self._other = Slot(self._read)

    def load(self, folder: Path, version: int) -> None:
        """The policy of a folder."""
        self._model = self._sampler = None  # never two policies at once
        self._model = self._read(folder)
        self._sampler = self._sampler_of(self._model)
        self._version = version

    def take(self, folder: Path, version: int) -> None:
        """The weights of a folder, of the same policy as it is after `version` steps."""
        assert self._model is not None and self._sampler is not None, "`load` comes first"
        module: nn.Module = self._model  # type: ignore[assignment]
        fresh: nn.Module = load(folder)  # type: ignore[assignment]
        module.load_state_dict(fresh.state_dict())
        self._sampler.forget()
        self._version = version

    @torch.no_grad()
    def take_broadcast(self, meeting: str, place: int, members: int, version: int) -> None:
        """The same from the first trainer rank, by the names that the model has for its tensors."""
        assert self._model is not None and self._sampler is not None, "`load` comes first"
        module: nn.Module = self._model  # type: ignore[assignment]
        state = module.state_dict()
        taken = set()
        with closing(WeightGroup(meeting, place, members, self._device)) as group:
            for name, tensor in group.received():
                state[name].copy_(tensor)
                taken.add(state[name].data_ptr())
        # Tied ones come once.
        left = [name for name, value in state.items() if value.data_ptr() not in taken]
        if left:
            raise RuntimeError(f"weights that did not come from the trainers: {', '.join(left)}")
        self._sampler.forget()
        self._version = version

    def generate(
        self, folder: Path | None, requests: Sequence[Request], known: Sequence[int]
    ) -> tuple[int, list[Completion]]:
        """One closed batch under the policy (None) or a checkpoint; with the weights' version."""
        if folder is not None:
            sampler = self._sampler_of(self._other.take(folder))
            return self._version, sampler.generate(requests)
        assert self._sampler is not None, "`load` comes first, and `wake` after `sleep`"
        if not self._has_states:
            known = [0] * len(requests)
        self._has_states = True
        return self._version, self._sampler.generate(requests, known)

    def sleep(self) -> None:
        """Leave the GPU to the trainers: the policy waits on the host, all else is dropped.

        On a CPU nothing is gained, and what conversations go on from would be lost.
        """
        if self._device.type == "cpu":
            return
        self._sampler, self._has_states = None, False
        self._other = Slot(self._read)
        if self._model is not None:
            self._move(torch.device("cpu"))
        gc.collect()
        torch.cuda.empty_cache()

    def wake(self) -> None:
        """Take it back; conversations that go on are read anew."""
        if self._model is not None and self._sampler is None:
            self._move(self._device)
            self._sampler = self._sampler_of(self._model)

    def _move(self, device: torch.device) -> None:
        module: nn.Module = self._model  # type: ignore[assignment]
        module.to(device)

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return time.process_time()

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    def _read(self, folder: Path) -> CausalLM:
        return load(folder, device=self._device)

    def _sampler_of(self, model: CausalLM) -> BatchSampler:
        states = cache_bytes(self.options.cache_bytes, self._device)
        return BatchSampler(
            model,
            self.options.capacity,
            cache_bytes=states,
            # As the local engine has it: on a CPU the sampler stays exact.
            bfloat16=self.options.bfloat16 and self._device.type == "cuda",
        )


def opened(options: ReplicaOptions) -> Replica:
    """What `linn.scale.process` runs."""
    return Replica(options)
