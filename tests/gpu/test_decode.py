"""Decoding on a GPU: recorded steps, plain ones and the CPU give the same tokens.

`LINN_TEST_DEVICE=cpu` runs them without one, where all steps are plain.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from support.slot_toy import small_family, small_hybrid

from linn.engine.sampling.live_batch import BatchSampler, LiveBatch, Request, open_batch
from linn.engine.sampling.slot_batch import SlotBatch
from linn.types import Completion, Sampling

DEVICE = os.environ.get("LINN_TEST_DEVICE", "cuda")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device is here"
    ),
]


def hybrid(device: str, **changes: Any) -> Any:
    return small_hybrid(**changes).to(device)


def sampler(model: Any, record: bool, capacity: int = 256, **options: Any) -> BatchSampler:
    batch = partial(SlotBatch, record=record)
    return BatchSampler(model, capacity, batch=batch, **options)


def requests(count: int, seed: int, longest: int = 30, tokens: int = 40) -> list[Request]:
    """Siblings, greedy rows, cuts, stops: what a stage and an evaluation ask for together."""
    rng = random.Random(seed)
    prompts = [
        tuple(rng.randrange(40) for _ in range(rng.randint(1, longest)))
        for _ in range(1 + count // 3)
    ]
    return [
        (
            rng.choice(prompts),
            Sampling(
                max_tokens=rng.randint(1, tokens),
                temperature=rng.choice([1.0, 0.7, 0.0]),
                top_p=rng.choice([1.0, 0.8]),
                stop=rng.choice([(), (3,), tuple(range(5, 16))]),
            ),
            number,
        )
        for number in range(count)
    ]


def greedy(count: int, seed: int, **sizes: int) -> list[Request]:
    return [
        (prompt, Sampling(how.max_tokens, 0.0, stop=how.stop), number)
        for prompt, how, number in requests(count, seed, **sizes)
    ]


def check_equal(
    got: Sequence[Completion], right: Sequence[Completion], others: int = 0, gap: float = 1e-4
) -> None:
    """`others`: requests that may differ, where a draw fell between two roundings."""
    differ = 0
    for one, two in zip(got, right, strict=True):
        if (one.ids, one.finish) != (two.ids, two.finish):
            differ += 1
        else:
            assert one.logprobs == pytest.approx(two.logprobs, abs=gap)
    assert differ <= others, f"{differ} of {len(right)} requests got other tokens"


def test_a_model_on_a_gpu_is_decoded_in_slots() -> None:
    is_slots = isinstance(open_batch(hybrid(DEVICE)), SlotBatch)
    assert is_slots == (DEVICE == "cuda")


@pytest.mark.parametrize("count", [3, 20, 70])
def test_recorded_plain_and_cpu_take_the_same_greedy_tokens(count: int) -> None:
    asked = greedy(count, seed=count)
    right = BatchSampler(hybrid("cpu"), batch=LiveBatch).generate(asked)
    model = hybrid(DEVICE)
    plain = sampler(model, record=False).generate(asked)
    check_equal(plain, right, others=count // 30)
    recorded = sampler(model, record=True)
    # The second time every step is a replay.
    for _ in range(2):
        check_equal(recorded.generate(asked), plain)


def test_a_family_of_transformers_is_recorded_too() -> None:
    model = small_family().to(DEVICE)
    assert model.has_slots
    asked = requests(40, seed=4, longest=120, tokens=60)
    right = BatchSampler(model, batch=LiveBatch).generate(asked)
    recorded = sampler(model, record=True, capacity=24)
    for _ in range(2):
        check_equal(recorded.generate(asked), right, others=1)


def test_draws_stops_cuts_and_rows_that_join_in_the_middle() -> None:
    asked = requests(90, seed=5)
    model = hybrid(DEVICE)
    right = BatchSampler(model, batch=LiveBatch).generate(asked)
    for capacity in (16, 40, 256):
        got = sampler(model, record=True, capacity=capacity).generate(asked)
        check_equal(got, right, others=2)


def test_long_rows_pass_from_one_width_of_columns_to_the_next() -> None:
    asked = greedy(10, seed=1, longest=150, tokens=400)
    right = BatchSampler(hybrid("cpu"), batch=LiveBatch).generate(asked)
    recorded = sampler(hybrid(DEVICE), record=True, capacity=6)
    for _ in range(2):
        check_equal(recorded.generate(asked), right, others=1)


def test_a_replay_reads_the_weights_as_they_are() -> None:
    asked = greedy(20, seed=2)
    model = hybrid(DEVICE)
    recorded = sampler(model, record=True)
    recorded.generate(asked)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.02)
    for step in range(3):
        ids = torch.randint(40, (2, 16), generator=torch.Generator().manual_seed(step)).to(DEVICE)
        logits = model.head(model.hidden(ids, torch.zeros_like(ids)))
        logits.log_softmax(-1)[..., 7].sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        recorded.forget()
        right = BatchSampler(model, batch=LiveBatch).generate(asked)
        check_equal(recorded.generate(asked), right, others=1)


def test_conversations_go_on_from_their_rows() -> None:
    first = [(p, Sampling(20, 1.0, stop=(3, 9), more=True), k) for p, _, k in requests(30, 3)]
    model = hybrid(DEVICE)
    recorded = sampler(model, record=True, capacity=16)
    done = recorded.generate(first)
    wholes = [(*prompt, *one.ids) for (prompt, _, _), one in zip(first, done, strict=True)]
    second: list[Request] = [((*w, 1, 2, 3, 4, 5, 6), Sampling(9), k) for k, w in enumerate(wholes)]
    got = recorded.generate(second, [len(whole) for whole in wholes])
    check_equal(got, BatchSampler(model, batch=LiveBatch).generate(second), others=1)


def test_dropped_requests_and_the_most_likely_tokens() -> None:
    model = hybrid(DEVICE)
    batch, right = SlotBatch(model), LiveBatch(model)
    asked = [((1, 2, 3), Sampling(30, 1.0, top=4), seed) for seed in range(6)]
    ids = batch.admit(asked)
    batch.advance()
    batch.drop(ids[:3])
    assert batch.admit(asked[:1]) == [6]
    tops: dict[int, list[Any]] = {one: [] for one in (*ids[3:], 6)}
    while not batch.idle:
        for one, most in batch.advance().tops.items():
            tops[one].append([token for token, _ in most])

    right.admit(asked)
    expected: dict[int, list[Any]] = {one: [] for one in range(6)}
    while not right.idle:
        for one, most in right.advance().tops.items():
            expected[one].append([token for token, _ in most])
    assert tops[6] == expected[0]
    for one in ids[3:]:  # all but what the first advance told
        assert tops[one] == expected[one][1:]


def test_bfloat16_products_recorded_and_plain() -> None:
    """Also the grouped product of the experts, where the device has it."""
    asked = requests(40, seed=7)
    model = hybrid(DEVICE)
    exact = sampler(model, record=True).generate(asked)
    plain = sampler(model, record=False, bfloat16=True).generate(asked)
    recorded = sampler(model, record=True, bfloat16=True)
    for _ in range(2):
        check_equal(recorded.generate(asked), plain, others=2, gap=0.05)

    gaps = [
        abs(one.logprobs[0] - two.logprobs[0])
        for one, two in zip(plain, exact, strict=True)
        if one.ids[0] == two.ids[0]
    ]
    assert len(gaps) > 30 and sum(gaps) / len(gaps) < 0.05


def test_autocast_around_a_batch_is_that_of_its_steps() -> None:
    """A recording made under autocast is not taken for one without, nor keeps weights rounded."""
    asked = greedy(20, seed=8)
    model = hybrid(DEVICE)
    recorded, plain = sampler(model, record=True), sampler(model, record=False)
    exact = recorded.generate(asked)
    for _ in range(2):
        with torch.autocast(DEVICE, torch.bfloat16):
            check_equal(recorded.generate(asked), plain.generate(asked), others=2, gap=0.05)
        with torch.no_grad():
            model.lm_head.weight.mul_(1.1)
    check_equal(recorded.generate(asked), plain.generate(asked))
    assert recorded.generate(asked) != exact
