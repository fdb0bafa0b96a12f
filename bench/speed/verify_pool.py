"""Executions per second of the code pool against a bare `python -I` of the same programs.

python -m bench.speed.verify_pool [--seconds 4] [--rounds 5] [--kind bwrap]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from linn.chat.codec import Codec
from linn.checkpoints import BASES
from linn.domains.base import Domain
from linn.play.rollout import Job, play
from linn.sandbox import Limits, Sandbox, compiler
from linn.types import Completion, Message, Prompt, Reply, Sampling, Verdict

_FUNCTION = """def f{i}(x):
    y = [x + {i}]
    while y and y[0] > {i}:
        y.pop()
    return sum(y) + {i}
"""
_CONTEST = """import sys, math, heapq, bisect
from collections import Counter, deque
from functools import lru_cache
data = list(map(int, sys.stdin.read().split()))
print(sum(Counter(data).values()))
"""
_ECHO = """import sys
print('\\n'.join(str(int(x) + 1) for x in sys.stdin.read().split()))
"""
PROGRAMS = {
    "two lines": ("n = int(input())\nprint(n * 2)\n", "21\n"),
    "contest imports": (_CONTEST, "5 1 2 3\n" * 100),
    "600 lines": (
        "\n".join(_FUNCTION.format(i=i) for i in range(120)) + "print(f7(int(input())))\n",
        "21\n",
    ),
    "1 MB in, 1 MB out": (_ECHO, "123456\n" * 150_000),
    "0.3 s of work": ("n = int(input())\nprint(sum(i * i % 7 for i in range(n)))\n", "3000000\n"),
}
"""Program and stdin."""
_CPP = "#include <iostream>\nint main() { long n; std::cin >> n; std::cout << n * 2 << '\\n'; }\n"


def rate(run: Callable[[int], None], workers: int, seconds: float) -> float:
    """Calls per second of `run(i)`, `workers` at a time, over about `seconds`."""
    counts = [0] * workers
    start = time.perf_counter()

    def loop(worker: int) -> None:
        while time.perf_counter() - start < seconds:
            run(counts[worker] * workers + worker)
            counts[worker] += 1

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(loop, range(workers)))
    return sum(counts) / (time.perf_counter() - start)


def interleave(
    bare: Callable[[int], None],
    pooled: Callable[[int], None],
    servers: int,
    seconds: float,
    rounds: int,
) -> str:
    """Cells of the table: calls per second and core of each, and their ratio; medians of rounds."""
    rate(pooled, servers, 0.2)  # the servers start
    part = seconds / rounds / 2
    bare_rates, pooled_rates = [], []
    for _ in range(rounds):
        bare_rates.append(rate(bare, servers, part))
        pooled_rates.append(rate(pooled, servers, part))

    alone, pool = statistics.median(bare_rates), statistics.median(pooled_rates)
    cores = min(servers, len(os.sched_getaffinity(0)))
    return f"{servers} | {alone / cores:.1f} | {pool / cores:.1f} | {pool / alone:.2f}"


def compare(
    name: str, text: str, stdin: str, servers: int, seconds: float, rounds: int, kind: str | None
) -> None:
    """One line of the table."""
    fresh = itertools.count()
    limits = Limits(cpu=10, wall=60, memory=1 << 30, output=1 << 23)
    box = Sandbox(limits, servers, kind)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prog.py"
        path.write_text(text)

        def bare(_: int) -> None:
            command = [sys.executable, "-I", str(path)]
            subprocess.run(command, input=stdin.encode(), stdout=subprocess.PIPE, check=True)

        def pooled(_: int) -> None:  # another program each time: nothing is answered from memory
            assert box.script(f"{text}\n#{next(fresh)}", stdin).status == "ok"

        cells = interleave(bare, pooled, servers, seconds, rounds)
    box.close()
    print(f"| {name} | {cells} |", flush=True)


def compiled(servers: int, seconds: float, rounds: int, kind: str | None) -> None:
    """The same of a C++ program, compiled once, against the bare binary."""
    box = Sandbox(Limits(), servers, kind)
    box.compile("int main() {}")
    start = time.perf_counter()
    code = box.compile(_CPP).code
    compile_s = time.perf_counter() - start

    fresh = itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prog"
        path.write_bytes(code)
        path.chmod(0o755)

        def bare(_: int) -> None:
            subprocess.run([str(path)], input=b"21\n", stdout=subprocess.PIPE, check=True)

        def pooled(_: int) -> None:
            assert box.run(code, f"{next(fresh)}\n").status == "ok"

        cells = interleave(bare, pooled, servers, seconds, rounds)
    box.close()
    print(f"| C++, compiled once ({compile_s:.2f} s) | {cells} |", flush=True)


class _Timed(Domain):
    """Programs that sleep, graded in the pool."""

    name = "timed"

    def __init__(self, servers: int, seconds: float) -> None:
        super().__init__()
        self.box = Sandbox(Limits(), servers)
        self.workers = servers
        self.seconds = seconds

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """One slow program."""
        program = f"import time\ntime.sleep({self.seconds})\nprint({prompt.id!r})"
        return Verdict(float(self.box.script(program).status == "ok"))


class _Sampler:
    """Batches by itself: one conversation after another is ready, `pause` seconds apart."""

    version = 0

    def __init__(self, pause: float, eos: int) -> None:
        self.pause = pause
        self.eos = eos
        self.requests = 0
        self.last_answer = 0.0

    async def generate(self, ids: Sequence[int], how: Sampling, seed: int) -> Completion:
        """An empty reply, in its turn."""
        self.requests += 1
        await asyncio.sleep(self.pause * self.requests)
        self.last_answer = time.perf_counter()
        return Completion((self.eos,), (0.0,), "stop")

    def flush(self) -> None:
        """It does nothing."""


def overlap(servers: int, count: int = 16, sampling: float = 0.1, program: float = 0.1) -> None:
    """How much of grading is hidden behind a slow sampler."""
    domain = _Timed(servers, program)
    domain.box.script("")  # the servers start
    jobs = []
    for i in range(count):
        prompt = Prompt("timed", f"p{i}", (Message("user", "x"),), thinking=False)
        jobs.append(Job(prompt, 0, Sampling(9), 0))

    codec = Codec.load(BASES / "tiny-0")
    sampler = _Sampler(sampling, codec.stops[0])
    start = time.perf_counter()
    playing = play(jobs, {"timed": domain}, sampler, codec)
    rollouts = asyncio.run(playing)
    all_s = time.perf_counter() - start
    sampling_s = sampler.last_answer - start
    grading_s = domain.grading.read()["seconds"]
    domain.box.close()
    assert all(rollout.verdict.reward == 1.0 for rollout in rollouts)

    print(
        f"{count} rollouts sampled in {sampling_s:.2f} s, graded by {servers} servers in "
        f"{grading_s:.2f} server-seconds: {all_s:.2f} s in all; one after the other "
        f"{sampling_s + grading_s / servers:.2f} s"
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="per line of the table")
    parser.add_argument(
        "--rounds", type=int, default=5, help="interleaved measurements; medians are printed"
    )
    parser.add_argument("--kind", choices=("bwrap", "unshare", "plain"))
    return parser.parse_args()


def main() -> None:
    """Print the table, the paper's number, and how grading overlaps with sampling."""
    options = parse_options()
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores; executions per second and core\n")
    print("| program | servers | bare | pool | pool / bare |\n|---|---|---|---|---|")
    for name, (text, stdin) in PROGRAMS.items():
        servers = {1, cores}
        if name == "two lines":
            servers.add(2 * cores)
        for count in sorted(servers):
            compare(name, text, stdin, count, options.seconds, options.rounds, options.kind)
    if compiler.found():
        compiled(cores, options.seconds, options.rounds, options.kind)

    core_s = 427.2 * 384 / 2048
    print(
        "\npaper (§4.7): 2,048 programs with all their tests in 427.2 s on 384 cores, "
        f"{core_s:.0f} core-seconds per program\n"
    )
    overlap(cores)


if __name__ == "__main__":
    main()
