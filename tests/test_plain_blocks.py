"""The block that many families share, written out: it gives what the family's own code gives."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from linn.engine.models.plain_blocks import PlainBlocks
from linn.engine.models.siblings import SiblingState
from linn.engine.models.transformers_lm import TransformersLM
from tests.support.decoding import RunningBatch
from tests.test_families import SIZES, alone, qwen3, tokens
from tests.test_siblings import llama, olmo2


def mistral() -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**SIZES, head_dim=16, sliding_window=None))


def qwen2() -> Any:
    """Queries, keys and values have a bias, which new weights leave at 0."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    inner = Qwen2ForCausalLM(Qwen2Config(**SIZES))
    for name, weight in inner.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(weight)
    return inner


def other_llama() -> Any:
    """What its config may change: biases, another activation, tied embeddings, odd scales."""
    from transformers import LlamaConfig, LlamaForCausalLM

    changes = {
        "attention_bias": True,
        "mlp_bias": True,
        "hidden_act": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-2,
        "tie_word_embeddings": True,
    }
    inner = LlamaForCausalLM(LlamaConfig(**SIZES | changes))
    for name, weight in inner.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(weight)
    return inner


def scaled_positions(kind: str) -> Any:
    """Rotary positions that are stretched, here from the eighth on."""
    rope = {
        "rope_type": kind,
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 8,
    }
    if kind == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return qwen3(rope_parameters=rope, max_position_embeddings=32 if kind != "dynamic" else 8)


def is_written_out(model: TransformersLM) -> bool:
    return isinstance(getattr(model._decodes_siblings, "__self__", None), PlainBlocks)


def check_decoding(model: TransformersLM, columns: int = 40) -> None:
    """Rows of two prompts, fed one by one, beside the stock forward."""
    texts = [tokens(columns, number) for number in range(2)]
    batch = RunningBatch(
        model, texts, [alone(model.inner, text) for text in texts], as_sampled=True
    )
    batch.start((0, 3), (1, 9))
    assert isinstance(batch.state, SiblingState)
    batch.select(0, 1, 1, 0)
    batch.feed(columns - 10)


@pytest.mark.parametrize(
    "maker", [llama, other_llama, mistral, qwen2, qwen3], ids=lambda maker: maker.__name__
)
def test_listed_families_are_decoded_by_it_as_by_their_own_code(maker: Any) -> None:
    torch.manual_seed(0)
    model = TransformersLM(maker())
    assert is_written_out(model)
    check_decoding(model)


@pytest.mark.parametrize("kind", ["default", "linear", "llama3", "yarn"])
def test_stretched_positions_are_the_familys(kind: str) -> None:
    torch.manual_seed(0)
    model = TransformersLM(scaled_positions(kind))
    assert is_written_out(model)
    check_decoding(model, columns=30)


def test_other_families_keep_their_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all where the reference is asked for."""
    torch.manual_seed(0)
    model = TransformersLM(olmo2())
    assert not is_written_out(model)
    check_decoding(model)

    monkeypatch.setenv("LINN_KERNELS", "plain")
    model = TransformersLM(qwen3())
    assert not is_written_out(model)
    check_decoding(model)


class _Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def own_class(linear: Any) -> None:
    linear.__class__ = _Doubled


def own_forward(linear: Any) -> None:
    forward = linear.forward
    linear.forward = lambda x: 2 * forward(x)


def hook(linear: Any) -> None:
    linear.register_forward_hook(lambda module, given, out: 2 * out)


def hook_before(linear: Any) -> None:
    linear.register_forward_pre_hook(lambda module, given: (2 * given[0],))


@pytest.mark.parametrize("change", [own_class, own_forward, hook, hook_before])
def test_a_layer_that_computes_something_else_keeps_the_familys_code(change: Any) -> None:
    """Also where weights are so small that the trial does not see it: they are trained later."""
    torch.manual_seed(0)
    model = TransformersLM(qwen3(initializer_range=1e-3))
    change(model.inner.model.layers[1].mlp.up_proj)
    assert not is_written_out(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(200 if weight.ndim > 1 else 1)
    check_decoding(model)


def test_a_block_that_is_another_one_is_found_by_the_trial() -> None:
    class Halved(GradientCheckpointingLayer):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer
            self.self_attn, self.mlp = layer.self_attn, layer.mlp
            self.input_layernorm = layer.input_layernorm
            self.post_attention_layernorm = layer.post_attention_layernorm

        def forward(self, *args: Any, **told: Any) -> Any:
            return 0.5 * self.layer(*args, **told)

    torch.manual_seed(0)
    model = TransformersLM(qwen3())
    layers = model.inner.model.layers
    layers[0] = Halved(layers[0])
    assert not is_written_out(model)
    check_decoding(model)


class _Fused(nn.Module):
    """A gated MLP whose first two products are one."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.first = nn.Linear(SIZES["hidden_size"], 2 * SIZES["intermediate_size"], bias=False)
        self.first.weight = nn.Parameter(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
        self.down_proj, self.act_fn = mlp.down_proj, mlp.act_fn

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.first(x).chunk(2, dim=-1)
        out: Tensor = self.down_proj(self.act_fn(gate) * up)
        return out


def test_modules_of_other_names_keep_the_familys_code() -> None:
    """transformers may fuse them, or call them otherwise one day."""
    torch.manual_seed(0)
    model = TransformersLM(qwen3())
    for layer in model.inner.model.layers:
        layer.mlp = _Fused(layer.mlp)
    assert not is_written_out(model)
    check_decoding(model)


def test_weights_that_change_later_are_those_that_decode() -> None:
    torch.manual_seed(0)
    model = TransformersLM(qwen3())
    assert is_written_out(model)
    other = TransformersLM(qwen3())
    model.load_state_dict(other.state_dict())
    check_decoding(model)

    # A copy has weights of its own.
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert is_written_out(twin)
    check_decoding(twin)
