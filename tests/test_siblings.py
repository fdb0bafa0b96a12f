"""Siblings that read one copy of their prompt's keys: as rows with a prompt each."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
import torch

from linn.engine.models import prompt_parts, transformers_lm
from linn.engine.models.growing_layer import SPARE
from linn.engine.models.siblings import SiblingState
from linn.engine.models.transformers_lm import TransformersLM
from linn.engine.sampling.live_batch import BatchSampler, LiveBatch
from linn.types import Sampling
from tests.support.decoding import RunningBatch, packed_rows
from tests.test_families import SIZES, alone, gemma2, granite_hybrid, qwen3, tokens


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES))


def olmo2() -> Any:
    """A block of its own, so its own code decodes it."""
    from transformers import Olmo2Config, Olmo2ForCausalLM

    return Olmo2ForCausalLM(Olmo2Config(**SIZES))


def gpt_oss() -> Any:
    """Attention with a sink per head, which this attention does not have."""
    from transformers import GptOssConfig, GptOssForCausalLM

    special = {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}
    layers = ["full_attention"] * SIZES["num_hidden_layers"]
    return GptOssForCausalLM(GptOssConfig(**SIZES | special, layer_types=layers))


def masked_window() -> Any:
    """A window that only the mask knows: attention is told nothing, and trials are shorter."""
    inner = qwen3(use_sliding_window=True, sliding_window=20, max_window_layers=0)
    for module in inner.modules():
        if hasattr(module, "layer_idx"):
            module.sliding_window = None
    return inner


def made(maker: Any) -> TransformersLM:
    torch.manual_seed(0)
    return TransformersLM(maker())


def size(state: Any) -> int:
    """Bytes of the keys and values of prompts and rows, with the room for further tokens."""
    total = 0
    for part in (state.prompts, state.own):
        for layer in part.cache.layers:
            total += layer.keys.untyped_storage().nbytes() + layer.values.untyped_storage().nbytes()
    return total


def columns_are_neighbours(state: Any) -> bool:
    """Whether all keys lie in memory as a query's product reads them fastest."""
    layers = [layer for part in (state.prompts, state.own) for layer in part.cache.layers]
    return all(layer.keys.stride(2) == 1 for layer in layers)


