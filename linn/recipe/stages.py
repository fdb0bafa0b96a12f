"""The three kinds of stage in a recipe, with the paper's values as defaults."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from linn.recipe.base import (
    BestOrNames,
    Config,
    NumberOrNumbers,
    PlainName,
    TextOrWeights,
    short,
)
from linn.types import Optim

MISMATCH = {"float32": 1e-4, "bfloat16": 2.0}
"""Default of `max_mismatch` by precision.

In float32 sampler and trainer differ by rounding alone. The trainer's bf16 moves a rare token far;
NVIDIA drops sequences that are off by 2.
"""


class StageConfig(Config):
    """What every kind of stage has."""

    name: PlainName = Field(
        description="the stage's name: its row in the ledger, its part in RUN@STAGE"
    )
    from_: str | None = Field(
        None,
        alias="from",
        description="stage to start from; default: the stage before it; `base`: the model itself",
    )
    domains: dict[str, float] = Field(
        default_factory=dict,
        description="domains and their weights in every batch; default: all, equally",
    )
    steps: int = Field(100, ge=1, description="optimiser steps")
    lr: float = Field(3e-6, gt=0, description="peak learning rate")
    min_lr: float | None = Field(
        None,
        ge=0,
        description="learning rate at the end of a cosine or linear schedule, which needs it",
    )
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    warmup_from: float = Field(
        0.0,
        ge=0,
        description="learning rate of the first warm-up step; 0: an equal part of the rise",
    )
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "constant", description="shape from the peak to min_lr"
    )
    horizon: int | None = Field(
        None,
        ge=1,
        description="steps that a cosine or linear schedule takes to min_lr; a longer stage stays "
        "at min_lr from there on; default: the stage's steps",
    )
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's betas (paper Tables 7-10)")
    eps: float = Field(1e-8, gt=0, description="AdamW's epsilon")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    clip: float = Field(
        1.0, gt=0, description="global gradient norm above which gradients are scaled down"
    )
    save_every: int = Field(
        20,
        ge=1,
        description="steps between resumable states; a killed run repeats at most this many",
    )
    keep_every: int = Field(
        0,
        ge=0,
        description="keep a checkpoint every so many steps, as RUN@STAGE:STEP, and measure it on "
        "validation; 0: the last one alone",
    )
    evaluate: bool = Field(True, description="measure every domain after the stage")

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if (self.schedule == "constant") != (self.min_lr is None):
            fault = f"schedule: {self.schedule} needs min_lr"
            if self.min_lr is not None:
                fault = "min_lr has no meaning under schedule: constant"
            raise ValueError(f"{fault}; give both (cosine or linear) or neither")

        if self.horizon is None:
            return self
        if self.schedule == "constant":
            raise ValueError(f"horizon {self.horizon}: needs schedule: cosine or linear")
        return self

    @field_validator("domains")
    @classmethod
    def _check_weights(cls, domains: dict[str, float]) -> dict[str, float]:
        # None at all means every domain, equally.
        if not domains:
            return {}
        total = math.fsum(domains.values())
        if min(domains.values()) < 0 or not 0 < total < math.inf:
            raise ValueError(f"weights must be 0 or more and not all 0, found {domains}")
        return {short(name): weight for name, weight in domains.items()}

    @field_validator("betas")
    @classmethod
    def _check_betas(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"must be two numbers from 0 to below 1, found {list(betas)}")
        return betas

    def has_checkpoint(self, step: int) -> bool:
        """Whether the stage keeps its weights after so many steps."""
        kept = self.keep_every > 0 and step > 0 and step % self.keep_every == 0
        return step == self.steps or (kept and step < self.steps)

    @property
    def optim(self) -> Optim:
        """AdamW's constants of this stage."""
        return Optim(betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, clip=self.clip)

    def lr_at(self, step: int) -> float:
        """Learning rate of 0-based `step`.

        Linear warm-up, then the schedule down to `min_lr` at the last step (of the `horizon`),
        and `min_lr` after it.
        """
        if step < self.warmup and self.warmup_from:
            rise = self.lr - self.warmup_from
            return self.warmup_from + rise * step / max(1, self.warmup - 1)
        if step < self.warmup:  # a first step at rate 0 would be none
            return self.lr * (step + 1) / self.warmup
        if self.min_lr is None:
            return self.lr

        # `share` of the way from the peak to `min_lr`; `left` is what remains of the height.
        low = self.min_lr
        last = (self.horizon or self.steps) - 1
        share = min(1.0, (step - self.warmup) / max(1, last - self.warmup))
        left = 1 - share
        if self.schedule == "cosine":
            left = 0.5 * (1 + math.cos(math.pi * share))
        return low + (self.lr - low) * left


