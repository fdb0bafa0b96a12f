"""Memory of the ranks that train one long packed row together, on CPUs.

    python -m bench.speed.long_row [--tokens 262144] [--segment 262144] [--ranks 1 2 4]
                                   [--pattern MEMEM]

One SFT step, `recompute` on, of a small Nemotron-H. `segment`: tokens of each sample in the row.
`activations`: the largest resident size of a rank in the step, less what it had before (model,
torch). `CPU-s`: of all ranks. A step of attention over one segment takes time with its square.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from linn.bases.make import tiny_config
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.training.token_weights import token_weights
from linn.scale.fsdp import FsdpTrainer
from linn.scale.options import Passing
from linn.scale.reading import load_sharded
from linn.scale.sharding import sharding
from linn.types import Loss, Optim, Sample

SMALL = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "head_dim": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 16,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 64,
}
"""A width at which a CPU computes 262,144 tokens in a minute."""
VOCAB = 512


def resident(name: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM at most since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def forget_peak() -> None:
    """Let VmHWM begin anew (proc(5): clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def samples_of(tokens: int, segment: int) -> list[Sample]:
    """Samples that fill a row."""
    draw = torch.Generator().manual_seed(0)
    made = []
    for start in range(0, tokens, segment):
        length = min(segment, tokens - start)
        ids = torch.randint(VOCAB, (length,), generator=draw).tolist()
        made.append(Sample(tokens=ids, mask=[True] * length, advantage=[1.0] * length))
    return made


def rank_of(rank: int, world: int, root: Path, tokens: int, segment: int) -> None:
    """One of the ranks; writes what it took."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dist.init_process_group(
        "gloo", init_method=f"file://{root}/store-{world}", rank=rank, world_size=world
    )
    # All ranks compute one row together: nothing but the row's length is compared.
    how = sharding("cpu", world, recompute=True, context=world)
    passing = Passing(tokens, tokens, whole_gradients=False)
    trainer = FsdpTrainer(load_sharded(root / "model", how), Optim(), how, passing)
    samples, loss = samples_of(tokens, segment), Loss("sft")
    weights = token_weights(samples, loss)

    # What came before (reading, packing lists of ids) is no part of the step.
    forget_peak()
    before, began = resident("VmRSS"), time.process_time()
    metrics = trainer.step(samples, loss, 1e-4, weights)
    took = {
        "peak": resident("VmHWM") - before,
        "cpu_s": time.process_time() - began,
        "loss": metrics["loss"],
        "grad_norm": metrics["grad_norm"],
    }
    (root / f"{world}-{rank}.json").write_text(json.dumps(took))
    # Nobody goes while another still computes.
    dist.barrier()
    dist.destroy_process_group()


def measured(worlds: Sequence[int], pattern: str, tokens: int, segment: int) -> None:
    """A line for each number of ranks."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        config = tiny_config(VOCAB) | SMALL | {"hybrid_override_pattern": pattern}
        model = NemotronH(config, root / "model" / "config.json")
        model.initialise(0)
        model.save(root / "model")
        print(f"{pattern}, a row of {tokens:,} tokens in samples of {segment:,}")
        for world in worlds:
            mp.spawn(rank_of, (world, root, tokens, segment), world)
            found = [
                json.loads((root / f"{world}-{rank}.json").read_text()) for rank in range(world)
            ]
            peaks = ", ".join(f"{one['peak'] / 1e6:,.0f}" for one in found)
            print(
                f"{world} rank{'s' * (world > 1)}: activations {peaks} MB; "
                f"{sum(one['cpu_s'] for one in found):,.0f} CPU-s; "
                f"loss {found[0]['loss']:.7f}, gradient norm {found[0]['grad_norm']:.6f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--segment", type=int, default=262_144)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--pattern", default="MEMEM")
    asked = parser.parse_args()
    measured(asked.ranks, asked.pattern, asked.tokens, asked.segment)


if __name__ == "__main__":
    main()
