"""The typed blocks of a recipe: each key with its type, default (the paper's), meaning and unit.

Unknown keys are refused. A recipe holds values, never logic; `linn.recipe.load` reads one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, Tag, field_validator, model_validator

from linn.endpoint.address import Address, parse_endpoint
from linn.errors import UserError, nearest
from linn.recipe.base import KEYS, VALUE, Config, PlainName, ValueOrKeys, short, splits_fault
from linn.recipe.evaluation import EvaluateConfig
from linn.recipe.scale import ScaleConfig as ScaleConfig
from linn.recipe.stages import (
    MISMATCH,
    AnyStage,
    DistillConfig,
    RlConfig,
    RolloutConfig,
    SftConfig,
    StageConfig,
)


class JudgeConfig(Config):
    """A judge model and how it is sampled (paper §4.4)."""

    model: str = Field(
        min_length=1,
        description="`@STAGE[:STEP]` (an earlier checkpoint of this run), RUN@STAGE[:STEP], a "
        "checkpoint folder, "
        "or http(s)://HOST:PORT/v1#MODEL; `judge: MODEL` is short for {model: MODEL}",
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
        description="how often an unreadable answer is asked for again; "
        "then it leaves all statistics",
    )
    max_unreadable: float = Field(
        0.2,
        ge=0,
        le=1,
        description="share of the judge's questions that may stay without a readable answer; "
        "above it the run stops",
    )
    concurrency: int = Field(64, ge=1, description="requests under way at once, at an endpoint")
    timeout_s: float = Field(
        1800.0,
        gt=0,
        description="seconds that one request to an endpoint may take; all tries for an answer "
        "may take twice that and a minute",
    )
    template: Literal["own", "nemotron"] | None = Field(
        None,
        description="the judge's chat template, as the recipe's `template`; default: the run's for "
        "a stage of the run, else as the folder needs it",
    )
    key_env: str | None = Field(
        None, description="environment variable that holds the endpoint's API key"
    )

    @field_validator("model")
    @classmethod
    def _check_endpoint(cls, model: str) -> str:
        try:
            parse_endpoint(model)
        except UserError as error:
            raise ValueError(str(error)) from None
        return model

    @property
    def endpoint(self) -> Address | None:
        """Where it is served; None for a checkpoint."""
        return parse_endpoint(self.model)

    @property
    def stage(self) -> str | None:
        """The stage of this run whose checkpoint judges, if it is one; `STAGE:STEP` within it."""
        return self.model[1:] if self.model.startswith("@") else None


class DomainConfig(Config):
    """Where a domain's prompts come from, and who judges.

    Every other key is an option of the domain's own constructor.
    """

    model_config = ConfigDict(extra="allow")

    level: str = Field(
        "tiny", description="which generator of prompts; `tiny` is what the laptop recipe uses"
    )
    rows: str | None = Field(
        None,
        description="JSONL or Parquet in the released row layout, instead of the generator: "
        "a path, or hf://datasets/OWNER/REPO/FILE",
    )
    test: str | float | None = Field(
        None,
        description="test prompts: a file of rows, measured whole and in order up to "
        "evaluate.test, or a share of `rows`; default: 0.1",
    )
    validation: str | float | None = Field(
        None, description="validation prompts: a file of rows, or a share of `rows`; default: 0.1"
    )
    skip_bad: bool = Field(
        False,
        description="count rows that cannot be used by reason and skip them; "
        "false: the first is an error",
    )
    thinking: bool | None = Field(
        None,
        description="whether replies open with a thought; default: as each row says "
        "(`enable_thinking`), else as the domain asks",
    )
    judge: JudgeConfig | None = Field(
        None, description="the model that judges, in domains that can be judged by one"
    )

    @field_validator("judge", mode="before")
    @classmethod
    def _expand_model_name(cls, judge: Any) -> Any:
        return {"model": judge} if isinstance(judge, str) else judge

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if "judged" in (self.model_extra or {}):
            raise ValueError("judged: is set by judge: MODEL; take it away")
        if fault := splits_fault({"test": self.test, "validation": self.validation}):
            raise ValueError(fault)
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of the domain's constructor."""
        arguments = {
            "level": self.level,
            "rows": self.rows,
            "skip_bad": self.skip_bad,
            **(self.model_extra or {}),
        }
        # A user's own constructor may be asked for neither.
        for key in ("test", "validation"):
            if getattr(self, key) is not None:
                arguments[key] = getattr(self, key)
        if self.thinking is not None:
            arguments["thinking"] = self.thinking
        if self.judge:
            arguments["judged"] = True
        return arguments


