"""A worker of the server against the bare sampler: `python -m bench.speed.live CHECKPOINT`.

One process, without pipes and HTTP: so many clients ask one `LiveWorker`, each anew a few decode
steps after its answer, and the bare sampler answers the same requests from one list, with as many
rows. In turn, counted in CPU time, since wall clocks lie on a shared machine. What the pieces would
weigh in a pipe is part of it; `bench.serve` measures the whole server.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from linn.chat.codec import Codec
from linn.checkpoints import resolve
from linn.engine.local import live_worker
from linn.engine.local.live_worker import LiveWorker
from linn.engine.local.processes import WorkerOptions
from linn.engine.models.interface import CausalLM
from linn.engine.models.load import load
from linn.engine.sampling.live_batch import BatchSampler, Request
from linn.types import Message, Prompt, Sampling, seed_of


class Clients:
    """A pipe with so many clients behind it."""

    def __init__(self, folder: Path, requests: list[Request], count: int, delay: int) -> None:
        """`delay`: decode steps between an answer and the next question of the same client."""
        self._folder = folder
        self._requests = requests
        self._delay = delay
        self._asked = 0
        self._open = 0
        self._looks = 0
        self._inbox: list[tuple[int, Any]] = [(0, ("open", -1, (folder,)))]
        self.tokens = 0
        """That came back."""
        self.begun = 0.0
        """CPU seconds of the process when the model was there."""
        for _ in range(count):
            self._ask(0)

    def _ask(self, delay: int) -> None:
        if self._asked == len(self._requests):
            return
        request = (self._folder, *self._requests[self._asked], self._asked % 2 == 0)
        self._inbox.append((self._looks + delay, ("admit", self._asked, request)))
        self._asked += 1
        self._open += 1

    def poll(self, timeout: float | None) -> bool:
        """Whether a message is there; the worker looks once a step, and once more behind each."""
        if timeout is None and self._inbox:
            self._looks = max(self._looks, self._inbox[0][0])
        is_there = bool(self._inbox) and self._inbox[0][0] <= self._looks
        self._looks += not is_there
        return is_there or not self._open

    def recv(self) -> Any:
        """The next message, as a pipe would give it."""
        if not self._open:
            raise EOFError
        return pickle.loads(pickle.dumps(self._inbox.pop(0)[1]))

    def send(self, events: list[tuple[int, str, Any]]) -> None:
        """Take an answer."""
        for _, kind, what in pickle.loads(pickle.dumps(events)):
            if kind == "tokens":
                self.tokens += len(what)
            elif kind == "error":
                raise what
            elif kind == "value":
                self.begun = time.process_time()
            elif kind == "end":
                self._open -= 1
                self._ask(self._delay)


def requests_of(folder: Path, count: int, tokens: int) -> list[Request]:
    """Short sums, as `bench.serve` asks them."""
    codec = Codec.load(folder)
    how = Sampling(tokens, stop=codec.stops)
    found: list[Request] = []
    for number in range(count):
        text = f"Request {number}: what is {number} + {number % 7}?"
        ids = tuple(codec.prompt_ids(Prompt("bench", "", (Message("user", text),))))
        found.append((ids, how, seed_of(number, "sibling", 0)))
    return found


class Counts:
    """How often a model prefilled and decoded, and how many rows."""

    def __init__(self, model: CausalLM) -> None:
        self.prefills = self.steps = self.rows = 0
        self._inner = model
        prefill, decode = model.prefill, model.decode

        def counted_prefill(prompts: Any) -> Any:
            self.prefills += 1
            return prefill(prompts)

        def counted_decode(ids: Any, state: Any) -> Any:
            self.steps += 1
            self.rows += len(ids)
            return decode(ids, state)

        model.prefill, model.decode = counted_prefill, counted_decode  # type: ignore[method-assign]

    def told(self) -> str:
        """In words, and begins anew."""
        steps = max(1, self.steps)
        words = f"{self.prefills / steps:.2f} prefills and {self.rows / steps:.1f} rows a step"
        self.prefills = self.steps = self.rows = 0
        return words


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--replies", type=int, default=160)
    parser.add_argument("--tokens", type=int, default=48, help="of a reply, at most")
    parser.add_argument("--delay", type=int, default=2, help="steps from an answer to a question")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    folder = resolve(given.checkpoint)
    model = load(folder, torch.float32)
    counts = Counts(model)
    # Read once, and counted from outside.
    live_worker.load = lambda folder, dtype: model
    requests = requests_of(folder, given.replies, given.tokens)
    options = WorkerOptions(width=64, capacity=64, cache_bytes=2**30)

    ratios = []
    for _ in range(given.rounds):
        begun = time.process_time()
        completions = BatchSampler(model, given.clients).generate(requests)
        tokens = sum(len(one.ids) for one in completions)
        alone = (time.process_time() - begun) / tokens
        told = [f"bare {alone * 1e6:.0f} us per token, {counts.told()}"]

        clients = Clients(folder, requests, given.clients, given.delay)
        LiveWorker(options, clients).run()  # type: ignore[arg-type]
        served = (time.process_time() - clients.begun) / clients.tokens
        told.append(f"worker {served * 1e6:.0f}, {counts.told()}")
        ratios.append(alone / served)
        print("; ".join(told), flush=True)
    print(f"bare / worker: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
