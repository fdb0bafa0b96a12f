"""Tries a model on the forward of its own code: linn must give the same numbers in every way.

Training computes packed rows; sampling prefills prompts of unequal lengths, and decodes from caches
whose rows are selected and joined. Each is compared with the stock forward of transformers, one
sequence at a time and without a cache.

Letters of shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from linn.engine.models.interface import CausalLM, State
from linn.engine.models.vocabulary import hide
from linn.types import Finding

TOLERANCE = 2e-3
"""Nats that a log-prob may differ by. Rounding in float32 stays under a tenth of it; a wrong cache,
mask or position is 0.07 and more."""
LENGTHS = (23, 9, 40, 1, 17)
"""Tokens of the texts that are tried: longer and shorter than each other, and one alone."""

Forward = Callable[[Tensor], Tensor]
"""Logits [T, V] of one sequence, int64 [T]."""


@dataclass(frozen=True)
class Trial:
    """A model, and what its own code makes of some texts."""

    model: CausalLM
    texts: Sequence[Tensor]
    """int64 [T] each."""
    expected: Sequence[Tensor]
    """Log-probs [T, V] of each text alone."""


Way = Callable[[Trial], Iterator[float]]
"""One way to compute the texts: how far each of its results is from what is expected, in nats."""


def stock_forward(inner: Any) -> Forward:
    """The forward of a transformers model, one sequence at a time without a cache."""

    def forward(ids: Tensor) -> Tensor:
        logits: Tensor = inner(input_ids=ids[None], use_cache=False).logits[0]
        return logits.float()

    return forward


def agreement(model: CausalLM, stock: Forward) -> list[Finding]:
    """What linn computes in each of its ways, against the stock forward."""
    longest = model.positions or max(LENGTHS)
    return _tried(
        model,
        stock,
        lengths=[min(length, longest) for length in LENGTHS],
        ways={
            "packed rows": _packed,
            "prompts of unequal lengths": _prefilled,
            "decoding with the cache": _decoded,
            "rows that leave and join": _joined,
        },
    )


def quick(model: CausalLM, stock: Forward) -> list[Finding]:
    """Two of them on a few tokens, for whoever reads a model that nobody has checked."""
    return _tried(
        model,
        stock,
        lengths=(5, 3),
        ways={"packed rows": _packed, "decoding with the cache": _decoded},
    )


def _tried(
    model: CausalLM, stock: Forward, lengths: Sequence[int], ways: Mapping[str, Way]
) -> list[Finding]:
    """A finding per way. The texts are random ids, the same for every model of a vocabulary."""
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(model.vocab, (length,), generator=draw) for length in lengths]
    expected = []
    try:
        with torch.no_grad():
            for text in texts:
                logits = hide(stock(text), model.absent)
                expected.append(logits.log_softmax(-1))
    except Exception as error:
        return [Finding("its own forward", False, _raised(error))]

    trial = Trial(model, texts, expected)
    return [_finding(what, way, trial) for what, way in ways.items()]


def _finding(what: str, way: Way, trial: Trial) -> Finding:
    """Whether all differences are rounding. What a family raises is a finding as well."""
    try:
        with torch.no_grad():
            worst = max(way(trial))
    except Exception as error:
        return Finding(what, False, _raised(error))
    found = f"log-probs differ by {worst:.1e} nats from its own forward"
    return Finding(what, worst <= TOLERANCE, found)


def _raised(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return f"raised {type(error).__name__}: {lines[0]}"


def _away(logits: Tensor, expected: Tensor) -> float:
    """The largest difference of log-probs; NaN counts as infinitely far."""
    if logits.shape != expected.shape:
        return float("inf")
    difference = (logits.log_softmax(-1) - expected).abs()
    return float(difference.nan_to_num(torch.inf).max())


# ---------------------------------------------------------------- the ways


def _packed(trial: Trial) -> Iterator[float]:
    """All texts in one row, with padding at its end."""
    sizes = [len(text) for text in trial.texts]
    total, padding = sum(sizes), 3
    ids = torch.zeros(1, total + padding, dtype=torch.int64)
    segments = torch.full_like(ids, -1)
    ids[0, :total] = torch.cat(list(trial.texts))
    segments[0, :total] = torch.repeat_interleave(torch.tensor(sizes))

    model = trial.model
    logits = model.head(model.hidden(ids, segments))[0, :total]
    for own, right in zip(logits.split(sizes), trial.expected, strict=True):
        yield _away(own, right)


def _prefilled(trial: Trial) -> Iterator[float]:
    """All texts as prompts."""
    logits, _ = trial.model.prefill([text.tolist() for text in trial.texts])
    for row, right in zip(logits, trial.expected, strict=True):
        yield _away(row, right[-1])


def _decoded(trial: Trial) -> Iterator[float]:
    """The first half of each text as its prompt, then a few tokens of the other half."""
    halves = [(text, len(ids) // 2) for text, ids in enumerate(trial.texts) if len(ids) > 1]
    rest = min(len(trial.texts[text]) - half for text, half in halves)
    running = _Running(trial)
    running.join(halves)
    yield from running.feed(min(rest, 3))


def _joined(trial: Trial) -> Iterator[float]:
    """Siblings, rows that leave, and newcomers shorter and longer than who is there."""
    longest = len(trial.texts[2])
    running = _Running(trial)
    running.join([(0, 5), (2, 4)])
    running.select([1, 0, 1])
    yield from running.feed(1)
    running.join([(4, 3), (2, longest - 3)])
    yield from running.feed(2)
    running.select([3, 4])
    running.join([(2, 2)])
    running.select([0, 2])
    yield from running.feed(1)


class _Running:
    """A running batch whose rows read known texts."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.rows: list[tuple[int, int]] = []
        """(text, tokens of it that were fed) of each row."""
        self.state: State | None = None

    def join(self, rows: Sequence[tuple[int, int]]) -> None:
        """Prefill newcomers, and let them in behind those who are there."""
        prompts = [self.trial.texts[text][:fed].tolist() for text, fed in rows]
        _, newcomers = self.trial.model.prefill(prompts)
        if self.state is None:
            self.state = newcomers
        else:
            self.state = self.state.join(newcomers)
        self.rows += rows

    def select(self, rows: list[int]) -> None:
        """Go on with these rows; the same one twice makes siblings."""
        assert self.state is not None
        self.state = self.state.select(torch.tensor(rows))
        self.rows = [self.rows[row] for row in rows]

    def feed(self, times: int) -> Iterator[float]:
        """Each row's next tokens, one by one; how far every log-prob after them is away."""
        assert self.state is not None
        for _ in range(times):
            ids = torch.stack([self.trial.texts[text][fed] for text, fed in self.rows])
            logits, self.state = self.trial.model.decode(ids, self.state)
            self.rows = [(text, fed + 1) for text, fed in self.rows]
            for row, (text, fed) in enumerate(self.rows):
                yield _away(logits[row], self.trial.expected[text][fed - 1])
