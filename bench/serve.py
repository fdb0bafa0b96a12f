"""Many clients at one server, against the bare sampler.

    python -m bench.serve CHECKPOINT                      # CPU per token, server and bare in turn
    python -m bench.serve CHECKPOINT --soak 10 [--kill]   # ten minutes, a tenth leaves midway

Each request has a prompt and a seed of its own, so its reply is known from the bare sampler before:
a reply is right, another request's (crossed), another text (other: rounding chose another token) or
none (lost). Half of the replies are streamed.

The bare sampler answers the same requests from one list, with as many rows and requests as each
process of the server has. Both are counted in CPU seconds for each token, since wall clocks lie on
a shared machine; the clients' own work is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from linn.chat.codec import Codec
from linn.checkpoints import resolve
from linn.engine.open import open_engine
from linn.recipe.schema import ScaleConfig
from linn.types import Message, Prompt, Sampling, seed_of


@dataclass(frozen=True)
class Load:
    """What is asked for."""

    checkpoint: str
    """`RUN@STAGE`, a base or a folder."""
    processes: int
    """Of the server."""
    clients: int
    """Each has one request under way at any time."""
    tokens: int
    """Of each reply, at most."""
    replies: int
    """Of each process in a round; also how many requests there are to choose from."""

    @property
    def rows(self) -> int:
        """Rows that each process of the server decodes."""
        return max(1, self.clients // self.processes)

    def question(self, number: int) -> str:
        """The text of a request; its mark is the number."""
        number %= self.replies
        return f"Request {number}: what is {number} + {number % 7}?"


class Bare:
    """The sampler without a server: one process, all requests in one list."""

    def __init__(self, load: Load) -> None:
        self._load = load
        folder = resolve(load.checkpoint)
        self._codec = Codec.load(folder)
        self._engine = open_engine(ScaleConfig(processes=1, capacity=load.rows))
        self._sampler = self._engine.sampler_of(folder)

    def answer(self) -> tuple[list[str], float]:
        """(the reply to each request, CPU seconds per token)."""
        before = self._engine.cpu_seconds()
        texts, tokens = asyncio.run(self._answer())
        return texts, (self._engine.cpu_seconds() - before) / tokens

    async def _answer(self) -> tuple[list[str], int]:
        how = Sampling(self._load.tokens, stop=self._codec.stops)
        tasks = []
        for number in range(self._load.replies):
            prompt = Prompt("bench", "", (Message("user", self._load.question(number)),))
            # The server makes a seed for each sibling of a request.
            seed = seed_of(number, "sibling", 0)
            asked = self._sampler.generate(self._codec.prompt_ids(prompt), how, seed)
            tasks.append(asyncio.create_task(asked))
        await asyncio.sleep(0)
        self._sampler.flush()
        done = await asyncio.gather(*tasks)
        texts = []
        for one in done:
            read = self._codec.template.read(self._codec.reply(one.ids), True)
            texts.append(f"{read.reasoning or ''}|{read.content}")
        return texts, sum(len(one.ids) for one in done)

    def close(self) -> None:
        self._engine.close()


class Server:
    """`linn serve` as a process, and what the system says of it and its children."""

    def __init__(self, load: Load) -> None:
        command = [sys.executable, "-m", "linn.cli", "serve", load.checkpoint, "--port", "0"]
        command += ["--processes", str(load.processes)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            print("  " + line.rstrip(), flush=True)
            if found := re.search(r"serving at (\S+)", line):
                self.url = found[1]
                return
        raise SystemExit("the server did not start")

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(120)

    def kill_one(self) -> None:
        """`kill -9` of the first process that samples."""
        os.kill(self._children()[0], signal.SIGKILL)

    def _children(self) -> list[int]:
        pid = self._process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(word) for word in text.split()]

    def rss(self) -> int:
        """Bytes of the server and its processes."""
        total = 0
        for pid in (self._process.pid, *self._children()):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            total += pages * os.sysconf("SC_PAGE_SIZE")
        return total

    def cpu(self) -> tuple[float, float]:
        """CPU seconds of (the server, its processes)."""
        used = []
        for pid in (self._process.pid, *self._children()):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
        return used[0], sum(used[1:])

    async def tokens(self) -> float:
        """Tokens that it has told, to clients that left too."""
        async with httpx.AsyncClient(timeout=300) as http:
            text = (await http.get(self.url.removesuffix("/v1") + "/metrics")).text
        return sum(float(n) for n in re.findall(r"generation_tokens_total\{.*\} (\S+)", text))


# ---------------------------------------------------------------- clients


class _Left(Exception):
    """The client has seen enough."""


@dataclass
class Clients:
    """Ask until they are told to stop, and compare what they get with what they should."""

    load: Load
    server: Server
    texts: list[str]
    """What each request is answered by."""
    leaving: float = 0.0
    """Of all requests: how many are left midway."""
    counts: Counter[str] = field(default_factory=Counter)
    """What became of the requests."""
    seconds: list[float] = field(default_factory=list)
    """Until the end of each answer."""
    errors: Counter[str] = field(default_factory=Counter)
    """By what they say."""
    _asked: int = 0

    async def run(self, replies: int | None = None, seconds: float = 1e9) -> None:
        """All clients at once, until so many replies or seconds."""
        until = time.monotonic() + seconds
        most = self._asked + replies if replies is not None else 10**12
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(timeout=600, limits=limits) as http:
            clients = [self._client(http, most, until) for _ in range(self.load.clients)]
            await asyncio.gather(*clients)

    async def _client(self, http: httpx.AsyncClient, most: int, until: float) -> None:
        while self._asked < most and time.monotonic() < until:
            number, self._asked = self._asked, self._asked + 1
            rng = random.Random(number)
            asked = number % self.load.replies
            is_stream = rng.random() < 0.5
            leaves = rng.random() < self.leaving
            begun = time.monotonic()
            try:
                text = await self._answer(http, asked, is_stream, rng if leaves else None)
            except _Left:
                self.counts["left"] += 1
                continue
            except httpx.HTTPError as error:
                self.counts["lost"] += 1
                self.errors[type(error).__name__] += 1
                continue
            if text is None:
                continue
            self.seconds.append(time.monotonic() - begun)
            if text == self.texts[asked]:
                self.counts["right"] += 1
            else:
                self.counts["crossed" if text in self.texts else "other"] += 1

    async def _answer(
        self, http: httpx.AsyncClient, asked: int, is_stream: bool, leaver: random.Random | None
    ) -> str | None:
        """The reply's text; None where there is an error. `leaver`: decides when it leaves."""
        body = {
            "messages": [{"role": "user", "content": self.load.question(asked)}],
            "seed": asked,
            "max_tokens": self.load.tokens,
            "stream": is_stream,
        }
        path = f"{self.server.url}/chat/completions"
        if is_stream:
            return await self._streamed(http, path, body, leaver)
        patience = None
        if leaver is not None:
            patience = leaver.random() * statistics.median(self.seconds or [1.0])
        try:
            async with asyncio.timeout(patience):
                whole = (await http.post(path, json=body)).json()
        except TimeoutError:
            raise _Left from None
        if self._is_error(whole):
            return None
        message = whole["choices"][0]["message"]
        return f"{message.get('reasoning_content', '')}|{message['content']}"

    async def _streamed(
        self, http: httpx.AsyncClient, path: str, body: Any, leaver: random.Random | None
    ) -> str | None:
        thought, content, events = "", "", 0
        last = leaver.randint(1, 3) if leaver is not None else 10**9
        async with http.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                self._is_error(json.loads(await response.aread()))
                return None
            async with aclosing(response.aiter_lines()) as lines:
                async for line in lines:
                    if not line.startswith("data: {"):
                        continue
                    chunk = json.loads(line.removeprefix("data: "))
                    if self._is_error(chunk):
                        return None
                    for choice in chunk["choices"]:
                        thought += choice["delta"].get("reasoning_content", "")
                        content += choice["delta"].get("content", "")
                    events += 1
                    if events > last:
                        raise _Left
        return f"{thought}|{content}"

    def _is_error(self, answer: Any) -> bool:
        if "error" not in answer:
            return False
        self.counts["errors"] += 1
        self.errors[f"{answer['error']['type']} {answer['error']['code']}"] += 1
        return True