class SftConfig(StageConfig):
    """Supervised fine-tuning: packed sequences, loss on assistant tokens (paper Table 7)."""

    kind: Literal["sft"] = Field(description="`sft`: fine-tuning on demonstrations or rows")
    data: TextOrWeights | None = Field(
        None,
        description="JSONL or Parquet of `messages` rows: a path, hf://datasets/OWNER/REPO/FILE, "
        "or several with their weights in every batch; "
        "default: demonstrations made by the domains",
    )
    skip_bad: bool = Field(
        False,
        description="count rows of `data` that cannot be used by reason and skip them; "
        "false: the first is an error",
    )
    faulty: NumberOrNumbers = Field(
        0.0, description="share of demonstrations that carry their domain's one systematic fault"
    )
    batch: int = Field(64, ge=1, description="sequences per step; with `packed`, rows per step")
    packed: bool = Field(
        False,
        description="fill `batch` rows of scale.width tokens with sequences, "
        "instead of taking `batch` sequences",
    )
    lr: float = Field(5e-5, gt=0, description="peak learning rate (paper Table 7)")
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW's betas (paper Table 7)")
    weight_decay: float = Field(
        0.1, ge=0, description="AdamW's decoupled weight decay (paper Table 7)"
    )
    length_power: float = Field(
        0.0,
        ge=0,
        le=1,
        description="a sequence of n tokens weighs n**-power per token: "
        "0 token mean, 1 sequence mean",
    )
    every_turn: bool = Field(
        True,
        description="rows of `data` whose earlier thoughts the template cuts: a sample for each "
        "stretch of turns, so that every turn is trained as it would be sampled; false: one sample "
        "a row, in which turns that lost their thought are not trained",
    )
    max_length: int = Field(4096, ge=8, description="longer sequences are skipped and counted")

    @field_validator("data")
    @classmethod
    def _check_data_weights(
        cls, data: str | dict[str, float] | None
    ) -> str | dict[str, float] | None:
        if not isinstance(data, dict):
            return data
        total = math.fsum(data.values())
        if not data or min(data.values()) <= 0 or not total < math.inf:
            raise ValueError(f"must name a file or more, each with a weight above 0, found {data}")
        return data

    @field_validator("faulty")
    @classmethod
    def _check_shares(cls, faulty: float | dict[str, float]) -> float | dict[str, float]:
        shares = faulty.values() if isinstance(faulty, dict) else [faulty]
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"a share must be from 0 to 1, found {faulty}")
        if isinstance(faulty, dict):
            return {short(name): share for name, share in faulty.items()}
        return faulty

    @property
    def files(self) -> dict[str, float]:
        """The files of `data` and their weights, which sum to 1.

        Empty where the domains make demonstrations.
        """
        weights = {self.data: 1.0} if isinstance(self.data, str) else self.data or {}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def faulty_share(self, domain: str) -> float:
        """Share of faulty demonstrations of `domain`."""
        if not isinstance(self.faulty, dict):
            return self.faulty
        return self.faulty.get(domain, 0.0)


class RolloutConfig(StageConfig):
    """What stages that sample have in common."""

    prompts: int = Field(128, ge=1, description="prompts per step")
    rollouts: int = Field(16, ge=1, description="rollouts per prompt")
    max_tokens: int = Field(49_152, ge=1, description="sampled tokens per turn at most")
    temperature: float = Field(
        1.0, gt=0, description="sampling temperature; log-probs are of the tempered distribution"
    )
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus mass")
    max_turns: int | None = Field(
        None,
        ge=1,
        description="assistant turns at most, in multi-turn domains; default: the domain's own",
    )
    max_sequence: int | None = Field(
        None,
        ge=2,
        description="tokens of a whole conversation at most, prompt and tools' answers included; "
        "at the limit it is truncated",
    )
    max_mismatch: float | None = Field(
        None,
        gt=0,
        description="largest |sampler - trainer log-prob| a token may show before the run stops; "
        "default: 1e-4 where scale.precision is float32, 2 where it is bfloat16. Of a mixture of "
        "experts, a twentieth of a step's tokens may show more, which is told",
    )
    max_failed: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of a domain's rollouts in a step that may fail, its environment or "
        "grader broken; above it the run stops",
    )
    curve_every: int = Field(
        0,
        ge=0,
        description="measure the stage's domains on test each so many steps within the stage; "
        "0: only at its end",
    )
    keep_rollouts: int | None = Field(
        None,
        ge=0,
        description="keep the texts of the rollouts of the last so many steps; default: of every "
        "step",
    )


