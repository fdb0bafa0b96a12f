"""A batch in slots gives what a live batch gives, whatever the length of its rounds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from support.slot_toy import SlotToyLM, small_family, small_hybrid
from test_live_batch import Client, random_request

from linn.engine.sampling.live_batch import BatchSampler, LiveBatch, Request
from linn.engine.sampling.slot_batch import SlotBatch
from linn.errors import RunFailed, UserError
from linn.types import Completion, Sampling


def request(tokens: int, seed: int = 0, more: bool = False) -> Request:
    return (1, 5, 2), Sampling(tokens, more=more), seed


def live(model: Any, **options: Any) -> BatchSampler:
    return BatchSampler(model, batch=LiveBatch, **options)


def in_slots(model: Any, steps: int = 4, **options: Any) -> BatchSampler:
    return BatchSampler(model, batch=partial(SlotBatch, steps=steps), **options)


def check_equal(got: Sequence[Completion], right: Sequence[Completion]) -> None:
    for one, two in zip(got, right, strict=True):
        assert (one.ids, one.finish) == (two.ids, two.finish)
        assert one.logprobs == pytest.approx(two.logprobs, abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps", [4, pytest.param(1, marks=pytest.mark.long), pytest.param(7, marks=pytest.mark.long)]
)
def test_two_hundred_admits_and_drops_leave_every_other_request_what_it_gets_alone(
    steps: int,
) -> None:
    model, rng = SlotToyLM(), random.Random(steps)
    prompts = [tuple(rng.randrange(17) for _ in range(rng.randint(1, 12))) for _ in range(20)]
    client = Client(SlotBatch(model, capacity=12, prefill_tokens=40, steps=steps))  # type: ignore[arg-type]
    for _ in range(200):
        outstanding = client.open()
        if outstanding and rng.random() < 0.4:
            client.drop(rng.choice(outstanding))
        else:
            client.admit(*[random_request(rng, prompts) for _ in range(rng.randint(1, 3))])
        for _ in range(rng.randint(0, 3)):
            client.advance()
    client.finish()

    assert client.done.keys() == client.requests.keys() - client.dropped
    assert len(client.done) > 80 and len(client.dropped) > 50
    for number, completion in client.done.items():
        assert tuple(client.streamed[number]) == tuple(
            zip(completion.ids, completion.logprobs, strict=True)
        )
    numbers = list(client.done)
    alone = live(model, capacity=64).generate([client.requests[number] for number in numbers])
    check_equal([client.done[number] for number in numbers], alone)


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_hybrid, small_family], ids=["hybrid", "qwen3"])
def test_a_model_gives_the_same_in_slots_turn_after_turn(make: Callable[[], Any]) -> None:
    """Siblings, stops (more than a row of them), greedy, top-p, and conversations that go on."""
    model, rng = make(), random.Random(2)
    assert model.has_slots
    prompts = [tuple(rng.randrange(40) for _ in range(rng.randint(1, 30))) for _ in range(4)]
    many = tuple(range(20, 35))
    how = [
        Sampling(12, 1.0, stop=(3, 9), more=True),
        Sampling(20, 0.7, 0.8, more=True),
        Sampling(7, 0.0, stop=many, more=True),
    ]
    first = [(prompt, how[k % 3], 100 + k) for k in range(3) for prompt in prompts]
    samplers = [live(model, capacity=8), in_slots(model, 3, capacity=8)]
    turns = [sampler.generate(first) for sampler in samplers]
    for other in turns[1:]:
        check_equal(other, turns[0])

    wholes = [(*prompt, *done.ids) for (prompt, _, _), done in zip(first, turns[0], strict=True)]
    second = [((*whole, 1, 2, 3, 4, 5, 6), how[k % 3], k) for k, whole in enumerate(wholes)]
    known = [len(whole) if k % 4 else 0 for k, whole in enumerate(wholes)]
    turns = [sampler.generate(second, known) for sampler in samplers]
    for other in turns[1:]:
        check_equal(other, turns[0])
    check_equal(turns[1], live(model).generate(second))  # nothing known


def test_slots_never_take_more_than_the_cache() -> None:
    model, rng = SlotToyLM(), random.Random(3)
    limit = model.row_bytes(300) * 4
    batch = SlotBatch(model, capacity=64, cache_bytes=limit)  # type: ignore[arg-type]
    shapes = set()
    # Slots that are there are made to fit the next list: more rows, then more columns.
    for count, tokens in ((2, 9), (30, 20), (6, 250), (30, 20)):
        prompts = [
            tuple(rng.randrange(17) for _ in range(rng.randint(1, 30))) for _ in range(count)
        ]
        requests: list[Request] = [(one, Sampling(rng.randint(1, tokens)), 7) for one in prompts]
        ids = batch.admit(requests)
        done: dict[int, Completion] = {}
        while not batch.idle:
            done |= batch.advance().completions
            if (slots := batch._step.slots) is not None:
                shapes.add((slots.rows, slots.columns))
        check_equal([done[one] for one in ids], live(model).generate(requests))
    assert all(rows * model.row_bytes(columns) <= limit for rows, columns in shapes), shapes
    assert max(rows for rows, _ in shapes) > 15 and max(columns for _, columns in shapes) > 200


def test_two_rows_that_grow_while_a_longer_one_waits_stay_within_the_cache() -> None:
    """Of the one that waits the cache holds one row: no measure for those that are decoded."""
    model = SlotToyLM()
    limit = model.row_bytes(160)
    batch = SlotBatch(model, capacity=5, cache_bytes=limit)  # type: ignore[arg-type]
    for lists in ((20, 20), (50, 50, 118)):
        batch.admit([((5,) * 10, Sampling(tokens), k) for k, tokens in enumerate(lists)])
        while not batch.idle:
            batch.advance()
            slots = batch._step.slots
            assert slots is None or slots.rows * model.row_bytes(slots.columns) <= limit


@pytest.mark.parametrize("make", [small_hybrid, small_family], ids=lambda make: make.__name__)
def test_a_long_row_keeps_its_keys_where_short_ones_join_it(make: Callable[[], Any]) -> None:
    """The cache holds two rows, but not two of the round number of columns that the first got."""
    model, rng = make(), random.Random(0)
    long = tuple(rng.randrange(40) for _ in range(140)), Sampling(20, 0.0), 0
    short = (1, 2), Sampling(3, 0.0), 0
    batch = SlotBatch(model, capacity=2, cache_bytes=2 * model.row_bytes(165))
    ids = batch.admit([long])
    done = batch.advance().completions
    ids += batch.admit([short])
    while not batch.idle:
        done |= batch.advance().completions
    check_equal([done[one] for one in ids], live(model).generate([long, short]))


def test_a_request_that_no_cache_holds_is_decoded_alone() -> None:
    batch = SlotBatch(SlotToyLM(), capacity=4, cache_bytes=1)  # type: ignore[arg-type]
    batch.admit([request(5, 1), request(5, 2)])
    while not batch.idle:
        assert len(batch.advance().tokens) == 1


def test_the_last_rows_of_a_batch_are_computed_together() -> None:
    """Of 40 rows the three longest are left; they move together, and draw what they draw alone."""
    requests = [((1, 2), Sampling(60 if k % 15 == 14 else 3), k) for k in range(40)]
    model = SlotToyLM()
    sizes = []
    right = model.decode_slots

    def decode_slots(ids: Any, *arguments: Any) -> Any:
        sizes.append(len(ids))
        return right(ids, *arguments)

    model.decode_slots = decode_slots  # type: ignore[method-assign]
    check_equal(in_slots(model).generate(requests), live(model).generate(requests))
    # Stops by length are known in advance, so no row is computed long after its end.
    assert sizes.count(40) <= 8 and set(sizes[10:]) == {8} and len(sizes) < 68


def test_the_most_likely_tokens_are_told_beside_what_was_drawn() -> None:
    model = SlotToyLM()
    requests: list[Request] = [((1, 2), Sampling(6, 0.8, top=top), top) for top in (0, 2, 5)]
    told = []
    for batch in (LiveBatch(model), SlotBatch(model)):  # type: ignore[arg-type]
        ids = batch.admit(requests)
        tops: dict[int, list[Any]] = {one: [] for one in ids}
        while not batch.idle:
            for one, most in batch.advance().tops.items():
                tops[one].append(most)
        told.append(list(tops.values()))
    assert told[0][0] == told[1][0] == []
    for one, two in zip(told[0], told[1], strict=True):
        assert [[token for token, _ in most] for most in one] == [
            [token for token, _ in most] for most in two
        ]


def test_a_finished_request_goes_on_from_its_state_until_it_is_dropped() -> None:
    model = SlotToyLM()
    client = Client(SlotBatch(model, capacity=4))  # type: ignore[arg-type]
    client.admit(request(60, 7), request(60, 8))
    (first,) = client.admit(request(5, 1, more=True))
    while first not in client.done:
        client.advance()

    conversation = (1, 5, 2, *client.done[first].ids)
    second_turn: Request = ((*conversation, 4, 6), Sampling(8), 11)
    (went_on,) = client.admit(second_turn, known=(len(conversation),))
    client.drop(first)
    with pytest.raises(KeyError):
        client.admit(second_turn, known=(len(conversation),))
    client.finish()
    check_equal([client.done[went_on]], live(model).generate([second_turn]))
    assert len(client.streamed[went_on]) == 8, "fed tokens are not streamed"


def test_a_step_that_fails_leaves_nothing_behind() -> None:
    model = SlotToyLM()
    batch = SlotBatch(model)  # type: ignore[arg-type]
    batch.admit([request(40), request(40)])
    batch.advance()
    whole = model.out.detach().clone()
    with torch.no_grad():
        model.out.fill_(torch.nan)
    with pytest.raises(RunFailed, match="not finite"):
        while True:
            batch.advance()
    assert batch.idle and batch.advance().tokens == {}

    with torch.no_grad():
        model.out.copy_(whole)
    batch.admit([request(6, 3)])
    done = {}
    while not batch.idle:
        done |= batch.advance().completions
    check_equal(list(done.values()), live(model).generate([request(6, 3)]))


def test_weights_may_change_in_place_and_may_be_replaced() -> None:
    model = SlotToyLM()
    sampler = in_slots(model)
    requests = [request(9, seed) for seed in range(5)]
    sampler.generate(requests)
    with torch.no_grad():
        model.out.mul_(1.5)
    check_equal(sampler.generate(requests), live(model).generate(requests))
    model.out = torch.nn.Parameter(-model.out.detach())
    check_equal(sampler.generate(requests), live(model).generate(requests))
    sampler.release()
    check_equal(sampler.generate(requests), live(model).generate(requests))


def test_a_family_with_rounded_products_decodes_in_slots() -> None:
    """Its cache takes keys of whatever dtype autocast gives them."""
    model = small_family()
    asked: list[Request] = [((3, 4, 5), Sampling(8, 0.0), 0), ((6, 7), Sampling(8, 0.0), 1)]
    slots = BatchSampler(model, batch=SlotBatch, bfloat16=True).generate(asked)
    eager = BatchSampler(model, batch=LiveBatch, bfloat16=True).generate(asked)
    for one, two in zip(slots, eager, strict=True):
        assert one.logprobs[0] == pytest.approx(two.logprobs[0], abs=0.02)


def test_a_family_with_windows_has_no_slots() -> None:
    assert not small_family("Gemma2").has_slots


def test_a_sequence_longer_than_the_positions_is_refused_when_it_gets_there() -> None:
    """What was computed beyond the end of others is no reason."""
    model = small_family("GPT2", n_positions=24, n_embd=32, n_layer=1, n_head=2)
    assert model.has_slots
    asked = [((1, 2, 3), Sampling(21), 0), ((1,), Sampling(2), 1)]
    check_equal(in_slots(model, 7).generate(asked), live(model).generate(asked))
    for sampler in (live(model), in_slots(model)):
        with pytest.raises(UserError, match=r"25 tokens.* takes 24"):
            sampler.generate([((1, 2, 3), Sampling(40), 0)])
