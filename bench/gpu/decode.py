"""Tokens per second of decoding on a GPU: eager batches, slots, and slots with CUDA graphs.

    python bench/gpu/decode.py [--cpu] [--small] [--rows 32,256] [--tokens 96] [--out FILE]

A random Nemotron-H hybrid with experts (0.3e9 parameters), prompts of 200 tokens with 8 siblings
each, in float32 and with bfloat16 products. Prints one line of JSON per measurement, and all of
them at the end. Under 40 s on an H100. `--cpu --small` tries the program without a GPU.

Beside each figure stands the least time of a step: the bytes of weights and states over 3e12/s.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.sampling.live_batch import BatchSampler, LiveBatch, Request
from linn.engine.sampling.slot_batch import SlotBatch
from linn.types import Sampling

PROMPT, SIBLINGS = 200, 8
MEMORY = 3e12
"""Bytes per second that an H100's memory was seen to move."""

SHAPE: dict[str, Any] = {
    "model_type": "nemotron_h",
    "architectures": ["NemotronHForCausalLM"],
    "vocab_size": 32768,
    "hidden_size": 1024,
    "hybrid_override_pattern": "MEM*EMEM*EME",
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 2048,
    "mamba_num_heads": 32,
    "mamba_head_dim": 64,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
    "use_conv_bias": True,
    "n_routed_experts": 32,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 512,
    "moe_shared_expert_intermediate_size": 1024,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "tie_word_embeddings": False,
    "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 65536,
    "initializer_range": 0.02,
    "chunk_size": 128,
    "expand": 2,
}
SMALL: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "head_dim": 16,
    "mamba_num_heads": 4,
    "mamba_head_dim": 32,
    "ssm_state_size": 16,
    "n_groups": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
}
WAYS: dict[str, Any] = {
    "eager": LiveBatch,
    "slots": partial(SlotBatch, record=False),
    "graphs": SlotBatch,
}


def requests(rows: int, tokens: int, vocab: int) -> list[Request]:
    """`rows` requests of one length, so that all rows are computed all the time."""
    generator = torch.Generator().manual_seed(2)
    prompts = torch.randint(10, vocab, (max(1, rows // SIBLINGS), PROMPT), generator=generator)
    lists = prompts.tolist()
    how = Sampling(tokens, 1.0)
    return [(lists[row // SIBLINGS % len(lists)], how, row) for row in range(rows)]


def least_step(model: NemotronH, rows: int, tokens: int, bfloat16: bool) -> float:
    """Seconds that a step takes at least: each weight read once, each state read and written."""
    number = 2 if bfloat16 else 4
    weights = sum(p.numel() for p in model.parameters()) * number
    states = 2 * rows * model.row_bytes(PROMPT + tokens // 2)
    return (weights + states) / MEMORY


def seconds(sampler: BatchSampler, asked: list[Request], device: torch.device) -> float:
    """Of one list, its prefill included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    sampler.generate(asked)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measured(
    model: NemotronH, way: str, rows: int, tokens: int, bfloat16: bool, device: torch.device
) -> dict[str, Any]:
    """One way of decoding. A step's time is what more tokens of the same prompts cost."""
    sampler = BatchSampler(model, rows, bfloat16=bfloat16, batch=WAYS[way])
    short, long = requests(rows, 1, model.vocab), requests(rows, tokens, model.vocab)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    seconds(sampler, short, device)  # loads the kernels of a prefill
    first = seconds(sampler, long, device)  # graphs: with all recordings
    whole = first if way == "eager" else seconds(sampler, long, device)
    prefill = seconds(sampler, short, device)
    step = (whole - prefill) / (tokens - 1)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    return {
        "way": way,
        "rows": rows,
        "products": "bfloat16" if bfloat16 else "float32",
        "tokens_per_s": round(rows * tokens / whole),
        "decode_tokens_per_s": round(rows / step),
        "step_ms": round(1e3 * step, 3),
        "least_step_ms": round(1e3 * least_step(model, rows, tokens, bfloat16), 3),
        "prefill_s": round(prefill, 3),
        "first_list_s": round(first, 2),
        "peak_gb": round(peak, 2),
    }


def main() -> None:
    """Measure every way, number of rows and precision."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rows", default="32,256")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--out")
    options = parser.parse_args()

    device = torch.device("cpu" if options.cpu else "cuda")
    raw = SHAPE | SMALL if options.small else SHAPE
    began = time.perf_counter()
    with device:  # drawn there; the values do not matter here
        model = NemotronH(raw, Path("config.json"))
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.02)
    report: dict[str, Any] = {
        "torch": torch.__version__,
        "device": "cpu" if options.cpu else torch.cuda.get_device_name(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "results": [],
    }
    for rows in map(int, options.rows.split(",")):
        for bfloat16 in (False, True):
            for way in WAYS:
                result = measured(model, way, rows, options.tokens, bfloat16, device)
                report["results"].append(result)
                print(json.dumps(result), flush=True)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
    report["seconds"] = round(time.perf_counter() - began, 1)
    print(json.dumps(report))
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
