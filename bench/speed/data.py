"""Streaming of data files: seconds to the first batch, peak memory, and the cost of going on, over
generated files.

python bench/speed/data.py [--megabytes 320] [--folder /tmp]
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

WORDS = "alpha beta gamma delta river stone cloud light number answer where seven north under green".split()


def rl_rows() -> Iterator[dict[str, Any]]:
    rng = random.Random(0)
    for n in itertools.count():
        agent = ("mcqa_simple_agent", "structured_outputs_simple_agent")[n % 2]
        asked = [{"role": "user", "content": f"{n} " + " ".join(rng.choices(WORDS, k=180))}]
        yield {
            "agent_ref": {"name": agent},
            "responses_create_params": {"input": asked},
            "options": [{"A": "x"}, {"B": "y"}],
            "expected_answer": "B",
        }


def sft_rows() -> Iterator[dict[str, Any]]:
    rng = random.Random(0)
    for n in itertools.count():
        said = {
            "role": "assistant",
            "content": f"<think>{' '.join(rng.choices(WORDS, k=1600))}</think>done",
        }
        yield {"messages": [{"role": "user", "content": f"{n}"}, said]}


def peak() -> float:
    """MB of memory that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_rl(path: Path) -> None:
    domain = load("mcqa", {"rows": path})
    began = time.perf_counter()
    stream = iter(domain.prompts("train", 1))
    list(itertools.islice(stream, 128))
    print(f"RL rows: first batch {time.perf_counter() - began:.3f} s, peak {peak():.0f} MB")
    began = time.perf_counter()
    walked = sum(1 for _ in stream)
    print(
        f"RL rows: {1e6 * (time.perf_counter() - began) / walked:.0f} µs a prompt over {walked:,}, "
        f"peak {peak():.0f} MB"
    )


def measure_sft(path: Path) -> None:
    codec = types.SimpleNamespace(
        encode_spans=lambda spans, most: (
            [len(text) for text, _ in spans],
            [flag for _, flag in spans],
        )
    )

    def rows(taken: dict[str, int]) -> tuple[Position, Iterator[Sample]]:
        position = Position(taken)
        config = SftConfig(name="sft", kind="sft", data=str(path))
        return position, samples_of_files(config, codec, 0, position)  # type: ignore[arg-type]

    began = time.perf_counter()
    position, stream = rows({})
    list(itertools.islice(stream, 64))
    print(f"SFT rows: first batch {time.perf_counter() - began:.3f} s, peak {peak():.0f} MB")
    began = time.perf_counter()
    drawn = sum(1 for _ in itertools.islice(stream, 20_000))
    print(
        f"SFT rows: {1e6 * (time.perf_counter() - began) / drawn:.0f} µs a row over {drawn:,}, "
        f"peak {peak():.0f} MB"
    )
    began = time.perf_counter()
    next(rows(dict(position.taken))[1])
    print(
        f"SFT rows: resumed after {position.taken['rows']:,} in {time.perf_counter() - began:.3f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=320)
    parser.add_argument("--folder", default=None)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=wanted.folder) as folder:
        for made, measure in ((rl_rows, measure_rl), (sft_rows, measure_sft)):
            size = len(str(next(made()))) + 1
            path = Path(folder) / f"{made.__name__}.jsonl"
            write_rows(path, itertools.islice(made(), wanted.megabytes * 1_000_000 // size))
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB")
            measure(path)


if __name__ == "__main__":
    main()
