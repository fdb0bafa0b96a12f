"""Training steps on a GPU: the GPU's operators beside the CPU path's, and the share of the card.

    python bench/gpu/training.py [--cpu] [--small] [--only hybrid|qwen3] [--profile] [--out FILE]

The hybrid of `bench/gpu/decode.py` (0.29e9 parameters, 0.15e9 active) and a Qwen3 of 0.6e9, a GRPO
step over 16,384 tokens in samples of 1,024, products in bfloat16 over float32 weights. Each of
`LINN_KERNELS=plain` and the default is timed in turn: the median of four steps. The FLOPs are 6 per
active parameter and token; the peak is a product of 8,192³ numbers, measured before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from decode import SHAPE

from linn.engine.models.load import load
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.training.trainer import Trainer
from linn.types import Loss, Optim, Sample

LENGTH = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", choices=["hybrid", "qwen3"])
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device("cpu" if options.cpu else "cuda")
    peak = _product_rate(256 if options.small else 8192, device)
    results: list[dict[str, Any]] = []
    for name, make in (("hybrid", _hybrid), ("qwen3", _qwen3)):
        if options.only not in (None, name):
            continue
        model = make(options.small).to(device)
        for recompute in (False, True):
            for kernels in ("plain", ""):
                os.environ["LINN_KERNELS"] = kernels
                model.recompute = recompute
                found = _steps(model, device, options.small, options.profile and not kernels)
                found |= {"model": name, "kernels": kernels or "default", "recompute": recompute}
                found["share"] = round(found["tflops"] / peak, 3)
                results.append(found)
                print(json.dumps(found), flush=True)
        del model
    report = {"torch": torch.__version__, "device": _name(device), "peak_tflops": peak}
    report |= {"results": results}
    print(json.dumps(report))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1))


def _steps(model: Any, device: torch.device, small: bool, profiled: bool) -> dict[str, Any]:
    length = 32 if small else LENGTH
    width = 8 * length
    draw = torch.Generator().manual_seed(1)
    samples = []
    for _ in range(16):
        ids = torch.randint(10, model.vocab, (length,), generator=draw).tolist()
        mask = [False] + [True] * (length - 1)
        samples.append(Sample(ids, mask, [1.0] * length, [-5.0] * length))
    trainer = Trainer(model, Optim(), width=width, tokens=width, autocast=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    seconds = []
    for _ in range(2 if small else 5):
        _wait(device)
        began = time.perf_counter()
        trainer.step(samples, Loss("grpo"), 1e-6)
        _wait(device)
        seconds.append(time.perf_counter() - began)
    if profiled:
        _profile(lambda: trainer.step(samples, Loss("grpo"), 1e-6))
    trainer.free_gradient()
    step = statistics.median(seconds[1:])
    tokens = len(samples) * length
    return {
        "step_s": round(step, 3),
        "tokens_per_s": round(tokens / step),
        "tflops": round(6 * _active(model) * tokens / step / 1e12, 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if device.type != "cpu" else 0,
    }


def _active(model: Any) -> float:
    """Parameters that a token goes through."""
    share = SHAPE["num_experts_per_tok"] / SHAPE["n_routed_experts"]
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    return sum(size * (share if ".experts." in name else 1) for name, size in sizes.items())


def _hybrid(small: bool) -> Any:
    shape = dict(SHAPE)
    if small:
        shape |= {"hidden_size": 64, "vocab_size": 512, "mamba_num_heads": 8, "mamba_head_dim": 16}
    model = NemotronH(shape, Path("config.json"))
    model.initialise(0)
    return model


def _qwen3(small: bool) -> Any:
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=1024 if small else 151_936,
        hidden_size=64 if small else 1024,
        intermediate_size=128 if small else 3072,
        num_hidden_layers=2 if small else 28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=16 if small else 128,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return load(Path(folder))


def _product_rate(size: int, device: torch.device) -> float:
    """TFLOP per second of a bfloat16 product."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    _wait(device)
    began = time.perf_counter()
    for _ in range(10):
        a @ a
    _wait(device)
    return round(10 * 2 * size**3 / (time.perf_counter() - began) / 1e12, 3)


def _profile(run: Any) -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        run()
        torch.cuda.synchronize()
    table = found.key_averages().table(sort_by="self_cuda_time_total", row_limit=25)
    print("\n".join(" ".join(line.split()) for line in table.splitlines()))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(0) if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
