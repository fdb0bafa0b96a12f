"""A run that has begun, and another recipe for it: what goes on how, and what is refused.

What a change does to the promise of equal bytes is a line in run.json:

- `bytes`: the weights are those of a run that had the value from the start;
- `state`: the same state, from which on sums are rounded otherwise;
- `changed from step N`: a run of two parts;
- `scores`: the weights keep their bytes, what is measured of them changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from linn.errors import UserError
from linn.recipe.schema import Recipe
from linn.recipe.stages import AnyStage, RlConfig
from linn.run.agreement import (
    RATE,
    Difference,
    Effect,
    differences_of_run,
    differences_of_stage,
    shown,
)
from linn.run.standing import Standing, built_on, loss

SHOWN = 8
"""Differences that a message names at most."""


@dataclass(frozen=True)
class Change:
    """One value that changed in the middle of a run; an entry of run.json."""

    stage: str
    """The stage from which on it holds."""
    step: int
    """Steps of that stage that were made before."""
    key: str
    """The key as `--set` takes it."""
    old: Any
    """Its value before."""
    new: Any
    """Its value from there on."""
    promise: str
    """What is left of the promise of equal bytes."""
    note: str = ""
    """What else a person should know."""

    def __str__(self) -> str:
        text = f"{self.key} {shown(self.old)} → {shown(self.new)}"
        if self.promise != "scores":
            text += f" from {self.stage} step {self.step + 1} on"
        text += f": {MEANING.get(self.promise, 'a run of two parts')}"
        return f"{text}; {self.note}" if self.note else text


MEANING = {
    "bytes": "the same bytes as if it had been so from the start",
    "state": "the same state, but sums are rounded otherwise from there on",
    "scores": "the same weights, other measurements",
}
"""What a promise means; any other says from which step on nothing is promised."""


@dataclass
class Plan:
    """What becomes of a run folder before the run goes on."""

    changes: list[Change] = field(default_factory=list)
    """What to say and to put on record."""
    reopened: list[str] = field(default_factory=list)
    """Finished stages that get more steps."""
    remeasured: list[str] = field(default_factory=list)
    """Finished stages, and `base`, to be measured anew."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a run folder."""

    where: str
    """The run folder, for messages."""
    old: Recipe
    """The folder's recipe."""
    new: Recipe
    """The one to follow from here on."""
    begun: Mapping[int, Standing]
    """Every stage that has begun, by number."""
    teachers: Mapping[str, Mapping[str, str]]
    """Of every distillation that has begun: the stage that teaches each domain."""
    redo: int | None
    """The number of the first stage that is about to be removed."""
    from_here: bool
    """Whether values that decided steps already made may change."""

    @property
    def kept(self) -> dict[int, Standing]:
        """What stays in the folder."""
        end = len(self.begun) + len(self.new.stages) + 1 if self.redo is None else self.redo
        return {number: standing for number, standing in self.begun.items() if number < end}

    def losses(self, first: int) -> str:
        """What `--redo` of a stage would remove, in words."""
        return loss(standing for number, standing in self.begun.items() if number >= first)


def reconcile(request: Request) -> Plan:
    """How the run goes on. Raises UserError, and changes nothing, where it cannot.

    What was asked for is never carried out by losing work: the refusal names the ways on that lose
    nothing, then the one that does, with what it would lose.
    """
    plan = Plan()
    kept = request.kept
    if not kept:
        return plan

    of_run = differences_of_run(request.old, request.new)
    made = [found for found in of_run if found.effect is Effect.MADE]
    if made:
        keys = ", ".join(repr(found.key) for found in made[:SHOWN])
        raise _refusal(request, f"{keys} of its stages", made, redo=0)

    for number, standing in kept.items():
        if number > 0:
            _add_stage(request, plan, number, standing)
    # Where nothing is made yet, everything will be made by the new recipe.
    if any(standing.steps or standing.finished for standing in kept.values()):
        _add_run(request, plan, of_run)
    return plan


def merged(history: Sequence[Change], changes: Iterable[Change]) -> list[Change]:
    """The changes on record with further ones.

    Two of one key before the same step are one: no step was made between them. If the second takes
    the first back, nothing ever changed.
    """
    record = list(history)
    for change in changes:
        place = (change.stage, change.step, change.key)
        old = change
        for entry in record:
            if (entry.stage, entry.step, entry.key) == place:
                record.remove(entry)
                old = entry
                break
        if old.old != change.new:
            record.append(replace(change, old=old.old))
    return record


def read_changes(entries: Any) -> list[Change]:
    """The changes of a run.json; raises TypeError for what is no such list."""
    return [Change(**entry) for entry in entries or []]


def entry_of(change: Change) -> dict[str, Any]:
    """A change in run.json."""
    return {key: value for key, value in asdict(change).items() if key != "note" or value}


# ---------------------------------------------------------------- one stage


