"""Ranks that share out rows and experts, beside linn's trainer in one process.

`python -m support.spread FOLDER` starts four ranks; two, three and all of them train together in
turn. What they found comes as `FOLDER/found.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from linn.engine.local.dealing import deal
from linn.engine.models.load import load
from linn.engine.training.token_weights import moves, token_weights
from linn.engine.training.trainer import Trainer
from linn.errors import UserError
from linn.scale import states, writing
from linn.scale.fsdp import FsdpTrainer
from linn.scale.options import Passing
from linn.scale.reading import load_sharded
from linn.scale.sharding import gathered, sharding
from linn.types import Loss, Sample
from support.sharded import (
    LOSSES,
    OPTIM,
    STEPS,
    VOCAB,
    apart,
    as_sent,
    batch,
    meet,
    write_hybrid,
)

WIDTH = 150
LAYOUTS = {
    # name: ranks, experts, context
    "experts 2": (2, 2, 1),
    "context 2": (2, 1, 2),
    "context 3": (3, 1, 3),
    "experts 2 of 4": (4, 2, 1),
    "experts 2, context 2 of 4": (4, 2, 2),
}
CUTS = {
    # Rows of one micro-batch; two and three pieces begin inside of segments, or with them.
    "in one segment": [144],
    "on borders": [24, 24, 24, 24, 24, 24],
    "beside borders": [1, 72, 2, 47, 22],
    "through three ranks": [3, 140, 1],
    "few tokens": [2],
}


@dataclass
class Ranks:
    """What one of the ranks knows."""

    root: Path
    rank: int
    layout: str

    def trainer(self, model: str = "moe", **how: Any) -> FsdpTrainer:
        world, experts, context = LAYOUTS[self.layout]
        host = how.pop("host", False)
        whole = how.pop("whole", False)
        own = sharding("cpu", world, experts=experts, context=context, **how)
        passing = Passing(WIDTH, WIDTH, whole_gradients=whole)
        return FsdpTrainer(load_sharded(self.root / model, own), OPTIM, own, passing, host)

    def share(self, samples: Sequence[Sample], loss: Loss) -> tuple[list[Sample], list[float]]:
        world, _, context = LAYOUTS[self.layout]
        weights = token_weights(samples, loss)
        lengths = [len(sample.tokens) if moves(sample, loss) else 0 for sample in samples]
        own = deal(lengths, world // context)[self.rank // context]
        return [samples[i] for i in own], [weights[i] for i in own]

    def steps(self, trainer: FsdpTrainer, kind: str, first: int = 0) -> list[dict[str, float]]:
        rows = []
        for step in range(first, STEPS):
            samples, weights = self.share(batch(step, kind), LOSSES[kind])
            rows.append(trainer.step(samples, LOSSES[kind], 1e-3, weights))
        return rows


def weights_of(trainer: FsdpTrainer) -> dict[str, Tensor]:
    """The whole policy, by all ranks."""
    whole = {}
    for name, value in trainer.root.named_parameters():
        whole[name] = gathered(trainer.how.whole(value.detach()))
    return whole


def alone(root: Path, model: str = "moe") -> Trainer:
    return Trainer(load(root / model), OPTIM, width=WIDTH, tokens=WIDTH)


def expected(root: Path) -> dict[str, Any]:
    """What one process makes of the same batches, before there are any ranks."""
    made: dict[str, Any] = {}
    for kind in LOSSES:
        trainer = alone(root)
        rows = [trainer.step(batch(step, kind), LOSSES[kind], 1e-3) for step in range(STEPS)]
        made[kind] = rows, dict(trainer.model.state_dict())  # type: ignore[attr-defined]
    # Scores are of the model as it was read.
    trainer = alone(root)
    for name, lengths in CUTS.items():
        made[name] = trainer.score(sequences(lengths), 0.7)
    for model in ("six", "odd"):
        trainer = alone(root, model)
        row = trainer.step(batch(0, "sft"), LOSSES["sft"], 1e-3)
        made[model] = row, dict(trainer.model.state_dict())  # type: ignore[attr-defined]
    return made


def write_all(root: Path) -> None:
    """Models with eight experts a layer, with six, with none, and of another family."""
    eight = {"hybrid_override_pattern": "MEM*E"}
    six = {"hybrid_override_pattern": "M*E", "n_routed_experts": 6}
    write_hybrid(root / "moe", eight)
    write_hybrid(root / "six", six)
    write_hybrid(root / "odd", six | {"moe_intermediate_size": 63})
    write_hybrid(root / "dense", {"hybrid_override_pattern": "M-"})
    (root / "qwen3").mkdir()
    (root / "qwen3" / "config.json").write_text(json.dumps({"model_type": "qwen3"}))


def sequences(lengths: Sequence[int]) -> list[list[int]]:
    draw = torch.Generator().manual_seed(len(lengths))
    return [torch.randint(VOCAB, (length,), generator=draw).tolist() for length in lengths]


def off(one: Sequence[dict[str, float]], other: Sequence[dict[str, float]], key: str) -> float:
    """The largest relative difference of a metric."""
    pairs = zip(one, other, strict=True)
    return max(abs(a[key] - b[key]) / max(abs(b[key]), 1e-12) for a, b in pairs)


# ---------------------------------------------------------------- comparisons


def parity(
    ranks: Ranks, want: dict[str, Any], kinds: Sequence[str] = tuple(LOSSES)
) -> Iterator[tuple[str, Any]]:
    for kind in kinds:
        rows, weights = want[kind]
        trainer = ranks.trainer()
        metrics = ranks.steps(trainer, kind)
        yield f"{kind} loss", off(metrics[:1], rows[:1], "loss")
        yield f"{kind} later loss", off(metrics, rows, "loss")
        yield f"{kind} norm", off(metrics[:1], rows[:1], "grad_norm")
        yield f"{kind} weights", apart(weights_of(trainer), weights)
        counts = [
            {key: row[key] for key in ("tokens", "sequences")} for row in (metrics[0], rows[0])
        ]
        yield f"{kind} counts", counts[0] == counts[1] and metrics[0].keys() == rows[0].keys()


def grpo(ranks: Ranks, want: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """One objective alone: the others differ in the head, where ranks do not."""
    yield from parity(ranks, want, ["grpo"])


def cuts(ranks: Ranks, want: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    world, _, context = LAYOUTS[ranks.layout]
    trainer = ranks.trainer()
    for name, lengths in CUTS.items():
        own = sequences(lengths)
        dealt = deal(lengths, world // context)[ranks.rank // context]
        found = trainer.score([own[i] for i in dealt], 0.7)
        gaps = [
            abs(a - b)
            for i, row in zip(dealt, found, strict=True)
            for a, b in zip(row, want[name][i], strict=True)
        ]
        yield f"{name}", max(gaps, default=0.0)


def unequal(ranks: Ranks, want: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """All samples in the first share: the loss, and the gradient of all parameters together."""
    samples, loss = batch(0, "sft"), LOSSES["sft"]
    _, _, context = LAYOUTS[ranks.layout]
    # Ranks of one row get the same samples, or all of them none.
    first = ranks.rank < context
    trainer = ranks.trainer()
    weights = token_weights(samples, loss)
    metrics = trainer.step(samples if first else [], loss, 1e-3, weights if first else [])
    for key in ("loss", "grad_norm"):
        yield key, off([metrics], want["sft"][0][:1], key)


def cheaper(ranks: Ranks, want: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    plain = ranks.trainer("six")
    rows = ranks.steps(plain, "grpo")
    trainer = ranks.trainer("six", recompute=True, host=True)
    ranks.steps(trainer, "grpo")
    yield "recompute, host", apart(weights_of(plain), weights_of(trainer))
    trainer = ranks.trainer("six", bfloat16=True, recompute=True)
    half = ranks.steps(trainer, "grpo")
    yield "bfloat16 loss", abs(half[0]["loss"] - rows[0]["loss"])
    trainer = ranks.trainer("six", whole=True)
    ranks.steps(trainer, "grpo")
    yield "summed once a step", apart(weights_of(plain), weights_of(trainer))


def on_disk(ranks: Ranks, want: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    folder = ranks.root / f"state-{ranks.layout}"
    trainer = ranks.trainer(host=True)
    samples, weights = ranks.share(batch(0, "sft"), LOSSES["sft"])
    trainer.step(samples, LOSSES["sft"], 1e-3, weights)
    states.save(trainer, folder)
    trained = ranks.steps(trainer, "sft", first=1)
    again = ranks.trainer()
    states.restore(again, folder)
    yield "restored metrics", ranks.steps(again, "sft", first=1) == trained
    yield "restored", apart(weights_of(trainer), weights_of(again))

    out = ranks.root / f"out-{ranks.layout}"
    if ranks.rank == 0:
        out.mkdir()
    dist.barrier()
    writing.export(trainer.model, trainer.how, out, 10**9)
    model: Any = load(out)
    yield "export", apart(dict(model.named_parameters()), weights_of(trainer))
    yield "sent", as_sent(trainer, out)
    if ranks.rank == 0:
        model.save(ranks.root / f"own-{ranks.layout}")
        files = [
            {path.name: path.read_bytes() for path in sorted(at.iterdir())}
            for at in (out, ranks.root / f"own-{ranks.layout}")
        ]
        yield "files", files[0] == files[1]
    yield (
        "size",
        states.size_on_disk(trainer)
        == 3 * sum(parameter.nbytes for parameter in model.parameters()),
    )


def uneven(ranks: Ranks, want: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Three experts a rank and two ranks that hold the same: along another dimension, or unlike."""
    for model in ("six", "odd"):
        trainer = ranks.trainer(model)
        samples, weights = ranks.share(batch(0, "sft"), LOSSES["sft"])
        metrics = trainer.step(samples, LOSSES["sft"], 1e-3, weights)
        row, trained = want[model]
        yield f"{model} loss", off([metrics], [row], "loss")
        yield f"{model} weights", apart(weights_of(trainer), trained)

        states.save(trainer, ranks.root / f"state-{model}")
        again = ranks.trainer(model)
        states.restore(again, ranks.root / f"state-{model}")
        yield f"{model} restored", apart(weights_of(trainer), weights_of(again))


