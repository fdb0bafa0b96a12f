"""What each operator of Nemotron-H takes on a GPU, the reference's and the GPU's, in milliseconds.

    python -m bench.gpu.kernels [--tokens 16384] [--small]

Shapes are those of a layer of the base (Nemotron-3-Nano-30B-A3B); `--small` is for a dry run on a
CPU. Recurrence in float32, the rest under bf16 autocast. Each row: forward, forward and backward,
memory at the peak above what was held before. Where `mamba_ssm` is installed its Triton scan is a
row too, with its difference from ours.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linn.engine.models import rectangle_attention
from linn.engine.models.kernels import attention, choice, convolution, experts, scan
from linn.engine.models.nemotron_h import scan as plain_scan
from linn.engine.models.nemotron_h.experts import Experts
from linn.engine.models.nemotron_h.layers import Attention
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.models.nemotron_h.segments import lay_out

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BASE: dict[str, Any] = {
    "model_type": "nemotron_h",
    "vocab_size": 32768,
    "hidden_size": 2688,
    "hybrid_override_pattern": "ME*",
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "mamba_num_heads": 64,
    "mamba_head_dim": 64,
    "ssm_state_size": 128,
    "n_groups": 8,
    "n_routed_experts": 128,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 1856,
    "moe_shared_expert_intermediate_size": 3712,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}
SMALL = {
    "hidden_size": 64,
    "vocab_size": 256,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "ssm_state_size": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "head_dim": 16,
    "num_attention_heads": 4,
}
TIMES = 5
"""Measurements of which the median counts."""


def synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def median_ms(call: Callable[[], Any]) -> float:
    """Milliseconds of a call, after one that is not counted."""
    call()
    times = []
    for _ in range(TIMES):
        synchronise()
        began = time.perf_counter()
        call()
        synchronise()
        times.append(1000 * (time.perf_counter() - began))
    return round(statistics.median(times), 3)


def row(name: str, call: Callable[[], Tensor], inputs: Sequence[Tensor]) -> dict[str, Any]:
    """One line of the table: what computing and differentiating a call takes."""

    def both() -> None:
        torch.autograd.grad(call().float().square().sum(), inputs, allow_unused=True)

    def forward() -> None:
        with torch.no_grad():
            call()

    found: dict[str, Any] = {"name": name}
    gc.collect()
    try:
        found["forward_ms"] = median_ms(forward)
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
        found["both_ms"] = median_ms(both)
        if DEVICE.type == "cuda":
            found["peak_gb"] = round((torch.cuda.max_memory_allocated() - held) / 1e9, 2)
    except Exception as error:  # a kernel that this card or torch refuses leaves the others
        found["failed"] = f"{type(error).__name__}: {str(error)[:300]}"
    print(json.dumps(found), flush=True)
    return found


def bfloat16() -> Any:
    return torch.autocast(DEVICE.type, dtype=torch.bfloat16)


def random_model(raw: dict[str, Any]) -> NemotronH:
    """With weights that are drawn where they are used: the base's are many for a CPU."""
    with DEVICE:
        model = NemotronH(raw, Path("config.json"))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.02)
    return model


def scans(raw: dict[str, Any], lengths: list[int]) -> None:
    """The recurrence by chunks of several sizes, by the reference's, and by mamba_ssm's Triton."""
    tokens, heads, groups = sum(lengths), raw["mamba_num_heads"], raw["n_groups"]
    width, size = raw["mamba_head_dim"], raw["ssm_state_size"]
    draw = torch.Generator(DEVICE).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, device=DEVICE).requires_grad_()

    x, b, c = (
        normal(tokens, heads, width),
        normal(tokens, groups, size),
        normal(tokens, groups, size),
    )
    dt = torch.rand(tokens, heads, generator=draw, device=DEVICE).mul(0.1).requires_grad_()
    a = -torch.linspace(1, 16, heads, device=DEVICE)
    d = normal(heads)
    inputs = (x, dt, b, c, d)

    def by(way: Any, chunk: int) -> Tensor:
        cut = lay_out(lengths, chunk, raw.get("conv_kernel", 4), DEVICE)
        return way.scan(x, dt, a, b, c, d, cut)[0]

    row("scan reference, chunks of 32", lambda: by(plain_scan, 32), inputs)
    for chunk in (64, 128, 256):
        row(f"scan gpu, chunks of {chunk}", lambda chunk=chunk: by(scan, chunk), inputs)

    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except Exception as error:
        print(f"mamba_ssm: {type(error).__name__}: {error}")
        return
    number = torch.arange(len(lengths), device=DEVICE, dtype=torch.int32)
    segment = torch.repeat_interleave(number, torch.tensor(lengths, device=DEVICE))[None]
    for dtype in (torch.float32, torch.bfloat16):

        def triton(dtype: torch.dtype = dtype) -> Tensor:
            narrow = (each.to(dtype)[None] for each in (x, b, c))
            wide, keys, queries = narrow
            return mamba_chunk_scan_combined(
                wide, dt[None], a, keys, queries, 128, D=d, seq_idx=segment
            )[0]

        if "failed" not in row(f"scan mamba_ssm, {dtype}", triton, inputs):
            with torch.no_grad():
                ours, theirs = by(scan, 128), triton().float()
            share = float((ours - theirs).abs().max() / ours.abs().max())
            print(f"  differs from ours by {share:.1e} of the largest output")


