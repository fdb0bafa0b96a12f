"""Families of transformers that take several tokens at once: as if they came one by one."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from support.decoding import RunningBatch
from test_families import SIZES, alone, gemma2, granite_hybrid, mamba2, qwen3, tokens
from test_joined_rows import gpt2, llama, moe
from test_siblings import gpt_oss, made, masked_window

from linn.engine.models import extension, transformers_lm
from linn.engine.models.interface import State
from linn.engine.models.siblings import SiblingState
from linn.engine.models.transformers_lm import TransformersLM
from linn.engine.sampling.live_batch import BatchSampler, Request
from linn.errors import UserError
from linn.types import Completion, Sampling


def many_heads() -> Any:
    """A key head per query head, and a head size that is not the hidden size's share."""
    return qwen3(num_key_value_heads=SIZES["num_attention_heads"], head_dim=16)


def neox() -> Any:
    """Rotary positions for a part of each head, and a residual beside attention."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES))


def alibi() -> Any:
    """Positions as a bias of the scores, which this attention does not have."""
    from transformers import FalconConfig, FalconForCausalLM

    return FalconForCausalLM(FalconConfig(**SIZES, alibi=True))


def begun(model: TransformersLM, as_sampled: bool) -> State:
    """Four rows behind two prompts, and two tokens of their own."""
    _, state = model.prefill([[1, 2, 3, 4, 5], [6, 7]])
    owners = torch.tensor([0, 1, 0, 0])
    state = model.siblings(state, owners) if as_sampled else state.select(owners)
    assert isinstance(state, SiblingState) == as_sampled
    for token in (3, 4):
        _, state = model.decode(torch.full((4,), token), state)
    return state


@pytest.mark.parametrize("make", [qwen3, llama, many_heads, moe, gpt2, neox])
@pytest.mark.parametrize("as_sampled", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_moves_is_the_stock_forward(
    make: Any, as_sampled: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in many parts: of rows, and of one row's tokens."""
    monkeypatch.setattr(transformers_lm, "_PREFILL_TOKENS", [1024, 31, 1][seed])
    monkeypatch.setattr(extension, "_MASK", [2**21, 1, 500][seed])
    model = made(make)
    assert model.extends
    texts = [tokens(80, number) for number in range(5)]
    expected = [alone(model.inner, text) for text in texts]
    batch = RunningBatch(model, texts, expected, as_sampled)
    draw = random.Random(seed)
    batch.start((0, 7), (1, 1), (2, draw.randint(1, 12)))
    for _ in range(6):
        batch.extend(*[draw.randint(1, max(1, 60 - fed)) for _, fed in batch.rows])
        batch.feed(draw.randint(0, 2))
        batch.select(*draw.choices(range(len(batch.rows)), k=draw.randint(1, 7)))
        batch.join((draw.choice([3, 4]), draw.randint(1, 15)))
        batch.feed(draw.randint(0, 1))
    batch.extend(*[1] * len(batch.rows))


@pytest.mark.parametrize("as_sampled", [False, True])
@pytest.mark.parametrize("fed", [[[7], [8, 9, 1], [2] * 40, [3]], [[7], [8] * 90, [9], [1, 2]]])
def test_the_state_before_stays_as_it_was(as_sampled: bool, fed: list[list[int]]) -> None:
    """Neither sees what is fed to the other later, whether rows still share prompts or not."""
    model = made(qwen3)
    token = torch.tensor([5, 6, 7, 8])
    right, _ = model.decode(token, begun(model, as_sampled))

    state = begun(model, as_sampled)
    _, longer = model.extend(fed, state)
    once, _ = model.decode(token, longer.select(torch.arange(4)))
    model.extend(fed, state)
    model.decode(token.flip(0), longer)
    got, _ = model.decode(token, state)
    assert torch.equal(got, right)

    state = begun(model, as_sampled)
    _, longer = model.extend(fed, state)
    model.decode(token.flip(0), state)
    got, _ = model.decode(token, longer)
    torch.testing.assert_close(got, once, atol=1e-5, rtol=0)