def refused(ranks: Ranks, want: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for model in ("qwen3", "dense"):
        try:
            ranks.trainer(model)
        except UserError as error:
            yield model, str(error)


# Read after all ranks have gone, in a process group of one.
def by_another_layout(root: Path, want: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """States of many ranks, read by one, which goes on as one process does."""
    for layout in LAYOUTS:
        if not (root / f"state-{layout}").exists():
            continue
        own = sharding("cpu", 1)
        passing = Passing(WIDTH, WIDTH, whole_gradients=False)
        trainer = FsdpTrainer(load_sharded(root / "moe", own), OPTIM, own, passing)
        states.restore(trainer, root / f"state-{layout}")
        trainer.step(
            batch(1, "sft"), LOSSES["sft"], 1e-3, token_weights(batch(1, "sft"), LOSSES["sft"])
        )
        yield f"{layout} by one rank", apart(weights_of(trainer), want["sft"][1])


COMPARISONS = {
    "experts 2": (parity, on_disk, refused),
    "context 2": (parity, cuts, unequal, refused),
    "context 3": (cuts,),
    "experts 2 of 4": (unequal, uneven),
    "experts 2, context 2 of 4": (grpo, cuts, cheaper, on_disk),
}


def run(rank: int, root: Path, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    want: dict[str, Any] = torch.load(root / "want.pt")
    found: dict[str, Any] = {}
    # Whoever is done goes, rather than wait for its turn.
    for world in (4, 3, 2):
        if rank >= world:
            continue
        meet(root, f"of-{world}", rank, world)
        for layout, comparisons in COMPARISONS.items():
            if LAYOUTS[layout][0] != world or (names and layout not in names):
                continue
            for comparison in comparisons:
                for key, value in comparison(Ranks(root, rank, layout), want):
                    found[f"{layout}: {comparison.__name__} {key}"] = value
        # Nobody goes before all have come.
        dist.barrier()
        dist.destroy_process_group()
    if rank == 0:
        meet(root, "one", 0, 1)
        found |= dict(by_another_layout(root, want))
        dist.destroy_process_group()
    (root / f"rank-{rank}.json").write_text(json.dumps(found, indent=1))


def main(folder: str, *names: str) -> None:
    root = Path(folder)
    torch.set_num_threads(1)
    write_all(root)
    torch.save(expected(root), root / "want.pt")
    mp.spawn(run, (root, names), 4)
    found: dict[str, Any] = {}
    for rank in range(4):
        for key, value in json.loads((root / f"rank-{rank}.json").read_text()).items():
            # The worst of what the ranks found.
            both = [value, found.get(key, value)]
            if isinstance(value, bool):
                value = all(both)
            elif isinstance(value, float):
                value = max(both)
            found[key] = value
    (root / "found.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
