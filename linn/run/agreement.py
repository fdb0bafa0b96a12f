"""What each key of a recipe decides, and where the recipes of one run folder differ.

The one table of what a change does to a run that has begun; `docs/running.md` shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from linn.recipe.base import short
from linn.recipe.places import has_moved, is_same_file
from linn.recipe.schema import DomainConfig, JudgeConfig, NewModelConfig, Recipe
from linn.recipe.stages import KINDS, AnyStage


class Effect(StrEnum):
    """What a key decides, and so what becomes of a run that has begun when it changes."""

    NOTHING = "nothing"
    """No number: only how the run goes. It goes on, and its bytes stay what they would be."""
    ROUNDING = "rounding"
    """How sums are dealt. It goes on with the same state, which rounds otherwise from there on."""
    SCORES = "scores"
    """What is measured. Weights keep their bytes; finished stages are measured anew."""
    ONWARD = "onward"
    """The rate and length of training. It goes on with the new value from the next step on."""
    ASKED = "asked"
    """The steps made so far. It goes on only with `--from-here`, as a run of two parts."""
    MADE = "made"
    """What was made, or where it stands in its data. It is refused."""


EFFECTS: dict[str, Effect] = {
    "name": Effect.NOTHING,
    "model": Effect.MADE,
    "model.vocab": Effect.MADE,
    "model.seed": Effect.MADE,
    "seed": Effect.MADE,
    "template": Effect.MADE,
    # Another domain may come or go; what a stage trains on is the stage's own key.
    "domains": Effect.SCORES,
    "domains.NAME.level": Effect.MADE,
    "domains.NAME.rows": Effect.MADE,
    # Rows that are measured are not trained on.
    "domains.NAME.test": Effect.MADE,
    "domains.NAME.validation": Effect.MADE,
    # The first bad row stops a run, so up to where it stopped there was none.
    "domains.NAME.skip_bad": Effect.NOTHING,
    "domains.NAME.thinking": Effect.ASKED,
    "domains.NAME.judge": Effect.MADE,
    # Where a judge is served is no matter; which model it is decides every verdict.
    "domains.NAME.judge.model": Effect.MADE,
    "domains.NAME.judge.template": Effect.ASKED,
    "domains.NAME.judge.temperature": Effect.ASKED,
    "domains.NAME.judge.top_p": Effect.ASKED,
    "domains.NAME.judge.max_tokens": Effect.ASKED,
    "domains.NAME.judge.retries": Effect.ASKED,
    "domains.NAME.judge.max_unreadable": Effect.NOTHING,
    "domains.NAME.judge.concurrency": Effect.NOTHING,
    "domains.NAME.judge.timeout_s": Effect.NOTHING,
    "domains.NAME.judge.key_env": Effect.NOTHING,
    "domains.NAME.OPTION": Effect.MADE,
    "evaluate": Effect.SCORES,
    "evaluate.test": Effect.SCORES,
    "evaluate.validation": Effect.SCORES,
    "evaluate.max_tokens": Effect.SCORES,
    "evaluate.max_sequence": Effect.SCORES,
    "evaluate.temperature": Effect.SCORES,
    "evaluate.top_p": Effect.SCORES,
    "evaluate.max_failed": Effect.NOTHING,
    "evaluate.pass_at": Effect.SCORES,
    # Only of the stages that it adds: one that it no longer names keeps its scores.
    "evaluate.greedy": Effect.SCORES,
    "evaluate.start": Effect.SCORES,
    "evaluate.benchmarks": Effect.SCORES,
    "evaluate.at_once": Effect.SCORES,
    "evaluate.benchmarks.NAME.k": Effect.SCORES,
    "evaluate.benchmarks.NAME.limit": Effect.SCORES,
    "evaluate.benchmarks.NAME.max_tokens": Effect.SCORES,
    "evaluate.benchmarks.NAME.max_sequence": Effect.SCORES,
    "evaluate.benchmarks.NAME.max_turns": Effect.SCORES,
    "evaluate.benchmarks.NAME.temperature": Effect.SCORES,
    "evaluate.benchmarks.NAME.top_p": Effect.SCORES,
    "evaluate.benchmarks.NAME.thinking": Effect.SCORES,
    "evaluate.benchmarks.NAME.rows": Effect.SCORES,
    "evaluate.benchmarks.NAME.judge": Effect.SCORES,
    "scale": Effect.ASKED,
    # A state has the layout of the engine that wrote it.
    "scale.engine": Effect.MADE,
    "scale.processes": Effect.ROUNDING,
    "scale.places": Effect.NOTHING,
    "scale.device": Effect.ROUNDING,
    "scale.trainers": Effect.ROUNDING,
    "scale.trainers.ranks": Effect.ROUNDING,
    "scale.trainers.experts": Effect.ROUNDING,
    "scale.trainers.context": Effect.ROUNDING,
    "scale.trainers.moments": Effect.NOTHING,
    "scale.trainers.sum": Effect.ROUNDING,
    "scale.samplers": Effect.ROUNDING,
    "scale.samplers.engine": Effect.ROUNDING,
    "scale.samplers.replicas": Effect.ROUNDING,
    "scale.samplers.tensor": Effect.ROUNDING,
    "scale.samplers.colocated": Effect.NOTHING,
    "scale.samplers.memory": Effect.NOTHING,
    "scale.samplers.arguments": Effect.ROUNDING,
    "scale.samplers.deadline_s": Effect.NOTHING,
    "scale.carrier": Effect.NOTHING,
    "scale.exchange": Effect.NOTHING,
    "scale.restarts": Effect.NOTHING,
    "scale.precision": Effect.ASKED,
    "scale.width": Effect.ASKED,
    "scale.recompute": Effect.NOTHING,
    "scale.share_prompts": Effect.ROUNDING,
    "scale.capacity": Effect.ROUNDING,
    "scale.cache": Effect.ROUNDING,
    "stages": Effect.MADE,
    "STAGE.name": Effect.MADE,
    "STAGE.kind": Effect.MADE,
    "STAGE.from": Effect.MADE,
    "STAGE.domains": Effect.MADE,
    "STAGE.steps": Effect.ONWARD,
    "STAGE.lr": Effect.ONWARD,
    "STAGE.min_lr": Effect.ONWARD,
    "STAGE.warmup": Effect.ONWARD,
    "STAGE.warmup_from": Effect.ONWARD,
    "STAGE.schedule": Effect.ONWARD,
    "STAGE.horizon": Effect.ONWARD,
    "STAGE.betas": Effect.ONWARD,
    "STAGE.eps": Effect.ONWARD,
    "STAGE.weight_decay": Effect.ONWARD,
    "STAGE.clip": Effect.ONWARD,
    "STAGE.save_every": Effect.NOTHING,
    "STAGE.keep_every": Effect.NOTHING,
    "STAGE.keep_rollouts": Effect.NOTHING,
    "STAGE.evaluate": Effect.SCORES,
    # Stages of rows and demonstrations.
    "STAGE.data": Effect.MADE,
    "STAGE.skip_bad": Effect.NOTHING,
    "STAGE.faulty": Effect.ASKED,
    "STAGE.batch": Effect.ASKED,
    "STAGE.packed": Effect.ASKED,
    "STAGE.length_power": Effect.ASKED,
    # Another answer would cut the row that a stage stands in otherwise.
    "STAGE.every_turn": Effect.MADE,
    "STAGE.max_length": Effect.ASKED,
    # Stages that sample.
    "STAGE.prompts": Effect.ASKED,
    "STAGE.rollouts": Effect.ASKED,
    "STAGE.max_tokens": Effect.ASKED,
    "STAGE.temperature": Effect.ASKED,
    "STAGE.top_p": Effect.ASKED,
    "STAGE.max_turns": Effect.ASKED,
    "STAGE.max_sequence": Effect.ASKED,
    "STAGE.max_mismatch": Effect.NOTHING,
    "STAGE.max_failed": Effect.NOTHING,
    "STAGE.curve_every": Effect.SCORES,
    "STAGE.dynamic_filter": Effect.ASKED,
    "STAGE.refill": Effect.ASKED,
    "STAGE.overlong": Effect.ASKED,
    "STAGE.kl": Effect.ASKED,
    "STAGE.baseline": Effect.ASKED,
    "STAGE.std": Effect.ASKED,
    "STAGE.normalise": Effect.ASKED,
    "STAGE.group_mask": Effect.ASKED,
    # A curriculum's pool is a window over its stream: another one would begin elsewhere.
    "STAGE.curriculum": Effect.MADE,
    "STAGE.curriculum.start": Effect.ASKED,
    "STAGE.curriculum.end": Effect.ASKED,
    "STAGE.curriculum.width": Effect.ASKED,
    "STAGE.curriculum.pool": Effect.MADE,
    "STAGE.teachers": Effect.ASKED,
    "STAGE.band": Effect.ASKED,
    "STAGE.allow_weak_teachers": Effect.NOTHING,
}
"""Every key, named as `linn explain` names it, with STAGE for the kinds of stage."""

RATE = ("steps", "lr", "min_lr", "warmup", "warmup_from", "schedule", "horizon")
"""Keys of a stage that decide nothing but the rate of each step, and how many there are."""


def effect_of(key: str) -> Effect:
    """The effect of a key as `linn explain` names it, such as `rl.lr` or `evaluate.test`.

    A key that the table does not know decides everything, to be safe; a test finds it.
    """
    head, _, rest = key.partition(".")
    if head in KINDS:
        key = f"STAGE.{rest}"
    return EFFECTS.get(key, Effect.MADE)


@dataclass(frozen=True)
class Difference:
    """One key that has another value now."""

    stage: str | None
    """The stage whose key it is; None: a key of the whole run."""
    key: str
    """Its path as `--set` takes it, without the stage: `lr`, `evaluate.test`."""
    old: Any
    """Its value in the folder's recipe, as YAML has it."""
    new: Any
    """Its value now."""
    effect: Effect
    """What the key decides."""

    @property
    def name(self) -> str:
        """The path as `--set` takes it."""
        return f"{self.stage}.{self.key}" if self.stage else self.key

    def __str__(self) -> str:
        return f"{self.name} {shown(self.old)} → {shown(self.new)}"


