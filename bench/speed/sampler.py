"""Tokens per second of the sampler on the tiny model, one thread.

python -m bench.speed.sampler [--rows 128] [--tokens 128] [--ragged] [--profile]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from linn.bases import make
from linn.engine.models.load import load
from linn.engine.sampling.live_batch import BatchSampler
from linn.types import Sampling

DEFAULTS = {
    "rows": 128,
    "tokens": 128,
    "prompt": 64,
    "vocab": 1200,
    "repeats": 3,
    "capacity": 256,
}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--ragged", action="store_true", help="limits spread evenly from 1/8 to all of --tokens"
    )
    parser.add_argument("--profile", action="store_true", help="print the costliest operators")
    return parser.parse_args()


def requests_of(options: argparse.Namespace) -> list[tuple[list[int], Sampling, int]]:
    """One request per row, in groups of 8 siblings with one prompt."""
    requests = []
    for row in range(options.rows):
        group, sibling = divmod(row, 8)
        prompt = [(group * 31 + place * 7) % options.vocab for place in range(options.prompt)]
        limit = options.tokens
        if options.ragged:
            limit = limit * (1 + sibling) // 8
        requests.append((prompt, Sampling(max_tokens=limit), row))
    return requests


def main() -> None:
    """Sample `--rows` completions of `--tokens` tokens; print the best of `--repeats`."""
    options = parse_options()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        make.new_model(Path(folder), options.vocab, seed=0)
        sampler = BatchSampler(load(Path(folder)), options.capacity)
    requests = requests_of(options)

    seconds, count = float("inf"), 0
    for _ in range(options.repeats):
        start = time.perf_counter()
        count = sum(len(completion.ids) for completion in sampler.generate(requests))
        seconds = min(seconds, time.perf_counter() - start)
    print(f"{count / seconds:,.0f} tokens/s: {count} tokens, {options.rows} rows, {seconds:.2f} s")

    if options.profile:
        with torch.profiler.profile() as profile:
            sampler.generate(requests)
        averages = profile.key_averages()
        print(averages.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


if __name__ == "__main__":
    main()
