"""What every model family must do, checked against each sequence alone: pack and decode."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from linn.engine.models.interface import CausalLM, State


def packed_rows(rows: Sequence[Sequence[Tensor]], width: int) -> tuple[Tensor, Tensor]:
    """ids and segments, int64 [R, W], of rows of segments; segment numbers start anew per row."""
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    segments = torch.full((len(rows), width), -1)
    for r, row in enumerate(rows):
        start = 0
        for number, segment in enumerate(row):
            end = start + len(segment)
            ids[r, start:end] = segment
            segments[r, start:end] = number
            start = end
    return ids, segments


class RunningBatch:
    """A running batch whose rows read known texts; its logits are compared after every move."""

    def __init__(
        self,
        model: CausalLM,
        texts: Sequence[Tensor],
        expected: Sequence[Tensor],
        as_sampled: bool = False,
    ):
        """expected: log-probs [T, V] of each text, computed alone.

        as_sampled: states pass through `CausalLM.siblings`, as the sampler's do.
        """
        self.model = model
        self.as_sampled = as_sampled
        self.texts = texts
        self.expected = expected
        self.rows: list[tuple[int, int]] = []
        """(text, tokens of it fed so far), one pair per row."""
        self.state: State

    def start(self, *rows: tuple[int, int]) -> None:
        """Prefill these (text, tokens)."""
        logits, self.state = self._prefill(rows)
        self.rows = list(rows)
        self._compare(logits)

    def select(self, *rows: int) -> None:
        """Go on with these rows alone; the same one twice makes siblings."""
        self.state = self.state.select(torch.tensor(rows))
        self.rows = [self.rows[row] for row in rows]

    def join(self, *rows: tuple[int, int]) -> None:
        """Let newcomers in, (text, tokens) each."""
        _, newcomers = self._prefill(rows)
        self.state = self.state.join(newcomers)
        self.rows += rows

    def feed(self, times: int = 1) -> None:
        """Decode the next tokens of every row's text."""
        for _ in range(times):
            ids = torch.stack([self.texts[text][fed] for text, fed in self.rows])
            logits, self.state = self.model.decode(ids, self.state)
            self.rows = [(text, fed + 1) for text, fed in self.rows]
            self._compare(logits)

    def extend(self, *counts: int) -> None:
        """Feed so many of the next tokens of each row's text in one pass."""
        rows = [
            (text, fed, fed + more) for (text, fed), more in zip(self.rows, counts, strict=True)
        ]
        tokens = [self.texts[text][first:last].tolist() for text, first, last in rows]
        hidden, self.state = self.model.extend(tokens, self.state)
        expected = torch.cat([self.expected[text][first:last] for text, first, last in rows])
        with torch.no_grad():
            logprobs = self.model.head(hidden).log_softmax(-1)
        torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=0)
        self.rows = [(text, last) for text, _, last in rows]

    def _prefill(self, rows: Sequence[tuple[int, int]]) -> tuple[Tensor, State]:
        logits, state = self.model.prefill([self.texts[text][:fed].tolist() for text, fed in rows])
        if self.as_sampled:
            state = self.model.siblings(state, torch.arange(len(rows)))
        return logits, state

    def _compare(self, logits: Tensor) -> None:
        assert logits.shape == (len(self.rows), self.model.vocab)
        assert logits.dtype == torch.float32
        expected = torch.stack([self.expected[text][fed - 1] for text, fed in self.rows])
        torch.testing.assert_close(logits.log_softmax(-1), expected, atol=1e-5, rtol=0)
