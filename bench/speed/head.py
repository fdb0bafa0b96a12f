"""The head and the loss alone: linn's chunks against all logits at once.

    python -m bench.speed.head [--vocab 131072] [--hidden 128] [--positions 1024] [--rounds 3]

GRPO with KL on random tokens, one thread, float32: CPU seconds and by how much the process grows,
in turn, medians. `share`: that growth beside float32 logits of all positions with their gradient.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from torch import Tensor, nn

from bench.speed.prompts import measured
from linn.engine.training.losses import OBJECTIVES, Signal, backward, trained_states
from linn.engine.training.pack import Packed, micro_batches
from linn.types import Loss, Sample

LOSS = Loss("grpo", kl=0.03)
WORDS = 512


class Head(nn.Module):
    """Nothing but embeddings of a few tokens and a head."""

    absent = None

    def __init__(self, vocab: int, size: int) -> None:
        super().__init__()
        self.vocab = vocab
        self.embed = nn.Embedding(WORDS, size)
        self.lm_head = nn.Linear(size, vocab, bias=False)

    def hidden(self, ids: Tensor, segments: Tensor) -> Tensor:
        """[R, W, H]."""
        out: Tensor = self.embed(ids)
        return out

    def head(self, hidden: Tensor) -> Tensor:
        """[N, V]."""
        out: Tensor = self.lm_head(hidden)
        return out


def all_logits(model: Any, packed: Packed) -> None:
    """The same loss and entropy by autograd, over one log-softmax."""
    hidden, targets = trained_states(model, packed)
    logp = torch.log_softmax(model.head(hidden), dim=-1)
    with torch.no_grad():
        -(logp.exp() * logp).sum(-1)
    chosen = logp.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    value, _ = OBJECTIVES[LOSS.kind](chosen, Signal.of(packed), LOSS)
    torch.autograd.backward(value)


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab", type=int, default=131_072)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--positions", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)

    model: Any = Head(options.vocab, options.hidden)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    size = options.positions + 1
    ids = torch.randint(WORDS, (size,)).tolist()
    sample = Sample(ids, [True] * size, [0.5] * size, [-11.0] * size, [-11.2] * size)
    (packed,) = micro_batches([sample], [1 / size], size, size)

    ways = {
        "all logits": lambda: all_logits(model, packed),
        "linn": lambda: backward(model, packed, LOSS),
    }
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, run in ways.items():
            figures = measured(run)
            if number:  # the first warms up
                found[name].append(figures)
    whole = 2 * 4 * options.positions * options.vocab
    for name, rows in found.items():
        seconds = statistics.median(spent for spent, _ in rows)
        grown = statistics.median(bytes_ for _, bytes_ in rows)
        print(f"{name:10} {seconds:7.3f} CPU-s  {grown / 1e6:6.0f} MB  share {grown / whole:.3f}")


if __name__ == "__main__":
    main()
