"""Stage after stage in one run folder: resumable, evaluated, with teachers from the ledger."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from linn import stopping
from linn.bases.make import prepare_start
from linn.chat.codec import Codec
from linn.domains.base import Domain
from linn.domains.load import load_all
from linn.engine.open import open_engine
from linn.engine.protocol import Engine
from linn.errors import EngineLost, InfrastructureError, UserError, nearest
from linn.evals.benchmarks.in_run import Benchmarks
from linn.evals.evaluate import Evaluation
from linn.judges.open import judge_folders, judges_of
from linn.judges.panel import Judges
from linn.ledger import RewardsOf, loss_line, regressions
from linn.progress import Progress
from linn.recipe import load as recipes
from linn.recipe.schema import Recipe
from linn.recipe.stages import AnyStage, DistillConfig, RlConfig, SftConfig
from linn.run.folder import RunFolder
from linn.run.teachers import Candidates, choose_teachers
from linn.stages.distill import distill
from linn.stages.evaluator import Evaluator
from linn.stages.preflight import preflight
from linn.stages.rl import rl
from linn.stages.sft import sft
from linn.stages.stage_run import StageRun
from linn.types import Optim, Score, seed_of


@dataclass(frozen=True)
class _Tools:
    """What a run opens when its first stage needs it."""

    engine: Engine
    domains: dict[str, Domain]
    evaluation: Evaluation
    benchmarks: Benchmarks


def check_stages(recipe: Recipe, until: str | None, redo: str | None) -> None:
    """Refuse a stage of `--until` or `--redo` that the recipe does not have."""
    names = recipe.stage_names()
    for option, stage, allowed in (("--until", until, names[1:]), ("--redo", redo, names)):
        if stage is not None and stage not in allowed:
            raise UserError(
                f"{option}: stage {stage!r} is not in the recipe{nearest(stage, allowed)}"
            )


class Run:
    """One run folder and the recipe it follows."""

    def __init__(self, recipe: Recipe, folder: Path, progress: Progress | None = None) -> None:
        self.recipe = recipes.continued(recipe, folder)
        self.folder = RunFolder(self.recipe, folder)
        self.progress = progress or Progress()
        self._tools: _Tools | None = None

    def go(
        self, until: str | None = None, redo: str | None = None, from_here: bool = False
    ) -> None:
        """Run every stage that is not done, in order; resumes where a killed run stood.

        `until`: the last stage to run. `redo`: remove this stage and all later ones first.
        `from_here`: values that decided steps already made may change for those to come.
        """
        check_stages(self.recipe, until, redo)
        self.folder.path.mkdir(parents=True, exist_ok=True)
        with self.folder.lock():
            self._prepare(redo, from_here)

            # Workers end here also where a stage fails, so that no process is left behind.
            try:
                if self.recipe.evaluate.start and not self.folder.is_done("base"):
                    self._again_if_lost(self._evaluate_start)
                for stage in self.recipe.stages:
                    if not self.folder.is_done(stage.name):
                        self._again_if_lost(partial(self.run_stage, stage))
                    if stage.name == until:
                        break
            finally:
                self.close()

    def close(self) -> None:
        """Stop worker processes and domains' helpers."""
        self._close_tools()
        self.progress.close()

    def _close_tools(self) -> None:
        tools, self._tools = self._tools, None
        if tools is not None:
            tools.engine.close()
            tools.benchmarks.close()
            for domain in tools.domains.values():
                domain.close()

    def _again_if_lost(self, work: Callable[[], None]) -> None:
        """Do it, and again from the last saved state where a cluster has lost a process.

        Again is just what `linn run` would do after a crash: the folder has all it needs.
        """
        for left in range(self.recipe.scale.restarts, -1, -1):
            try:
                return work()
            except EngineLost as error:
                self._close_tools()
                if not left or stopping.requested():  # who asked for the end wants no new start
                    raise
                self.progress.say(
                    f"⚠ {error}; the engine starts again from the last saved state "
                    f"(scale.restarts: {left} left)"
                )

    def run_stage(self, config: AnyStage) -> None:
        """Train one stage, unless only its evaluation is missing, and evaluate it."""
        tools = self._open()
        parent = self.folder.parents[config.name]
        assert parent is not None
        stage = self._stage_run(config, parent, tools)
        stage.folder.mkdir(parents=True, exist_ok=True)
        with self.progress.logging(stage.folder):
            # A checkpoint without DONE: the run was killed in the evaluation after the stage.
            if stage.checkpoint.exists():
                tools.engine.load(stage.checkpoint, config.optim)
            else:
                self.progress.say(
                    f"{config.name}: {config.kind} from {parent}, {config.steps} steps"
                )
                self._train(stage, parent)

            # The engine holds the stage's final policy now, trained or loaded.
            if config.evaluate:
                evaluator = self._evaluator_after(config.name, stage.codec, tools)
                evaluator.evaluate_whole(config.steps, stage.folder / "evals", stage.checkpoint)
                self._show_regressions(config.name)
            self.folder.mark_done(config.name)

    # ------------------------------------------------------------ before the first stage

    def _prepare(self, redo: str | None, from_here: bool) -> None:
        """Check the folder against the recipe, then write down what will be made in it."""
        folder = self.folder
        folder.check_template(redo)
        plan = folder.check_recipe(redo, from_here)
        folder.check_data(plan, redo, from_here)
        folder.check_ledger(plan.remeasured)
        folder.sweep()
        # What goes is named before it goes.
        if redo is not None:
            self.progress.say(f"--redo {redo}: removing {folder.losses(redo)}")
            folder.remove_from(redo)

        gone = folder.take_up(plan)
        folder.drop_orphans()
        self._tell_deleted()
        for change in plan.changes:
            self.progress.say(f"changed: {change}")
        if plan.remeasured:
            self.progress.say(f"to be measured anew: {', '.join(plan.remeasured)}")
        if gone:
            self.progress.say(
                f"{', '.join(gone)}: cannot be measured anew, since the last checkpoint is gone; "
                "the old scores stay as they are, of before the change"
            )

    def _tell_deleted(self) -> None:
        """Name the finished stages whose last checkpoint is gone, and what to do."""
        deleted = self.folder.without_checkpoint()
        for name, has_state in deleted.items():
            if has_state:
                self.folder.reopen(name)
                self.progress.say(
                    f"{name}: its last checkpoint was deleted; written again from its saved state"
                )
            else:
                self.progress.say(
                    f"{name}: its last checkpoint was deleted; its scores stay. Put "
                    f"{self.folder.checkpoint(name)} back where it is needed; --redo {name} "
                    f"removes {self.folder.losses(name)} and makes it again"
                )

    def _open(self) -> _Tools:
        """The engine, the domains and their held-out prompts, opened at the first need."""
        if self._tools is None:
            # Held-out prompts are drawn first: a file without any is an error before training.
            engine = open_engine(self.recipe.scale)
            domains = load_all(self.recipe.domain_options())
            evaluation = Evaluation(
                domains,
                self.recipe.evaluate,
                say=self.progress.say,
                as_trained=self.recipe.evaluation_sampling(),
            )
            benchmarks = Benchmarks(self.recipe)
            self._tools = _Tools(engine, domains, evaluation, benchmarks)
            prepare_start(self.recipe, self.folder.path, domains)
            codec = self._codec("base")
            self.progress.say(codec.described())
            self._tools.evaluation.check(codec)
        return self._tools

    # ------------------------------------------------------------ one stage

    def _stage_run(self, config: AnyStage, parent: str, tools: _Tools) -> StageRun:
        start = self.folder.checkpoint(parent)
        own = self.folder.checkpoint(config.name)
        if not own.exists() and not start.exists():
            raise UserError(
                f"stage {config.name!r} starts from {parent}, whose checkpoint {start} was "
                f"deleted; put it back, or --redo {parent} removes {self.folder.losses(parent)} "
                "and makes it again"
            )
        # Where the stage only has to be measured, its own tokenizer is the one that it was given.
        codec = self._codec(config.name if own.exists() else parent)
        weights = self.recipe.weights_of(config)

        # Within a stage, the judges are those that were there before it.
        before = self.folder.earlier(config.name)[-1]
        judges = self._judges(before, tools)
        measurable = self.recipe.measured_at(before)
        domains = [name for name in weights if name in measurable]
        return StageRun(
            config=config,
            folder=self.folder.stage_folder(config.name),
            start=start,
            seed=seed_of(self.recipe.seed, config.name),
            weights=weights,
            domains=tools.domains,
            codec=codec,
            engine=tools.engine,
            progress=self.progress,
            judges=judges,
            max_mismatch=self.recipe.max_mismatch_of(config),
            evaluator=self._evaluator(config.name, domains, judges, codec, tools),
        )

    def _train(self, stage: StageRun, parent: str) -> None:
        """Train one stage; what the machine did to it names the stage and the step."""
        try:
            with stopping.gentle():
                match stage.config:
                    case SftConfig():
                        sft(stage)
                    case RlConfig():
                        rl(stage)
                    case DistillConfig() as config:
                        distill(stage, self._teachers(config, parent))
        except InfrastructureError as error:
            # A lost engine can be started again (`_again_if_lost`).
            kind = EngineLost if isinstance(error, EngineLost) else InfrastructureError
            raise kind(f"{_step_of(stage)}: {error}") from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            words = f"{error.filename or 'a file'}: {error.strerror}"
            raise InfrastructureError(f"{_step_of(stage)}: {words}") from None

    def _teachers(self, config: DistillConfig, parent: str) -> dict[str, Path]:
        """The checkpoint that teaches each domain, fit for the student that starts at `parent`."""
        folder = self.folder
        rows = folder.ledger.read()
        rewards = folder.rewards()
        places, notes = self._chosen_teachers(config, parent, rows, rewards)
        teachers = {}
        for domain, place in places.items():
            teachers[domain] = (place, folder.checkpoint(place))

        student = (parent, folder.checkpoint(parent))
        for line in [*notes, *preflight(config, student, teachers, rows, rewards)]:
            self.progress.say(f"  {line}")
        names = ", ".join(f"{domain} ← {place}" for domain, place in places.items())
        self.progress.say(f"  teachers: {names}")

        # On record before the first step, for the report of a stage that is under way.
        folder.set_teachers(config.name, places)
        return {domain: path for domain, (_, path) in teachers.items()}

    def _chosen_teachers(
        self,
        config: DistillConfig,
        parent: str,
        rows: Sequence[Score],
        rewards: RewardsOf,
    ) -> tuple[dict[str, str], list[str]]:
        """The checkpoint that teaches each domain, and why: of a stage under way, as it began."""
        folder = self.folder
        places, notes = choose_teachers(
            config,
            domains=list(self.recipe.weights_of(config)),
            candidates=Candidates(
                earlier=folder.earlier(config.name),
                line=folder.line(parent),
                last_step=folder.last_step,
                is_there=folder.has_checkpoint,
            ),
            rows=rows,
            rewards=rewards,
        )
        # Scores that came since, or were measured anew, must not exchange a teacher.
        words = config.teachers if isinstance(config.teachers, dict) else {}
        recorded = folder.chosen_teachers(config.name)
        for domain, place in recorded.items():
            if domain in places and words.get(domain, "best") == "best":
                places[domain] = place
        return places, [] if recorded else notes

    # ------------------------------------------------------------ evaluation

    def _evaluate_start(self) -> None:
        """Evaluate what the run starts from, unless that is done."""
        tools = self._open()
        if self.folder.is_done("base"):
            return
        start = self.folder.checkpoint("base")
        tools.engine.load(start, Optim())
        evaluator = self._evaluator_after("base", self._codec("base"), tools)
        evaluator.evaluate_whole(0, self.folder.stage_folder("base") / "evals", start)
        self.folder.mark_done("base")

    def _evaluator_after(self, stage: str, codec: Codec, tools: _Tools) -> Evaluator:
        """Evaluates every domain whose judge, if it has one, is there after the stage."""
        domains = self.recipe.measured_at(stage)
        if unjudged := [name for name in tools.domains if name not in domains]:
            self.progress.say(
                f"{stage}: {', '.join(unjudged)} not measured: the judge comes with a later stage"
            )
        return self._evaluator(stage, domains, self._judges(stage, tools), codec, tools)

    def _evaluator(
        self, stage: str, domains: Sequence[str], judges: Judges, codec: Codec, tools: _Tools
    ) -> Evaluator:
        return Evaluator(
            stage=stage,
            folder=self.folder.stage_folder(stage),
            evaluation=tools.evaluation,
            domains=domains,
            judges=judges,
            codec=codec,
            engine=tools.engine,
            seed=self.recipe.seed,
            ledger=self.folder.ledger,
            progress=self.progress,
            benchmarks=tools.benchmarks,
        )

    def _judges(self, stage: str, tools: _Tools) -> Judges:
        """The judges that are there once `stage` has its checkpoint."""
        configs = self.recipe.judged_by(stage)
        folders = judge_folders(configs, self.folder.checkpoint)
        return judges_of(configs, folders, tools.engine, self.folder.template, self.progress.say)

    def _codec(self, stage: str) -> Codec:
        """Tokenizer and template of the checkpoint that a stage ended with."""
        return Codec.load(self.folder.checkpoint(stage), self.folder.template)

    def _show_regressions(self, stage: str) -> None:
        """A line for each domain that the stage cost something, by the table so far."""
        rows, parents = self.folder.ledger.read(), self.folder.parents
        for change in regressions(rows, parents, rewards=self.folder.rewards()):
            if change.stage == stage:
                self.progress.say(f"⚑ {loss_line(change)}")


def _step_of(stage: StageRun) -> str:
    """The stage and the step under way, for a message; after its last step, that one."""
    step = min(stage.steps_made + 1, stage.config.steps)
    return f"stage {stage.config.name} step {step}"
