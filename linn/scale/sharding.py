"""A model cut into shards: each of N ranks holds an Nth of every tensor's rows (FSDP2).

A layer is whole only while it is computed. What is outside of the layers (embeddings, final norm,
head) is one unit and stays whole from a forward pass to the end of its backward pass, so that the
head can be used once for each chunk of positions: how many chunks there are differs from rank to
rank, and every gathering is a call that all ranks must make together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from linn.engine.models.interface import CausalLM
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.models.transformers_lm import TransformersLM
from linn.errors import UserError

_KEPT = [torch.ops.aten.topk.default]
"""What a layer that is computed again does not do again: the router's choice. Where two experts are
near-equal, another rounding would choose otherwise, and the gradient would not fit."""


@dataclass(frozen=True)
class Sharding:
    """How a model is held and computed by N ranks."""

    mesh: DeviceMesh
    """One dimension: all ranks."""
    bfloat16: bool
    """Layers are gathered and computed in bfloat16; the shards stay float32."""
    recompute: bool
    """Whether only the inputs of each layer are kept for the backward pass."""


def shard(model: CausalLM, how: Sharding) -> None:
    """Cut a model in place, on the mesh's device or on `meta`; every rank calls it.

    Raises UserError for a family whose layers cannot be told apart.
    """
    layers = list(layers_of(model))
    dtype = torch.bfloat16 if how.bfloat16 else None
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for layer in layers:
        fully_shard(layer, mesh=how.mesh, mp_policy=policy)
        if how.recompute:
            layer.forward = partial(_recomputed, layer.forward)

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


def _recomputed(forward: Any, *arguments: Any, **options: Any) -> Any:
    """One layer; with gradients, nothing of it is kept but its inputs and the router's choice."""
    if not torch.is_grad_enabled():
        return forward(*arguments, **options)
    return checkpoint(
        forward,
        *arguments,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=partial(create_selective_checkpoint_contexts, _KEPT),
        **options,
    )


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
