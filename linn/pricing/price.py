"""What a recipe costs before it runs: tokens, FLOPs, device-hours, verifier core-hours, judge calls and memory, stage by stage.

Pure arithmetic on the recipe's values and the model's shape; what a recipe cannot know (mean lengths, utilisation, prompts' lengths) is an
`Assumptions` field and printed with the result. `expected` goes by them; `most` is what the recipe's limits allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linn.domains.base import Domain
from linn.errors import UserError, nearest
from linn.pricing.shape import Shape
from linn.recipe.schema import (
    DistillConfig,
    Recipe,
    RlConfig,
    RolloutConfig,
    SftConfig,
    StageConfig,
    short,
)


@dataclass(frozen=True)
class Device:
    """An accelerator, by its maker's data sheet."""

    flops: float
    """Dense bf16 FLOP/s at its peak."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes a second between memory and processor."""


DEVICES = {
    "a100": Device(312e12, 80e9, 2.04e12),
    "h100": Device(989e12, 80e9, 3.35e12),
    "h200": Device(989e12, 141e9, 4.8e12),
    "b200": Device(2250e12, 180e9, 8.0e12),
}


@dataclass(frozen=True)
class DomainCost:
    """What one rollout of a domain needs beside its own tokens."""

    prompt: int = 1_000
    """Tokens of a prompt."""
    core_s: float = 0.01
    """Core-seconds of its verifier (and tools)."""
    said: int = 1_500
    """Tokens of an answer, reasoning removed: what a judge reads."""
    pairs: bool = False
    """Whether a judge reads two siblings' answers at once."""


DOMAINS = {
    "code": DomainCost(core_s=80),  # paper §4.7: 2,048 executions on 384 cores in 427.2 s
    "swe_agentic": DomainCost(
        prompt=8_000, core_s=600
    ),  # tests and tools of a repository take minutes (paper §4.8.2: a limit of 20 to 30)
    "swe_agentless": DomainCost(
        prompt=16_000, core_s=0.1
    ),  # golden or five retrieved files in the prompt (paper §4.8.1)
    "longctx": DomainCost(prompt=24_000),  # paper §4.6: input of at most 32K
    "workplace": DomainCost(prompt=6_000, core_s=0.5),  # 27 tools in the system block (paper §4.3)
    "math": DomainCost(core_s=0.1),
    "preference": DomainCost(pairs=True),  # paper §4.5: all pairs of the siblings
}
"""Real rows of domains that differ from `DomainCost`'s defaults; figures without a section are ours."""
GENERATED = DomainCost(prompt=200, core_s=0.2, said=50)
"""A domain's own generator: small tasks, some of them with a sandboxed test."""


@dataclass(frozen=True)
class Assumptions:
    """What the recipe does not say."""

    device: str = "h100"
    """Kind of accelerator."""
    mean_length: float = 0.4
    """Mean length of a reply as a share of the most it may have."""
    kept: float = 0.5
    """Share of groups that dynamic filtering keeps."""
    sequence: int = 8_192
    """Tokens of a mean SFT sequence: what a token's attention reaches back over."""
    sampled: float = 0.5
    """Share of a multi-turn conversation that the policy itself samples; the rest are the environment's turns."""
    training: float = 0.30
    """Share of peak FLOP/s reached in training."""
    scoring: float = 0.40
    """The same in scoring and in reading prompts."""
    decoding: float = 0.50
    """Share of the memory bandwidth reached in decoding."""
    judged: int = 4_096
    """Tokens of a mean judge's answer, its reasoning included."""


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
        return Amount(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )

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
class Memory:
    """Bytes on one device."""

    weights: float
    """float32, as the trainer keeps them."""
    gradients: float
    """float32."""
    optimiser: float
    """AdamW's two moments, float32."""
    activations: float
    """One packed row: the input of every layer alone, the rest being recomputed; a bound from below."""
    caches: float
    """Keys, values and states of `scale.capacity` conversations of the longest stage at their longest."""

    @property
    def whole(self) -> float:
        """Every device holds the whole model, as `linn run` does."""
        return self.weights + self.gradients + self.optimiser + self.activations + self.caches

    def sharded(self, devices: int) -> float:
        """Weights, gradients and moments spread evenly over the devices."""
        return (
            (self.weights + self.gradients + self.optimiser) / devices
            + self.activations
            + self.caches
        )


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
    """The recipe's `scale.processes`."""
    assumed: Assumptions
    """What the figures rest on."""
    total: StagePrice = field(init=False)
    """All stages and the evaluation."""

    def __post_init__(self) -> None:
        parts = (*self.stages, self.evaluation)
        expected, most = (
            sum((p.expected for p in parts), Amount()),
            sum((p.most for p in parts), Amount()),
        )
        object.__setattr__(
            self,
            "total",
            StagePrice("total", "", sum(p.updates for p in self.stages), expected, most),
        )


