"""Benchmarks of a recipe: measured after every stage, columns of the ledger beside its domains."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from linn import files
from linn.assets import trained_length
from linn.chat.codec import Codec
from linn.engine.protocol import Engine
from linn.errors import UserError
from linn.evals.benchmarks import config
from linn.evals.benchmarks.config import Benchmark
from linn.evals.benchmarks.kept import Kept, weights_digest, write_protocol
from linn.evals.benchmarks.measure import Measuring, measure
from linn.evals.benchmarks.once import check_judge, judges_for, kept_file
from linn.evals.benchmarks.results import Result, as_json, protocol_of, result_of
from linn.evals.benchmarks.rows import Task, task_of
from linn.ledger import write_rewards
from linn.play.rollout import play
from linn.recipe.benchmarks import BenchmarkUse
from linn.recipe.schema import Recipe
from linn.types import Score


def opened(uses: Mapping[str, BenchmarkUse]) -> list[Task]:
    """Every benchmark with its rows; UserError where one is unknown, or its rows are not here."""
    tasks: list[Task] = []
    try:
        for name, use in uses.items():
            task = task_of(config.load(name).used(use), use.limit)
            tasks.append(task)
            check_judge(task, use)
    except BaseException:
        for task in tasks:
            task.domain.close()
        raise
    return tasks


class Benchmarks:
    """The benchmarks of a run. Their rollouts are kept in the stages' folders.

    A run that was killed while it measured goes on at the batch that it was in, and ends with the
    scores of one that was never stopped.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Reads the rows; nothing is sampled yet."""
        self.recipe = recipe
        self.say: Callable[[str], None] = lambda line: None
        self.tasks = opened(recipe.evaluate.benchmarks)
        # Both would write the same rows of the ledger.
        clashes = {task.benchmark.name for task in self.tasks} & set(recipe.domain_names())
        if clashes:
            self.close()
            raise UserError(
                f"evaluate.benchmarks: {', '.join(clashes)} is also a domain of the recipe; "
                "rename the file of one"
            )

    def close(self) -> None:
        """Free what the graders hold."""
        for task in self.tasks:
            task.domain.close()

    async def measure(
        self,
        stage: str,
        step: int,
        engine: Engine,
        codec: Codec,
        checkpoint: Path,
        folder: Path,
        watch: Callable[[str, int, int], None],
    ) -> list[Score]:
        """avg@k of every benchmark, as rows of the ledger.

        `checkpoint`: the weights that the engine holds. `folder`: the stage's; rewards, rollouts
        and whole results (pass@k, maj@k, lengths) are kept there.
        """
        if not self.tasks:
            return []
        # By the weights: a stage that is made again must not find the rollouts of the old one.
        place = folder / "benchmarks" / weights_digest(checkpoint)
        results: list[Result] = []
        for task in self.tasks:
            domains = {task.domain.name: task.domain}
            how = Measuring(
                player=functools.partial(
                    play, domains=domains, sampler=engine.sampler, codec=codec
                ),
                judges=judges_for(task, engine),
                seed=self.recipe.seed,
                at_once=self.recipe.evaluate.at_once,
                max_failed=self.recipe.evaluate.max_failed,
                longest=trained_length(checkpoint),
                on_done=functools.partial(watch, task.benchmark.name),
            )
            protocol = protocol_of(task)
            kept = Kept(kept_file(place, protocol, self.recipe.seed))
            write_protocol(kept.path.with_suffix(".json"), protocol)
            records = await measure(task, kept, how)
            result = result_of(task, records, stage, self._published(task))
            if result is None:
                self.say(f"{stage}: nobody judged any rollout of {task.benchmark.name}")
                continue
            results.append(result)

        files.write_text(folder / "evals" / "benchmarks.json", as_json(results) + "\n")
        cells = {}
        for result in results:
            cells[result.benchmark, "test", f"avg@{result.k}"] = dict(result.rewards)
        write_rewards(folder, step, cells)
        return [result.scores(stage, step)[0] for result in results]

    def _published(self, task: Task) -> Benchmark:
        names = self.recipe.evaluate.benchmarks
        name = next(name for name in names if Path(name).stem == task.benchmark.name)
        return config.load(name)
