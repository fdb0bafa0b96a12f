"""CPU seconds that a small program costs its server, in this checkout and in another one.

python -m bench.speed.sandbox_cost CHECKOUT [--rounds 9] [--count 40] [--kind unshare]

A worker of each checkout runs the same programs in turn: other, this, other, this. A control group
around each worker counts the CPU time of servers and programs, the worker's own taken off, so that
a loaded machine changes little. Medians over rounds; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from linn.sandbox import Limits, Sandbox

_ROOT = Path(__file__).parents[2]
_MILLISECONDS = 1e3
_CPP = {
    "nothing": "int main() {}\n",
    "small": """#include <iostream>
#include <map>
int main() {
    std::map<long, long> counts;
    long n, sum = 0;
    std::cin >> n;
    for (long i = 0; i < 20000; i++) counts[i * n % 997] += i;
    for (auto& item : counts) sum += item.first * item.second;
    std::cout << sum << '\\n';
}
""",
}
"""C++ programs, by name."""


# ------------------------------------------------------------ the worker: one checkout


def cases(box: Sandbox, compiled: Path) -> dict[str, Callable[[int], str]]:
    """What is measured: from a number, which makes the program another one, to its status."""
    nothing, small = [(compiled / name).read_bytes() for name in _CPP]

    def called(text: str, number: int) -> str:
        return box.call(f"def f(x):\n    return {text}  # {number}\n", "f", [[1]])[0].status

    return {
        "Python call, passes": lambda number: called("x + 1", number),
        "Python call, fails": lambda number: called("x // 0", number),
        "Python script, prints": lambda number: box.script(f"print({number})").status,
        "Python script, fails": lambda number: box.script(f"print({number} // 0)").status,
        "C++, does nothing": lambda number: box.run(nothing, f"{number}\n").status,
        "C++, small work": lambda number: box.run(small, f"{number}\n").status,
    }


def work(kind: str, compiled: Path, groups: list[int]) -> None:
    """Answer requests on stdin, `[case, count]` a line, by this process's own CPU seconds."""
    for group in groups:
        os.write(group, b"0")
        os.close(group)
    box = Sandbox(Limits(), servers=1, kind=kind)
    runs = cases(box, compiled)
    numbers = itertools.count(1)
    print(json.dumps(list(runs)), flush=True)

    for line in sys.stdin:
        name, count = json.loads(line)
        expected = "error" if "fails" in name else "ok"
        began = time.process_time()
        for number in itertools.islice(numbers, count):
            status = runs[name](number)
            assert status == expected, (name, status)
        print(time.process_time() - began, flush=True)
    box.close()


# ------------------------------------------------------------ both checkouts


class Worker:
    """A worker of one checkout, and the control group around it."""

    def __init__(self, checkout: Path, kind: str, compiled: Path) -> None:
        # Other checkouts, which run this file too, may have no such module.
        from linn.sandbox.groups import new_group

        group = new_group()
        if group is None:
            sys.exit("CPU time cannot be counted: no control group can be made here")
        self._group = group
        with group.doors() as doors:
            words = [
                sys.executable,
                "-P",
                __file__,
                "--work",
                kind,
                str(compiled),
                *map(str, doors),
            ]
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=checkout,
                env={**os.environ, "PYTHONPATH": str(checkout)},
                pass_fds=doors,
            )
        assert self._process.stdin and self._process.stdout
        self._to, self._from = self._process.stdin, self._process.stdout
        self.names: list[str] = json.loads(self._from.readline())

    def seconds(self, name: str, count: int) -> float:
        """CPU seconds of servers and programs, for each of `count` programs."""
        before = self._group.seconds()
        self._to.write(json.dumps([name, count]) + "\n")
        self._to.flush()
        own = float(self._from.readline())
        return (self._group.seconds() - before - own) / count

    def close(self) -> None:
        """End it, and remove its group."""
        self._to.close()
        self._process.wait()
        self._group.remove()


@contextlib.contextmanager
def workers(other: Path, kind: str) -> Iterator[tuple[Worker, Worker]]:
    """A worker of the other checkout, and one of this."""
    with contextlib.ExitStack() as stack:
        # Once for both, and where no limit of time can end it.
        compiled = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, text in _CPP.items():
            words = ["g++", "-O2", "-x", "c++", "-", "-o", str(compiled / name)]
            subprocess.run(words, input=text, text=True, check=True)

        both = []
        for checkout in (other, _ROOT):
            worker = Worker(checkout, kind, compiled)
            stack.callback(worker.close)
            both.append(worker)
        yield both[0], both[1]


def compare(other: Path, kind: str, rounds: int, count: int) -> None:
    """Print the table."""
    with workers(other, kind) as (before, after):
        pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in after.names}
        # The first round warms up and does not count.
        for turn, name in itertools.product(range(rounds + 1), after.names):
            pair = before.seconds(name, count), after.seconds(name, count)
            if turn:
                pairs[name].append(pair)
            milliseconds = " and ".join(f"{_MILLISECONDS * item:.2f}" for item in pair)
            print(f"round {turn} of {rounds}: {name}: {milliseconds} ms", file=sys.stderr)

    print("| program | other, ms | this, ms | this / other | rounds' ratios |")
    print("|---|---|---|---|---|")
    for name, measured in pairs.items():
        ratios = sorted(this / that for that, this in measured)
        that, this = (
            _MILLISECONDS * statistics.median(column) for column in zip(*measured, strict=True)
        )
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        ratio = statistics.median(ratios)
        print(f"| {name} | {that:.2f} | {this:.2f} | {ratio:.2f} | {spread} |")


def main() -> None:
    """Compare, or work for a comparison."""
    if sys.argv[1:2] == ["--work"]:
        kind, compiled, *groups = sys.argv[2:]
        work(kind, Path(compiled), [int(word) for word in groups])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="folder of another version of linn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=40, help="programs of a kind in each round")
    parser.add_argument("--kind", choices=("bwrap", "unshare", "plain"), default="unshare")
    options = parser.parse_args()
    compare(options.checkout.resolve(), options.kind, options.rounds, options.count)


if __name__ == "__main__":
    main()
