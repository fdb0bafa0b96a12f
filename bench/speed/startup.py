"""Seconds from a command to its answer, of the commands that must not load heavy packages.

    python -m bench.speed.startup [--rounds 10]

Rounds are interleaved, so that other work on the machine slows all commands alike. Medians are
printed, of the time on the clock and of the processor time, which other work changes less; and what
a Python that imports nothing takes.
"""

from __future__ import annotations

import argparse
import resource
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


def seconds_of(command: tuple[str, ...]) -> tuple[float, float]:
    """Seconds on the clock, and of user processor time."""
    start = time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used
    return time.perf_counter() - start, used


def main() -> None:
    """Print one line per command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds

    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        seconds_of(command)  # files come into the cache, bytecode is written
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            seconds[name].append(seconds_of(command))

    for name, values in seconds.items():
        for what, figures in zip(("clock", "user CPU"), zip(*values, strict=True), strict=True):
            median = statistics.median(figures)
            ends = f"({min(figures):.3f} to {max(figures):.3f})"
            print(f"{name:22} {what:8} {median:.3f} s   {ends}")


if __name__ == "__main__":
    main()