def _add_stage(request: Request, plan: Plan, number: int, standing: Standing) -> None:
    """Take up what is asked of one stage, or refuse it."""
    there = len(request.new.stages) >= number and len(request.old.stages) >= number
    if not there:
        raise _refusal(request, f"stage {standing.name!r}", (), redo=number)
    found = differences_of_stage(request.old, request.new, number - 1)
    old, new = request.old.stages[number - 1], request.new.stages[number - 1]

    # A stage of which no step is on disk is made anew in any case: as whatever it is now.
    fixed = [one for one in found if one.effect is Effect.MADE]
    if standing.steps == 0 and all(one.key != "name" for one in fixed):
        return
    if fixed:
        raise _fixed(request, standing, fixed, number)

    longer = new.steps > old.steps
    ahead = [one for one in found if one.effect in (Effect.ONWARD, Effect.ASKED)]
    if standing.finished and ahead:
        if not longer:
            raise _finished(request, standing, ahead, number)
        _check_end(request, standing, number)
        plan.reopened.append(standing.name)
    if new.steps < standing.steps:
        raise _too_short(request, standing, new, number)

    asked = [one for one in found if one.effect is Effect.ASKED]
    if asked and not request.from_here:
        raise _asked(request, standing, new, asked, number)
    if new.evaluate and not old.evaluate and standing.finished and not longer:
        plan.remeasured.append(standing.name)
    plan.changes += [_change_of_stage(one, standing, old, new) for one in found]


def _change_of_stage(found: Difference, standing: Standing, old: AnyStage, new: AnyStage) -> Change:
    note = ""
    match found.effect:
        case Effect.NOTHING:
            promise = "bytes"
        case Effect.SCORES:
            promise = "scores"
        case _:
            promise = f"changed from step {standing.steps + 1}"
            if found.key in RATE and _same_so_far(standing.steps, old, new):
                promise = "bytes"

    if found.key in RATE:
        note = _rate_note(standing.steps, old, new)
    if found.key == "steps" and not standing.exact:
        promise = f"changed from step {standing.steps + 1}"
        note = "; ".join(filter(None, [note, "AdamW's moments begin anew: its state is gone"]))
    return Change(
        stage=standing.name,
        step=standing.steps,
        key=found.name,
        old=found.old,
        new=found.new,
        promise=promise,
        note=note,
    )


def _same_so_far(steps: int, old: AnyStage, new: AnyStage) -> bool:
    """Whether the steps made so far are those of a stage that had the new values from the start."""
    if any(old.lr_at(step) != new.lr_at(step) for step in range(steps)):
        return False
    # A curriculum, too, spans the stage from its first step to its last.
    return not (isinstance(new, RlConfig) and new.curriculum and old.steps != new.steps)


def _rate_note(steps: int, old: AnyStage, new: AnyStage) -> str:
    """The rate of the next step, where a schedule's shape moves it."""
    before = old.lr_at(min(steps, old.steps - 1))
    after = new.lr_at(steps)
    if before == after or steps >= new.steps:
        return ""
    note = f"the rate of step {steps + 1} is {after:.3g} (before: {before:.3g})"
    if new.schedule != "constant" and new.horizon is None and new.steps > old.steps:
        note += f", since the schedule now ends at step {new.steps}; horizon: {old.steps} keeps it"
    return note


# ---------------------------------------------------------------- the whole run


def _add_run(request: Request, plan: Plan, found: Sequence[Difference]) -> None:
    """Take up the other values of keys outside of stages."""
    stage, step = _place(request, plan)
    # Between two stages nothing is divided, but a judge has measured those that are finished.
    asked = [one for one in found if one.effect is Effect.ASKED]
    judged = any(one.key.startswith("domains.") for one in asked)
    if asked and (step or judged) and not request.from_here:
        # What was measured by another judge is made anew from the start, else the stage at hand.
        redo = 0 if judged else request.new.stage_names().index(stage)
        raise _asked_of_run(request, asked, stage, step, redo)

    promises = {
        Effect.NOTHING: "bytes",
        Effect.ROUNDING: "state",
        Effect.SCORES: "scores",
        Effect.ASKED: f"changed from step {step + 1}",
    }
    for one in found:
        note = ""
        if one.effect is Effect.SCORES:
            note = "curves and kept checkpoints keep the scores that they have"
        if one.key == "evaluate.greedy":
            note = "finished stages that it no longer names keep the scores that they have"
        promise = promises[one.effect]
        plan.changes.append(Change(stage, step, one.name, one.old, one.new, promise, note))

    concerned = _measured_otherwise(request, found)
    for standing in request.kept.values():
        known = standing.name in [*plan.reopened, *plan.remeasured]
        if standing.finished and not known and standing.name in concerned:
            plan.remeasured.append(standing.name)


def _measured_otherwise(request: Request, found: Sequence[Difference]) -> set[str]:
    """The measured stages, `base` among them, of which other values ask for other scores."""
    recipe = request.new
    measured = {name for name in recipe.stage_names() if recipe.is_measured(name)}
    keys = {one.key for one in found if one.effect is Effect.SCORES}
    if keys - {"evaluate.start", "evaluate.greedy"}:
        return measured
    # `start` concerns the start alone, which is then measured for the first time.
    if "evaluate.greedy" not in keys:
        return set()
    before, now = request.old.evaluate, recipe.evaluate
    return {name for name in measured if now.is_greedy(name) and not before.is_greedy(name)}


