"""The smallest causal language model with a state: one leaky recurrence per channel.

It is computed the same way packed and step by step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ToyState:
    """h [B, H]."""

    h: Tensor

    def select(self, rows: Tensor, move: bool = False) -> ToyState:
        return ToyState(self.h[rows])

    def join(self, *others: ToyState, move: bool = False, rows: Tensor | None = None) -> ToyState:
        own = self if rows is None else self.select(rows)
        return ToyState(torch.cat([state.h for state in (own, *others)]))


class ToyLM(nn.Module):
    """h_t = sigmoid(decay)·h_{t-1} + embed(x_t), reset at segment starts; logits = W tanh(h)."""

    packs = True
    shares = True
    positions = None
    absent = None
    recompute = False
    extends = True

    def __init__(self, vocab: int = 17, size: int = 8, seed: int = 0) -> None:
        super().__init__()
        self.vocab, self.size = vocab, size
        draw = torch.Generator().manual_seed(seed)
        self.embed = nn.Parameter(torch.randn(vocab, size, generator=draw))
        self.decay = nn.Parameter(torch.randn(size, generator=draw))
        self.out = nn.Parameter(torch.randn(vocab, size, generator=draw))

    def hidden(self, ids: Tensor, segments: Tensor, continues: Tensor | None = None) -> Tensor:
        rows, h, states = torch.arange(len(ids)), torch.zeros(ids.shape[0], self.size), []
        before = torch.cat([torch.full_like(segments[:, :1], -2), segments[:, :-1]], dim=1)
        for t in range(ids.shape[1]):
            start = torch.zeros_like(h)
            goes_on = torch.zeros(len(ids), dtype=torch.bool)
            if continues is not None and t:
                goes_on = (continues[:, t] >= 0) & (segments[:, t] != before[:, t])
            if continues is not None and goes_on.any():
                # The state after the last token of the segment that this one goes on from.
                is_source = segments[:, :t] == continues[:, t, None]
                last = (is_source * torch.arange(1, t + 1)).amax(1)
                source = torch.stack(states, dim=1)[rows, (last - 1).clamp_min(0)]
                start = torch.where(goes_on[:, None], source, start)
            keep = (segments[:, t] == before[:, t]).unsqueeze(1)
            h = torch.sigmoid(self.decay) * torch.where(keep, h, start) + self.embed[ids[:, t]]
            states.append(h)
        return torch.tanh(torch.stack(states, dim=1))

    def head(self, hidden: Tensor) -> Tensor:
        return (hidden @ self.out.T).float()

    def row_bytes(self, columns: int) -> int:
        return 4 * (self.size + columns)

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, ToyState]:
        rows = []
        for prompt in prompts:
            h = torch.zeros(self.size)
            for token in prompt:
                h = torch.sigmoid(self.decay) * h + self.embed[token]
            rows.append(h)
        state = ToyState(torch.stack(rows))
        return self.head(torch.tanh(state.h)), state

    def siblings(self, state: ToyState, owners: Tensor) -> ToyState:
        return state.select(owners)

    @torch.no_grad()
    def decode(self, ids: Tensor, state: ToyState) -> tuple[Tensor, ToyState]:
        h = torch.sigmoid(self.decay) * state.h + self.embed[ids]
        return self.head(torch.tanh(h)), ToyState(h)

    @torch.no_grad()
    def extend(self, tokens: Sequence[Sequence[int]], state: ToyState) -> tuple[Tensor, ToyState]:
        hidden, rows = [], []
        for own, h in zip(tokens, state.h, strict=True):
            for token in own:
                h = torch.sigmoid(self.decay) * h + self.embed[token]
                hidden.append(torch.tanh(h))
            rows.append(h)
        return torch.stack(hidden), ToyState(torch.stack(rows))

    def save(self, folder: Path, shard_bytes: int = 0) -> None:
        (folder / "config.json").write_text(json.dumps({"vocab": self.vocab, "size": self.size}))
        safetensors.torch.save_file(self.state_dict(), folder / "model.safetensors")


def load(folder: Path) -> ToyLM:
    """What `ToyLM.save` wrote."""
    model = ToyLM(**json.loads((folder / "config.json").read_text()))
    model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    return model
