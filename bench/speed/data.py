"""Streaming of data files: time to the first batch, peak memory, and the cost of resuming, over
generated files.

    python -m bench.speed.data [--megabytes 320] [--folder /tmp]
"""

from __future__ import annotations

import argparse
import itertools
import random
import resource
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from linn.data.rows import write_rows
from linn.domains.load import load
from linn.recipe.stages import SftConfig
from linn.stages.prompts import Position
from linn.stages.sft import samples_of_files
from linn.types import Sample

WORDS = (
    "alpha beta gamma delta river stone cloud light number answer where seven north under green"
).split()


def rl_rows() -> Iterator[dict[str, Any]]:
    """Rows of about 1 kB, every other one of another domain."""
    rng = random.Random(0)
    for number in itertools.count():
        agent = ("mcqa_simple_agent", "structured_outputs_simple_agent")[number % 2]
        text = f"{number} " + " ".join(rng.choices(WORDS, k=180))
        yield {
            "agent_ref": {"name": agent},
            "responses_create_params": {"input": [{"role": "user", "content": text}]},
            "options": [{"A": "x"}, {"B": "y"}],
            "expected_answer": "B",
        }


def sft_rows() -> Iterator[dict[str, Any]]:
    """Rows of about 10 kB."""
    rng = random.Random(0)
    for number in itertools.count():
        thought = " ".join(rng.choices(WORDS, k=1600))
        yield {
            "messages": [
                {"role": "user", "content": f"{number}"},
                {"role": "assistant", "content": f"<think>{thought}</think>done"},
            ]
        }


def peak() -> float:
    """MB of memory that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_rl(path: Path) -> None:
    """A domain's prompts: half of the rows belong to another."""
    domain = load("mcqa", {"rows": path})
    start = time.perf_counter()
    stream = iter(domain.prompts("train", 1))
    list(itertools.islice(stream, 128))
    seconds = time.perf_counter() - start
    print(f"RL rows: first batch {seconds:.3f} s, peak {peak():.0f} MB")

    start = time.perf_counter()
    count = sum(1 for _ in stream)
    micros = 1e6 * (time.perf_counter() - start) / count
    print(f"RL rows: {micros:.0f} µs per prompt over {count:,}, peak {peak():.0f} MB")


def measure_sft(path: Path) -> None:
    """The row stream of the SFT stage, with a codec that costs nothing."""

    def encode_spans(spans: Any, most: int) -> tuple[list[int], list[bool]]:
        return [len(text) for text, _ in spans], [flag for _, flag in spans]

    codec = types.SimpleNamespace(encode_spans=encode_spans)
    config = SftConfig(name="sft", kind="sft", data=str(path))

    def samples_from(position: Position) -> Iterator[Sample]:
        return samples_of_files(config, codec, 0, position)  # type: ignore[arg-type]

    start = time.perf_counter()
    position = Position({})
    stream = samples_from(position)
    list(itertools.islice(stream, 64))
    seconds = time.perf_counter() - start
    print(f"SFT rows: first batch {seconds:.3f} s, peak {peak():.0f} MB")

    start = time.perf_counter()
    count = sum(1 for _ in itertools.islice(stream, 20_000))
    micros = 1e6 * (time.perf_counter() - start) / count
    print(f"SFT rows: {micros:.0f} µs per row over {count:,}, peak {peak():.0f} MB")

    start = time.perf_counter()
    next(samples_from(Position(dict(position.taken))))
    seconds = time.perf_counter() - start
    print(f"SFT rows: resumed after {position.taken['rows']:,} in {seconds:.3f} s")


def main() -> None:
    """Write one file per kind of row, read it, print the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=320)
    parser.add_argument("--folder", default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for rows, measure in ((rl_rows, measure_rl), (sft_rows, measure_sft)):
            bytes_per_row = len(str(next(rows()))) + 1
            count = options.megabytes * 1_000_000 // bytes_per_row
            path = Path(folder) / f"{rows.__name__}.jsonl"
            write_rows(path, itertools.islice(rows(), count))
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB")
            measure(path)


if __name__ == "__main__":
    main()
