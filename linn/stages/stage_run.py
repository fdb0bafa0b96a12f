"""One stage in its folder: what the three loops call, from resuming to the final checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from linn import files, stopping
from linn.assets import copy_assets, write_chat
from linn.chat.codec import Codec
from linn.data.tally import Tally
from linn.domains.base import Domain
from linn.engine.protocol import Engine
from linn.errors import RunFailed, UserError
from linn.judges.panel import Judges
from linn.play.thoughts import warnings
from linn.progress import Progress
from linn.recipe.stages import MISMATCH, RolloutConfig, StageConfig
from linn.stages.evaluator import Evaluator
from linn.stages.mismatch import check_mismatch
from linn.stages.prompts import Position, PromptStream
from linn.stages.records import Records
from linn.stages.step_costs import Costs, costs_between, read_costs
from linn.types import Group, Loss, Sample


@dataclass(kw_only=True)
class StageRun:
    """One stage in one run folder. A loop calls, in this order:

    `resume`, then per step `costs`, `train`, `record`, `evaluate_if_due`, `keep_if_due`,
    `save_if_due`, and in the end `finish`. Steps are 0-based in all of them.
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
    max_mismatch: float = MISMATCH["float32"]
    """Largest |log-prob of the sampler - that of the trainer| that a token may show."""
    evaluator: Evaluator | None = None
    """Evaluates the policy at steps within the stage (`curve_every`); None: nobody does."""

    def __post_init__(self) -> None:
        self.position = Position()
        self.prompts = PromptStream(
            self.config, self.domains, self.weights, self.seed, self.position
        )
        self.records = Records(self.folder)
        self.steps_made = 0
        """Steps that this process knows to be made and saved, if they are due; for messages."""
        self._warned = False
        self._broken_told = False

    @property
    def _rollouts_kept(self) -> int | None:
        config = self.config
        return config.keep_rollouts if isinstance(config, RolloutConfig) else None

    @property
    def checkpoint(self) -> Path:
        """Where the stage's final weights go."""
        return self.checkpoint_at(self.config.steps)

    def checkpoint_at(self, step: int) -> Path:
        """Where the weights after so many steps go, if they are kept."""
        return self.folder / "checkpoints" / f"step-{step:04d}"

    @property
    def state(self) -> Path:
        """Where the resumable state is, while the stage runs."""
        return self.folder / "state"

    # ------------------------------------------------------------ begin and end

    def resume(self) -> int:
        """Load the policy, go to where the stage stood, and return the first step.

        That is its saved state; or, where a finished stage was given more steps after its state was
        gone, its last checkpoint and its place in the data, with fresh moments of AdamW.
        """
        config = self.config
        files.recover(self.state)
        first_step = 0
        place = self.folder / "position.json"
        if self.state.exists():
            first_step = self._read_position(self.state / "stage.json")
        elif place.exists():
            first_step = self._read_position(place)
        self._forget_after(first_step)

        # `restore` reads into a loaded policy, so a checkpoint is loaded in any case.
        if self.state.exists() or not first_step:
            self.engine.load(self.start, config.optim)
        else:
            self.engine.load(self.checkpoint_at(first_step), config.optim)
        if self.state.exists():
            self.engine.restore(self.state / "trainer")
        self.steps_made = first_step
        if first_step:
            self.progress.say(f"{config.name}: going on after step {first_step} of {config.steps}")
        return first_step

    def save_if_due(self, step: int) -> None:
        """Save a resumable state every `save_every` steps, and at the last one.

        Raises KeyboardInterrupt, with the state saved, where a signal asked the run to stop.
        """
        done = step + 1
        last = done == self.config.steps
        stop = stopping.requested() and not last
        if done % self.config.save_every == 0 or last or stop:
            self._save(done)
            self._write_tallies(last)
        # Not before: what fails in saving or measuring a step is that step's.
        self.steps_made = done
        if stop:
            raise KeyboardInterrupt

    def keep_if_due(self, step: int) -> None:
        """Keep the weights every `keep_every` steps, and measure them on validation."""
        done = step + 1
        if done == self.config.steps or not self.config.has_checkpoint(done):
            return
        self._publish(done)
        if self.evaluator is not None and self.config.evaluate:
            self.evaluator.evaluate_kept(done)

    def finish(self) -> None:
        """Publish the policy, with tokenizer and template of training, as the checkpoint."""
        self._publish(self.config.steps)
        self._check_updates()

    def _publish(self, step: int) -> None:
        with files.whole_folder(self.checkpoint_at(step)) as folder:
            self.engine.export(folder)
            copy_assets(self.start, folder)
            write_chat(folder, self.codec)

    def _save(self, done: int) -> None:
        # Trainer and position appear together or not at all: neither is of use without the other.
        with files.whole_folder(self.state) as folder:
            self.engine.save(folder / "trainer")
            record = {"step": done, **self.position.record()}
            if pools := self.prompts.pool_states():
                record["pools"] = pools
            files.write_json(folder / "stage.json", record)

    def _forget_after(self, step: int) -> None:
        """Drop what a killed run made after its last saved state; it will be made again."""
        self.records.forget_after(step)
        for path in sorted((self.folder / "checkpoints").glob("step-*")):
            if int(path.name.removeprefix("step-")) > step:
                self.progress.say(f"{self.config.name}: {path.name} will be made again")
                files.remove_folder(path)
        # It may come out otherwise now: a value may have changed in between.
        if self.evaluator is not None:
            self.evaluator.forget_after(step)

    def _check_updates(self) -> None:
        """Say it loudly where no step of the stage updated anything."""
        idle = self.records.idle_steps()
        if idle and idle == self.config.steps:
            self.progress.say(
                f"⚠ {self.config.name}: NOT ONE UPDATE in {idle} steps: in every batch all rewards "
                "of a group were equal, or every sample was masked. The checkpoint is the stage's "
                "start. Look at its rollouts: are the prompts too hard or too easy, or replies cut?"
            )

    def _read_position(self, path: Path) -> int:
        """Go to the saved position in the data; returns how many steps are done."""
        # A damaged state is refused and kept: beginning anew is for the person to decide.
        try:
            record = json.loads(path.read_text())
            self.position.restore(record)
            self.prompts.restore_pools(record.get("pools", {}))
            return int(record["step"])
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); put it back; or delete {path.parent} to begin "
                f"the stage anew, which loses its {self.records.steps()} steps"
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
            if last and (tally.bad or tally.others or tally.notes):
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
            words = f"stage {self.config.name} step {step + 1}: {failure}; batch kept in {batch}"
            if self.state.exists():
                words += f", the last good state in {self.state}"
            raise RunFailed(words) from None
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
        self.records.add_step(row, groups, self._rollouts_kept)
        self.progress.step(self.config.name, step + 1, self.config.steps, row)
        self._warn(groups)
        self._warn_of_marks()

    def _warn(self, groups: Sequence[Group]) -> None:
        """After the first step that sampled: what its replies say about template and mode."""
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        if self._warned or not rollouts:
            return
        self._warned = True
        for line in warnings(rollouts, self.codec.template):
            self.progress.say(f"{self.config.name}: {line}")

    def _warn_of_marks(self) -> None:
        """Once: rows hold marks of the template, which lost their meaning by a space."""
        if self.codec.broken and not self._broken_told:
            self._broken_told = True
            self.progress.say(
                f"{self.config.name}: texts of rows hold marks of the chat template; each is "
                f"broken by a space, so that it forges no turn ({self.codec.broken} so far)"
            )

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
        if line := check_mismatch(metrics, self.max_mismatch, self.start):
            self.progress.say(f"{self.config.name}: {line}")
