"""Amounts of work and memory, and the price of a recipe that they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linn.pricing.assumptions import DOMAINS, Assumptions
from linn.pricing.layout import Layout
from linn.pricing.memory import Memory
from linn.pricing.prompt_lengths import Lengths
from linn.pricing.shape import Shape


@dataclass(frozen=True)
class Amount:
    """Work of a stage under one reading; a sum of amounts is an amount."""

    groups: float = 0.0
    """Prompts sampled, refills included."""
    rollouts: float = 0.0
    """Conversations held."""
    sampled: float = 0.0
    """Tokens that the policy samples."""
    trained: float = 0.0
    """Tokens that go through a training step, prompts and environment turns included."""
    scored: float = 0.0
    """Tokens scored under another model: MOPD's teachers, the reference of RLHF's KL."""
    sampling_flops: float = 0.0
    """FLOPs of prompts read and tokens decoded."""
    training_flops: float = 0.0
    """FLOPs of training: three times the forward pass, no recomputation."""
    scoring_flops: float = 0.0
    """FLOPs of scoring: the forward pass."""
    device_s: float = 0.0
    """Device-seconds of all that."""
    core_s: float = 0.0
    """Core-seconds of verifiers."""
    judge_calls: float = 0.0
    """Questions to judge models."""
    judge_tokens: float = 0.0
    """Tokens that judge models read and write."""

    def __add__(self, other: Amount) -> Amount:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Amount(*(mine + others for mine, others in pairs))

    @property
    def flops(self) -> float:
        """FLOPs of everything on the run's own devices."""
        return self.sampling_flops + self.training_flops + self.scoring_flops


@dataclass(frozen=True)
class StagePrice:
    """One stage."""

    name: str
    """The stage's name."""
    kind: str
    """sft, rl or distill."""
    updates: int
    """Optimiser steps."""
    expected: Amount
    """By the assumptions."""
    most: Amount
    """By the recipe's limits: every reply and every refill at its longest."""


@dataclass(frozen=True)
class Price:
    """A whole recipe."""

    shape: Shape
    """The model."""
    stages: tuple[StagePrice, ...]
    """In order."""
    evaluation: StagePrice
    """The held-out conversations after all stages together."""
    memory: Memory
    """On one device."""
    devices: int
    """Processes of the local engine, or GPUs of a cluster."""
    assumed: Assumptions
    """What the values rest on."""
    layout: Layout | None = None
    """The processes of a cluster and their memory; None: the engine is local."""
    beyond_one: str = ""
    """What fits where one GPU is too small for the local engine; empty where it is large enough."""
    prompts: Mapping[str, Lengths] = field(default_factory=dict)
    """Lengths of prompts, by domain, where its rows are at hand."""
    total: StagePrice = field(init=False)
    """All stages and the evaluation."""

    def __post_init__(self) -> None:
        parts = (*self.stages, self.evaluation)
        total = StagePrice(
            name="total",
            kind="",
            updates=sum(stage.updates for stage in self.stages),
            expected=sum((part.expected for part in parts), Amount()),
            most=sum((part.most for part in parts), Amount()),
        )
        # A frozen dataclass lets nothing else set a field that follows from the others.
        object.__setattr__(self, "total", total)


def as_dict(priced: Price) -> dict[str, Any]:
    """The price as plain values, for JSON; durations in hours, memory in bytes."""
    memory = priced.memory
    assumptions: dict[str, Any] = vars(priced.assumed) | {
        "devices": priced.devices,
        "domains": {name: vars(cost) for name, cost in DOMAINS.items()},
        "prompts": {name: vars(lengths) for name, lengths in priced.prompts.items()},
    }
    return {
        "model": vars(priced.shape),
        "assumptions": assumptions,
        "stages": [_stage_as_dict(stage) for stage in priced.stages],
        "evaluation": _stage_as_dict(priced.evaluation),
        "total": _stage_as_dict(priced.total),
        "memory": vars(memory)
        | {
            "training": memory.training,
            "sampling": memory.sampling,
            "evaluating": memory.evaluating,
            "whole": memory.whole,
            "sharded": memory.sharded(priced.devices),
        },
        "layout": _layout_as_dict(priced.layout),
    }


def _layout_as_dict(layout: Layout | None) -> dict[str, Any] | None:
    """Bytes of a cluster's processes; None for the local engine."""
    if layout is None:
        return None
    return {
        "rank": vars(layout.rank) | {"total": layout.rank.total},
        "row": layout.row,
        "memory": layout.memory,
        "sampler_weights": layout.weights_of_sampler,
        "conversations": layout.conversations,
        "fits": layout.fits,
    }


def _stage_as_dict(part: StagePrice) -> dict[str, Any]:
    row: dict[str, Any] = {"name": part.name, "kind": part.kind, "updates": part.updates}
    for reading, amount in (("expected", part.expected), ("most", part.most)):
        row[reading] = vars(amount) | {
            "flops": amount.flops,
            "device_hours": amount.device_s / 3600,
            "core_hours": amount.core_s / 3600,
        }
    return row
