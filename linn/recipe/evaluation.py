"""The block `evaluate` of a recipe: what is measured after every stage, and how it is sampled."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from linn.errors import nearest
from linn.recipe.base import Config, NumberOrNumbers, short
from linn.recipe.benchmarks import BenchmarkUse, uses_of


class EvaluateConfig(Config):
    """What is measured after every stage."""

    test: int = Field(
        300, ge=1, description="test prompts per domain; results are reported on them"
    )
    validation: int = Field(
        200, ge=1, description="validation prompts per domain; teachers are chosen on them"
    )
    max_tokens: int = Field(96, ge=1, description="sampled tokens per turn at most, in evaluation")
    max_sequence: int | None = Field(
        None,
        ge=1,
        description="tokens of a whole held-out conversation at most, prompt and environment turns "
        "included; default: no limit",
    )
    temperature: NumberOrNumbers | None = Field(
        None,
        description="sampling temperature of the metric `accuracy`, for all domains or by domain; "
        "default: as the last rl stage that trains the domain samples, else 1",
    )
    top_p: NumberOrNumbers | None = Field(
        None, description="nucleus mass of the metric `accuracy`, in the same way"
    )
    max_failed: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of a domain's rollouts that may fail, its environment or grader "
        "broken; above it the run stops",
    )
    pass_at: int = Field(
        0, ge=0, description="also measure pass@k over k rollouts of each validation prompt; 0: no"
    )
    greedy: bool | list[str] = Field(
        True,
        description="after which stages test prompts are also measured at temperature 0: true is "
        "every stage, false none, a list those that it names (`base` with evaluate.start)",
    )
    start: bool = Field(False, description="measure the start checkpoint too, as stage `base`")
    benchmarks: dict[str, BenchmarkUse] = Field(
        default_factory=dict,
        description="benchmarks measured after every stage, by name or ./FILE.yaml, with what is "
        "changed of each protocol; `[aime25, ifbench]` changes nothing (docs/evaluation.md)",
    )
    at_once: int = Field(
        32, ge=1, description="conversations of a benchmark that are held, and kept, together"
    )

    @field_validator("temperature", "top_p")
    @classmethod
    def _check_sampling(
        cls, given: float | dict[str, float] | None, info: ValidationInfo
    ) -> float | dict[str, float] | None:
        most = 1.0 if info.field_name == "top_p" else sys.float_info.max
        values = given.values() if isinstance(given, dict) else [given]
        if not all(value is None or 0 < value <= most for value in values):
            bound = " and at most 1" if info.field_name == "top_p" else ""
            raise ValueError(f"must be above 0{bound}, found {given}")
        if isinstance(given, dict):
            return {short(name): value for name, value in given.items()}
        return given

    @field_validator("greedy", mode="plain")
    @classmethod
    def _leave_to_the_recipe(cls, given: Any) -> Any:
        # A refusal lists the stages, and this block does not know them: `Recipe` checks the key.
        return given

    @field_validator("benchmarks", mode="before")
    @classmethod
    def _expand_names(cls, given: Any) -> Any:
        return uses_of(given)

    def check_domains(self, names: Sequence[str]) -> None:
        """ValueError where a key speaks of a domain that the recipe does not have."""
        for key in ("temperature", "top_p"):
            given = getattr(self, key)
            for domain in given if isinstance(given, dict) else ():
                if domain not in names:
                    raise ValueError(
                        f"evaluate.{key}: domain {domain!r} is not among the recipe's domains"
                        f"{nearest(domain, names)}"
                    )

    def is_greedy(self, stage: str) -> bool:
        """Whether a stage, or `base`, is measured at temperature 0 where it is measured."""
        return stage in self.greedy if isinstance(self.greedy, list) else self.greedy

    def sampling(self, domain: str, trained: tuple[float, float]) -> tuple[float, float]:
        """Temperature and nucleus mass of a domain; `trained`: where these keys do not say."""
        return (
            _for_domain(self.temperature, domain, trained[0]),
            _for_domain(self.top_p, domain, trained[1]),
        )


def _for_domain(given: float | dict[str, float] | None, domain: str, otherwise: float) -> float:
    """A key that may hold one number for all domains, or some domains' own."""
    if isinstance(given, dict):
        return given.get(domain, otherwise)
    return otherwise if given is None else given
