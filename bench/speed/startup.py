"""Seconds from a command to its answer, of the commands that must not load heavy packages.

    python -m bench.speed.startup [--rounds 10]

Rounds are interleaved, so that other work on the machine slows all commands alike; medians are
printed, and what a Python that imports nothing takes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

LINN = (sys.executable, "-m", "linn.cli.main")
COMMANDS = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "linn --help": (*LINN, "--help"),
    "linn check arithmetic": (*LINN, "check", "arithmetic"),
}


def seconds_of(command: tuple[str, ...]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print one line per command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds

    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        seconds_of(command)  # files come into the cache, bytecode is written
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            seconds[name].append(seconds_of(command))

    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:24} {median:.3f} s   ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