def layers(raw: dict[str, Any], lengths: list[int]) -> None:
    """Convolution, attention and experts."""
    model = random_model(raw | {"hybrid_override_pattern": "ME*"})
    tokens, hidden = sum(lengths), raw["hidden_size"]
    layout = lay_out(lengths, 128, 4, DEVICE)
    x = torch.randn(tokens, model.config.channels, device=DEVICE, requires_grad=True)
    taps = torch.randn(4, model.config.channels, device=DEVICE, requires_grad=True)
    bias = torch.randn(model.config.channels, device=DEVICE, requires_grad=True)
    for name, way in (("reference", plain_scan.convolve), ("gpu", convolution.convolve)):
        row(f"convolution {name}", lambda way=way: way(x, taps, bias, layout), (x, taps, bias))

    into = torch.randn(tokens, hidden, device=DEVICE, requires_grad=True)
    attend = next(each for each in model.modules() if isinstance(each, Attention))

    def attention_by(joined: bool) -> Tensor:
        with bfloat16():
            projected = attend._project(into)
            if joined:
                return attention.attend(projected, attend.heads, layout.joined)
            by_rectangles = rectangle_attention.attend
            return by_rectangles(projected, attend.heads, layout.rectangles).flatten(1)

    row("attention reference", lambda: attention_by(False), (into,))
    if DEVICE.type == "cuda":
        row("attention gpu", lambda: attention_by(True), (into,))

    layer = next(each for each in model.modules() if isinstance(each, Experts))
    top = model.config.num_experts_per_tok
    for rows in (tokens, 256, 32):
        part = into.detach()[:rows].clone().requires_grad_()
        chosen = torch.rand(rows, len(layer.up_proj), device=DEVICE).topk(top).indices
        weights = torch.rand(rows, top, device=DEVICE)
        ways = {
            "loop": lambda h, w, c: layer._one_by_one(h, w, c),
            "grouped": lambda h, w, c: experts.grouped(h, w, c, layer.up_proj, layer.down_proj),
            "all": lambda h, w, c: experts.all_of_them(h, w, c, layer.up_proj, layer.down_proj),
        }
        for name, way in ways.items():
            if name == "all" and rows > 256:
                continue

            def call(
                way: Any = way, part: Tensor = part, c: Tensor = chosen, w: Tensor = weights
            ) -> Tensor:
                with bfloat16():
                    return way(part, w, c)

            row(f"experts {name}, {rows} rows", call, (part, layer.up_proj, layer.down_proj))


def whole(raw: dict[str, Any], lengths: list[int]) -> None:
    """Six layers and the head's input, forward and backward, both ways."""
    wide = {"n_routed_experts": 32, "hybrid_override_pattern": "MEM*EM"}
    model = random_model(raw | wide if raw["n_routed_experts"] > 32 else raw)
    tokens = sum(lengths)
    ids = torch.randint(model.vocab, (1, tokens), device=DEVICE)
    number = torch.arange(len(lengths), device=DEVICE)
    segments = torch.repeat_interleave(number, torch.tensor(lengths, device=DEVICE))[None]

    def call() -> Tensor:
        with bfloat16():
            return model.hidden(ids, segments)

    for way in ("plain", "gpu"):
        os.environ[choice.VARIABLE] = way
        found = row(f"{len(model.config.pattern)} layers, {way}", call, list(model.parameters()))
        if "both_ms" in found:
            print(f"  {tokens / found['both_ms'] * 1000:,.0f} tokens/s")
    del os.environ[choice.VARIABLE]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    raw, tokens = BASE, options.tokens
    if options.small:
        raw, tokens = BASE | SMALL, 600
    # Natural lengths: from a sixteenth of the longest to the longest.
    lengths = [tokens // 4, tokens // 8, tokens // 8] + [tokens // 32] * 16
    print(torch.__version__, torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu")
    for part in (scans, layers, whole):
        part(raw, lengths)
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