# ---------------------------------------------------------------- what is measured


def throughput(load: Load, rounds: int) -> None:
    """The server and the bare sampler in turn; medians."""
    bare = Bare(load)
    texts, _ = bare.answer()
    server = Server(load)
    clients = Clients(load, server, texts)
    found = []
    try:
        # The first round of each is warm-up: threads, buffers, caches.
        asyncio.run(clients.run(load.clients))
        for _ in range(rounds):
            _, alone = bare.answer()
            before, tokens = server.cpu(), asyncio.run(server.tokens())
            asyncio.run(clients.run(load.replies * load.processes))
            made = asyncio.run(server.tokens()) - tokens
            front, workers = ((b - a) / made for a, b in zip(before, server.cpu(), strict=True))
            found.append((alone, workers, front))
            print("us per token: " + _costs(found[-1]), flush=True)
    finally:
        server.close()
        bare.close()
    print("medians:      " + _costs(tuple(map(statistics.median, zip(*found, strict=True)))))
    processes, both = _ratio(found, 0), _ratio(found, 1)
    print(f"bare sampler / server: processes {processes:.2f}, with the front {both:.2f}")
    print(_told(clients))


def _costs(costs: tuple[float, ...]) -> str:
    alone, workers, front = (cost * 1e6 for cost in costs)
    return f"bare sampler {alone:.0f}, server's processes {workers:.0f}, its front {front:.0f}"


