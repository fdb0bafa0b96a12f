"""A live batch: requests come and go, and what one of them gets depends on its seed alone."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.toy_lm import ToyLM

from linn.engine.models.interface import CausalLM
from linn.engine.sampling.live_batch import BatchSampler, LiveBatch, Request
from linn.errors import UserError
from linn.types import Completion, Sampling


@dataclass
class Client:
    """Drives a batch as a server would, and notes what it is told."""

    batch: LiveBatch
    requests: dict[int, Request] = field(default_factory=dict)
    streamed: dict[int, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    done: dict[int, Completion] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)

    def admit(self, *requests: Request, known: tuple[int, ...] = ()) -> list[int]:
        ids = self.batch.admit(requests, known)
        self.requests |= dict(zip(ids, requests, strict=True))
        return ids

    def advance(self) -> None:
        step = self.batch.advance()
        assert not self.dropped & (step.tokens.keys() | step.completions.keys())
        assert step.completions.keys() <= step.tokens.keys()
        assert len(step.tokens) <= self.batch.capacity
        for request, token in step.tokens.items():
            assert request not in self.done, "a finished request came back"
            self.streamed[request].append(token)
        self.done |= step.completions

    def drop(self, *ids: int) -> None:
        self.batch.drop(ids)
        self.dropped |= set(ids)

    def finish(self) -> None:
        while not self.batch.idle:
            self.advance()

    def open(self) -> list[int]:
        """Requests that are waiting or live."""
        return sorted(self.requests.keys() - self.done.keys() - self.dropped)


def tiny_hybrid(folder: Path) -> CausalLM:
    from linn.bases.make import new_model
    from linn.engine.models.load import load

    new_model(folder, 17, 3)
    return load(folder)


def random_request(rng: random.Random, prompts: list[tuple[int, ...]]) -> Request:
    how = Sampling(
        max_tokens=rng.randint(1, 16),
        temperature=rng.choice([1.0, 0.7, 0.0]),
        top_p=rng.choice([1.0, 0.8]),
        stop=rng.choice([(), (3,), (3, 9)]),
    )
    return rng.choice(prompts), how, rng.randrange(2**63)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "slack", "looked_at"),
    [
        (lambda folder: ToyLM(), None, 1),
        (lambda folder: ToyLM(), 1, 1),
        pytest.param(tiny_hybrid, None, 3, marks=pytest.mark.long),
    ],
    ids=["toy", "toy-joins-at-once", "hybrid"],
)
def test_two_hundred_admits_and_drops_leave_every_other_request_what_it_gets_alone(
    tmp_path: Path, make: Callable[[Path], CausalLM], slack: int | None, looked_at: int
) -> None:
    """`looked_at`: every which request is computed alone as well, since the hybrid takes long."""
    model, rng = make(tmp_path), random.Random(5)
    prompts = [tuple(rng.randrange(17) for _ in range(rng.randint(1, 12))) for _ in range(20)]
    client = Client(LiveBatch(model, capacity=12, prefill_tokens=40, slack=slack))
    for _ in range(200):
        outstanding = client.open()
        if outstanding and rng.random() < 0.4:
            client.drop(rng.choice(outstanding))
        else:
            new = [random_request(rng, prompts) for _ in range(rng.randint(1, 3))]
            client.admit(*new)
        for _ in range(rng.randint(0, 3)):
            client.advance()
    client.finish()

    assert client.done.keys() == client.requests.keys() - client.dropped
    assert len(client.done) > 80 and len(client.dropped) > 50
    for request, completion in client.done.items():
        ids = tuple(token for token, _ in client.streamed[request])
        logprobs = tuple(logprob for _, logprob in client.streamed[request])
        assert (ids, logprobs) == (completion.ids, completion.logprobs)
        if request % looked_at:
            continue

        (alone,) = BatchSampler(model).generate([client.requests[request]])
        assert (completion.ids, completion.finish) == (alone.ids, alone.finish)
        assert completion.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def request(tokens: int, seed: int = 0, more: bool = False) -> Request:
    return (1, 5, 2), Sampling(tokens, more=more), seed


def test_the_states_of_live_rows_never_take_more_than_the_cache() -> None:
    """Short requests are decoded together, long ones alone, each as it would be by itself."""
    model = ToyLM()
    rng = random.Random(3)
    prompts = [tuple(rng.randrange(17) for _ in range(rng.randint(1, 40))) for _ in range(30)]
    requests = [(prompt, Sampling(rng.choice([2, 9, 60])), 7) for prompt in prompts]
    reach = [len(prompt) + how.max_tokens for prompt, how, _ in requests]
    limit = model.row_bytes(100) * 3
    client = Client(LiveBatch(model, capacity=12, cache_bytes=limit))
    ids = client.admit(*requests)

    together = Counter[int]()
    while not client.batch.idle:
        live = client.batch.advance()
        client.done |= live.completions
        reaches = [reach[ids.index(one)] for one in live.tokens]
        assert len(reaches) == 1 or len(reaches) * model.row_bytes(max(reaches)) <= limit
        together[len(reaches)] += 1
    assert max(together) > 3, "short requests were decoded together"
    for one, asked in zip(ids, requests, strict=True):
        assert client.done[one].ids == BatchSampler(model).generate([asked])[0].ids


def test_fewer_rows_than_are_to_be_free_start_where_the_cache_holds_no_more() -> None:
    """Of 64 rows eight are to be free; of the two that the cache holds, the same share."""
    model = ToyLM()
    batch = LiveBatch(model, capacity=64, cache_bytes=2 * model.row_bytes(8))
    batch.admit([((1, 5, 2), Sampling(5), seed) for seed in range(6)])
    counts = []
    while not batch.idle:
        counts.append(len(batch.advance().tokens))
    assert counts == [2] * 15


def test_a_request_that_no_cache_holds_is_decoded_alone() -> None:
    client = Client(LiveBatch(ToyLM(), capacity=4, cache_bytes=1))
    client.admit(request(5, 1), request(5, 2))
    while not client.batch.idle:
        assert len(client.batch.advance().tokens) == 1


def test_a_dropped_request_gives_its_row_to_one_that_waits() -> None:
    client = Client(LiveBatch(ToyLM(), capacity=2))
    first, second, third = client.admit(request(50, 1), request(50, 2), request(50, 3))
    client.advance()
    assert client.streamed.keys() == {first, second}
    client.drop(first)
    client.advance()
    client.advance()
    assert len(client.streamed[second]) == 3 and third in client.streamed
    client.drop(second, third)
    assert client.batch.idle


def test_a_request_dropped_while_it_waits_never_starts() -> None:
    client = Client(LiveBatch(ToyLM(), capacity=1))
    first, second, third = client.admit(request(4, 1), request(4, 2), request(4, 3))
    client.drop(second, 99)  # nobody has the id 99
    client.finish()
    assert client.done.keys() == {first, third} and client.batch.advance().tokens == {}


@pytest.mark.parametrize("extends", [True, False])
def test_a_finished_request_goes_on_from_its_state_until_it_is_dropped(extends: bool) -> None:
    model = ToyLM()
    model.extends = extends
    client = Client(LiveBatch(model, capacity=4))
    # Others run all the time: a kept state is nothing that only an idle batch has.
    client.admit(request(60, 7), request(60, 8))
    (first,) = client.admit(request(5, 1, more=True))
    while first not in client.done:
        client.advance()

    conversation = (1, 5, 2, *client.done[first].ids)
    second_turn: Request = ((*conversation, 4, 6), Sampling(8), 11)
    (went_on,) = client.admit(second_turn, known=(len(conversation),))
    client.drop(first)  # its state is held for the request that was admitted to go on
    with pytest.raises(KeyError):
        client.admit(second_turn, known=(len(conversation),))
    client.finish()

    (alone,) = BatchSampler(model).generate([second_turn])
    assert client.done[went_on].ids == alone.ids
    assert client.done[went_on].logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    assert len(client.streamed[went_on]) == 8, "fed tokens are not streamed"


def test_a_refused_request_queues_nothing() -> None:
    batch = LiveBatch(ToyLM())
    with pytest.raises(ValueError, match="cannot sample"):
        batch.admit([request(3), request(0)])
    assert batch.idle and batch.advance().tokens == {}


def test_dropping_one_of_two_equal_conversations_leaves_the_others_state():
    batch = LiveBatch(ToyLM())
    how = Sampling(max_tokens=4, temperature=0.0, more=True)
    first, second = batch.admit([((1, 5, 2), how, 0), ((1, 5, 2), how, 0)])
    completions = {}
    while not batch.idle:
        completions |= batch.advance().completions
    conversation = (1, 5, 2, *completions[first].ids)
    batch.drop([second])
    (third,) = batch.admit([((*conversation, 3), how, 1)], [len(conversation)])
    while not batch.idle:
        completions |= batch.advance().completions
    (alone,) = BatchSampler(ToyLM()).generate([((*conversation, 3), how, 1)])
    assert completions[third].ids == alone.ids


def test_a_step_that_fails_leaves_no_half_moved_rows():
    class Breaks(ToyLM):
        broken = False

        def decode(self, *arguments):
            if self.broken:
                raise RuntimeError("the device is gone")
            return super().decode(*arguments)

    model = Breaks()
    batch = LiveBatch(model)
    request = ((1, 5, 2), Sampling(max_tokens=6), 3)
    batch.admit([request])
    batch.advance()
    model.broken = True
    with pytest.raises(RuntimeError, match="device"):
        batch.advance()
    model.broken = False
    assert batch.idle
    (again,) = batch.admit([request])
    completions = {}
    while not batch.idle:
        completions |= batch.advance().completions
    assert completions[again] == BatchSampler(model).generate([request])[0]


@pytest.mark.parametrize(
    ("ids", "error", "line"),
    [
        ((999,), UserError, "token 999, and the model has embeddings for 17"),
        ((-1,), ValueError, "cannot sample"),
        ((), ValueError, "cannot sample"),
    ],
)
def test_a_prompt_that_the_model_cannot_read_is_refused_at_the_door(ids, error, line):
    batch = LiveBatch(ToyLM())
    with pytest.raises(error, match=line):
        batch.admit([(ids, Sampling(max_tokens=1), 0)])
    assert batch.idle


def test_sizes_that_can_never_work_are_refused():
    for slack in (0, 3):
        with pytest.raises(ValueError, match="slack"):
            LiveBatch(ToyLM(), capacity=2, slack=slack)
    with pytest.raises(ValueError, match="known"):
        LiveBatch(ToyLM()).admit([((1, 2), Sampling(max_tokens=1), 0)], [3])
