"""Sampling on a GPU by linn's own sampler and by vLLM: tokens per second, sleep and wake.

    python bench/gpu/sampling.py [--rows 32,256] [--tokens 96] [--memory 0.3] [--only linn|vllm]
        [--arguments '{"enforce_eager": true}'] [--out FILE]

The hybrid of `bench/gpu/decode.py` with experts, in bfloat16, as a replica of a cluster: prompts of
200 tokens with 8 siblings each, prefill included; the second of two lists counts. Then the weights
are read again, and both leave the card and come back, with the card's memory beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from decode import SHAPE, requests

from linn.engine.models.nemotron_h.model import NemotronH
from linn.scale import replica, vllm
from linn.scale.options import ReplicaOptions

CAPACITY = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="32,256")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--memory", type=float, default=0.3)
    parser.add_argument("--only", choices=["linn", "vllm"])
    parser.add_argument("--arguments", type=json.loads, default={}, help="vLLM's, as JSON")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    told = ReplicaOptions(
        device="cuda",
        capacity=CAPACITY,
        cache_bytes=None,
        memory=options.memory,
        bfloat16=True,
        colocated=True,
        arguments=options.arguments,
    )
    report: dict[str, Any] = {"torch": torch.__version__, "device": torch.cuda.get_device_name()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder)
        for kind, opened in (("linn", replica.opened), ("vllm", vllm.opened)):
            if options.only in (None, kind):
                report[kind] = _measured(opened(told), folder, options)
                print(kind, json.dumps(report[kind]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1))


def _write(folder: Path) -> None:
    with torch.device("cuda"):
        model = NemotronH(SHAPE, Path("config.json"))
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.02)
    model.save(folder)
    (folder / "tokenizer.json").write_text("{}")


def _measured(sampler: Any, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"open_s": _seconds(lambda: sampler.load(folder, 0))}
    for rows in map(int, options.rows.split(",")):
        asked = requests(rows, options.tokens, SHAPE["vocab_size"])

        def run() -> None:
            _, done = sampler.generate(None, asked, [0] * len(asked))  # noqa: B023
            assert all(len(one.ids) == options.tokens for one in done)

        found[f"first_list_of_{rows}_s"] = _seconds(run)
        found[f"tokens_per_s_{rows}"] = round(rows * options.tokens / _seconds(run))

    found["awake_gb"] = _held()
    found["sleep_s"] = _seconds(sampler.sleep)
    found["asleep_gb"] = _held()
    found["wake_s"] = _seconds(sampler.wake)
    found["take_s"] = _seconds(lambda: sampler.take(folder, 1))
    found["again_s"] = _seconds(run)
    sampler.sleep()
    return found


def _seconds(call: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return round(time.perf_counter() - began, 3)


def _held() -> float:
    """GB of the card that are taken."""
    free, whole = torch.cuda.mem_get_info()
    return round((whole - free) / 1e9, 1)


if __name__ == "__main__":
    main()
