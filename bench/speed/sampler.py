"""Tokens per second of the sampler on the tiny model, one thread: `python bench/speed/sampler.py
[--rows 128] [--tokens 128]`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from linn.bases import make as tiny
from linn.engine.models import load as model
from linn.engine.sampling.live_batch import BatchSampler
from linn.types import Sampling


def main() -> None:
    """Sample `--rows` completions of `--tokens` tokens (groups of 8 siblings), best of `--repeats`;
    print one line, `--profile` the operators.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {
        "rows": 128,
        "tokens": 128,
        "prompt": 64,
        "vocab": 1200,
        "repeats": 3,
        "capacity": 256,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--ragged", action="store_true", help="limits spread evenly from 1/8 to all of --tokens"
    )
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        tiny.new_model(Path(folder), options.vocab, seed=0)
        sampler = BatchSampler(model.load(Path(folder)), options.capacity)
    requests = []
    for i in range(options.rows):
        prompt = [(i // 8 * 31 + t * 7) % options.vocab for t in range(options.prompt)]
        limit = options.tokens * (1 + i % 8) // 8 if options.ragged else options.tokens
        requests.append((prompt, Sampling(max_tokens=limit), i))
    seconds, count = float("inf"), 0
    for _ in range(options.repeats):
        start = time.perf_counter()
        count = sum(len(done.ids) for done in sampler.generate(requests))
        seconds = min(seconds, time.perf_counter() - start)
    print(f"{count / seconds:,.0f} tokens/s: {count} tokens, {options.rows} rows, {seconds:.2f} s")
    if options.profile:
        with torch.profiler.profile() as profile:
            sampler.generate(requests)
        print(
            profile.key_averages().table(
                sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40
            )
        )


if __name__ == "__main__":
    main()