def _place(request: Request, plan: Plan) -> tuple[str, int]:
    """The next step of the run: its stage, and how many of that stage's steps are made."""
    for number, config in enumerate(request.new.stages, 1):
        standing = request.kept.get(number)
        if standing is None:
            return config.name, 0
        if not standing.finished or standing.name in plan.reopened:
            return config.name, standing.steps
    last = request.new.stages[-1]
    return last.name, last.steps


# ---------------------------------------------------------------- refusals


def _refusal(
    request: Request,
    what: str,
    found: Sequence[Difference],
    redo: int,
    ways: Sequence[str] = (),
    fault: str = "was made under another recipe",
) -> UserError:
    """What differs, the ways on that lose nothing, and the one that does with its loss."""
    names = request.new.stage_names()
    lines = [f"run folder {request.where}: {what} {fault}"]
    lines += [f"  {one}" for one in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"  … and {len(found) - SHOWN} more")

    lines.append("to go on, without losing anything:")
    lines += [f"  {way}" for way in ways]
    lines.append("  take the old values back, or give --out another folder")
    stage = names[redo] if redo < len(names) else names[-1]
    first = names.index(stage)
    lines.append(f"or with a loss: --redo {stage} removes {request.losses(first)}")
    return UserError("\n".join(lines))


def _asked(
    request: Request, standing: Standing, new: AnyStage, found: Sequence[Difference], number: int
) -> UserError:
    span = f"from step {standing.steps + 1} on"
    if new.steps > standing.steps + 1:
        span = f"for steps {standing.steps + 1}–{new.steps}"
    way = (
        f"--from-here takes the new values {span}; steps 1–{standing.steps} stay as they are, and "
        "run.json records it"
    )
    return _refusal(request, f"stage {standing.name!r}", found, number, [way])


def _asked_of_run(
    request: Request, found: Sequence[Difference], stage: str, step: int, redo: int
) -> UserError:
    way = (
        f"--from-here takes the new values from {stage} step {step + 1} on; what is made and "
        "measured stays as it is, and run.json records it"
    )
    keys = ", ".join(repr(one.key) for one in found[:SHOWN])
    return _refusal(request, f"{keys} of its stages", found, redo, [way])


def _fixed(
    request: Request, standing: Standing, found: Sequence[Difference], number: int
) -> UserError:
    """Values that no further step of a stage could take."""
    ways = []
    if not any(one.key in ("name", "from") for one in found):
        way = f"a further stage with from: {standing.name} and the new values"
        if not standing.finished:
            way = f"--set {standing.name}.steps={standing.steps} ends it here; then {way}"
        ways.append(way)
    return _refusal(request, f"stage {standing.name!r}", found, number, ways)


def _finished(
    request: Request, standing: Standing, found: Sequence[Difference], number: int
) -> UserError:
    """Values for further steps of a stage that is to make none."""
    if any(one.key == "steps" for one in found):
        return _too_short(request, standing, request.new.stages[number - 1], number)
    ways = [f"a further stage with from: {standing.name} and the new values"]
    if not _users(request, standing.name, number):
        more = f"more steps as well ({standing.name}.steps above {standing.steps})"
        ways.insert(0, f"{more}: they take the new values")
    fault = "was made under another recipe, and no step is left that could take the new values"
    return _refusal(request, f"stage {standing.name!r}", found, number, ways, fault)


def _too_short(request: Request, standing: Standing, new: AnyStage, number: int) -> UserError:
    fault = f"has made {standing.steps} steps already, and {new.steps} are asked for"
    ways = [f"--set {standing.name}.steps={standing.steps} ends it here"]
    if standing.finished:
        ways = []
    return _refusal(request, f"stage {standing.name!r}", (), number, ways, fault)


def _check_end(request: Request, standing: Standing, number: int) -> None:
    """Refuse more steps of a finished stage that others were built on, or that cannot go on."""
    what = f"stage {standing.name!r}"
    ways = [f"a further stage with from: {standing.name} takes the added steps"]
    if users := _users(request, standing.name, number):
        fault = f"is finished, and {', '.join(users)} started from what it ended with"
        raise _refusal(request, what, (), min(users.values()), ways, fault)
    if not standing.resumable:
        fault = "is finished, and the state from which it could go on is gone"
        raise _refusal(request, what, (), number, ways, fault)


def _users(request: Request, name: str, number: int) -> dict[str, int]:
    """The stages that have begun and were built on a stage, with their numbers."""
    parents = {config.name: request.new.parent(config.name) for config in request.new.stages}
    later = {stage.name: place for place, stage in request.kept.items() if place > number}
    return {user: later[user] for user in built_on(name, parents, request.teachers, later)}