class NewModelConfig(Config):
    """A model from scratch (the laptop's hybrid), for training a base."""

    vocab: int = Field(
        1024,
        ge=300,
        description="size of the byte-level BPE vocabulary, trained on the domains' clean text",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of the initial weights and of the data")


NameOrNewModel = Annotated[
    Annotated[str, Tag(VALUE)] | Annotated[NewModelConfig, Tag(KEYS)], ValueOrKeys
]
"""A base, a Hugging Face folder, or the block of a new model."""


class Recipe(Config):
    """A list of stages; each takes a checkpoint and gives back a checkpoint."""

    name: PlainName = Field(description="the run's name; its folder is runs/NAME")
    model: NameOrNewModel = Field(
        "tiny",
        description="`tiny[-SEED]` (the base kept with linn), a Hugging Face folder, "
        "or {vocab, seed} for a new one",
    )
    template: Literal["own", "nemotron"] | None = Field(
        None,
        description="how conversations are written: `own`, by the chat template of the model's "
        "folder; `nemotron`, in linn's protocol; default: own for a chat model, else nemotron",
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
        default_factory=lambda: ScaleConfig(), description="engine, processes, precision, widths"
    )
    stages: list[AnyStage] = Field(min_length=1, description="the stages, in order")

    # ------------------------------------------------------------ checks across blocks

    @model_validator(mode="after")
    def _check_blocks(self) -> Self:
        domains = self.domain_names()
        if len(set(domains)) < len(domains):
            raise ValueError(
                f"domains: two have the same name ({', '.join(self.domains)}); "
                "a file's name is its domain's name"
            )

        earlier = ["base"]
        for stage in self.stages:
            self._check_stage(stage, earlier)
            earlier.append(stage.name)

        self.evaluate.check_domains(domains)
        self._check_greedy(self.evaluate.greedy)
        # A judge may be any stage that comes before the first that asks it.
        for name, config in self.domains.items():
            if config.judge is not None and config.judge.stage is not None:
                self._check_judge(short(name), config.judge.stage, stages=earlier)
        return self

    def _check_stage(self, stage: StageConfig, earlier: Sequence[str]) -> None:
        """`earlier`: `base` and the stages before this one."""
        where = f"stage {stage.name!r}"
        if stage.name in ("base", "best"):
            raise ValueError(
                f"{where}: that name stands for the start (base) or a domain's best checkpoint; "
                "take another"
            )
        if stage.name in earlier:
            raise ValueError(f"{where} is there twice; names must differ")
        if stage.from_ is not None and stage.from_ not in earlier:
            raise ValueError(
                f"{where}: from: {stage.from_!r} is no earlier stage; allowed: {', '.join(earlier)}"
            )

        self._check_domains(stage, where)
        if isinstance(stage, SftConfig):
            self._check_packing(stage, where)
        elif isinstance(stage, RlConfig):
            self._check_curriculum(stage, where)
        elif isinstance(stage, DistillConfig):
            self._check_teachers(stage, where, earlier)

    def _check_greedy(self, given: Any) -> None:
        """Refuse what names no measured stage; the line lists those that there are."""
        if isinstance(given, bool):
            return
        measured = [name for name in self.stage_names() if self.is_measured(name)]
        allowed = f"allowed: true, false or a list of {', '.join(measured) or 'no stage'}"
        if not isinstance(given, list):
            found = "nothing" if given is None else f"{given!r:.60}"
            raise ValueError(f"evaluate.greedy: found {found}; {allowed}")
        for name in given:
            if name in measured:
                continue
            fault = "is no stage of this recipe"
            if name == "base":
                fault = "is not measured; say evaluate.start: true"
            elif name in self.stage_names():
                fault = "is not measured; take its evaluate: false away"
            raise ValueError(f"evaluate.greedy: {name!r} {fault}; {allowed}")

    def _check_domains(self, stage: StageConfig, where: str) -> None:
        # A name that only `faulty` or `teachers` mentions would be misspelt without notice.
        domains = self.domain_names()
        for domain in (*stage.domains, *_domains_of_other_keys(stage)):
            if domain not in domains:
                raise ValueError(
                    f"{where}: domain {domain!r} is not among the recipe's domains"
                    f"{nearest(domain, domains)}"
                )

        # Rows of files need no domain, prompts do.
        has_files = isinstance(stage, SftConfig) and bool(stage.data)
        if not domains and not has_files:
            raise ValueError(
                f"{where}: the recipe has no domains to take prompts from; name some under domains:"
            )

    def _check_packing(self, stage: SftConfig, where: str) -> None:
        if stage.packed and stage.max_length > self.scale.width:
            raise ValueError(
                f"{where}: max_length {stage.max_length} is over scale.width {self.scale.width}: "
                "with packed: true a sequence must fit into a row"
            )

    def _check_curriculum(self, stage: RlConfig, where: str) -> None:
        if not stage.curriculum:
            return
        rows = {short(name): config.rows for name, config in self.domains.items()}
        for domain in self.weights_of(stage):
            # A generator does not know how hard its prompts are.
            if rows[domain] is None:
                raise ValueError(
                    f"{where}: curriculum needs rows with pass_rate; "
                    f"give domains.{domain}.rows (linn filter writes them)"
                )

    def _check_teachers(self, stage: DistillConfig, where: str, earlier: Sequence[str]) -> None:
        if isinstance(stage.teachers, dict):
            self._check_teachers_by_domain(stage.teachers, self.weights_of(stage), where, earlier)
        # Only `base` is there, which cannot teach itself.
        if len(earlier) == 1:
            raise ValueError(
                f"{where}: no checkpoint comes before it that could teach; "
                "put it after an sft or rl stage"
            )

    def _check_teachers_by_domain(
        self,
        teachers: dict[str, str],
        domains: Collection[str],
        where: str,
        earlier: Sequence[str],
    ) -> None:
        for domain, teacher in teachers.items():
            stage, _, step = teacher.partition(":")
            if teacher != "best" and stage not in earlier:
                raise ValueError(
                    f"{where}: teacher {teacher!r} of {domain} is no earlier stage "
                    f"(STAGE, or STAGE:STEP of one kept on the way); "
                    f"allowed: {', '.join(earlier)}"
                )
            self._check_kept(stage, step, f"{where}: teacher {teacher!r} of {domain}")
        if missing := [domain for domain in domains if domain not in teachers]:
            raise ValueError(
                f"{where}: no teacher for {', '.join(missing)}; "
                "name one each, or say teachers: best"
            )
        if extra := [domain for domain in teachers if domain not in domains]:
            raise ValueError(
                f"{where}: teacher for {extra[0]!r}, which is not among its domains"
                f"{nearest(extra[0], domains)}"
            )

    def _check_judge(self, domain: str, judge: str, stages: Sequence[str]) -> None:
        """`stages`: `base` and every stage, in order."""
        where = f"domains.{domain}.judge"
        name = judge
        judge, _, step = name.partition(":")
        if judge not in stages:
            raise ValueError(
                f"{where}: '@{judge}' is no stage of this recipe{nearest(judge, stages)}"
            )

        self._check_kept(judge, step, f"{where}: '@{name}'")

        # `base` comes first in `stages`, so these are the stages up to and with the judge itself.
        for stage in self.stages[: stages.index(judge)]:
            if isinstance(stage, RlConfig) and domain in self.weights_of(stage):
                raise ValueError(
                    f"{where}: stage {stage.name!r} needs the judge, but its stage {judge!r} "
                    "does not come before; name an earlier one"
                )

    def _check_kept(self, stage: str, step: str, what: str) -> None:
        """Refuse `STAGE:STEP` where the stage keeps no checkpoint of that step."""
        if not step:
            return
        config = next((each for each in self.stages if each.name == stage), None)
        if not step.isdecimal() or config is None or not config.has_checkpoint(int(step)):
            raise ValueError(
                f"{what}: stage {stage!r} keeps no checkpoint of step {step}; "
                "say keep_every there, or name the stage alone for its last"
            )

    # ------------------------------------------------------------ what follows from the blocks

    def domain_names(self) -> list[str]:
        """Every domain's short name, in the recipe's order."""
        return [short(name) for name in self.domains]

    def stage_names(self) -> list[str]:
        """`base` and every stage, in order."""
        return ["base", *(stage.name for stage in self.stages)]

    def is_measured(self, name: str) -> bool:
        """Whether a stage, or `base`, is evaluated."""
        return self.evaluate.start if name == "base" else self.stage(name).evaluate

    def conversations_after(self, name: str) -> int:
        """Held-out conversations of each domain after a stage, or of `base`.

        Test prompts are sampled and, where `evaluate.greedy` says so, greedy; validation prompts
        are sampled, with pass@k so often more.
        """
        if not self.is_measured(name):
            return 0
        config = self.evaluate
        return (1 + config.is_greedy(name)) * config.test + config.validation * (1 + config.pass_at)

    def stage(self, name: str) -> AnyStage:
        """The block of the stage `name`."""
        return next(stage for stage in self.stages if stage.name == name)

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
        weights = stage.domains or dict.fromkeys(self.domain_names(), 1.0)
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def max_mismatch_of(self, stage: StageConfig) -> float:
        """The largest mismatch that a stage allows, by its own key or by the precision."""
        if isinstance(stage, RolloutConfig) and stage.max_mismatch is not None:
            return stage.max_mismatch
        return MISMATCH[self.scale.precision]

    def evaluation_sampling(self) -> dict[str, tuple[float, float]]:
        """Temperature and nucleus mass at which each domain is evaluated, after every stage alike.

        Where `evaluate` does not say: those of the last rl stage that trains the domain.
        """
        sampling = {}
        for domain in self.domain_names():
            temperature, top_p = 1.0, 1.0
            for stage in self.stages:
                if isinstance(stage, RlConfig) and self.weights_of(stage).get(domain):
                    temperature, top_p = stage.temperature, stage.top_p
            sampling[domain] = self.evaluate.sampling(domain, (temperature, top_p))
        return sampling

    def domain_options(self) -> dict[str, dict[str, Any]]:
        """Constructor arguments of every domain, by its name or file."""
        return {name: config.options for name, config in self.domains.items()}

    def judges(self) -> dict[str, JudgeConfig]:
        """The judge of every domain that has one, by the domain's short name."""
        return {
            short(name): config.judge
            for name, config in self.domains.items()
            if config.judge is not None
        }

    def judged_by(self, stage: str) -> dict[str, JudgeConfig]:
        """The judges that are there once `stage` has its checkpoint, by domain."""
        names = self.stage_names()
        there = names[: names.index(stage) + 1]
        return {
            domain: judge
            for domain, judge in self.judges().items()
            if judge.stage is None or judge.stage.partition(":")[0] in there
        }

    def measured_at(self, stage: str) -> list[str]:
        """The domains that can be evaluated once `stage` has its checkpoint.

        These are the domains without a judge, and those whose judge is there.
        """
        all_judges, judges = self.judges(), self.judged_by(stage)
        return [name for name in self.domain_names() if name not in all_judges or name in judges]


def _domains_of_other_keys(stage: StageConfig) -> list[str]:
    """Domains that keys other than `domains` name."""
    if isinstance(stage, SftConfig) and isinstance(stage.faulty, dict):
        return list(stage.faulty)
    if isinstance(stage, DistillConfig) and isinstance(stage.teachers, dict):
        return list(stage.teachers)
    return []
