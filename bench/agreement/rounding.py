"""What the rounding of an export costs: log-probs of a trained model in float32 and in bfloat16.

    python -m bench.agreement.rounding MODEL [--steps N] [--lr RATE]

MODEL, a folder whose tokenizer has `<|im_end|>`, is rounded to bfloat16, as a base is. SFT on
sentences about sums follows; then new sentences are scored. The nearest number of bfloat16 is what
other trainers write, a draw between the two nearest is what `linn export` does.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from linn.chat.codec import Codec
from linn.engine.models.load import load
from linn.engine.models.rounding import by_chance
from linn.engine.training.losses import score
from linn.engine.training.trainer import Trainer
from linn.run.export import export_checkpoint
from linn.types import Loss, Message, Optim, Sample

BATCH = 4
HELD_OUT = 24


def sample(codec: Codec, rng: random.Random) -> Sample:
    """A question and its answer, which is trained."""
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    question = f"What is {a} plus {b}? Answer in one sentence."
    answer = f"The sum of {a} and {b} is {a + b}, because {a} plus {b} makes {a + b}."
    messages = (Message("user", question), Message("assistant", answer))
    ids, mask = codec.encode_spans(codec.template.spans(messages, (), False))
    return Sample(ids, mask, [float(trained) for trained in mask], domain="sums", source="")


def answers(trainer: Trainer, samples: Sequence[Sample]) -> list[float]:
    """Log-probs of the tokens of all answers."""
    rows = score(trainer.model, [one.tokens for one in samples])
    values = []
    for one, row in zip(samples, rows, strict=True):
        values += [value for value, trained in zip(row, one.mask, strict=True) if trained]
    return values


def row(what: str, values: Sequence[float], exact: Sequence[float]) -> str:
    """A row of the table: the mean, and how far single tokens are off."""
    mean = sum(values) / len(values)
    off = sum(abs(a - b) for a, b in zip(values, exact, strict=True)) / len(values)
    return f"| {what} | {mean:.4f} | {off:.4f} |"


def main() -> None:
    """Train, round in both ways, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--lr", type=float, default=2e-6)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as home:
        base = export_checkpoint(arguments.model, Path(home) / "base", dtype="bfloat16")
        codec = Codec.load(base, "nemotron")
        trainer = Trainer(load(base), Optim())
    rng = random.Random(0)
    held_out = [sample(codec, rng) for _ in range(HELD_OUT)]
    before = answers(trainer, held_out)
    for _ in range(arguments.steps):
        trainer.step([sample(codec, rng) for _ in range(BATCH)], Loss("sft"), arguments.lr)
    exact = answers(trainer, held_out)

    print("| weights | log-prob of a token | differs from float32 by |")
    print("|---|---|---|")
    print(row("the bfloat16 base", before, exact))
    print(row(f"after {arguments.steps} steps at {arguments.lr:g}, float32", exact, exact))
    ways: dict[str, Callable[[str, Tensor], Tensor]] = {
        "… the nearest bfloat16": lambda name, value: value.bfloat16(),
        "… as `linn export` rounds": lambda name, value: by_chance(value, torch.bfloat16, name),
    }
    module: torch.nn.Module = trainer.model  # type: ignore[assignment]
    trained = {name: value.clone() for name, value in module.named_parameters()}
    for what, rounded in ways.items():
        with torch.no_grad():
            for name, value in module.named_parameters():
                value.copy_(rounded(name, trained[name]).float())
        print(row(what, answers(trainer, held_out), exact), flush=True)


if __name__ == "__main__":
    main()
