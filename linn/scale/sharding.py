"""A model cut into shards: each of N ranks holds an Nth of every tensor's rows (FSDP2).

A layer is whole only while it is computed. What is outside of the layers (embeddings, final norm,
head) is one unit and stays whole from a forward pass to the end of its backward pass, so that the
head can be used once for each chunk of positions: how many chunks there are differs from rank to
rank, and every gathering is a call that all ranks must make together.

Of N ranks, C adjacent ones may compute a row together (`context.py`), and E adjacent ones hold the
routed experts of a layer together (`experts.py`). Whatever is not a routed expert is cut over all N
in any case; the experts of a rank are cut over the N / E ranks that hold the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from linn.engine.models.interface import CausalLM
from linn.engine.models.nemotron_h.experts import Experts
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.models.transformers_lm import TransformersLM
from linn.errors import UserError
from linn.scale.context import Context, cut_layers
from linn.scale.experts import spread


@dataclass(frozen=True)
class Sharding:
    """How a model is held and computed by N ranks."""

    mesh: DeviceMesh
    """One dimension: all ranks."""
    bfloat16: bool
    """Layers are gathered and computed in bfloat16; the shards stay float32."""
    recompute: bool
    """Whether only the inputs of each layer are kept for the backward pass."""
    experts: DeviceMesh | None = None
    """Two dimensions: ranks that hold a layer's experts together, and those that hold the same
    ones. None: they are cut like everything else."""
    context: Context | None = None
    """The ranks that compute a row together; None: each one computes whole rows."""

    @property
    def speaks(self) -> bool:
        """Whether this rank speaks for those that compute the same rows."""
        return self.context is None or self.context.rank == 0

    def whole(self, tensor: Tensor, own: Tensor | None = None) -> Tensor:
        """A tensor of the model as all ranks together hold it; others as they are.

        own: numbers in place of the tensor's own, cut as it is; they may lie on the host.
        """
        if not isinstance(tensor, DTensor):
            return tensor if own is None else own
        shape, mesh, placements = tensor.shape, self.mesh, tensor.placements
        if self.experts is not None and tensor.device_mesh.size() < mesh.size():
            mesh = self.experts
            shape = torch.Size([len(tensor) * mesh.size(0), *tensor.shape[1:]])
            placements = (Shard(0), *tensor.placements)
        elif own is None:
            return tensor

        if own is None:
            own = local(tensor)
        elif own.device.type != mesh.device_type:  # it waits on the host, and stays there
            mesh = DeviceMesh(own.device.type, mesh.mesh, mesh_dim_names=mesh.mesh_dim_names)
        # Of the whole, as it would lie in one memory: checkpoints say where each part belongs.
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            own, mesh, placements, run_check=False, shape=shape, stride=stride
        )

    def part(self, tensor: Tensor) -> tuple[range, range]:
        """This rank's indices of a tensor that has a first and, it may be, a second dimension."""
        whole = self.whole(tensor)
        parts = [range(size) for size in (*whole.shape, 1, 1)[:2]]
        if isinstance(whole, DTensor):
            place = whole.device_mesh.get_coordinate()
            assert place is not None
            for dim, number in enumerate(place):
                cut = whole.placements[dim]
                assert isinstance(cut, Shard), cut
                before = parts[cut.dim]
                own = rows_of(len(before), whole.device_mesh.size(dim), number)
                parts[cut.dim] = before[own.start : own.stop]
        return parts[0], parts[1]


