"""A process that samples for ever: who joins when, and what is told when, over a toy model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.toy_lm import ToyLM

from linn.engine.local import live_worker
from linn.engine.local.arrivals import APART, SHARE, Arrival, Arrivals
from linn.engine.local.live_worker import LiveWorker
from linn.engine.local.processes import WorkerOptions
from linn.engine.sampling.live_batch import BatchSampler, Request
from linn.errors import InfrastructureError, UserError
from linn.types import Sampling

FOLDER = Path("toy")


class Clients:
    """A pipe with so many clients behind it: each asks anew as soon as it has its answer."""

    def __init__(self, requests: list[Request], count: int, is_whole: bool = False) -> None:
        self.requests = requests
        self.is_whole = is_whole
        self.pieces: dict[int, list[list[int]]] = {}
        self.errors: dict[int, Exception] = {}
        self._asked = 0
        self._open = 0
        self._inbox: list[Any] = [("open", -1, (FOLDER,))]
        for _ in range(count):
            self._ask()

    def _ask(self) -> None:
        if self._asked < len(self.requests):
            asked = (FOLDER, *self.requests[self._asked], self.is_whole)
            self._inbox.append(("admit", self._asked, asked))
            self._asked += 1
            self._open += 1

    def poll(self, timeout: float | None) -> bool:
        return bool(self._inbox) or not self._open

    def recv(self) -> Any:
        if not self._inbox:
            raise EOFError
        return self._inbox.pop(0)

    def send(self, events: list[tuple[int, str, Any]]) -> None:
        for number, kind, what in events:
            if kind == "tokens":
                self.pieces.setdefault(number, []).append([token.id for token in what])
            if kind == "error":
                self.errors[number] = what
            if kind in ("end", "error"):
                self._open -= 1
                self._ask()


class CountingLM(ToyLM):
    """Counts what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.prefills = self.steps = self.rows = 0

    def prefill(self, prompts: Any) -> Any:
        self.prefills += 1
        return super().prefill(prompts)

    def decode(self, ids: Any, state: Any) -> Any:
        self.steps += 1
        self.rows += len(ids)
        return super().decode(ids, state)


def served(monkeypatch: pytest.MonkeyPatch, clients: Clients, capacity: int = 64) -> CountingLM:
    """Answers all clients; returns the model that did."""
    model = CountingLM()
    monkeypatch.setattr(live_worker, "load", lambda folder, dtype, device: model)
    options = WorkerOptions(width=64, capacity=capacity, cache_bytes=2**28)
    LiveWorker(options, clients).run()  # type: ignore[arg-type]
    return model


def requests_of(count: int, longest: int = 48) -> list[Request]:
    rng = random.Random(3)
    found: list[Request] = []
    for seed in range(count):
        prompt = tuple(rng.randrange(17) for _ in range(rng.randint(1, 6)))
        found.append((prompt, Sampling(rng.randint(2, longest), stop=(3,)), seed))
    return found


