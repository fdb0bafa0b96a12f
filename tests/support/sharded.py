"""Two ranks on this machine that train the same batches by linn's trainer and over shards.

`python -m support.sharded FOLDER` runs them; what they found comes as `FOLDER/found.json`. One
start of torch in two processes for all comparisons, since it costs more than they do.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from linn.engine.local.dealing import deal, deal_samples
from linn.engine.models.load import load
from linn.engine.training.token_weights import moves, token_weights
from linn.engine.training.trainer import Trainer
from linn.engine.training.trees import first_trained
from linn.errors import UserError
from linn.scale import states, writing
from linn.scale.fsdp import FsdpTrainer
from linn.scale.options import Passing
from linn.scale.reading import load_sharded
from linn.scale.sharding import Sharding
from linn.types import Loss, Optim, Sample
from support.shared import siblings

VOCAB = 48
WIDTH = 96
STEPS = 2
OPTIM = Optim(clip=0.5, weight_decay=0.1)
MODELS = ("moe", "dense", "qwen3")
LOSSES = {
    "sft": Loss("sft"),
    "grpo": Loss("grpo", kl=0.03),
    "mopd": Loss("mopd", normalise="sequence", band=(0.0, 1e9)),
}


def write_models(folder: Path) -> None:
    """A MoE hybrid; a dense hybrid and one of transformers' families, with tied embeddings."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    for name, pattern in (("moe", "MEM*E"), ("dense", "M-*-")):
        keys = {"hybrid_override_pattern": pattern, "tie_word_embeddings": name == "dense"}
        write_hybrid(folder / name, keys)

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).float().save_pretrained(folder / "qwen3")


def write_hybrid(folder: Path, keys: dict[str, Any]) -> None:
    """A tiny Nemotron-H whose config has these keys."""
    from linn.bases.make import tiny_config
    from linn.engine.models.nemotron_h.model import NemotronH

    model = NemotronH(tiny_config(VOCAB) | keys, folder / "config.json")
    model.initialise(0)
    with torch.no_grad():  # a new model is too close to uniform to show a difference
        model.lm_head.weight.mul_(8)
    model.save(folder)


