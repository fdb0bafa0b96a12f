"""Many clients at one server: `python -m bench.serve CHECKPOINT [--clients 64] [--seconds 600]`.

Each request has a prompt and a seed of its own, so its reply is known from the bare sampler before.
A tenth of the clients leave in the middle; with `--kill` a process of the server is killed at half
time. Prints replies that were right, crossed or lost, errors, memory, and CPU per token against
the bare sampler (wall clocks lie on a shared machine).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx

from linn.chat.codec import Codec
from linn.checkpoints import resolve
from linn.engine.open import open_engine
from linn.recipe.schema import ScaleConfig
from linn.types import Message, Prompt, Sampling, seed_of

TOKENS = 48
"""Of each reply, at most."""


def question(number: int) -> str:
    """The text of request `number`; its mark is the number."""
    return f"Request {number}: what is {number} + {number % 7}?"


def expected(folder: Path, count: int, rows: int) -> tuple[list[str], float]:
    """(the replies by the bare sampler, its CPU seconds per token with so many rows)."""
    codec = Codec.load(folder)
    engine = open_engine(ScaleConfig(processes=1, capacity=rows))
    sampler = engine.sampler_of(folder)
    how = Sampling(TOKENS, stop=codec.stops)

    async def sampled() -> list[str]:
        tasks = []
        for number in range(count):
            prompt = Prompt("bench", "", (Message("user", question(number)),))
            # The server makes a seed for each sibling of a request.
            seed = seed_of(number, "sibling", 0)
            asked = sampler.generate(codec.prompt_ids(prompt), how, seed)
            tasks.append(asyncio.create_task(asked))
        await asyncio.sleep(0)
        sampler.flush()
        done = await asyncio.gather(*tasks)
        tokens.extend(len(one.ids) for one in done)
        texts = []
        for one in done:
            read = codec.template.read(codec.reply(one.ids), True)
            texts.append(f"{read.reasoning or ''}|{read.content}")
        return texts

    tokens: list[int] = []
    asyncio.run(sampled())
    before, tokens = engine.cpu_seconds(), []
    texts = asyncio.run(sampled())
    seconds = engine.cpu_seconds() - before
    engine.close()
    return texts, seconds / sum(tokens)


class Server:
    """`linn serve` as a process, and what the system says of it and its children."""

    def __init__(self, checkpoint: str, processes: int) -> None:
        command = [sys.executable, "-m", "linn.cli", "serve", checkpoint, "--port", "0"]
        command += ["--processes", str(processes)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.url = ""
        for line in self.process.stderr:
            print("  " + line.rstrip(), flush=True)
            if found := re.search(r"serving at (\S+)", line):
                self.url = found[1]
                return
        raise SystemExit("the server did not start")

    def children(self) -> list[int]:
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def rss(self) -> int:
        """Bytes of the server and its processes."""
        total = 0
        for pid in (self.process.pid, *self.children()):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            total += pages * os.sysconf("SC_PAGE_SIZE")
        return total

    async def tokens(self) -> float:
        """Tokens that it has made, those for clients that left included."""
        async with httpx.AsyncClient(timeout=300) as http:
            text = (await http.get(self.url.removesuffix("/v1") + "/metrics")).text
        return sum(float(n) for n in re.findall(r"generation_tokens_total\{.*\} (\S+)", text))

    def cpu(self) -> tuple[float, float]:
        """CPU seconds of (the server, its processes)."""
        used = []
        for pid in (self.process.pid, *self.children()):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
        return used[0], sum(used[1:])


async def client(number: int, server: Server, texts: list[str], until: float, counts: Counter[str]):
    """Asks until the time is over."""
    rng = random.Random(number)
    leaver = number % 10 == 9
    async with httpx.AsyncClient(timeout=300) as http:
        while time.monotonic() < until:
            asked = rng.randrange(len(texts))
            body = {
                "messages": [{"role": "user", "content": question(asked)}],
                "seed": asked,
                "max_tokens": TOKENS,
                "stream": leaver or rng.random() < 0.5,
            }
            try:
                text = await answer(http, server.url, body, counts, leaver)
            except httpx.HTTPError:
                counts["lost"] += 1
                continue
            if text is None:
                continue
            if text == texts[asked]:
                counts["right"] += 1
            elif text in texts:
                counts["crossed"] += 1
            else:
                counts["other"] += 1  # rounding chose another token


async def answer(
    http: httpx.AsyncClient, url: str, body: dict, counts: Counter[str], leaver: bool
) -> str | None:
    """The reply's text; None where there is none."""
    path = f"{url}/chat/completions"
    if not body["stream"]:
        whole = (await http.post(path, json=body)).json()
        if "error" in whole:
            counts["errors"] += 1
            return None
        message = whole["choices"][0]["message"]
        return f"{message.get('reasoning_content', '')}|{message['content']}"

    thought, content, events = "", "", 0
    async with http.stream("POST", path, json=body) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                counts["errors"] += 1
                return None
            for choice in chunk["choices"]:
                thought += choice["delta"].get("reasoning_content", "")
                content += choice["delta"].get("content", "")
            events += 1
            if leaver and events == 2:
                counts["left"] += 1
                return None
    return f"{thought}|{content}"


async def run(options: argparse.Namespace, server: Server, texts: list[str]) -> None:
    counts: Counter[str] = Counter()
    until = time.monotonic() + options.seconds
    tasks = [
        asyncio.create_task(client(number, server, texts, until, counts))
        for number in range(options.clients)
    ]
    await asyncio.sleep(options.seconds * 0.2)
    early, cpu, tokens = server.rss(), server.cpu(), await server.tokens()
    if options.kill:
        await asyncio.sleep(options.seconds * 0.3)
        os.kill(server.children()[0], signal.SIGKILL)
    await asyncio.gather(*tasks)
    late, after = server.rss(), server.cpu()
    made = await server.tokens() - tokens
    print(dict(counts))
    print(f"memory: {early / 1e6:.0f} MB early, {late / 1e6:.0f} MB at the end")
    own, workers = (b - a for a, b in zip(cpu, after, strict=True))
    print(
        f"CPU per token: processes {workers / made * 1e6:.0f} us, server {own / made * 1e6:.0f} us"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kill", action="store_true", help="kill a process at half time")
    options = parser.parse_args()
    # As many rows as each process of the server will have: a row is cheaper among more.
    rows = max(1, options.clients // options.processes)
    texts, per_token = expected(resolve(options.checkpoint), 200, rows)
    print(f"bare sampler: {per_token * 1e6:.0f} us of CPU per token")
    server = Server(options.checkpoint, options.processes)
    try:
        asyncio.run(run(options, server, texts))
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)


if __name__ == "__main__":
    main()