def shown(value: Any) -> str:
    """A value of a recipe as a message shows it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


# ---------------------------------------------------------------- between two recipes


def differences_of_run(old: Recipe, new: Recipe) -> list[Difference]:
    """The keys outside of `stages` that have other values."""
    found = list(_model(old, new))
    for key in ("name", "seed"):
        found += _one(None, key, key, getattr(old, key), getattr(new, key))
    for block in ("evaluate", "scale"):
        before, after = _dumped(getattr(old, block)), _dumped(getattr(new, block))
        if block == "evaluate":
            before, after = before | _sampling(old, new), after | _sampling(new, old)
            if not _differs_in_greedy(old, new):
                before["greedy"] = after["greedy"]
        found += _keys(None, f"{block}.", f"{block}.", before, after)
    return [*found, *_domains(old, new)]


def _sampling(recipe: Recipe, other: Recipe) -> dict[str, dict[str, float]]:
    """How each domain of both recipes is sampled in evaluation, where that differs at all."""
    own, others = recipe.evaluation_sampling(), other.evaluation_sampling()
    shared = [name for name in own if name in others]
    found = {}
    for place, key in enumerate(("temperature", "top_p")):
        found[key] = {
            name: own[name][place] for name in shared if own[name][place] != others[name][place]
        }
    return found


def _differs_in_greedy(old: Recipe, new: Recipe) -> bool:
    """Whether a stage of both is measured at temperature 0 by one of them alone.

    `true`, a list of all stages and the same list in another order mean the same.
    """
    shared = [name for name in old.stage_names() if name in new.stage_names()]
    return any(old.evaluate.is_greedy(name) != new.evaluate.is_greedy(name) for name in shared)


def differences_of_stage(old: Recipe, new: Recipe, index: int) -> list[Difference]:
    """The keys of the stage at a place (from 0) that have other values. Both recipes have one."""
    before, after = old.stages[index], new.stages[index]
    if (before.name, before.kind) != (after.name, after.kind):
        was = f"{before.name} ({before.kind})"
        now = f"{after.name} ({after.kind})"
        return [Difference(before.name, "name", was, now, Effect.MADE)]

    values_before = _meant(old, before)
    values_after = _meant(new, after)
    return list(_keys(before.name, "", "STAGE.", values_before, values_after))


def _meant(recipe: Recipe, stage: AnyStage) -> dict[str, Any]:
    """A stage's values, with what stands for those of which the recipe may say nothing."""
    values = _dumped(stage)
    values["from"] = recipe.parent(stage.name)
    values["domains"] = None
    if not getattr(stage, "data", None):  # rows of files need no domain
        # As text, since their order counts: ties in a batch go by it.
        weights = recipe.weights_of(stage).items()
        values["domains"] = ", ".join(f"{name} {weight}" for name, weight in weights)
    if "max_mismatch" in values:
        values["max_mismatch"] = recipe.max_mismatch_of(stage)
    return values


