"""A sharded model as whole tensors: in a Hugging Face folder, byte for byte as the local engine
writes it, or one after the other for samplers.

One tensor at a time is made whole, by all ranks together; the first of them writes or sends it. Of
a family that its own code names in files, the first rank's host holds all of it once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
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


def held_tensors(model: CausalLM, how: Sharding) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under its name in the model, as another of its class takes it; tied ones once.

    Every rank goes through all of them.
    """
    module: nn.Module = model  # type: ignore[assignment]
    told = set()
    # As they are in the model, not views of them: tied ones are one object.
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) not in told:
            told.add(id(value))
            yield name, gathered(how.whole(value))


def saved_tensors(model: CausalLM, how: Sharding) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under its name in a file, as other programs take it; tied ones once.

    Every rank goes through all of them; those of the first rank are whole.
    """
    if isinstance(model, NemotronH):
        sizes, tensor = _own(model, how)
        for name in sizes:
            yield name, tensor(name)
    else:
        assert isinstance(model, TransformersLM), model
        first = dist.get_rank() == 0
        state = _gathered_on_host(model, first)
        if first:
            yield from in_files(model.inner, state).items()


def in_files(inner: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a family's model by the names that it saves them under; tied ones once."""
    from transformers.core_model_loading import revert_weight_conversion

    names: dict[int, str] = {}
    for name, value in state.items():
        names.setdefault(id(value), name)
    once = {name: state[name] for name in names.values()}
    saved: dict[str, Tensor] = revert_weight_conversion(inner, once)  # type: ignore[arg-type]
    return saved


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
    sizes, tensor = _own(model, how)
    write_weights(sizes, tensor, making if first else None, shard_bytes)
    if first:
        write_config(model.saved_config(), making)


def _own(model: NemotronH, how: Sharding) -> tuple[dict[str, int], Callable[[str], Tensor]]:
    """linn's own family: bytes by name in a file, and what makes one whole.

    Every expert's matrix has a name of its own there.
    """
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

    return sizes, tensor


def _write_other(model: TransformersLM, making: Path, shard_bytes: int, first: bool) -> None:
    """Any other family, under the names that its own code gives."""
    state = _gathered_on_host(model, first)
    if first:
        model.save_state(state, making, shard_bytes)


def _gathered_on_host(model: TransformersLM, first: bool) -> dict[str, Tensor]:
    """What a family's own code keeps in files, by its name in the model; empty but in the first."""
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
    return state
