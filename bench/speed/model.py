"""Tokens per second of a model on one thread: packed training rows, prefill, decode.

    python -m bench.speed.model [FOLDER] [--profile]

Without a folder, a random tiny hybrid with a vocabulary of 1,200 is measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from linn.bases.make import new_model
from linn.engine.models.interface import CausalLM
from linn.engine.models.load import load


def rows(width: int, length: int, vocab: int) -> tuple[Tensor, Tensor]:
    """One packed row of random tokens, and the segment of each.

    Segments have about `length` tokens: half to one and a half times as many.
    """
    generator = torch.Generator().manual_seed(0)
    segments = torch.full((1, width), -1)
    start = number = 0
    while start < width:
        size = int(torch.randint(length // 2, length * 3 // 2, (), generator=generator))
        end = min(start + size, width)
        segments[0, start:end] = number
        start, number = end, number + 1
    return torch.randint(vocab, (1, width), generator=generator), segments


def train_step(model: CausalLM, ids: Tensor, segments: Tensor, bf16: bool) -> None:
    """Forward and backward of a cross entropy on every token."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        hidden = model.hidden(ids, segments)[0, :-1]
        loss = cross_entropy(model.head(hidden), ids[0, 1:])
    torch.autograd.backward(loss)


def best(run: Callable[[], object], tokens: int, repeats: int = 5) -> float:
    """Tokens per second of the fastest of some runs, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return tokens / min(times)


def decode_speed(model: CausalLM, batch: int, prompt: int, new: int) -> tuple[float, float]:
    """(prefill, decode) tokens per second of a batch of equal prompts."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(model.vocab, (batch, prompt), generator=generator).tolist()
    prefill = best(lambda: model.prefill(prompts), batch * prompt, repeats=2)

    logits, state = model.prefill(prompts)
    start = time.perf_counter()
    for _ in range(new):
        logits, state = model.decode(logits.argmax(-1), state)
    return prefill, batch * new / (time.perf_counter() - start)


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument(
        "--profile",
        action="store_true",
        help="also print where a training step's and a decode step's time goes",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        if options.folder is None:
            new_model(folder, 1200, 0)
        model = load(folder)
    assert isinstance(model, torch.nn.Module)
    count = sum(weight.numel() for weight in model.parameters())
    print(f"{count:,} parameters, torch {torch.__version__}, 1 thread")
    print_training(model)
    print_sampling(model)
    if options.profile:
        print_profiles(model)


def print_training(model: CausalLM) -> None:
    """Forward and backward of packed rows."""
    for width, length in ((1024, 100), (2048, 100), (2048, 2048)):
        ids, segments = rows(width, length, model.vocab)
        for name, bf16 in (("fp32", False), ("bf16 autocast", True)):
            speed = best(partial(train_step, model, ids, segments, bf16), width)
            print(f"train   row {width:5} segments ~{length:5} {name:14} {speed:9,.0f} tokens/s")


def print_sampling(model: CausalLM) -> None:
    """Prefill and decode of batches."""
    for batch in (1, 32, 128, 256):
        prefill, decode = decode_speed(model, batch, prompt=100, new=100)
        speeds = f"prefill {prefill:9,.0f}   decode {decode:9,.0f} tokens/s"
        print(f"sample  batch {batch:4}, 100 + 100 tokens   {speeds}")


def print_profiles(model: CausalLM) -> None:
    """The costliest operators of a training step, then of five decode steps."""
    ids, segments = rows(2048, 100, model.vocab)
    with torch.profiler.profile() as train:
        train_step(model, ids, segments, False)
    print_operators(train)

    logits, state = model.prefill([[1] * 100] * 128)
    with torch.profiler.profile() as decode:
        for _ in range(5):
            logits, state = model.decode(logits.argmax(-1), state)
    print_operators(decode)


def print_operators(profile: torch.profiler.profile) -> None:
    averages = profile.key_averages()
    print(averages.table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=40))


if __name__ == "__main__":
    main()