class CurriculumConfig(Config):
    """Prompts from easy to hard (Nemotron 3 Nano §3.2.2).

    A prompt is drawn near a target pass rate: a Gaussian whose mean moves linearly over the stage.
    """

    start: float = Field(
        0.8, ge=0, le=1, description="mean of the target pass rate at the first step"
    )
    end: float = Field(0.2, ge=0, le=1, description="mean of the target pass rate at the last step")
    width: float = Field(0.1, gt=0, le=1, description="standard deviation of the target pass rate")
    pool: int = Field(1024, ge=1, description="prompts per domain that wait to be drawn")


class RlConfig(RolloutConfig):
    """GRPO, strictly on-policy (paper §4.1.2, Eq. 1)."""

    kind: Literal["rl"] = Field(description="`rl`: reinforcement learning by GRPO")
    rollouts: int = Field(
        16, ge=2, description="rollouts per prompt; a reward is compared with its siblings'"
    )
    dynamic_filter: bool = Field(
        False, description="keep only groups with unequal rewards and refill the batch (IF-RL)"
    )
    refill: int = Field(10, ge=1, description="sampling rounds at most to fill a filtered batch")
    overlong: Literal["penalty", "mask", "keep"] = Field(
        "keep",
        description="truncated replies: reward 0 and trained | not trained, reward still in the "
        "group's statistics | graded as they are",
    )
    kl: float = Field(0.0, ge=0, description="coefficient of KL to the stage's start (RLHF: 0.03)")
    baseline: Literal["mean", "leave_one_out"] = Field(
        "mean", description="what a reward is compared with in its group"
    )
    std: Literal["population", "sample", "none"] = Field(
        "population", description="by which deviation the group's advantages are divided"
    )
    normalise: Literal["token", "sequence", "prompt"] = Field(
        "token", description="what the loss is averaged over"
    )
    curriculum: CurriculumConfig | None = Field(
        None,
        description="draw prompts by their rows' pass_rate, easy ones first; "
        "`linn filter` writes it",
    )
    group_mask: float | None = Field(
        None,
        description="groups whose best reward is not above this are not trained "
        "(agentless SWE: 0.5)",
    )


class DistillConfig(RolloutConfig):
    """Multi-domain on-policy distillation (paper §4.4, Eq. 2-4)."""

    kind: Literal["distill"] = Field(description="`distill`: multi-domain on-policy distillation")
    teachers: BestOrNames = Field(
        "best",
        description="`best`: the ledger's best checkpoint per domain, kept ones included; or "
        "domain: STAGE, STAGE:STEP or `best`",
    )
    rollouts: int = Field(4, ge=1, description="rollouts per prompt (paper: 4)")
    lr: float = Field(2e-6, gt=0, description="peak learning rate (paper §4.4)")
    warmup: int = Field(30, ge=0, description="steps of linear warm-up (paper §4.4)")
    warmup_from: float = Field(
        2e-7, ge=0, description="learning rate of the first warm-up step (paper §4.4)"
    )
    band: tuple[float, float] = Field(
        (0.5, 2.0), description="importance weights outside are zeroed, not clamped (Eq. 3)"
    )
    normalise: Literal["token", "sequence", "prompt"] = Field(
        "sequence", description="what the loss is averaged over (Eq. 4: per sequence)"
    )
    allow_weak_teachers: bool = Field(
        True, description="go on when a teacher is not better than the student; False refuses"
    )

    @field_validator("teachers")
    @classmethod
    def _short_names(cls, teachers: str | dict[str, str]) -> str | dict[str, str]:
        if isinstance(teachers, dict):
            return {short(name): stage for name, stage in teachers.items()}
        return teachers

    @field_validator("band")
    @classmethod
    def _check_band(cls, band: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= band[0] <= band[1]:
            raise ValueError(f"must be two numbers, the lower first, found {list(band)}")
        return band


AnyStage = Annotated[SftConfig | RlConfig | DistillConfig, Field(discriminator="kind")]
"""A stage of any kind."""

KINDS: dict[str, type[StageConfig]] = {"sft": SftConfig, "rl": RlConfig, "distill": DistillConfig}
"""The block of each `kind`."""