def batch(step: int, kind: str, count: int = 9) -> list[Sample]:
    """Random samples of uneven lengths; the same in every process."""
    draw = random.Random(step)
    samples = []
    for number in range(count):
        length = draw.randint(5, 80)
        prompt = draw.randint(1, length // 2)
        mask = [token >= prompt for token in range(length)]
        noise = [-4 + draw.random() / 10 if trained else 0.0 for trained in mask]
        sft = kind == "sft"
        samples.append(
            Sample(
                tokens=[draw.randrange(VOCAB) for _ in range(length)],
                mask=mask,
                advantage=[1.0 if sft else draw.choice((-1.0, 1.0))] * length,
                behaviour=None if sft else noise,
                teacher=None if sft else [value - 0.3 for value in noise],
                domain="d",
                source=str(number),
                group=number // 4,
            )
        )
    return samples


@dataclass
class Ranks:
    """What one of the ranks knows."""

    root: Path
    rank: int
    world: int

    def how(self, bfloat16: bool = False, recompute: bool = False) -> Sharding:
        return Sharding(init_device_mesh("cpu", (self.world,)), bfloat16, recompute)

    def sharded(self, model: str, whole: bool = True, host: bool = False, **how: bool) -> Any:
        sharding = self.how(**how)
        passing = Passing(WIDTH, WIDTH, whole_gradients=whole)
        return FsdpTrainer(
            load_sharded(self.root / model, sharding), OPTIM, sharding, passing, host
        )

    def local(self, model: str) -> Trainer:
        return Trainer(load(self.root / model), OPTIM, width=WIDTH, tokens=WIDTH)

    def share(self, samples: Sequence[Sample], loss: Loss) -> tuple[list[Sample], list[float]]:
        weights = token_weights(samples, loss)
        lengths = [len(sample.tokens) if moves(sample, loss) else 0 for sample in samples]
        own = deal(lengths, self.world)[self.rank]
        return [samples[i] for i in own], [weights[i] for i in own]

    def steps(self, trainer: Any, kind: str, first: int = 0) -> list[dict[str, float]]:
        """Train; the metrics of each step."""
        loss = LOSSES[kind]
        rows = []
        for step in range(first, STEPS):
            samples, weights = self.share(batch(step, kind), loss)
            rows.append(trainer.step(samples, loss, 1e-3, weights))
        return rows


def weights_of(trainer: Any) -> dict[str, Tensor]:
    """The whole policy."""
    module = trainer.root if isinstance(trainer, FsdpTrainer) else trainer.model
    whole = {}
    for name, value in module.named_parameters():
        whole[name] = value.full_tensor() if isinstance(value, DTensor) else value
    return {name: value.detach().clone() for name, value in whole.items()}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of two policies; 0.0 is the same bits."""
    with torch.no_grad():
        return max(float((one[name] - other[name]).abs().max()) for name in one)


# ---------------------------------------------------------------- comparisons


def parity(ranks: Ranks) -> Iterator[tuple[str, Any]]:
    """Every objective and kind of model, beside linn's trainer in as many processes."""
    for model in MODELS:
        for kind in LOSSES:
            plain = ranks.local(model)
            expected = ranks.steps(plain, kind)
            for name, whole in (("step", True), ("micro_batch", False)):
                if not whole and kind != "mopd":
                    continue  # another order of sums is one for all objectives
                trainer = ranks.sharded(model, whole)
                metrics = ranks.steps(trainer, kind)
                key = f"{model} {kind} {name}"
                yield f"{key} weights", apart(weights_of(plain), weights_of(trainer))
                yield f"{key} metrics", metrics == expected
                gaps = [abs(a["loss"] - b["loss"]) for a, b in zip(metrics, expected, strict=True)]
                yield f"{key} loss", max(gaps)


def shared(ranks: Ranks) -> Iterator[tuple[str, Any]]:
    """Siblings that share their prompt; a family of transformers computes each anew."""
    batch = siblings([(30, [4, 9, 1]), (2, [20, 3]), (11, [6] * 5), (50, [8])])
    loss = LOSSES["grpo"]
    whole = token_weights(batch, loss)
    own = deal_samples(batch, [True] * len(batch), ranks.world, WIDTH)[ranks.rank]
    samples, weights = [batch[i] for i in own], [whole[i] for i in own]
    prompts = [first_trained(sample) for sample in samples]
    for model in MODELS:
        plain = Trainer(
            load(ranks.root / model),
            OPTIM,
            width=WIDTH,
            tokens=WIDTH,
            share=model != "qwen3",
        )
        passing = Passing(WIDTH, WIDTH, whole_gradients=True, share_prompts=True)
        sharding = ranks.how()
        trainer = FsdpTrainer(load_sharded(ranks.root / model, sharding), OPTIM, sharding, passing)
        sequences = [sample.tokens for sample in samples]
        scores = [one.score(sequences, 1.0, prompts) for one in (plain, trainer)]
        yield f"{model} scores", scores[0] == scores[1]
        expected = plain.step(samples, loss, 1e-3, weights)
        yield f"{model} metrics", trainer.step(samples, loss, 1e-3, weights) == expected
        yield f"{model} weights", apart(weights_of(plain), weights_of(trainer))


def unequal(ranks: Ranks) -> Iterator[tuple[str, Any]]:
    """All samples on one rank and none on the other; an id that one rank alone refuses."""
    samples, loss = batch(0, "sft"), LOSSES["sft"]
    weights = token_weights(samples, loss)
    for model in ("moe", "qwen3"):
        plain = ranks.local(model)
        trainer = ranks.sharded(model)
        all_, none = (samples, weights), ([], [])
        own = all_ if ranks.rank == 0 else none
        metrics = trainer.step(own[0], loss, 1e-3, own[1])
        expected = plain.step(own[0], loss, 1e-3, own[1])
        yield f"{model} weights", apart(weights_of(plain), weights_of(trainer))
        yield f"{model} loss", abs(metrics["loss"] - expected["loss"])

        before = weights_of(trainer)
        strange = Sample([1, VOCAB + 5], [False, True], [1.0, 1.0])
        try:
            trainer.step([strange] if ranks.rank == 1 else samples, loss, 1e-3, [1.0] * 9)
            raised = "nothing"
        except Exception as error:
            raised = type(error).__name__
        yield f"{model} refusal {ranks.rank}", raised
        yield f"{model} changed by it", apart(before, weights_of(trainer))


def scores(ranks: Ranks) -> Iterator[tuple[str, Any]]:
    """Log-probs over shards are linn's, and a policy scored by itself has no gap at all."""
    sequences = [sample.tokens for sample in batch(3, "sft")] + [[7]]
    own = [sequences[i] for i in deal([len(ids) for ids in sequences], ranks.world)[ranks.rank]]
    for model in MODELS:
        plain, trainer = ranks.local(model), ranks.sharded(model)
        yield f"{model} equal", plain.score(own, 0.7) == trainer.score(own, 0.7)
        # A step in between: what was gathered for scores must not be used again.
        ranks.steps(plain, "sft")
        ranks.steps(trainer, "sft")
        yield f"{model} equal after steps", plain.score(own) == trainer.score(own)


def cheaper(ranks: Ranks) -> Iterator[tuple[str, Any]]:
    """Keys that save memory: the same bits in float32, close in bfloat16."""
    for model in ("moe", "qwen3"):
        first = ranks.sharded(model, whole=False)
        expected = ranks.steps(first, "grpo")
        trainer = ranks.sharded(model, whole=False, recompute=True, host=True)
        ranks.steps(trainer, "grpo")
        yield f"{model} recompute, host", apart(weights_of(first), weights_of(trainer))
        trainer = ranks.sharded(model, whole=False, bfloat16=True, recompute=True)
        rows = ranks.steps(trainer, "grpo")
        yield f"{model} bfloat16 loss", abs(rows[0]["loss"] - expected[0]["loss"])
        yield f"{model} bfloat16 weights", apart(weights_of(first), weights_of(trainer))
        kept = {str(value.dtype) for value in trainer.root.parameters()}
        yield f"{model} bfloat16 kept in", sorted(kept)


def on_disk(ranks: Ranks) -> Iterator[tuple[str, Any]]:
    """States and exports."""
    for model in MODELS:
        trainer = ranks.sharded(model)
        loss = LOSSES["sft"]
        samples, weights = ranks.share(batch(0, "sft"), loss)
        trainer.step(samples, loss, 1e-3, weights)
        states.save(trainer, ranks.root / f"state-{model}")
        trained = ranks.steps(trainer, "sft", first=1)

        again = ranks.sharded(model)
        states.restore(again, ranks.root / f"state-{model}")
        yield f"{model} restored metrics", ranks.steps(again, "sft", first=1) == trained
        yield f"{model} restored", apart(weights_of(trainer), weights_of(again))

        plain = ranks.local(model)
        ranks.steps(plain, "sft")
        for size in (10**9, 60_000):
            folder, own = ranks.root / f"out-{model}-{size}", ranks.root / f"own-{model}-{size}"
            if ranks.rank == 0:
                folder.mkdir()
                plain.model.save(own, size)
            dist.barrier()
            writing.export(trainer.model, trainer.how, folder, size)
            files = [{p.name: p.read_bytes() for p in sorted(at.iterdir())} for at in (folder, own)]
            yield f"{model} export of {size}", files[0] == files[1]
        yield f"{model} sent", as_sent(trainer, ranks.root / f"out-{model}-{10**9}")
        try:
            states.restore(again, ranks.root / "state-moe" / "..")
        except UserError as error:
            yield f"{model} no state", str(error)
    other = ranks.sharded("dense")
    try:
        states.restore(other, ranks.root / "state-moe")
    except UserError as error:
        yield "another model", str(error)


@torch.no_grad()
def as_sent(trainer: FsdpTrainer, exported: Path) -> dict[str, bool]:
    """Whether samplers are sent what is exported, by its names in files and by those in models."""
    by_file_name = dict(writing.saved_tensors(trainer.model, trainer.how))
    by_name = dict(writing.held_tensors(trainer.model, trainer.how))
    want: Any = load(exported)
    came: Any = load(exported)
    for value in came.state_dict().values():
        value.zero_()
    left = came.load_state_dict(by_name, strict=False)
    found = {
        "no name is unknown": not left.unexpected_keys,
        "by name": same(came.state_dict(), want.state_dict()),
    }
    # Where a family's own code names the tensors, the first rank alone has them.
    if dist.get_rank() == 0:
        (file,) = exported.glob("*.safetensors")
        found["by file name"] = same(by_file_name, load_file(file))
    return found


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """The same names, and equal tensors."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def alone(root: Path) -> Iterator[tuple[str, Any]]:
    """A state of two ranks, read by one, which goes on as one process does."""
    one = Ranks(root, 0, 1)
    for model in MODELS:
        trainer = one.sharded(model)
        states.restore(trainer, root / f"state-{model}")
        one.steps(trainer, "sft", first=1)
        want = load(root / f"out-{model}-{10**9}")
        yield f"{model} by one rank", apart(dict(want.named_parameters()), weights_of(trainer))  # type: ignore[attr-defined]


COMPARISONS: tuple[Callable[[Ranks], Iterator[tuple[str, Any]]], ...] = (
    parity,
    shared,
    unequal,
    scores,
    cheaper,
    on_disk,
)


def meet(root: Path, name: str, rank: int, world: int) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{root}/{name}",
        rank=rank,
        world_size=world,
        timeout=timedelta(minutes=10),
    )


def run(rank: int, root: Path, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    meet(root, "two", rank, 2)
    found: dict[str, Any] = {}
    for comparison in COMPARISONS:
        if comparison.__name__ in names or not names:
            for key, value in comparison(Ranks(root, rank, 2)):
                found[f"{comparison.__name__}: {key}"] = value
    (root / f"rank-{rank}.json").write_text(json.dumps(found, indent=1))
    dist.destroy_process_group()
    if rank == 0 and not names:
        meet(root, "one", 0, 1)
        found |= {f"alone: {key}": value for key, value in alone(root)}
        (root / "rank-0.json").write_text(json.dumps(found, indent=1))
        dist.destroy_process_group()


def main(folder: str, *names: str) -> None:
    root = Path(folder)
    write_models(root)
    mp.spawn(run, (root, names), 2)
    found = json.loads((root / "rank-1.json").read_text())
    found |= json.loads((root / "rank-0.json").read_text())
    (root / "found.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