def price(
    recipe: Recipe, shape: Shape, domains: Mapping[str, Domain], assumed: Assumptions | None = None
) -> Price:
    """The price of a recipe. `domains`: each of its domains, by its short name."""
    assumed = assumed or Assumptions()
    if assumed.device not in DEVICES:
        raise UserError(f"--device {assumed.device!r}: unknown{nearest(assumed.device, DEVICES)}")
    if not 0 < assumed.mean_length <= 1:
        raise UserError(
            f"--mean-length {assumed.mean_length}: must be above 0 and at most 1, a share of the longest reply"
        )
    pricer = _Pricer(recipe, shape, domains, assumed)
    stages = tuple(pricer.stage(stage) for stage in recipe.stages)
    return Price(
        shape, stages, pricer.evaluation(), pricer.memory(), recipe.scale.processes, assumed
    )


@dataclass(frozen=True)
class _Talk:
    """The conversations of one domain in a stage."""

    prompt: float
    """Tokens of the prompt."""
    length: float
    """Tokens after the prompt."""
    sampled: float
    """Those that the policy samples."""

    @property
    def attended(self) -> float:
        """Earlier tokens looked at, summed over the tokens after the prompt."""
        return self.length * self.prompt + self.length**2 / 2


class _Pricer:
    """Arithmetic over one recipe, shape and set of assumptions."""

    def __init__(
        self, recipe: Recipe, shape: Shape, domains: Mapping[str, Domain], assumed: Assumptions
    ) -> None:
        self.recipe, self.shape, self.domains, self.assumed = recipe, shape, domains, assumed
        self.device = DEVICES[assumed.device]
        self.costs = {
            short(name): DOMAINS.get(short(name), DomainCost()) if keys.rows else GENERATED
            for name, keys in recipe.domains.items()
        }

    def stage(self, keys: StageConfig) -> StagePrice:
        """One stage, both readings."""
        if isinstance(keys, SftConfig):
            return StagePrice(
                keys.name, "sft", keys.steps, self._sft(keys, False), self._sft(keys, True)
            )
        assert isinstance(keys, RolloutConfig)
        kind = "distill" if isinstance(keys, DistillConfig) else "rl"
        return StagePrice(
            keys.name, kind, keys.steps, self._rollouts(keys, False), self._rollouts(keys, True)
        )

    def evaluation(self) -> StagePrice:
        """Two passes over the test prompts and one over the validation prompts (with pass@k: k more) after each measured stage."""
        held = self.recipe.evaluate
        times = sum(stage.evaluate for stage in self.recipe.stages) + held.start
        each = times * (2 * held.test + held.validation * (1 + held.pass_at))
        both = []
        for most in (False, True):
            amount = Amount()
            for name in map(short, self.recipe.domains):
                talk = self._talk(name, held.max_tokens, None, held.max_sequence, most)
                amount += self._sampling(name, talk, each, each) + self._verdicts(name, each, 1)
            both.append(amount)
        return StagePrice("evaluation", "", 0, *both)

    def memory(self) -> Memory:
        """At the recipe's scale; see `Memory`."""
        shape, scale = self.shape, self.recipe.scale
        longest = 0.0
        for keys in self.recipe.stages:
            for name in self.recipe.weights_of(keys) if isinstance(keys, RolloutConfig) else ():
                assert isinstance(keys, RolloutConfig)
                talk = self._talk(name, keys.max_tokens, keys.max_turns, keys.max_sequence, True)
                longest = max(longest, talk.prompt + talk.length)
        wide = 2 if scale.precision == "bfloat16" else 4
        return Memory(
            weights=4.0 * shape.total,
            gradients=4.0 * shape.total,
            optimiser=8.0 * shape.total,
            activations=float(scale.width * shape.hidden * shape.layers * wide),
            caches=scale.capacity * shape.cache_bytes(longest) if longest else 0.0,
        )

    def _sft(self, keys: SftConfig, most: bool) -> Amount:
        width = self.recipe.scale.width if keys.packed else keys.max_length
        share = 1.0 if keys.packed or most else self.assumed.mean_length
        tokens = keys.steps * keys.batch * width * share
        sequence = (
            min(width, keys.max_length) if most else min(self.assumed.sequence, width * share)
        )
        flops = 3 * self.shape.forward_flops(tokens, tokens * sequence / 2)
        return Amount(
            trained=tokens,
            training_flops=flops,
            device_s=flops / (self.device.flops * self.assumed.training),
        )

    def _rollouts(self, keys: RolloutConfig, most: bool) -> Amount:
        refilled = isinstance(keys, RlConfig) and keys.dynamic_filter
        rounds = 1.0
        if isinstance(keys, RlConfig) and refilled:
            rounds = float(keys.refill) if most else min(keys.refill, 1 / self.assumed.kept)
        scored = isinstance(keys, DistillConfig) or (isinstance(keys, RlConfig) and keys.kl > 0)
        amount = Amount()
        for name, weight in self.recipe.weights_of(keys).items():
            talk = self._talk(name, keys.max_tokens, keys.max_turns, keys.max_sequence, most)
            used = keys.steps * keys.prompts * keys.rollouts * weight
            groups = keys.steps * keys.prompts * rounds * weight
            amount += self._sampling(name, talk, groups, groups * keys.rollouts)
            amount += self._verdicts(
                name, groups * keys.rollouts, keys.rollouts, asked=isinstance(keys, RlConfig)
            )
            forward = self.shape.forward_flops(
                used * (talk.prompt + talk.length), used * (talk.prompt + talk.length) ** 2 / 2
            )
            amount += Amount(
                trained=used * (talk.prompt + talk.length),
                training_flops=3 * forward,
                device_s=3 * forward / (self.device.flops * self.assumed.training),
            )
            if scored:
                seconds = forward / (self.device.flops * self.assumed.scoring)
                amount += Amount(
                    scored=used * (talk.prompt + talk.length),
                    scoring_flops=forward,
                    device_s=seconds,
                )
        return amount

    def _talk(
        self,
        name: str,
        max_tokens: int,
        max_turns: int | None,
        max_sequence: int | None,
        most: bool,
    ) -> _Talk:
        """A conversation of a domain: as long as its limits allow, or the assumed share of that."""
        prompt = float(self.costs[name].prompt)
        turns = self.domains[name].max_turns
        turns = turns if turns == 1 else max_turns or turns
        longest = float(max_tokens * turns)
        if max_sequence is not None:
            prompt = min(prompt, max_sequence / 2)
            longest = min(longest, max_sequence - prompt)
        length = longest if most else longest * self.assumed.mean_length
        return _Talk(
            prompt, length, length if turns == 1 or most else length * self.assumed.sampled
        )

    def _sampling(self, name: str, talk: _Talk, groups: float, rollouts: float) -> Amount:
        """Prompts are read once a group, environment turns once a rollout; every sampled token is one row of a decoding step."""
        shape, device, assumed = self.shape, self.device, self.assumed
        read = shape.forward_flops(groups * talk.prompt, groups * talk.prompt**2 / 2)
        rest = talk.length - talk.sampled
        share = rest / talk.length if talk.length else 0.0
        read += rollouts * shape.forward_flops(rest, talk.attended * share)
        decoded = rollouts * shape.forward_flops(talk.sampled, talk.attended * (1 - share))
        rows = self.recipe.scale.capacity
        moved = (
            2 * shape.weights_read(rows) / rows
            + shape.cache_bytes(talk.prompt + talk.length / 2)
            + 4 * shape.scan
        )  # states are written too
        seconds = rollouts * talk.sampled * moved / (device.bandwidth * assumed.decoding)
        seconds = max(seconds, decoded / (device.flops * assumed.scoring)) + read / (
            device.flops * assumed.scoring
        )
        return Amount(
            groups=groups,
            rollouts=rollouts,
            sampled=rollouts * talk.sampled,
            sampling_flops=read + decoded,
            device_s=seconds,
        )

    def _verdicts(self, name: str, rollouts: float, siblings: int, asked: bool = True) -> Amount:
        """Verifier and judge: each rollout is verified; a judge is asked what the domain asks about so many siblings (`asked`: if at all)."""
        cost = self.costs[name]
        calls = rollouts / siblings * self.domains[name].asks(siblings) if asked else 0.0
        shown = cost.prompt + cost.said * (2 if cost.pairs and siblings > 1 else 1)
        return Amount(
            core_s=rollouts * cost.core_s,
            judge_calls=calls,
            judge_tokens=calls * (shown + self.assumed.judged),
        )


def as_dict(priced: Price) -> dict[str, Any]:
    """The price as plain values, for JSON; durations in hours, memory in bytes."""

    def stage(part: StagePrice) -> dict[str, Any]:
        readings = {
            name: vars(amount)
            | {
                "flops": amount.flops,
                "device_hours": amount.device_s / 3600,
                "core_hours": amount.core_s / 3600,
            }
            for name, amount in (("expected", part.expected), ("most", part.most))
        }
        return {"name": part.name, "kind": part.kind, "updates": part.updates} | readings

    memory = priced.memory
    return {
        "model": vars(priced.shape),
        "assumptions": vars(priced.assumed)
        | {"devices": priced.devices, "domains": {n: vars(c) for n, c in DOMAINS.items()}},
        "stages": [stage(part) for part in priced.stages],
        "evaluation": stage(priced.evaluation),
        "total": stage(priced.total),
        "memory": vars(memory) | {"whole": memory.whole, "sharded": memory.sharded(priced.devices)},
    }
