"""A sharded trainer's state on disk: every rank writes its rows, any number of ranks reads them.

The layout is torch's distributed checkpoint. `trainer.json` beside it says which step it is of.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from linn import files
from linn.errors import UserError
from linn.scale.fsdp import FsdpTrainer
from linn.scale.reading import read_meta

_META = "trainer.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")


def save(trainer: FsdpTrainer, folder: Path) -> None:
    """Weights and moments into `folder`: complete or absent at any instant. Every rank calls it."""
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    with _whole_folder(folder) as part:
        with warnings.catch_warnings(), _own_errors():
            warnings.simplefilter("ignore")
            # One writing thread: ranks on a CPU have one core each.
            save(_state(trainer), storage_writer=FileSystemWriter(part, thread_count=1))
        if dist.get_rank() == 0:
            meta = {"format": 2, "version": trainer.version, "ranks": dist.get_world_size()}
            (part / _META).write_text(json.dumps(meta) + "\n")


def restore(trainer: FsdpTrainer, folder: Path) -> None:
    """Read what `save` wrote, by as many ranks or another number. Every rank calls it.

    Raises UserError where the folder is no such state, or is one of another model.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    meta = read_meta(folder, _META)
    if meta.get("format") != 2:
        raise UserError(
            f"{folder}: its state was written by the local engine; go on with scale.engine: local, "
            "or begin the stage anew with --redo STAGE"
        )
    state = _state(trainer)
    reader = FileSystemReader(folder)
    _check_shapes(state, reader.read_metadata().state_dict_metadata, folder)
    with warnings.catch_warnings(), _own_errors():
        warnings.simplefilter("ignore")
        load(state, storage_reader=reader)  # in place

    trainer.version = int(meta["version"])
    for moments in trainer.moments().values():
        moments["step"].fill_(trainer.version)


def size_on_disk(trainer: FsdpTrainer) -> int:
    """Bytes that `save` writes, by all ranks."""
    whole = map(trainer.how.whole, trainer.trained.values())
    return sum(3 * parameter.nbytes for parameter in whole)


def _state(trainer: FsdpTrainer) -> dict[str, Tensor]:
    """Every tensor under a name; moments as tensors that are sharded like their parameters."""
    state: dict[str, Tensor] = {}
    for name, value in _tensors(trainer):
        state[f"model.{name}"] = value
    for name, moments in trainer.moments().items():
        parameter = trainer.trained[name]
        for key in _MOMENTS:
            state[f"{key}.{name}"] = trainer.how.whole(parameter, moments[key])
    return state


def _tensors(trainer: FsdpTrainer) -> Iterator[tuple[str, Tensor]]:
    """Parameters and what else a checkpoint holds, each once."""
    for name, parameter in trainer.root.named_parameters():
        yield name, trainer.how.whole(parameter.detach())
    kept = trainer.root.state_dict().keys()
    for name, buffer in trainer.root.named_buffers():
        if name in kept:
            yield name, buffer


def _check_shapes(state: dict[str, Tensor], saved: dict[str, Any], folder: Path) -> None:
    for name in sorted(state.keys() | saved.keys()):
        own = state.get(name)
        there = getattr(saved.get(name), "size", None)
        if own is None or there is None or torch.Size(there) != own.shape:
            raise UserError(f"{folder}: its state belongs to another model ({name})")


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """`files.whole_folder` for all ranks together: the first makes the folder and names it."""
    if dist.get_rank() == 0:
        with files.whole_folder(folder) as part:
            _tell(part)
            yield part
            dist.barrier()  # everybody has written
        dist.barrier()  # it has its name
        return
    yield _tell(None)
    dist.barrier()
    dist.barrier()


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raise what a rank failed of: torch's own error is no `Exception`, and would end all ranks."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        cause, _ = next(iter(error.failures.values()))
        raise cause from None


def _tell(part: Path | None) -> Path:
    """The first rank's path, in all."""
    told: list[Path | None] = [part]
    dist.broadcast_object_list(told, src=0)
    assert told[0] is not None
    return told[0]
