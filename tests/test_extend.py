"""Tokens that are fed several at a time leave what they leave one at a time."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from support.slot_toy import small_hybrid
from torch import Tensor

from linn.engine.models.nemotron_h import behind
from linn.engine.models.nemotron_h import model as model_file

VOCAB = 32


def texts(draw: random.Random, rows: int, longest: int) -> list[list[int]]:
    """Random tokens of random lengths."""
    return [[draw.randrange(VOCAB) for _ in range(draw.randint(1, longest))] for _ in range(rows)]


def gap(logits: Tensor, right: Tensor) -> float:
    """The largest difference of log-probs."""
    return float((logits.log_softmax(-1) - right.log_softmax(-1)).abs().max())


@torch.no_grad()
@pytest.mark.parametrize("most", [7, 40, 3072])
@pytest.mark.parametrize("scores", [1, 500, 2**22])
@pytest.mark.parametrize(
    "changes", [{}, {"moe_latent_size": 16, "n_groups": 1}, {"conv_kernel": 2}, {"conv_kernel": 1}]
)
def test_every_token_is_as_in_the_whole_text(
    changes: dict[str, Any], scores: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was decoded before and between, and in however many parts it is computed."""
    monkeypatch.setattr(model_file, "CPU_PREFILL_TOKENS", most)
    monkeypatch.setattr(behind, "_SCORES", scores)
    model: Any = small_hybrid(seed=3, **changes)
    assert model.extends
    for seed in range(4):
        draw = random.Random(seed)
        rows = draw.choice([1, 3, 9])
        whole = texts(draw, rows, longest=50)
        _, state = model.prefill(whole)
        for longest in (1, 4, 70):
            for _ in range(draw.randint(0, 3)):
                newest = [draw.randrange(VOCAB) for _ in range(rows)]
                _, state = model.decode(torch.tensor(newest), state)
                whole = [[*text, token] for text, token in zip(whole, newest, strict=True)]

            fed = texts(draw, rows, longest)
            hidden, state = model.extend(fed, state)
            logits = model.head(hidden).split([len(own) for own in fed])
            for row, (text, own) in enumerate(zip(whole, fed, strict=True)):
                for place in {0, len(own) // 2, len(own) - 1}:
                    right, _ = model.prefill([[*text, *own[: place + 1]]])
                    assert gap(logits[row][place], right[0]) < 2e-4
            whole = [[*text, *own] for text, own in zip(whole, fed, strict=True)]

        order = torch.randperm(rows)
        newest = [draw.randrange(VOCAB) for _ in range(rows)]
        got, _ = model.decode(torch.tensor(newest), state.select(order))
        right, _ = model.prefill(
            [[*whole[row], token] for row, token in zip(order.tolist(), newest, strict=True)]
        )
        assert gap(got, right) < 2e-4


def test_the_state_before_stays_as_it_was() -> None:
    model: Any = small_hybrid(seed=1)
    prompts = [[1, 2, 3, 4], [5, 6]]
    _, state = model.prefill(prompts)
    _, fresh = model.prefill(prompts)
    for fed in ([[7], [8, 9, 10]], [[7] * 80, [8]]):
        model.extend(fed, state)
        token = torch.tensor([3, 4])
        got, _ = model.decode(token, state.select(torch.arange(2)))
        right, _ = model.decode(token, fresh.select(torch.arange(2)))
        assert torch.equal(got, right)
