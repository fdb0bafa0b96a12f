"""Plain transformers: `generate` in sorted batches, and training row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench.peers import workload
from bench.peers.turns import Turns

BATCH = 32
"""Replies that `generate` makes together."""


def _model(task: dict[str, Any]) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(
        Path(task["folder"]), dtype="float32", attn_implementation="sdpa"
    )


def rollout(task: dict[str, Any], turns: Turns) -> None:
    """Prompts of like length together, so that little is padded."""
    groups = workload.GROUPS["rollout"]
    lengths = workload.LENGTHS[task["lengths"]]
    stops = torch.tensor(lengths.stops)
    model = _model(task).eval()
    asked = [ids for ids in workload.prompts_of(groups) for _ in range(groups.siblings)]
    asked.sort(key=len)
    more: dict[str, Any] = {"max_new_tokens": lengths.most}
    if task["setting"].get("cache"):
        more["cache_implementation"] = task["setting"]["cache"]

    def sample() -> int:
        tokens = 0
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            ids, mask = _left_padded(batch)
            made = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, **more
            )
            # A reply counts up to its first stop, and with it.
            stopped = torch.isin(made[:, ids.shape[1] :], stops).int()
            tokens += int((stopped.cumsum(1) == stopped).sum())
        return tokens

    turns.play(sample)


def _left_padded(batch: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    widest = max(len(ids) for ids in batch)
    ids = torch.tensor([[0] * (widest - len(row)) + row for row in batch])
    mask = torch.tensor([[0] * (widest - len(row)) + [1] * len(row) for row in batch])
    return ids, mask


def sft(task: dict[str, Any], turns: Turns) -> None:
    """One row at a time, no padding: backward for each, one AdamW step for all."""
    rows = workload.rows_of_text()
    tokens = workload.trained_tokens(rows)
    model = _model(task).train()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=workload.LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )

    def step() -> int:
        for row in rows:
            ids = torch.tensor([row])
            # Weighted so that their sum is the mean over all tokens, as in a packed step.
            loss = model(input_ids=ids, labels=ids).loss * (len(row) - 1) / tokens
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return tokens

    turns.play(step)