def _model(old: Recipe, new: Recipe) -> Iterator[Difference]:
    before, after = old.model, new.model
    if isinstance(before, NewModelConfig) and isinstance(after, NewModelConfig):
        yield from _keys(None, "model.", "model.", _dumped(before), _dumped(after))
    else:
        values = [m if isinstance(m, str) else "a new model" for m in (before, after)]
        yield from _one(None, "model", "model", *values)


def _domains(old: Recipe, new: Recipe) -> Iterator[Difference]:
    before = {short(name): (name, config) for name, config in old.domains.items()}
    after = {short(name): (name, config) for name, config in new.domains.items()}
    for name in dict.fromkeys([*before, *after]):
        place = f"domains.{name}"
        if name not in after:
            yield Difference(None, place, "there", None, effect_of("domains"))
        elif name not in before:
            yield Difference(None, place, None, "there", effect_of("domains"))
        else:
            # A domain of one's own is its file.
            yield from _one(None, place, "model", before[name][0], after[name][0])
            yield from _domain(name, before[name][1], after[name][1])


def _domain(name: str, old: DomainConfig, new: DomainConfig) -> Iterator[Difference]:
    before, after = _dumped(old), _dumped(new)
    judges = before.pop("judge"), after.pop("judge")
    yield from _keys(None, f"domains.{name}.", "domains.NAME.", before, after)
    if old.judge is None or new.judge is None:
        values = [judge and judge["model"] for judge in judges]
        yield from _one(None, f"domains.{name}.judge", "domains.NAME.judge", *values)
        return

    place = f"domains.{name}.judge."
    for found in _keys(None, place, "domains.NAME.judge.", *judges):
        if found.key == f"{place}model" and _same_model(old.judge, new.judge):
            found = Difference(None, found.key, found.old, found.new, Effect.NOTHING)
        yield found


