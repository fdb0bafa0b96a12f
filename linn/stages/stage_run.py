"""One stage in its folder: what the three loops call, from resuming to the final checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from linn import files
from linn.assets import copy_assets, write_chat
from linn.chat.codec import Codec
from linn.data.tally import Tally
from linn.domains.base import Domain
from linn.engine.protocol import Engine
from linn.errors import RunFailed, UserError
from linn.judges.panel import Judges
from linn.progress import Progress
from linn.recipe.stages import RolloutConfig, StageConfig
from linn.stages.evaluator import Evaluator
from linn.stages.prompts import Position, PromptStream
from linn.stages.records import Records
from linn.stages.step_costs import Costs, costs_between, read_costs
from linn.types import Group, Loss, Sample


@dataclass(kw_only=True)
class StageRun:
    """One stage in one run folder. A loop calls, in this order:

    `resume`, then per step `costs`, `train`, `record`, `evaluate_if_due`, `save_if_due`, and in
    the end `finish`. Steps are 0-based in all of them.
    """

    config: StageConfig
    """The stage's part of the recipe."""
    folder: Path
    """Where its files go, e.g. `runs/tiny/stages/02-if-rl`."""
    start: Path
    """The checkpoint it starts from."""
    seed: int
    """Seed of everything random in the stage."""
    weights: Mapping[str, float]
    """Share of each domain in a batch; sums to 1."""
    domains: Mapping[str, Domain]
    """Every domain of the recipe."""
    codec: Codec
    """The tokenizer of `start`."""
    engine: Engine
    """Samples, scores and trains."""
    progress: Progress
    """Where a person watches."""
    judges: Judges = field(default_factory=Judges)
    """The judge models of the domains that have one."""
    evaluator: Evaluator | None = None
    """Evaluates the policy at steps within the stage (`curve_every`); None: nobody does."""

    def __post_init__(self) -> None:
        self.position = Position()
        self.prompts = PromptStream(
            self.config, self.domains, self.weights, self.seed, self.position
        )
        self.records = Records(self.folder)

    @property
    def checkpoint(self) -> Path:
        """Where the stage's final weights go."""
        return self.folder / "checkpoints" / f"step-{self.config.steps:04d}"

    @property
    def state(self) -> Path:
        """Where the resumable state is, while the stage runs."""
        return self.folder / "state"

    # ------------------------------------------------------------ begin and end

    def resume(self) -> int:
        """Load the policy, go to where a killed run saved its state, and return the first step."""
        config = self.config
        files.recover(self.state)
        first_step = 0
        if self.state.exists():
            first_step = self._read_state()
        self.records.forget_after(first_step)

        # `restore` reads into a loaded policy, so the start is loaded in any case.
        self.engine.load(self.start, config.optim)
        if first_step:
            self.engine.restore(self.state / "trainer")
            self.progress.say(f"{config.name}: going on after step {first_step} of {config.steps}")
        return first_step

    def save_if_due(self, step: int) -> None:
        """Save a resumable state every `save_every` steps, and at the last one."""
        done = step + 1
        last = done == self.config.steps
        if done % self.config.save_every != 0 and not last:
            return

        # Trainer and position appear together or not at all: neither is of use without the other.
        with files.whole_folder(self.state) as folder:
            self.engine.save(folder / "trainer")
            record = {"step": done, **self.position.record()}
            if pools := self.prompts.pool_states():
                record["pools"] = pools
            files.write_json(folder / "stage.json", record)
        self._write_tallies(last)

    def finish(self) -> None:
        """Publish the policy as the stage's checkpoint, with tokenizer and template of training."""
        with files.whole_folder(self.checkpoint) as folder:
            self.engine.export(folder)
            copy_assets(self.start, folder)
            write_chat(folder, self.codec)

    def _read_state(self) -> int:
        """Go to the saved position in the data; returns how many steps are done."""
        path = self.state / "stage.json"

        # A damaged state is refused and kept: beginning anew is for the person to decide.
        try:
            record = json.loads(path.read_text())
            self.position.restore(record)
            self.prompts.restore_pools(record.get("pools", {}))
            return int(record["step"])
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); delete {self.state} to begin the stage anew"
            ) from None

    def _write_tallies(self, last: bool) -> None:
        """What became of the rows read so far; a line for each file with bad rows at the end."""
        readers = [("data", self.position.tally)]
        for name in self.weights:
            readers.append((name, self.domains[name].tally))

        # A tally is empty where nothing was read: the domain makes its prompts itself.
        tallies: dict[str, Tally] = {}
        for name, tally in readers:
            if tally.good or tally.bad or tally.others:
                tallies[name] = tally
        if not tallies:
            return

        path = self.records.write_tallies(tallies)
        for name, tally in tallies.items():
            if last and (tally.bad or tally.others):
                self.progress.say(
                    f"{self.config.name}: rows of {name} read so far: {tally}; "
                    f"the first of each kind in {path}"
                )

    # ------------------------------------------------------------ one step

    def costs(self) -> Costs:
        """What the run has cost so far."""
        return read_costs(self.domains, self.engine.cpu_seconds())

    def train(self, step: int, samples: Sequence[Sample], loss: Loss) -> dict[str, float]:
        """One optimiser step; returns the trainer's metrics.

        A batch in which everything is masked (counted as `idle`) updates nothing: AdamW's momentum
        would move the weights. Raises RunFailed, with the batch kept, where the loss is not finite
        or sampler and trainer disagree.
        """
        if not any(any(sample.mask) for sample in samples):
            return {"idle": 1.0}

        try:
            metrics = self.engine.trainer.step(samples, loss, self.config.lr_at(step))
            self._check_mismatch(metrics)
        except RunFailed as failure:
            batch = self.records.write_failed_batch(step + 1, samples)
            raise RunFailed(
                f"stage {self.config.name} step {step + 1}: {failure}; batch kept in {batch}, "
                f"the last good state in {self.state}"
            ) from None
        return metrics

    def record(
        self,
        step: int,
        metrics: Mapping[str, float],
        before: Costs,
        groups: Sequence[Group] = (),
    ) -> None:
        """Put a step on record and show it. `before`: the costs when its sampling started."""
        row = {
            "step": step + 1,
            "lr": self.config.lr_at(step),
            **metrics,
            **costs_between(before, self.costs()),
        }
        self.records.add_step(row, groups)
        self.progress.step(self.config.name, step + 1, self.config.steps, row)

    def evaluate_if_due(self, step: int) -> None:
        """Evaluate every `curve_every` steps; what follows the last step is not a curve's."""
        if self.evaluator is None or not isinstance(self.config, RolloutConfig):
            return

        every = self.config.curve_every
        done = step + 1
        if every and done % every == 0 and done < self.config.steps:
            self.evaluator.evaluate_curve(done)

    def _check_mismatch(self, metrics: Mapping[str, float]) -> None:
        if not isinstance(self.config, RolloutConfig):
            return

        # Strictly on-policy means that the sampler's log-probs are the trainer's.
        mismatch = metrics.get("mismatch_max", 0.0)
        most = self.config.max_mismatch
        if mismatch > most:
            raise RunFailed(
                f"sampler and trainer disagree by {mismatch:.3g} in log-prob "
                f"(max_mismatch {most:g}); raise it only where the precision explains that"
            )
