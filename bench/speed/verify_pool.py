"""Executions per second of the code pool against a bare `python -I` of the same programs: `python
bench/speed/verify_pool.py [--seconds 4]`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from linn.domains.base import Domain
from linn.play.rollout import Job, play
from linn.sandbox import Limits, Sandbox, compiler
from linn.types import Completion, Message, Prompt, Reply, Sampling, Verdict

_LONG = "\n".join(
    f"def f{i}(x):\n    y = [x + {i}]\n    while y and y[0] > {i}:\n        y.pop()\n    return "
    f"sum(y) + {i}\n"
    for i in range(120)
)
PROGRAMS = {
    "two lines": ("n = int(input())\nprint(n * 2)\n", "21\n"),
    "contest imports": (
        "import sys, math, heapq, bisect\nfrom collections import Counter, deque\nfrom functools "
        "import lru_cache\n"
        "data = list(map(int, sys.stdin.read().split()))\nprint(sum(Counter(data).values()))\n",
        "5 1 2 3\n" * 100,
    ),
    "600 lines": (_LONG + "print(f7(int(input())))\n", "21\n"),
    "1 MB in, 1 MB out": (
        "import sys\nprint('\\n'.join(str(int(x) + 1) for x in sys.stdin.read().split()))\n",
        "123456\n" * 150_000,
    ),
    "0.3 s of work": ("n = int(input())\nprint(sum(i * i % 7 for i in range(n)))\n", "3000000\n"),
}
_CPP = "#include <iostream>\nint main() { long n; std::cin >> n; std::cout << n * 2 << '\\n'; }\n"


def rate(run: Callable[[int], None], workers: int, seconds: float) -> float:
    """Calls a second of `run(i)`, `workers` at a time, over about `seconds`."""
    counts = [0] * workers
    begun = time.perf_counter()

    def loop(worker: int) -> None:
        while time.perf_counter() - begun < seconds:
            run(counts[worker] * workers + worker)
            counts[worker] += 1

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(loop, range(workers)))
    return sum(counts) / (time.perf_counter() - begun)


def compare(
    name: str, text: str, stdin: str, servers: int, seconds: float, rounds: int, kind: str | None
) -> None:
    """One line of the table: medians over interleaved rounds."""
    fresh = iter(range(1 << 60))
    box = Sandbox(Limits(cpu=10, wall=60, memory=1 << 30, output=1 << 23), servers, kind)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prog.py"
        path.write_text(text)

        def bare(_: int) -> None:
            subprocess.run(
                [sys.executable, "-I", str(path)],
                input=stdin.encode(),
                stdout=subprocess.PIPE,
                check=True,
            )

        def pooled(_: int) -> None:  # another program each time: nothing is answered from memory
            assert box.script(f"{text}\n#{next(fresh)}", stdin).status == "ok"

        rate(pooled, servers, 0.2)  # the servers start
        found = [
            (rate(bare, servers, seconds / rounds / 2), rate(pooled, servers, seconds / rounds / 2))
            for _ in range(rounds)
        ]
    box.close()
    alone, pool = (statistics.median(column) for column in zip(*found, strict=True))
    cores = min(servers, len(os.sched_getaffinity(0)))
    print(
        f"| {name} | {servers} | {alone / cores:.1f} | {pool / cores:.1f} | {pool / alone:.2f} |",
        flush=True,
    )


def compiled(servers: int, seconds: float, rounds: int, kind: str | None) -> None:
    """The same of a C++ program, against the bare binary; its compilation once."""
    box = Sandbox(Limits(), servers, kind)
    box.compile("int main() {}")
    began = time.perf_counter()
    code = box.compile(_CPP).code
    took = time.perf_counter() - began
    fresh = iter(range(1 << 60))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prog"
        path.write_bytes(code)
        path.chmod(0o755)

        def bare(_: int) -> None:
            subprocess.run([str(path)], input=b"21\n", stdout=subprocess.PIPE, check=True)

        def pooled(_: int) -> None:
            assert box.run(code, f"{next(fresh)}\n").status == "ok"

        rate(pooled, servers, 0.2)
        found = [
            (rate(bare, servers, seconds / rounds / 2), rate(pooled, servers, seconds / rounds / 2))
            for _ in range(rounds)
        ]
    box.close()
    alone, pool = (statistics.median(column) for column in zip(*found, strict=True))
    cores = min(servers, len(os.sched_getaffinity(0)))
    print(
        f"| C++, compiled once ({took:.2f} s) | {servers} | {alone / cores:.1f} | "
        f"{pool / cores:.1f} | {pool / alone:.2f} |",
        flush=True,
    )


class _Timed(Domain):
    """Programs that sleep, graded in the pool."""

    name = "timed"

    def __init__(self, servers: int, seconds: float) -> None:
        super().__init__()
        self.box, self.workers, self.seconds = Sandbox(Limits(), servers), servers, seconds

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """One slow program."""
        return Verdict(
            float(
                self.box.script(
                    f"import time\ntime.sleep({self.seconds})\nprint({prompt.id!r})"
                ).status
                == "ok"
            )
        )


class _Sampler:
    """Batches by itself: one conversation after another is ready, `pause` seconds apart."""

    version = 0

    def __init__(self, pause: float) -> None:
        self.pause, self.asked, self.done = pause, 0, 0.0

    async def generate(self, ids: Sequence[int], how: Sampling, seed: int) -> Completion:
        """An empty reply, in its turn."""
        self.asked += 1
        await asyncio.sleep(self.pause * self.asked)
        self.done = time.perf_counter()
        return Completion((0,), (0.0,), "stop")

    def flush(self) -> None:
        """It does nothing."""


class _Codec:
    eos = 0

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i).decode()

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        return [1]


def overlap(servers: int, count: int = 16, sampling: float = 0.1, program: float = 0.1) -> None:
    """How much of grading is hidden behind a slow sampler."""
    domain = _Timed(servers, program)
    domain.box.script("")
    prompts = [
        Prompt("timed", f"p{i}", (Message("user", "x"),), thinking=False) for i in range(count)
    ]
    sampler = _Sampler(sampling)
    began = time.perf_counter()
    jobs = [Job(p, 0, Sampling(9), 0) for p in prompts]
    rollouts = asyncio.run(play(jobs, {"timed": domain}, sampler, _Codec()))  # type: ignore[arg-type]
    whole, sampled, work = (
        time.perf_counter() - began,
        sampler.done - began,
        domain.grading.read()["seconds"],
    )
    domain.box.close()
    assert all(r.verdict.reward == 1.0 for r in rollouts)
    print(
        f"{count} rollouts sampled in {sampled:.2f} s, graded by {servers} servers in {work:.2f} "
        f"server-seconds: {whole:.2f} s in all;"
        f" one after the other {sampled + work / servers:.2f} s"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each line")
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="interleaved measurements, of which the median is shown",
    )
    parser.add_argument("--kind", choices=("bwrap", "unshare", "plain"))
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(
        f"{cores} cores; executions a second and core\n\n| program | servers | bare | pool | pool "
        "/ bare |\n|---|---|---|---|---|"
    )
    for name, (text, stdin) in PROGRAMS.items():
        for servers in sorted({1, cores, 2 * cores} if name == "two lines" else {1, cores}):
            compare(name, text, stdin, servers, options.seconds, options.rounds, options.kind)
    if compiler.found():
        compiled(cores, options.seconds, options.rounds, options.kind)
    print(
        "\npaper (§4.7): 2,048 programs with all their tests in 427.2 s on 384 cores, "
        f"{427.2 * 384 / 2048:.0f} core-seconds a program\n"
    )
    overlap(cores)


if __name__ == "__main__":
    main()