def _same_model(old: JudgeConfig, new: JudgeConfig) -> bool:
    """Whether two endpoints serve a model of the same name."""
    if old.endpoint is None or new.endpoint is None:
        return False
    return old.endpoint[1] == new.endpoint[1]


def _keys(
    stage: str | None, place: str, table: str, old: dict[str, Any], new: dict[str, Any]
) -> Iterator[Difference]:
    """The keys of one block; `table`: how the table's names of its keys begin."""
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        name = table + key
        if name not in EFFECTS and table == "domains.NAME.":
            name = f"{table}OPTION"

        # Other mappings are values as a whole.
        if key in _BLOCKS and before and after:
            yield from _keys(stage, f"{place}{key}.", f"{name}.", before, after)
        else:
            yield from _one(stage, place + key, name, before, after)


_BLOCKS = ("curriculum", "trainers", "samplers")
"""Keys under which a block has keys of its own."""
_FILES = ("model", "rows", "test", "validation", "data")
"""Last parts of the keys that may name a file."""


def _one(stage: str | None, path: str, table: str, old: Any, new: Any) -> Iterator[Difference]:
    if old == new:
        return
    effect = effect_of(table)
    if table.rpartition(".")[2] in _FILES:
        # The same file by another name; or a project that was moved as a whole.
        if is_same_file(old, new):
            return
        if has_moved(old, new):
            effect = Effect.NOTHING
    yield Difference(stage, path, old, new, effect)


def _dumped(block: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = block.model_dump(mode="json", by_alias=True)
    return dumped
