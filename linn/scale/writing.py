"""A sharded model as a Hugging Face folder: the files that the local engine writes, byte for byte.

One tensor at a time is made whole, by all ranks together; the first of them writes. Of a family
that its own code saves, the first rank's host holds all of it once.
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from linn.engine.models.export import replace_weights
from linn.engine.models.interface import CausalLM
from linn.engine.models.nemotron_h import weights
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.models.transformers_lm import TransformersLM
from linn.engine.models.weight_files import write_config, write_weights
from linn.scale.sharding import Sharding, gathered


def export(model: CausalLM, how: Sharding, folder: Path, shard_bytes: int) -> None:
    """Write config.json and the weights into an existing folder, in place of those it has.

    Every rank calls it, and returns when all is written.
    """
    first = dist.get_rank() == 0
    place = tempfile.TemporaryDirectory(dir=folder, prefix=".export-") if first else nullcontext("")
    with place as name:
        making = Path(name)
        if isinstance(model, NemotronH):
            _write_own(model, how, making, shard_bytes, first)
        else:
            assert isinstance(model, TransformersLM), model
            _write_other(model, making, shard_bytes, first)
        if first:
            replace_weights(making, folder)
    dist.barrier()


def size_of(model: CausalLM, how: Sharding) -> int:
    """Bytes of a model's tensors, those of all ranks."""
    module: nn.Module = model  # type: ignore[assignment]
    return sum(how.whole(value).nbytes for value in module.state_dict().values())


class _Whole:
    """Tensors of a sharded model made whole; the last is kept, since many names may be in it."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, Tensor] | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """On the CPU. Every rank asks for the same."""
        if self._last is None or self._last[0] is not tensor:
            self._last = None  # never two at once
            self._last = tensor, gathered(tensor).detach().to("cpu").contiguous()
        return self._last[1]


def _write_own(
    model: NemotronH, how: Sharding, making: Path, shard_bytes: int, first: bool
) -> None:
    """linn's own family: every expert's matrix under a name of its own."""
    places: dict[str, tuple[Tensor, int | None]] = {}
    sizes: dict[str, int] = {}
    for name, held in model.state_dict().items():
        value = how.whole(held)
        size = value.numel() * value.element_size()
        if ".experts." not in name:
            places[name] = value, None
            sizes[name] = size
            continue
        for written, number in weights.names_of_experts(name, len(value)):
            places[written] = value, number
            sizes[written] = size // len(value)

    whole = _Whole()

    def tensor(name: str) -> Tensor:
        value, number = places[name]
        made = whole.of(value)
        if number is not None:
            made = made[number]
        # A copy: the stack that it is a part of goes.
        return made.clone()

    write_weights(sizes, tensor, making if first else None, shard_bytes)
    if first:
        write_config(model.saved_config(), making)


def _write_other(model: TransformersLM, making: Path, shard_bytes: int, first: bool) -> None:
    """Any other family, under the names that its own code gives."""
    inner: nn.Module = model.inner
    kept = inner.state_dict().keys()
    state: dict[str, Tensor] = {}
    made: dict[int, Tensor] = {}

    for name, value in [
        *inner.named_parameters(remove_duplicate=False),
        *inner.named_buffers(),
    ]:
        if name not in kept:
            continue
        # Tied weights stay one tensor: the family writes them once.
        if id(value) not in made:
            whole = gathered(value)
            made[id(value)] = whole.detach().to("cpu") if first else torch.empty(0)
        state[name] = made[id(value)]

    if first:
        model.save_state(state, making, shard_bytes)