def sharding(
    device: str,
    world: int,
    *,
    bfloat16: bool = False,
    recompute: bool = False,
    experts: int = 1,
    context: int = 1,
) -> Sharding:
    """Of all ranks, which all call it. experts, context: how many hold or compute together."""
    spread_over = together = None
    if experts > 1:
        # The experts of rank r are those of r + experts, r + 2 experts, ...
        ranks = torch.arange(world).view(-1, experts).t()
        spread_over = DeviceMesh(device, ranks, mesh_dim_names=("experts", "replicas"))
    if context > 1:
        mesh = init_device_mesh(device, (world // context, context), mesh_dim_names=("data", "row"))
        together = Context(mesh.get_group("row"))
    return Sharding(
        mesh=init_device_mesh(device, (world,)),
        bfloat16=bfloat16,
        recompute=recompute,
        experts=spread_over,
        context=together,
    )


def rows_of(count: int, ranks: int, rank: int) -> range:
    """The rows of a tensor of `count` rows that one of the ranks holds; the last may have none."""
    each = math.ceil(count / ranks)
    return range(min(count, rank * each), min(count, (rank + 1) * each))


def shard(model: CausalLM, how: Sharding) -> None:
    """Cut a model in place, on the mesh's device or on `meta`; every rank calls it.

    Raises UserError for a family whose layers cannot be told apart, and for a model whose experts
    or heads cannot be shared out as they should.
    """
    _share_out(model, how)
    layers = list(layers_of(model))
    dtype = torch.bfloat16 if how.bfloat16 else None
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for layer in layers:
        for experts in layer.modules():
            if isinstance(experts, Experts):
                mesh = how.mesh if how.experts is None else how.experts["replicas"]
                # Experts that are spread are gathered by other ranks than their layer is.
                place = partial(_cut_of, experts, mesh.size())
                unit = layer if how.experts is None else experts
                fully_shard(unit, mesh=mesh, mp_policy=policy, shard_placement_fn=place)
        if not isinstance(layer, FSDPModule):
            fully_shard(layer, mesh=how.mesh, mp_policy=policy)
        if how.recompute:
            layer.forward = partial(_recomputed, model, layer.forward)

    # The head's gradient adds up over many chunks: in float32, as its weights then must be.
    whole = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    root: Any = fully_shard(
        _module(model), mesh=how.mesh, mp_policy=whole, reshard_after_forward=False
    )
    # The trainer never calls `forward`.
    register_fsdp_forward_method(root, "hidden")
    if how.bfloat16:
        _embeddings_of(model).register_forward_hook(_to_bfloat16)

    for unit in root.modules():
        if isinstance(unit, FSDPModule):
            # A sample's weight divides by the whole batch already: sums, not means. The factor
            # alone would ask for an operation that only NCCL has.
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)


def _share_out(model: CausalLM, how: Sharding) -> None:
    """Experts over ranks, and layers that compute a part of a row."""
    if isinstance(model, NemotronH):
        if how.experts is not None:
            spread(model, how.experts.get_group("experts"))
        if how.context is not None:
            cut_layers(model, how.context)
        return
    check_whole(how, "this model")


def check_whole(how: Sharding, model: str) -> None:
    """Refuse to share out the rows or experts of a family that is not linn's own."""
    for key, asked in (("experts", how.experts), ("context", how.context)):
        if asked is not None:
            raise UserError(f"{model}: trainers.{key} above 1 is for Nemotron-H alone; set it to 1")


def _cut_of(experts: Experts, ranks: int, parameter: Parameter) -> Shard:
    """Along which dimension a parameter is cut: stacks of experts where all ranks get as much."""
    stacks = list(experts.parameters())
    if not any(parameter is stack for stack in stacks) or len(parameter) % ranks == 0:
        return Shard(0)
    return Shard(1 if all(stack.shape[1] % ranks == 0 for stack in stacks) else 0)


def layers_of(model: CausalLM) -> Iterator[nn.Module]:
    """The layers that are gathered one after the other."""
    if isinstance(model, NemotronH):
        yield from model.backbone.layers
        return

    from transformers.modeling_layers import GradientCheckpointingLayer

    assert isinstance(model, TransformersLM), model
    found = [m for m in model.inner.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not found:
        raise UserError(
            f"model type {model.inner.config.model_type}: its layers can't be gathered one by one, "
            "so it can't be sharded; set scale.engine: local"
        )
    yield from found


def local(tensor: Tensor) -> Tensor:
    """This rank's rows of a sharded tensor: the tensor's own memory. Others as they are."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def gathered(tensor: Tensor) -> Tensor:
    """A sharded tensor made whole, by all ranks together. Others as they are."""
    if not isinstance(tensor, DTensor):
        return tensor
    placements = list(tensor.placements)
    # What was cut last is put together first.
    for dim in reversed(range(len(placements))):
        placements[dim] = Replicate()
        tensor = tensor.redistribute(placements=placements)
    return tensor.to_local()


def _recomputed(model: CausalLM, forward: Any, *arguments: Any, **options: Any) -> Any:
    """One layer; with gradients, nothing of it is kept but its inputs and the router's choice."""
    if not torch.is_grad_enabled():
        return forward(*arguments, **options)
    return checkpoint(
        forward,
        *arguments,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=partial(_keeping_choices, model),
        **options,
    )


class _Choices(TorchDispatchMode):
    """The router's choices: kept as they are made, or given again in the same order.

    Where two experts are near-equal, a layer that is computed again could choose otherwise by
    another rounding, and the gradient would not fit. torch's own way to keep some operations'
    results counts all others too, and those by which FSDP2 gathers experts come in other numbers.
    """

    def __init__(self, kept: list[Any], again: bool) -> None:
        super().__init__()
        self._kept, self._again = kept, again

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_choice = func is torch.ops.aten.topk.default
        if is_choice and self._again:
            return self._kept.pop(0)
        out = func(*args, **(kwargs or {}))
        if is_choice:
            self._kept.append(out)
        return out


def _keeping_choices(model: CausalLM) -> tuple[_Choices, AbstractContextManager[None]]:
    """What the forward pass of a layer runs in, and what its repetition runs in."""
    kept: list[Any] = []
    return _Choices(kept, again=False), _repeating(model, kept)


@contextmanager
def _repeating(model: CausalLM, kept: list[Any]) -> Iterator[None]:
    """The choices that were kept, and the attention that the layer had."""
    attention = model.attention() if isinstance(model, TransformersLM) else nullcontext()
    with attention, _Choices(kept, again=True):
        yield


def _to_bfloat16(module: nn.Module, arguments: Any, out: Tensor) -> Tensor:
    """The residual stream begins here: half the memory of every layer's input."""
    return out.bfloat16()


def _embeddings_of(model: CausalLM) -> nn.Module:
    if isinstance(model, NemotronH):
        return model.backbone.embeddings
    assert isinstance(model, TransformersLM), model
    embeddings: nn.Module = model.inner.get_input_embeddings()
    return embeddings


def _module(model: CausalLM) -> nn.Module:
    module: nn.Module = model  # type: ignore[assignment]
    return module