def test_siblings_share_their_prompt_still() -> None:
    model = made(qwen3)
    _, prompts = model.prefill([tokens(50).tolist(), tokens(40, 1).tolist()])
    state = model.siblings(prompts, torch.arange(2).repeat_interleave(4))
    _, longer = model.extend([[1, 2, 3]] * 8, state)
    assert isinstance(longer, SiblingState)
    assert len(longer.prompts.lengths) == 2 and longer.own.columns == 3


@pytest.mark.parametrize(
    "make",
    [gemma2, granite_hybrid, mamba2, gpt_oss, alibi, masked_window],
    ids=lambda m: m.__name__,
)
def test_other_attention_is_fed_one_by_one(make: Any) -> None:
    assert not made(make).extends


def test_under_autocast_one_by_one_and_no_verdict_on_the_family() -> None:
    model = made(qwen3)
    with torch.autocast("cpu", torch.bfloat16):
        assert not model.extends
    assert model.extends
    with torch.autocast("cpu", torch.bfloat16):
        assert not model.extends


def test_a_row_may_reach_the_last_position_and_no_further() -> None:
    model = made(gpt2)
    _, state = model.prefill([tokens(90).tolist(), [1]])
    hidden, _ = model.extend([[1] * 6, [2] * 95], state)
    assert len(hidden) == 101
    for beyond in ([[1] * 7, [2]], [[1], [2] * 96]):
        with pytest.raises(UserError, match="97 tokens"):
            model.extend(beyond, state)


def test_it_is_one_pass_through_the_familys_code() -> None:
    model = made(qwen3)
    assert model.extends
    state = begun(model, as_sampled=True)
    shapes = []
    model._decoder.register_forward_pre_hook(
        lambda _, __, told: shapes.append(tuple(told["input_ids"].shape)), with_kwargs=True
    )
    model.extend([[1] * 9, [2], [3] * 5, [4]], state)
    assert shapes == [(1, 16)]


Turns = list[tuple[list[Request], list[Completion]]]


def conversations(model: TransformersLM, goes_on: bool) -> Turns:
    """The requests and completions of three turns, between which ragged answers are fed.

    Two prompts with four siblings each, of which some leave; a newcomer in every turn. Decoded
    five at a time, so some go on beside others that are being decoded.
    """
    sampler = BatchSampler(model, capacity=5)
    draw = random.Random(0)
    found: Turns = []
    requests: list[Request] = []
    for seed in range(8):
        prompt = tuple(tokens(9 + 20 * (seed % 2), seed % 2).tolist())
        requests.append((prompt, Sampling(3 + seed, more=True), seed))
    known: list[int] = []
    for turn in range(3):
        done = sampler.generate(requests, known if goes_on else ())
        found.append((requests, done))
        further: list[Request] = []
        known = []
        pairs = list(zip(requests, done, strict=True))
        for (prompt, _, seed), one in draw.sample(pairs, k=len(pairs) - 1):
            answer = tokens(draw.choice([0, 1, 4, 30]), 9 * turn + seed).tolist()
            whole = (*prompt, *one.ids)
            further.append(((*whole, *answer), Sampling(draw.randint(1, 7), more=True), seed))
            known.append(len(whole))
        further.append((tuple(tokens(14, turn).tolist()), Sampling(5, more=True), 50 + turn))
        requests, known = further, [*known, 0]
    return found


def test_conversations_go_on_as_if_each_had_been_one_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And as if what comes between the turns was fed one by one."""
    model = made(qwen3)
    fed = []
    extend = TransformersLM.extend

    def counted(self: TransformersLM, rows: Any, state: State) -> Any:
        fed.extend(len(row) for row in rows)
        return extend(self, rows, state)

    monkeypatch.setattr(TransformersLM, "extend", counted)
    assert model.extends
    fed.clear()
    in_one_pass = conversations(model, goes_on=True)
    assert len(fed) == 7 + 7 and {1, 2, 5, 31} == set(fed)
    anew = conversations(model, goes_on=False)
    assert len(fed) == 14
    monkeypatch.setattr(TransformersLM, "extends", False)
    one_by_one = conversations(model, goes_on=True)
    assert len(fed) == 14
    for other in (anew, one_by_one):
        for (requests, done), (same, right) in zip(in_one_pass, other, strict=True):
            assert requests == same
            for one, expected in zip(done, right, strict=True):
                assert one.ids == expected.ids
                assert one.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
