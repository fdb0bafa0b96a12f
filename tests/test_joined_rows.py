"""Families whose attention alone knows the segments go through packed rows in one pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.decoding import RunningBatch
from support.shared import in_double, worst
from test_families import SIZES, alone, gemma2, granite_hybrid, mamba2, qwen3, tokens

from linn.engine.models import transformers_lm
from linn.engine.models.transformers_lm import TransformersLM

PROMPTS = [-1, 0, 0, -1, -1, 4, 4, 4]
LENGTHS = [21, 1, 9, 5, 3, 8, 1, 2]


def llama(**changes: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES | {"attention_bias": True} | changes))


def moe() -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES | {"head_dim": 8} | experts))


def gpt2() -> Any:
    """Learned positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96}
    return GPT2LMHeadModel(GPT2Config(vocab_size=SIZES["vocab_size"], **sizes))


def packed(prompts: list[int] | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Ids, segments and `continues` of one row."""
    number = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    continues = None if prompts is None else torch.tensor(prompts)[number][None]
    return tokens(sum(LENGTHS))[None], number[None], continues


@pytest.mark.parametrize("make", [qwen3, llama, moe, gpt2])
@pytest.mark.parametrize("prompts", [None, PROMPTS])
def test_one_pass_computes_each_segment_as_the_stock_forward(
    make: Any, prompts: list[int] | None
) -> None:
    torch.manual_seed(0)
    model = TransformersLM(make())
    ids, segments, continues = packed(prompts)
    calls = []
    model._decoder.register_forward_hook(lambda *_: calls.append(1))
    assert model.shares and model.forwards(segments) == 1
    calls.clear()
    logprobs = model.head(model.hidden(ids, segments, continues)).log_softmax(-1)[0]
    assert len(calls) == 1

    texts = ids[0].split(LENGTHS)
    for number, own in enumerate(logprobs.split(LENGTHS)):
        prompt = -1 if prompts is None else prompts[number]
        before = texts[prompt] if prompt >= 0 else texts[number][:0]
        expected = alone(model.inner, torch.cat([before, texts[number]]))
        torch.testing.assert_close(own, expected[len(before) :], atol=1e-5, rtol=0)
    # Decoding finds the family's own attention again.
    assert model.inner.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("prompts", [None, PROMPTS])
def test_in_64_bits_its_gradients_are_those_of_a_pass_per_segment(
    prompts: list[int] | None,
) -> None:
    torch.manual_seed(0)
    with in_double():
        model = TransformersLM(qwen3()).double()
        found = {}
        for joined in (True, False):
            model.zero_grad()
            model.joined = joined
            hidden = model.hidden(*packed(prompts))
            slope = torch.linspace(-1, 1, hidden.numel(), dtype=hidden.dtype).view_as(hidden)
            torch.autograd.backward(hidden, slope)
            grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
            found[joined] = {name: grad.clone() for name, grad in grads.items()}
    assert worst(found[True], found[False]) < 1e-9


def test_whoever_tells_attention_more_is_computed_segment_by_segment() -> None:
    """A window, caps and states of other kinds; a cap is too far away to show in numbers."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    layers = ["full_attention"] * SIZES["num_hidden_layers"]
    capped = Gemma2Config(**SIZES, head_dim=8, layer_types=layers, attn_logit_softcapping=1e4)
    for inner in (gemma2(), Gemma2ForCausalLM(capped), granite_hybrid(), mamba2()):
        model = TransformersLM(inner)
        segments = torch.tensor([[0] * 9 + [1] * 3])
        assert model.forwards(segments) == 2
        assert model.hidden(segments, segments).shape[1] == 12


@pytest.mark.parametrize("make", [qwen3, llama, gpt2])
@pytest.mark.parametrize("lengths", [[1], [7, 1, 30, 12], [25] * 3])
def test_prompts_are_computed_end_to_end(
    make: Any, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a few at a time; what is decoded behind them is the stock forward."""
    monkeypatch.setattr(transformers_lm, "_PREFILL_TOKENS", 31)
    torch.manual_seed(0)
    model = TransformersLM(make())
    model.prefill([[1, 2]])  # tries the family
    texts = [tokens(length + 4, number) for number, length in enumerate(lengths)]
    batch = RunningBatch(model, texts, [alone(model.inner, text) for text in texts])
    shapes = []
    model._decoder.register_forward_pre_hook(
        lambda _, __, told: shapes.append(tuple(told["input_ids"].shape)), with_kwargs=True
    )
    batch.start(*enumerate(lengths))
    assert all(rows == 1 for rows, _ in shapes)
    assert sum(columns for _, columns in shapes) == sum(lengths)
    batch.feed(2)
    batch.select(*reversed(range(len(lengths))))
    batch.join((0, lengths[0]))
    batch.feed(1)


def test_whoever_does_not_use_that_cache_prefills_in_rows() -> None:
    def forget(_: Any, args: Any, told: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if "rectangles" in told:
            told.pop("past_key_values", None)
        return args, told

    torch.manual_seed(0)
    model = TransformersLM(qwen3())
    model._decoder.register_forward_pre_hook(forget, with_kwargs=True)
    text = tokens(9)
    batch = RunningBatch(model, [text], [alone(model.inner, text)])
    batch.start((0, 5))
    batch.feed(3)
    assert model._joins and not model._prefills_joined