@pytest.mark.parametrize("maker", [qwen3, llama, olmo2], ids=lambda maker: maker.__name__)
@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_moves_is_the_stock_forward(
    maker: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are drawn, repeated, dropped and joined; groups become as unequal as they may.

    Prompts are computed together, in a few parts, or each by itself.
    """
    monkeypatch.setattr(prompt_parts, "_PART", [2**15, 200, 0, 400][seed])
    model = made(maker)
    texts = [tokens(60, number) for number in range(5)]
    expected = [alone(model.inner, text) for text in texts]
    batch = RunningBatch(model, texts, expected, as_sampled=True)
    draw = random.Random(seed)
    batch.start((0, 7), (1, 1), (2, draw.randint(1, 12)))
    assert isinstance(batch.state, SiblingState)
    for _ in range(6):
        batch.feed(draw.randint(0, 3))
        rows = draw.choices(range(len(batch.rows)), k=draw.randint(1, 9))
        batch.select(*rows)
        batch.feed(draw.randint(0, 2))
        batch.join((draw.choice([3, 4]), draw.randint(1, 15)))
        batch.feed()
        assert columns_are_neighbours(batch.state)


def test_keys_lie_as_they_are_read_behind_prompts_of_one_token_too() -> None:
    model = made(qwen3)
    texts = [tokens(60, number) for number in range(3)]
    expected = [alone(model.inner, text) for text in texts]
    batch = RunningBatch(model, texts, expected, as_sampled=True)
    batch.start((0, 1), (1, 1))
    batch.feed(SPARE + 1)
    assert columns_are_neighbours(batch.state)
    batch.extend(4, 7)
    assert columns_are_neighbours(batch.state)
    batch.join((2, 9))
    batch.feed()
    assert columns_are_neighbours(batch.state)


def test_prompts_stand_in_memory_once_where_they_were_computed_in_several_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transformers_lm, "_PREFILL_TOKENS", 100)
    model = made(qwen3)
    model.joined = False
    _, prompts = model.prefill([tokens(100, number).tolist() for number in range(8)])
    state = model.siblings(prompts, torch.arange(8).repeat_interleave(2))
    assert isinstance(state, SiblingState)
    held = {}
    for layer in state.prompts.cache.layers:
        for tensor in (layer.keys, layer.values, *layer._buffers):
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
    assert sum(held.values()) <= 8 * model.row_bytes(100 + SPARE)


@pytest.mark.parametrize(
    "maker", [gemma2, granite_hybrid, gpt_oss, masked_window], ids=lambda m: m.__name__
)
def test_other_attention_keeps_a_prompt_per_row(maker: Any) -> None:
    model = made(maker)
    _, state = model.prefill([[1, 2, 3]])
    assert not isinstance(model.siblings(state, torch.tensor([0, 0])), SiblingState)


def test_a_window_in_layers_that_are_called_full_is_refused() -> None:
    """Phi-MoE hides it in the mask whatever its layers are called."""
    from transformers import PhimoeConfig, PhimoeForCausalLM

    layers = ["full_attention"] * SIZES["num_hidden_layers"]
    special = {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 16}
    torch.manual_seed(0)
    inner = PhimoeForCausalLM(PhimoeConfig(**SIZES | special, layer_types=layers))
    model = TransformersLM(inner)
    text = tokens(40)
    ids, segments = packed_rows([[text]], width=40)
    logprobs = model.head(model.hidden(ids, segments))[0].log_softmax(-1)
    torch.testing.assert_close(logprobs, alone(inner, text), atol=1e-5, rtol=0)
    batch = RunningBatch(model, [text], [alone(inner, text)], as_sampled=True)
    batch.start((0, 20))
    batch.feed(19)


def test_a_long_prompt_costs_rows_that_have_sampled_much_no_more_than_its_own_length() -> None:
    """Columns of the longest prompt and of the longest reply are not added up, if of two rows."""
    model = made(qwen3)
    texts = [tokens(400, 0), tokens(400, 1)]
    batch = RunningBatch(model, texts, [alone(model.inner, t) for t in texts], as_sampled=True)
    batch.start((0, 3))
    batch.select(*[0] * 8)
    batch.feed(380)
    batch.join((1, 390))
    assert size(batch.state) <= 9 * model.row_bytes(390 + 2 * SPARE)
    batch.feed(2)
    batch.select(*range(8))
    assert size(batch.state) <= 8 * model.row_bytes(385 + 2 * SPARE)
    batch.feed(2)


def test_a_prompt_is_kept_once_and_goes_with_its_last_row() -> None:
    model = made(qwen3)
    batch = LiveBatch(model)
    for group in range(4):
        prompt = tuple(tokens(20 + group, group).tolist())
        batch.admit([(prompt, Sampling(4 + 8 * group), 8 * group + one) for one in range(8)])
    kept = []
    while not batch.idle:
        batch.advance()
        if batch._rows is not None:
            state = batch._rows.state
            assert isinstance(state, SiblingState)
            kept.append((len(state.prompts.lengths), state.own.columns))
    assert kept[0][0] == 4 and kept[-1][0] == 1


def test_a_short_prompt_is_not_computed_to_the_longest() -> None:
    """Of 32 prompts that all differ in length; each is whole in its part, and none is twice."""
    model = made(lambda: qwen3(head_dim=64))
    texts = [tokens(37 + 15 * number) for number in range(32)][::-1]
    _, prompts = model.prefill([text.tolist() for text in texts])
    state = model.siblings(prompts, torch.arange(32).repeat_interleave(4))
    assert isinstance(state, SiblingState)
    parts = [(part.prompts, part.columns) for part in state.parts]
    assert [one for where, _ in parts for one in range(32)[where]] == list(range(32))
    assert all(columns == len(texts[where.start]) for where, columns in parts)
    computed = sum(len(texts[where]) * columns for where, columns in parts)
    assert computed < 0.7 * 32 * len(texts[0])


@pytest.mark.parametrize("seed", range(20))
def test_prompts_are_cut_where_it_costs_least(seed: int) -> None:
    """Beside all ways to cut them."""
    draw = random.Random(seed)
    lengths = [draw.randint(1, 60) for _ in range(draw.randint(1, 8))]
    price = draw.choice([0, 5, 40, 200])

    def cost(runs: list[tuple[int, int]]) -> int:
        return sum((last - first) * max(lengths[first:last]) + price for first, last in runs)

    ways = []
    for number in range(2 ** (len(lengths) - 1)):
        cuts = [place for place in range(1, len(lengths)) if number >> (place - 1) & 1]
        ways.append(list(pairwise([0, *cuts, len(lengths)])))
    found = list(prompt_parts._runs(torch.tensor(lengths), price))
    assert found in ways
    assert cost(found) == min(map(cost, ways))


def test_groups_of_unequal_size_are_not_padded_beyond_a_bound() -> None:
    model = made(qwen3)
    _, prompts = model.prefill([[number] for number in range(1, 21)])
    owner = torch.tensor([0] * 40 + list(range(20)))
    state = model.siblings(prompts, owner)
    assert isinstance(state, SiblingState)
    places, siblings = state.groups.shape
    assert places * siblings <= 4 * len(owner)


def test_the_longest_prompt_and_the_longest_reply_need_not_be_one_rows() -> None:
    model = made(lambda: qwen3(max_position_embeddings=40))
    batch = LiveBatch(model)
    long, short = tuple(tokens(30).tolist()), tuple(tokens(5, 1).tolist())
    batch.admit([(long, Sampling(10), 1), (short, Sampling(35), 2)])
    lengths = []
    while not batch.idle:
        lengths += [len(done.ids) for done in batch.advance().completions.values()]
    assert sorted(lengths) == [10, 35]


def test_under_autocast_a_prompt_per_row_and_no_verdict_on_the_family() -> None:
    model = made(qwen3)
    _, state = model.prefill([[1, 2, 3]])
    owners = torch.tensor([0, 0])
    with torch.autocast("cpu", torch.bfloat16):
        assert not isinstance(model.siblings(state, owners), SiblingState)
    _, state = model.prefill([[1, 2, 3]])
    assert isinstance(model.siblings(state, owners), SiblingState)


def test_in_half_precision_a_prompt_per_row_also_after_siblings_in_full() -> None:
    model = made(qwen3)
    owners = torch.tensor([0, 0])
    _, state = model.prefill([[1, 2, 3]])
    assert isinstance(model.siblings(state, owners), SiblingState) and model.extends
    model.to(torch.bfloat16)
    _, state = model.prefill([[1, 2, 3]])
    assert not isinstance(model.siblings(state, owners), SiblingState) and not model.extends


def test_a_conversation_goes_on_from_a_kept_state() -> None:
    """A further turn of some siblings, beside newcomers: as if all of it had been one prompt."""
    model = made(qwen3)
    sampler = BatchSampler(model)
    prompt = tuple(tokens(9).tolist())
    more = [(prompt, Sampling(4 + seed, more=True), seed) for seed in range(4)]
    first = sampler.generate([*more, (tuple(tokens(30, 1).tolist()), Sampling(3), 9)])

    further = []
    for done in (first[3], first[0]):
        further.append(((*prompt, *done.ids, 5, 6), Sampling(6), 7))
    newcomer = (tuple(tokens(14, 2).tolist()), Sampling(5), 8)
    known = [len(prompt) + len(first[3].ids), len(prompt) + len(first[0].ids), 0]
    went_on = sampler.generate([*further, newcomer], known)
    anew = BatchSampler(model).generate([*further, newcomer])
    for one, other in zip(went_on, anew, strict=True):
        assert one.ids == other.ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
