"""The block that many families share, written out: it gives what the family's own code gives."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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


def test_a_layer_that_computes_something_else_keeps_the_familys_code() -> None:
    """A class of its own is seen at once, and what is hidden in the forward by the trial."""
    torch.manual_seed(0)
    model = TransformersLM(qwen3())
    model.inner.model.layers[1].mlp.up_proj.__class__ = _Doubled
    assert not is_written_out(model)
    check_decoding(model)

    model = TransformersLM(qwen3())
    layer = model.inner.model.layers[0]
    forward = layer.forward
    layer.forward = lambda *args, **told: 0.5 * forward(*args, **told)
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
