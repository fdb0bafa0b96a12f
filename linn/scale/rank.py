"""One trainer process of a cluster: its rows of the policy, its optimiser and one other model."""

from __future__ import annotations

import gc
import os
import time
import warnings
from collections.abc import Sequence
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from linn.engine.local.accelerator import device_of
from linn.engine.local.disk import room_for
from linn.engine.local.slot import Slot
from linn.engine.models.check import check_model
from linn.engine.protocol import ModelCheck
from linn.scale import states, writing
from linn.scale.broadcast import WeightGroup
from linn.scale.fsdp import FsdpTrainer
from linn.scale.options import RankOptions
from linn.scale.reading import load_sharded
from linn.scale.sharding import sharding
from linn.scale.weights import NotReached
from linn.types import Loss, Optim, Sample

_TIMEOUT = timedelta(minutes=10)
"""After which ranks on GPUs give up waiting for one that is gone; the engine mostly sees it first.
On CPUs the engine always does, and a slow rank is no error."""


class Rank:
    """Each public method is one message, that all ranks get at the same time."""

    def __init__(self, options: RankOptions) -> None:
        self.options = options
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        # FSDP2 warns of what would go wrong if somebody changed hidden states in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
        device_of(options.device)
        on_gpu = options.device == "cuda"
        dist.init_process_group(
            # What waits on the host is saved from there.
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            init_method=options.meeting,
            rank=options.rank,
            world_size=options.world,
            timeout=_TIMEOUT if on_gpu else timedelta(days=7),
        )
        self.how = sharding(
            options.device,
            options.world,
            bfloat16=options.bfloat16,
            recompute=options.recompute,
            experts=options.experts,
            context=options.context,
        )
        self._trainer: FsdpTrainer | None = None
        self._other = Slot(self._scorer)

    def load(self, folder: Path, optim: Optim) -> None:
        """The policy of a folder, with a fresh optimiser."""
        self._trainer = None  # frees the old policy before the new one is read
        self._trainer = self._read(folder, optim)

    def check(self, folder: Path) -> ModelCheck | None:
        """Try the model of a folder; in the first rank, the others would find the same."""
        return check_model(folder) if self.options.rank == 0 else None

    def step(
        self, samples: Sequence[Sample], weights: Sequence[float], loss: Loss, lr: float
    ) -> dict[str, float]:
        """One optimiser step over all ranks' samples."""
        return self.policy.step(samples, loss, lr, weights)

    def score(
        self,
        folder: Path | None,
        sequences: Sequence[Sequence[int]],
        temperature: float,
        prompts: Sequence[int] | None,
    ) -> list[list[float]]:
        """Log-probs of this rank's sequences under a checkpoint; None: under the policy.

        Of the ranks that compute the same rows, the first one tells.
        """
        model = self.policy if folder is None else self._other.take(folder)
        logprobs = model.score(sequences, temperature, prompts)
        return logprobs if self.how.speaks else []

    def save(self, folder: Path) -> None:
        """A state that any number of ranks can read."""
        first = self.options.rank == 0
        size = states.size_on_disk(self.policy)
        with room_for(folder, size) if first else nullcontext():
            states.save(self.policy, folder)

    def restore(self, folder: Path) -> None:
        """Read such a state into the policy."""
        states.restore(self.policy, folder)

    def export(self, folder: Path, shard_bytes: int) -> None:
        """config.json and safetensors of the policy."""
        first = self.options.rank == 0
        model = self.policy.model
        with room_for(folder, writing.size_of(model, self.how)) if first else nullcontext():
            writing.export(model, self.how, folder, shard_bytes)

    @torch.no_grad()
    def broadcast(self, meeting: str, members: int, file_names: bool) -> str:
        """The policy's weights to all samplers, which take them meanwhile.

        file_names: by their names in a file, not by those in the model. The result is what went
        wrong; the ranks can go on all the same.
        """
        model = self.policy.model
        if file_names:
            tensors = writing.saved_tensors(model, self.how)
        else:
            tensors = writing.held_tensors(model, self.how)
        fault = ""
        if self.options.rank == 0:
            try:
                device = device_of(self.options.device)
                with closing(WeightGroup(meeting, 0, members, device)) as group:
                    for name, tensor in tensors:
                        group.send(name, tensor)
                    group.end()
            except NotReached as error:
                # What fails in making a tensor whole is an error: the others wait for this rank.
                fault = str(error)
        # Every rank has rows of every tensor, and gives them whether or not they can be sent.
        for _ in tensors:
            pass
        return fault

    def rest(self) -> None:
        """Free what is not needed between two calls: samplers take turns on this GPU.

        Shards of weights and moments stay, and those of the teacher or reference.
        """
        if self._trainer is None:
            self._free_blocks()
            return
        self._trainer.free_gradients()
        self._free_blocks()
        # Not only at the first step: a sampler that opens now must find them on the GPU.
        self._trainer.optimiser()

    def vocab(self) -> int:
        """Ids that the policy has embeddings for."""
        return self.policy.model.vocab

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return time.process_time()

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    @property
    def policy(self) -> FsdpTrainer:
        """The trainer of what was loaded."""
        assert self._trainer is not None, "Engine.load comes first"
        return self._trainer

    def _scorer(self, folder: Path) -> FsdpTrainer:
        # Its optimiser is made at the first step, which never comes.
        return self._read(folder, Optim())

    def _free_blocks(self) -> None:
        """Give back the memory of a GPU that torch keeps for later."""
        gc.collect()  # layers and what replaced their forward know each other
        if self.options.device == "cuda":
            torch.cuda.empty_cache()

    def _read(self, folder: Path, optim: Optim) -> FsdpTrainer:
        # Into blocks of their own: shards among those of activations would hold all of these.
        self._free_blocks()
        return FsdpTrainer(
            load_sharded(folder, self.how),
            optim,
            self.how,
            self.options.passing,
            self.options.host_moments,
        )


def opened(options: RankOptions) -> Rank:
    """What `linn.scale.process` runs."""
    return Rank(options)
