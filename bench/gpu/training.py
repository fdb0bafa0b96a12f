"""Training steps on a GPU: the GPU's operators beside the CPU path's, and the share of the card.

    python bench/gpu/training.py [--cpu] [--small] [--only NAME] [--default]
        [--width SAMPLES] [--profile FILE] [--out FILE]

A GRPO step over samples of 1,024 tokens, products in bfloat16 over float32 weights, of

- hybrid: that of `bench/gpu/decode.py`, 0.29e9 parameters (0.15e9 active), 16,384 tokens;
- qwen3: 0.6e9 parameters, 16,384 tokens;
- base: five layers (MEM*E) at the widths of the recipe's base, 3.5e9 parameters (0.6e9 active, most
  of them in the head), 65,536 tokens. Weights, gradients and moments take 55 GB.

Each of `LINN_KERNELS=plain` and the default is timed in turn, without and with `recompute`: the
median of four steps in micro-batches of `--width` samples. `--default` leaves all but the default
out. The FLOPs are 6 per active parameter and token; the peak is a product of 8,192³ numbers,
measured before. `--profile` also writes a step of the default operators as a trace.
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
from decode import SHAPE, SMALL

import linn
from linn.engine.models.load import load
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.training.trainer import Trainer
from linn.types import Loss, Optim, Sample

LENGTH = 1024
BASE = Path(linn.__file__).parent / "bases" / "nemotron-3-nano-30b-a3b"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", choices=list(MODELS))
    parser.add_argument("--default", action="store_true")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device("cpu" if options.cpu else "cuda")
    peak = _product_rate(256 if options.small else 8192, device)
    results: list[dict[str, Any]] = []
    for name, (make, count) in MODELS.items():
        if options.only not in (None, name):
            continue
        model = make(options.small, device)
        for recompute in (False,) if options.default else (False, True):
            for kernels in ("",) if options.default else ("plain", ""):
                os.environ["LINN_KERNELS"] = kernels
                model.recompute = recompute
                trace = options.profile if not kernels and not recompute else None
                found = _steps(model, device, options.small, (count, options.width), trace)
                found |= {"model": name, "kernels": kernels or "default", "recompute": recompute}
                found["width"] = options.width
                found["share"] = round(found["tflops"] / peak, 3)
                results.append(found)
                print(json.dumps(found), flush=True)
        del model
    report = {"torch": torch.__version__, "device": _name(device), "peak_tflops": peak}
    report |= {"results": results}
    print(json.dumps(report))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1))


def _steps(
    model: Any, device: torch.device, small: bool, sizes: tuple[int, int], trace: Path | None
) -> dict[str, Any]:
    """Steps; sizes: samples of a step and of a micro-batch; trace: where to profile one more to."""
    count, together = sizes
    length = 32 if small else LENGTH
    width = together * length
    draw = torch.Generator().manual_seed(1)
    samples = []
    for _ in range(count):
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
    if trace:
        _profile(lambda: trainer.step(samples, Loss("grpo"), 1e-6), trace)
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
    """Parameters that a token goes through; of the embeddings it is one row."""
    config = getattr(model, "config", None)
    share = 1.0
    if isinstance(model, NemotronH):
        share = config.num_experts_per_tok / config.n_routed_experts
    active = 0.0
    for name, parameter in model.named_parameters():
        if name.endswith("embeddings.weight"):
            continue
        active += parameter.numel() * (share if ".experts." in name else 1)
    return active


def _hybrid(small: bool, device: torch.device) -> Any:
    return _drawn(SHAPE | SMALL if small else SHAPE, device)


def _base(small: bool, device: torch.device) -> Any:
    raw = json.loads((BASE / "config.json").read_text())
    raw |= {"hybrid_override_pattern": "MEM*E", "num_hidden_layers": 5}
    return _drawn(raw | SMALL if small else raw, device)


def _drawn(raw: dict[str, Any], device: torch.device) -> NemotronH:
    with device:
        model = NemotronH(raw, Path("config.json"))
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.02)
    return model


def _qwen3(small: bool, device: torch.device) -> Any:
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
        return load(Path(folder)).to(device)


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


MODELS = {"hybrid": (_hybrid, 16), "qwen3": (_qwen3, 16), "base": (_base, 64)}
"""How each is made, and the samples of a step."""


def _profile(run: Any, trace: Path) -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        run()
        torch.cuda.synchronize()
    table = found.key_averages().table(sort_by="self_cuda_time_total", row_limit=25)
    print("\n".join(" ".join(line.split()) for line in table.splitlines()))
    found.export_chrome_trace(str(trace))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(0) if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
