"""Layers that are computed again: the same gradients, with less kept between the passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_families import SIZES, gemma2, granite_hybrid, qwen3
from test_trainer import rollouts, state, trainer
from torch import Tensor

from linn.engine.models.load import load
from linn.engine.models.transformers_lm import TransformersLM
from linn.engine.training.losses import backward
from linn.engine.training.pack import micro_batches
from linn.errors import UserError
from linn.types import Loss, Sample

TINY = Path(__file__).parent.parent / "linn" / "bases" / "tiny-0"
LOSS = Loss("sft")


def qwen3_moe() -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    special = {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2}
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SIZES | special | {"moe_intermediate_size": 16, "decoder_sparse_step": 1})
    )


MODELS: dict[str, Callable[[], Any]] = {
    "qwen3": lambda: TransformersLM(qwen3(attention_dropout=0.5)),
    "gemma2": lambda: TransformersLM(gemma2()),
    "granite_hybrid": lambda: TransformersLM(granite_hybrid()),
    "qwen3_moe": lambda: TransformersLM(qwen3_moe()),
    "nemotron_h": lambda: load(TINY),
}


def samples() -> list[Sample]:
    """Sequences of unlike lengths, several in a row."""
    out = []
    for length in (23, 9, 8, 3):
        tokens = [(7 * place + length) % 60 + 1 for place in range(length)]
        out.append(Sample(tokens=tokens, mask=[True] * length, advantage=[1.0] * length))
    return out


def gradients(model: Any, autocast: bool) -> dict[str, Tensor]:
    """Every parameter's gradient."""
    (packed,) = micro_batches(samples(), [0.1] * 4, width=48)
    model.zero_grad()
    backward(model, packed, LOSS, autocast)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_recomputed_layers_give_the_gradients_of_kept_ones(name: str, autocast: bool) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    kept = gradients(model, autocast)
    model.recompute = True
    again = gradients(model, autocast)

    assert kept.keys() == again.keys() and any(grad.any() for grad in kept.values())
    for parameter, grad in kept.items():
        assert torch.equal(grad, again[parameter]), parameter
    layers = list(getattr(model, "inner", model).modules())
    assert not any("forward" in vars(layer) for layer in layers), "a layer was left changed"


@pytest.mark.parametrize("name", ["qwen3", "nemotron_h"])
def test_of_a_recomputed_layer_its_inputs_alone_are_kept(name: str) -> None:
    model = MODELS[name]()
    ids = torch.arange(40)[None] % 50 + 1
    sizes = {}
    for recompute in (False, True):
        model.recompute = recompute
        kept: dict[int, Tensor] = {}
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

        def keep(tensor: Tensor, kept: dict[int, Tensor] = kept) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden = model.hidden(ids, torch.zeros_like(ids))
        own = {place: tensor for place, tensor in kept.items() if place not in weights}
        sizes[recompute] = sum(tensor.untyped_storage().nbytes() for tensor in own.values())
        del hidden
    assert sizes[True] < sizes[False] / 4


def test_a_family_without_such_layers_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import transformers.modeling_layers

    class Other(torch.nn.Module):
        pass

    model = MODELS["qwen3"]()
    model.recompute = True
    monkeypatch.setattr(transformers.modeling_layers, "GradientCheckpointingLayer", Other)
    with pytest.raises(UserError, match="scale.recompute: false"):
        gradients(model, autocast=False)


def test_what_only_samples_has_no_gradient_and_a_step_goes_on_without_it() -> None:
    one, two = trainer(), trainer()
    assert all(p.grad is None for p in one._module.parameters())
    batch = rollouts(one.model)  # type: ignore[arg-type]
    for _ in range(3):
        one.step(batch, Loss("grpo"), 1e-2)
        one.free_gradient()
        assert all(p.grad is None for p in one._module.parameters())
        two.step(batch, Loss("grpo"), 1e-2)
    assert state(one) == state(two)