def _ratio(found: list[tuple[float, float, float]], front: int) -> float:
    """Median of the bare sampler's cost over the server's, of each round."""
    return statistics.median(alone / (workers + front * own) for alone, workers, own in found)


def _told(clients: Clients) -> str:
    middle = statistics.median(clients.seconds) if clients.seconds else 0
    return f"{dict(clients.counts)} {dict(clients.errors)}; median answer {middle:.2f} s"


def soak(load: Load, minutes: float, kill: bool) -> None:
    """A tenth of all replies are left midway; with `kill`, a process dies at three quarters."""
    bare = Bare(load)
    texts, _ = bare.answer()
    bare.close()
    server = Server(load)
    clients = Clients(load, server, texts, leaving=0.1)
    try:
        asyncio.run(_soak(clients, minutes * 60, kill))
    finally:
        server.close()
    print(_told(clients))


async def _soak(clients: Clients, seconds: float, kill: bool) -> None:
    asking = asyncio.create_task(clients.run(seconds=seconds))
    memory = []
    begun = time.monotonic()
    for part in range(1, 13):
        await asyncio.sleep(max(0.0, begun + part * seconds / 12 - time.monotonic()))
        memory.append(clients.server.rss() / 1e6)
        told = f"{part * seconds / 12:4.0f} s: {memory[-1]:.0f} MB"
        print(f"{told}, {dict(clients.counts)}", flush=True)
        if kill and part == 9:
            clients.server.kill_one()
    await asking
    # The first quarter is warm-up; a killed process is read anew.
    flat = memory[2:9] if kill else memory[2:]
    print(f"memory: {min(flat):.0f} to {max(flat):.0f} MB, {max(flat) / min(flat) - 1:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=48, help="of a reply, at most")
    parser.add_argument("--replies", type=int, default=128, help="of a process in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="in place of the rounds")
    parser.add_argument("--kill", action="store_true", help="kill a process within the soak")
    given = parser.parse_args()
    load = Load(given.checkpoint, given.processes, given.clients, given.tokens, given.replies)
    if given.soak is None:
        throughput(load, given.rounds)
    else:
        soak(load, given.soak, given.kill)


if __name__ == "__main__":
    main()