@pytest.mark.parametrize("is_whole", [True, False])
def test_many_clients_share_prefills_and_fill_the_batch(
    monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    """A server that lets everybody in at once prefills in two steps of three."""
    clients = Clients(requests_of(300), 32, is_whole)
    model = served(monkeypatch, clients)
    assert model.prefills < model.steps / 4
    tokens = sum(len(piece) for pieces in clients.pieces.values() for piece in pieces)
    # The first token of each comes from its prefill.
    assert tokens - len(clients.pieces) > 0.85 * model.rows
    assert model.rows > 0.7 * 32 * model.steps

    alone = BatchSampler(ToyLM()).generate(clients.requests)
    for number, completion in enumerate(alone):
        pieces = clients.pieces[number]
        assert tuple(token for piece in pieces for token in piece) == completion.ids
        assert len(pieces) == 1 or not is_whole


def test_the_end_of_one_reply_does_not_cut_the_others_short_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tokens are told by the clock. Here it stands still, so each reply comes in one piece."""
    monkeypatch.setattr(live_worker.time, "process_time", lambda: 0.0)
    clients = Clients(requests_of(100), 32)
    served(monkeypatch, clients)
    assert {len(pieces) for pieces in clients.pieces.values()} == {1}


def test_the_more_streams_the_longer_their_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 30 ms here; 500 pieces a second are told at most, beyond the first few."""
    lengths = []
    for count in (1, 64):
        ticks = iter(range(1, 10**9))
        monkeypatch.setattr(live_worker.time, "process_time", lambda t=ticks: 0.03 * next(t))
        clients = Clients([((1, 2), Sampling(40), seed) for seed in range(count)], count)
        served(monkeypatch, clients)
        pieces = [len(piece) for pieces in clients.pieces.values() for piece in pieces]
        lengths.append(sum(pieces) / len(pieces))
    assert lengths[0] == 1 and lengths[1] > 3


def test_one_that_cannot_be_sampled_takes_nobody_along(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = requests_of(40)
    bad = {5: (99,), 6: (), 20: (-1,)}
    for number, prompt in bad.items():
        requests[number] = (prompt, *requests[number][1:])
    clients = Clients(requests, 16)
    served(monkeypatch, clients)
    assert clients.errors.keys() == bad.keys()
    assert clients.pieces.keys() == set(range(40)) - bad.keys()


def test_without_its_device_it_answers_who_opens_a_checkpoint() -> None:
    """A process that ended over it would be started again, and tell the end of a traceback."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    told: list[Any] = []
    clients = Clients([], 0)
    clients.send = told.extend  # type: ignore[method-assign]
    clients.poll = lambda timeout: bool(clients._inbox or told)  # type: ignore[method-assign]
    LiveWorker(WorkerOptions(device="cuda"), clients).run()  # type: ignore[arg-type]
    ((number, kind, error),) = told
    assert (number, kind) == (-1, "error") and isinstance(error, UserError)
    assert "finds no GPU" in str(error) and "CUDA_VISIBLE_DEVICES=-1" in str(error)


def test_a_full_gpu_is_one_line_to_everybody_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(self: Any, ids: Any, state: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has")

    monkeypatch.setattr(CountingLM, "decode", decode)
    clients = Clients(requests_of(3), 3)
    served(monkeypatch, clients)
    assert len(clients.errors) == 3
    for error in clients.errors.values():
        assert isinstance(error, InfrastructureError)
        assert "memory is full (CUDA out of memory); lower --cache" in str(error)


# ---------------------------------------------------------------- who joins when


def arrival(number: int, length: int) -> Arrival:
    return Arrival(number, (1,) * length, Sampling(4), 0)


LENGTHS = st.sampled_from([1, 30, 300, 3000])
MOVES = st.lists(st.one_of(LENGTHS, st.just("step"), st.just("drop")), max_size=60)


@settings(max_examples=60, deadline=None)
@given(MOVES, st.integers(1, 12), st.randoms(use_true_random=False))
def test_everybody_joins_once_soon_and_within_the_rows(moves, capacity, rng) -> None:
    arrivals = Arrivals(capacity)
    waits: dict[int, int] = {}
    live: set[int] = set()
    joined: set[int] = set()
    for number, move in enumerate(moves + ["step"] * 200):
        if isinstance(move, int):
            arrivals.add(arrival(number, move))
            waits[number] = 0
            continue
        if move == "drop":
            gone = rng.randrange(60)
            arrivals.drop(gone)
            waits.pop(gone, None)
            continue
        group = arrivals.joining(len(live))
        numbers = {one.number for one in group}
        assert numbers <= waits.keys() and not numbers & joined
        lengths = [len(one.ids) for one in group]
        assert not group or max(lengths) <= 2 * min(lengths) + 64
        joined |= numbers
        live |= numbers
        assert len(live) <= capacity
        for one in numbers:
            # Of four lengths, each takes a step of its own.
            assert waits.pop(one) <= (APART + 8) * (1 + number // capacity)
        waits = {one: steps + 1 for one, steps in waits.items()}
        live -= {one for one in live if rng.random() < 0.3}
    assert not waits and len(arrivals) == 0


def test_who_comes_alone_joins_at_once_and_among_many_they_wait_for_each_other() -> None:
    arrivals = Arrivals(64)
    arrivals.add(arrival(0, 5))
    assert [one.number for one in arrivals.joining(32)] == [0]

    arrivals.add(arrival(1, 5))
    for _ in range(APART - 1):
        assert arrivals.joining(32) == []
    assert [one.number for one in arrivals.joining(32)] == [1]

    for number in range(32 // SHARE):
        arrivals.add(arrival(number, 5))
    assert len(arrivals.joining(32)) == 32 // SHARE
    # Few rows: nothing is gained by waiting.
    arrivals.add(arrival(40, 5))
    assert len(arrivals.joining(SHARE)) == 1
