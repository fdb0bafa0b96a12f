"""The typed keys of a recipe: each with its type, default (the paper's, where it has one), meaning and unit.

Unknown keys are refused. A recipe holds values, never logic; `linn.recipe.load` reads one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from linn.errors import UserError, nearest
from linn.types import Optim


def _plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(
            "must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit, because it names a folder"
        )
    return name


PlainName = Annotated[str, AfterValidator(_plain)]
"""A name that is a folder's too, and that RUN@STAGE:STEP can hold."""


def short(domain: str) -> str:
    """A domain's name: `mine` of `./mine.py`."""
    return Path(domain).stem if domain.endswith(".py") else domain


class Config(BaseModel):
    """Base of every block of a recipe: unknown keys refused, values frozen, numbers finite."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _no_yes_for_a_number(cls, tree: Any) -> Any:
        if isinstance(tree, dict):
            for key, field in cls.model_fields.items():
                if isinstance(tree.get(key), bool) and field.annotation in (int, float):
                    raise ValueError(f"{key}: must be a number, found {tree[key]}")
        return tree


def endpoint_of(model: str) -> tuple[str, str] | None:
    """(URL, the model's name there) of `http(s)://HOST:PORT/v1#MODEL`, or None for a checkpoint; UserError for half an endpoint."""
    if not model.startswith(("http://", "https://")):
        return None
    url, _, served = model.partition("#")
    if not served or not urlsplit(url).hostname:
        raise UserError(f"an endpoint is written http://HOST:PORT/v1#MODEL, found {model!r}")
    return url, served


class JudgeConfig(Config):
    """A judge model and how it is sampled (paper §4.4)."""

    model: str = Field(
        min_length=1,
        description="`@STAGE` (an earlier checkpoint of this run), RUN@STAGE, a checkpoint folder, or http(s)://HOST:PORT/v1#MODEL; "
        "`judge: MODEL` is short for {model: MODEL}",
    )
    temperature: float = Field(
        0.6, ge=0, description="sampling temperature of the judge; 0 is greedy"
    )
    top_p: float = Field(0.95, gt=0, le=1, description="nucleus mass of the judge")
    max_tokens: int = Field(
        16_384, ge=1, description="tokens of an answer at most, its reasoning included"
    )
    retries: int = Field(
        3,
        ge=0,
        description="how often an unreadable answer is asked for again; then the domain's default stands",
    )
    concurrency: int = Field(64, ge=1, description="requests under way at once, at an endpoint")
    timeout_s: float = Field(
        1800.0, gt=0, description="seconds that one request to an endpoint may take"
    )
    key_env: str | None = Field(
        None, description="environment variable that holds the endpoint's API key"
    )

    @field_validator("model")
    @classmethod
    def _check_endpoint(cls, model: str) -> str:
        try:
            endpoint_of(model)
        except UserError as error:
            raise ValueError(f"model: {error}") from None
        return model

    @property
    def endpoint(self) -> tuple[str, str] | None:
        """(URL, the model's name there), or None for a checkpoint."""
        return endpoint_of(self.model)

    @property
    def stage(self) -> str | None:
        """The stage of this run whose checkpoint judges, if it is one."""
        return self.model[1:] if self.model.startswith("@") else None


class DomainConfig(Config):
    """Where a domain's prompts come from and who judges; every other key is an option of the domain's own constructor."""

    model_config = ConfigDict(extra="allow")

    level: str = Field(
        "tiny", description="which generator of prompts; `tiny` is what the laptop recipe uses"
    )
    rows: str | None = Field(
        None,
        description="JSONL in the released row layout, instead of the generator: a path, or hf://datasets/OWNER/REPO/FILE",
    )
    skip_bad: bool = Field(
        False,
        description="count rows that cannot be used by reason and skip them; false: the first is an error",
    )
    judge: JudgeConfig | None = Field(
        None, description="the model that judges, in domains that can be judged by one"
    )

    @field_validator("judge", mode="before")
    @classmethod
    def _model_alone(cls, judge: Any) -> Any:
        return {"model": judge} if isinstance(judge, str) else judge

    @model_validator(mode="after")
    def _judged_by_whom(self) -> Self:
        if "judged" in (self.model_extra or {}):
            raise ValueError("judged: is set by judge: MODEL; take it away")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of the domain's constructor."""
        found = {
            "level": self.level,
            "rows": self.rows,
            "skip_bad": self.skip_bad,
            **(self.model_extra or {}),
        }
        return found | {"judged": True} if self.judge else found


class EvaluateConfig(Config):
    """What is measured after every stage."""

    test: int = Field(300, ge=1, description="test prompts a domain; results are reported on them")
    validation: int = Field(
        200, ge=1, description="validation prompts a domain; teachers are chosen on them"
    )
    max_tokens: int = Field(96, ge=1, description="sampled tokens a turn at most, in evaluation")
    max_sequence: int | None = Field(
        None,
        ge=1,
        description="tokens of a whole held-out conversation at most, prompt and environment turns included; default: no limit",
    )
    temperature: float = Field(
        1.0, gt=0, description="sampling temperature of the metric `accuracy`"
    )
    pass_at: int = Field(
        0, ge=0, description="also measure pass@k over k rollouts of each validation prompt; 0: no"
    )
    start: bool = Field(False, description="measure the start checkpoint too, as stage `base`")


class ScaleConfig(Config):
    """The whole difference between a laptop and a cluster."""

    processes: int = Field(
        2,
        ge=1,
        description="worker processes of one thread each; rollouts and training are spread over them",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16: matrix products of training in bf16 over float32 weights; the sampler stays in float32, so raise max_mismatch",
    )
    width: int = Field(1024, ge=16, description="tokens in a packed row")
    capacity: int = Field(256, ge=1, description="conversations that one process decodes at once")


class NewModelConfig(Config):
    """A model from scratch (the laptop's hybrid), for training a base."""

    vocab: int = Field(
        1024,
        ge=300,
        description="size of the byte-level BPE vocabulary, trained on the domains' clean text",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of the initial weights and of the data")


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
    warmup_from: float = Field(0.0, ge=0, description="learning rate before the first warm-up step")
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "constant", description="shape from the peak to min_lr"
    )
    horizon: int | None = Field(
        None,
        ge=1,
        description="steps that a cosine or linear schedule takes to min_lr, where the stage stops earlier; default: its steps",
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
    evaluate: bool = Field(True, description="measure every domain after the stage")

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if (self.schedule == "constant") != (self.min_lr is None):
            what = (
                "min_lr has no meaning under schedule: constant"
                if self.min_lr is not None
                else f"schedule: {self.schedule} needs min_lr"
            )
            raise ValueError(
                f"stage {self.name!r}: {what}; give both (cosine or linear) or neither"
            )
        if self.horizon is not None and (self.schedule == "constant" or self.horizon < self.steps):
            raise ValueError(
                f"stage {self.name!r}: horizon {self.horizon}: needs schedule: cosine or linear, and at least the stage's steps"
            )
        return self

    @field_validator("domains")
    @classmethod
    def _check_weights(cls, domains: dict[str, float]) -> dict[str, float]:
        if domains and (
            min(domains.values()) < 0 or not 0 < math.fsum(domains.values()) < math.inf
        ):
            raise ValueError(f"domains: weights must be 0 or more and not all 0, found {domains}")
        return {short(name): weight for name, weight in domains.items()}

    @field_validator("betas")
    @classmethod
    def _check_betas(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas: must be two numbers from 0 to below 1, found {list(betas)}")
        return betas

    @property
    def optim(self) -> Optim:
        """AdamW's constants of this stage."""
        return Optim(betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, clip=self.clip)

    def lr_at(self, step: int) -> float:
        """Learning rate of 0-based `step`: linear warm-up, then the schedule down to `min_lr` at the last step (of the `horizon`)."""
        if step < self.warmup:
            return self.warmup_from + (self.lr - self.warmup_from) * (step + 1) / self.warmup
        if self.min_lr is None:
            return self.lr
        low = self.min_lr
        share = (step - self.warmup) / max(1, (self.horizon or self.steps) - 1 - self.warmup)
        if self.schedule == "cosine":
            return low + (self.lr - low) * 0.5 * (1 + math.cos(math.pi * share))
        return low + (self.lr - low) * (1 - share)


class SftConfig(StageConfig):
    """Supervised fine-tuning: packed sequences, loss on assistant tokens (paper Table 7)."""

    kind: Literal["sft"] = Field(description="`sft`: fine-tuning on demonstrations or rows")
    data: str | dict[str, float] | None = Field(
        None,
        description="JSONL of `messages` rows (a path, or hf://datasets/OWNER/REPO/FILE), or several with their weights in every batch; "
        "default: demonstrations made by the domains",
    )
    skip_bad: bool = Field(
        False,
        description="count rows of `data` that cannot be used by reason and skip them; false: the first is an error",
    )
    faulty: float | dict[str, float] = Field(
        0.0, description="share of demonstrations that carry their domain's one systematic fault"
    )
    batch: int = Field(64, ge=1, description="sequences a step; with `packed`, rows a step")
    packed: bool = Field(
        False,
        description="fill `batch` rows of scale.width tokens with sequences, instead of taking `batch` sequences",
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
        description="a sequence of n tokens weighs n**-power a token: 0 token mean, 1 sequence mean",
    )
    max_length: int = Field(4096, ge=8, description="longer sequences are skipped and counted")

    @field_validator("data")
    @classmethod
    def _check_data_weights(
        cls, data: str | dict[str, float] | None
    ) -> str | dict[str, float] | None:
        if isinstance(data, dict) and (
            not data or min(data.values()) <= 0 or not math.fsum(data.values()) < math.inf
        ):
            raise ValueError(
                f"data: must name a file or more, each with a weight above 0, found {data}"
            )
        return data

    @field_validator("faulty")
    @classmethod
    def _check_shares(cls, faulty: float | dict[str, float]) -> float | dict[str, float]:
        if not all(
            0 <= share <= 1 for share in (faulty.values() if isinstance(faulty, dict) else [faulty])
        ):
            raise ValueError(f"faulty: a share must be from 0 to 1, found {faulty}")
        return (
            {short(name): share for name, share in faulty.items()}
            if isinstance(faulty, dict)
            else faulty
        )

    @property
    def files(self) -> dict[str, float]:
        """The files of `data` and their weights, which sum to 1; empty where the domains make demonstrations."""
        named = {self.data: 1.0} if isinstance(self.data, str) else self.data or {}
        return {name: weight / sum(named.values()) for name, weight in named.items()}

    def faulty_share(self, domain: str) -> float:
        """Share of faulty demonstrations of `domain`."""
        if not isinstance(self.faulty, dict):
            return self.faulty
        return {short(name): share for name, share in self.faulty.items()}.get(domain, 0.0)


class RolloutConfig(StageConfig):
    """What stages that sample have in common."""

    prompts: int = Field(128, ge=1, description="prompts a step")
    rollouts: int = Field(16, ge=1, description="rollouts a prompt")
    max_tokens: int = Field(49_152, ge=1, description="sampled tokens a turn at most")
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
        description="tokens of a whole conversation at most, prompt and tools' answers included; at the limit it is truncated",
    )
    max_mismatch: float = Field(
        1e-4,
        gt=0,
        description="largest |sampler - trainer log-prob| a token may show before the run stops",
    )
    curve_every: int = Field(
        0,
        ge=0,
        description="measure the stage's domains on test each so many steps within the stage; 0: only at its end",
    )


class CurriculumConfig(Config):
    """Prompts from easy to hard: drawn near a target pass rate, a Gaussian whose mean moves linearly over the stage (Nemotron 3 Nano §3.2.2)."""

    start: float = Field(
        0.8, ge=0, le=1, description="mean of the target pass rate at the first step"
    )
    end: float = Field(0.2, ge=0, le=1, description="mean of the target pass rate at the last step")
    width: float = Field(0.1, gt=0, le=1, description="standard deviation of the target pass rate")
    pool: int = Field(1024, ge=1, description="prompts a domain that wait to be drawn")


class RlConfig(RolloutConfig):
    """GRPO, strictly on-policy (paper §4.1.2, Eq. 1)."""

    kind: Literal["rl"] = Field(description="`rl`: reinforcement learning by GRPO")
    rollouts: int = Field(
        16, ge=2, description="rollouts a prompt; a reward is compared with its siblings'"
    )
    dynamic_filter: bool = Field(
        False, description="keep only groups with unequal rewards and refill the batch (IF-RL)"
    )
    refill: int = Field(10, ge=1, description="sampling rounds at most to fill a filtered batch")
    overlong: Literal["penalty", "mask", "keep"] = Field(
        "keep",
        description="truncated replies: reward 0 and trained | not trained, reward still in the group's statistics | graded as they are",
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
        description="draw prompts by their rows' pass_rate, easy ones first; `linn filter` writes it",
    )
    group_mask: float | None = Field(
        None,
        description="groups whose best reward is not above this are not trained (agentless SWE: 0.5)",
    )


class DistillConfig(RolloutConfig):
    """Multi-domain on-policy distillation (paper §4.4, Eq. 2-4)."""

    kind: Literal["distill"] = Field(description="`distill`: multi-domain on-policy distillation")
    teachers: Literal["best"] | dict[str, str] = Field(
        "best",
        description="`best`: the ledger's best checkpoint a domain; or domain: stage, where a stage may be `best` too",
    )
    rollouts: int = Field(4, ge=1, description="rollouts a prompt (paper: 4)")
    lr: float = Field(2e-6, gt=0, description="peak learning rate (paper §4.4)")
    warmup: int = Field(30, ge=0, description="steps of linear warm-up (paper §4.4)")
    warmup_from: float = Field(
        2e-7, ge=0, description="learning rate before the first warm-up step (paper §4.4)"
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
        return (
            {short(name): stage for name, stage in teachers.items()}
            if isinstance(teachers, dict)
            else teachers
        )

    @field_validator("band")
    @classmethod
    def _check_band(cls, band: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= band[0] <= band[1]:
            raise ValueError(f"band: must be two numbers, the lower first, found {list(band)}")
        return band


Stage = Annotated[SftConfig | RlConfig | DistillConfig, Field(discriminator="kind")]


class Recipe(Config):
    """A list of stages; each takes a checkpoint and gives back a checkpoint."""

    name: PlainName = Field(description="the run's name; its folder is runs/NAME")
    model: str | NewModelConfig = Field(
        "tiny",
        description="`tiny[-SEED]` (the base kept with linn), a Hugging Face folder, or {vocab, seed} for a new one",
    )
    seed: int = Field(0, description="seed of everything random")
    domains: dict[str, DomainConfig] = Field(
        default_factory=dict,
        description="domains by name (or ./file.py) and where their prompts come from",
    )
    evaluate: EvaluateConfig = Field(
        default_factory=lambda: EvaluateConfig(), description="what is measured after every stage"
    )
    scale: ScaleConfig = Field(
        default_factory=lambda: ScaleConfig(), description="processes, precision, widths"
    )
    stages: list[Stage] = Field(min_length=1, description="the stages, in order")

    @model_validator(mode="after")
    def _check_names(self) -> Recipe:
        known = [short(name) for name in self.domains]
        if len(set(known)) < len(known):
            raise ValueError(
                f"domains: two have the same name ({', '.join(self.domains)}); a file's name is its domain's name"
            )
        seen = ["base"]
        for stage in self.stages:
            if stage.name in ("base", "best"):
                raise ValueError(
                    f"stage {stage.name!r}: that name stands for the start (base) or a domain's best checkpoint; take another"
                )
            if stage.name in seen:
                raise ValueError(f"stage {stage.name!r} is there twice; names must differ")
            if stage.from_ is not None and stage.from_ not in seen:
                raise ValueError(
                    f"stage {stage.name!r}: from: {stage.from_!r} is no earlier stage; allowed: {', '.join(seen)}"
                )
            for domain in (*stage.domains, *_named(stage)):
                if domain not in known:
                    raise ValueError(
                        f"stage {stage.name!r}: domain {domain!r} is not among the recipe's domains{nearest(domain, known)}"
                    )
            if not known and not (isinstance(stage, SftConfig) and stage.data):
                raise ValueError(
                    f"stage {stage.name!r}: the recipe has no domains to take prompts from; name some under domains:"
                )
            if isinstance(stage, DistillConfig):
                self._check_teachers(stage, seen)
            if (
                isinstance(stage, SftConfig)
                and stage.packed
                and stage.max_length > self.scale.width
            ):
                raise ValueError(
                    f"stage {stage.name!r}: max_length {stage.max_length} is over scale.width {self.scale.width}: with packed: true a sequence must fit into a row"
                )
            if isinstance(stage, RlConfig) and stage.curriculum:
                self._check_rates(stage)
            seen.append(stage.name)
        for name, keys in self.domains.items():
            if keys.judge is not None and keys.judge.stage is not None:
                self._check_judge(short(name), keys.judge.stage, seen)
        return self

    def _check_judge(self, domain: str, judge: str, names: Sequence[str]) -> None:
        """`names`: `base` and every stage, in order."""
        where = f"domains.{domain}.judge"
        if judge not in names:
            raise ValueError(
                f"{where}: '@{judge}' is no stage of this recipe{nearest(judge, names)}"
            )
        for stage in self.stages[: names.index(judge)]:
            if isinstance(stage, RlConfig) and domain in self.weights_of(stage):
                raise ValueError(
                    f"{where}: stage {stage.name!r} needs the judge, but its stage {judge!r} does not come before; name an earlier one"
                )

    def _check_teachers(self, stage: DistillConfig, seen: Sequence[str]) -> None:
        """`seen`: what comes before the stage."""
        wanted = self.weights_of(stage)
        if isinstance(stage.teachers, dict):
            for domain, teacher in stage.teachers.items():
                if teacher not in (*seen, "best"):
                    raise ValueError(
                        f"stage {stage.name!r}: teacher {teacher!r} of {domain} is no earlier stage; allowed: {', '.join(seen)}"
                    )
            if missing := [d for d in wanted if d not in stage.teachers]:
                raise ValueError(
                    f"stage {stage.name!r}: no teacher for {', '.join(missing)}; name one each, or say teachers: best"
                )
            if extra := [d for d in stage.teachers if d not in wanted]:
                raise ValueError(
                    f"stage {stage.name!r}: teacher for {extra[0]!r}, which is not among its domains{nearest(extra[0], wanted)}"
                )
        if len(seen) == 1:
            raise ValueError(
                f"stage {stage.name!r}: no checkpoint comes before it that could teach; put it after an sft or rl stage"
            )

    def _check_rates(self, stage: StageConfig) -> None:
        rows = {short(name): keys.rows for name, keys in self.domains.items()}
        if made := [name for name in self.weights_of(stage) if rows[name] is None]:
            raise ValueError(
                f"stage {stage.name!r}: curriculum needs rows with pass_rate; give domains.{made[0]}.rows (linn filter writes them)"
            )

    def parent(self, name: str) -> str:
        """The stage (or `base`) that stage `name` starts from."""
        before = "base"
        for stage in self.stages:
            if stage.name == name:
                return stage.from_ or before
            before = stage.name
        raise KeyError(name)

    def weights_of(self, stage: StageConfig) -> dict[str, float]:
        """Domain weights of a stage, summing to 1."""
        raw = stage.domains or {short(name): 1.0 for name in self.domains}
        total = sum(raw.values())
        return {name: value / total for name, value in raw.items()}

    def domain_options(self) -> dict[str, dict[str, Any]]:
        """Constructor arguments of every domain, by its name or file."""
        return {name: keys.options for name, keys in self.domains.items()}

    def judged_by(self, stage: str) -> dict[str, JudgeConfig]:
        """The judge of every domain that has one and can be judged once `stage` has its checkpoint."""
        there = ["base", *(s.name for s in self.stages)]
        there = there[: there.index(stage) + 1]
        named = {
            short(name): keys.judge for name, keys in self.domains.items() if keys.judge is not None
        }
        return {
            name: judge
            for name, judge in named.items()
            if judge.stage is None or judge.stage in there
        }

    def measured_at(self, stage: str) -> list[str]:
        """The domains that can be measured once `stage` has its checkpoint: those whose judge, if it has one, is there."""
        judged = self.judged_by(stage)
        return [
            short(name)
            for name, keys in self.domains.items()
            if keys.judge is None or short(name) in judged
        ]


def _named(stage: StageConfig) -> list[str]:
    """Domains that a stage's other keys speak of."""
    found = (
        stage.faulty
        if isinstance(stage, SftConfig)
        else stage.teachers
        if isinstance(stage, DistillConfig)
        else None
    )
    return list(found) if isinstance(found, dict) else []
