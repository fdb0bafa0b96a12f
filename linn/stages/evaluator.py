"""Evaluation inside a run: the engine's policy on held-out prompts, into the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from linn import stopping
from linn.chat.codec import Codec
from linn.engine.protocol import Engine
from linn.evals.benchmarks.in_run import Benchmarks
from linn.evals.evaluate import Evaluation, Probe
from linn.judges.panel import Judges
from linn.ledger import Ledger
from linn.progress import Progress

NOTE_EVERY = 50
"""Conversations between two notes of progress."""


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Evaluates the policy at steps of one stage."""

    stage: str
    """The stage's name in the ledger."""
    folder: Path
    """The stage's folder; every prompt's reward is kept there."""
    evaluation: Evaluation
    """The held-out prompts."""
    domains: Sequence[str]
    """The domains to evaluate; with none, nothing happens."""
    judges: Judges
    """The judge models that are there."""
    codec: Codec
    """The policy's tokenizer."""
    engine: Engine
    """Holds the policy."""
    seed: int
    """The run's seed."""
    ledger: Ledger
    """Takes the scores."""
    progress: Progress
    """Where a person watches."""
    benchmarks: Benchmarks | None = None
    """What is measured after the stage beside its domains."""

    def evaluate_curve(self, step: int) -> None:
        """The few probes of a curve, at a step within the stage."""
        self._evaluate(step, self.evaluation.curve, folder=None)

    def evaluate_kept(self, step: int) -> None:
        """A checkpoint kept within the stage: what it needs to compete as a teacher."""
        self._evaluate(step, self.evaluation.kept, folder=None)

    def forget_after(self, step: int) -> None:
        """Drop the scores of later steps of the stage, which are about to be made again."""
        self.ledger.drop_after(self.stage, step)

    def evaluate_whole(self, step: int, folder: Path, checkpoint: Path) -> None:
        """Every probe and benchmark, after the stage; the graded replies are kept in `folder`.

        `checkpoint`: the weights that the engine holds, by which benchmarks keep rollouts.
        """
        probes = self.evaluation.after(self.stage)
        self._evaluate(step, probes, folder)
        self._forget_others(step, probes, folder)
        if self.benchmarks is None:
            return
        self.benchmarks.say = self.progress.say
        measurement = self.benchmarks.measure(
            self.stage,
            step,
            self.engine,
            self.codec,
            checkpoint,
            self.folder,
            lambda name, done, total: self.progress.note(self.stage, done, total, name),
        )
        scores = stopping.run(measurement)
        self.ledger.upsert(scores)
        for score in scores:
            self.progress.say(
                f"{self.stage}:{step} {score.domain} {score.metric} {score.value:.1%} "
                f"[{score.low:.1%}, {score.high:.1%}], n {score.n}"
            )

    def _forget_others(self, step: int, probes: Sequence[Probe], folder: Path) -> None:
        """Drop what an earlier measurement has that this one was not asked for.

        It may be of other prompts, and would stand beside the new scores as if of the same.
        """
        names = {f"{probe.split}-{probe.metric}" for probe in probes}
        for path in folder.glob("*.jsonl"):
            if path.stem not in names:
                path.unlink()
        kinds = [(probe.split, probe.metric) for probe in probes]
        if dropped := self.ledger.keep_only(self.stage, step, kinds):
            self.progress.say(
                f"{self.stage}:{step} {', '.join(dropped)}: no longer measured; "
                "the old scores are taken out of the ledger"
            )

    def _evaluate(self, step: int, probes: Sequence[Probe], folder: Path | None) -> None:
        if not self.domains:
            return
        measurement = self.evaluation.measure(
            stage=self.stage,
            step=step,
            sampler=self.engine.sampler,
            codec=self.codec,
            seed=self.seed,
            probes=probes,
            names=self.domains,
            folder=folder,
            rewards_in=self.folder,
            on_done=self._note,
            on_unjudged=self.progress.say,
            judges=self.judges,
        )

        # A stage is no coroutine: between steps no event loop runs.
        scores = stopping.run(measurement)
        self.ledger.upsert(scores)

        if metrics := self.judges.metrics():
            self.progress.say(
                f"{self.stage}:{step} judges: {metrics['judge_questions']:.0f} questions, "
                f"{metrics['judge_unreadable']:.1%} unreadable, {metrics['judge_s']:.1f} s"
            )
        for line in self.evaluation.warnings:
            self.progress.say(f"{self.stage}:{step} {line}")
        # One number per domain is enough to watch; the rest is in the ledger.
        splits = {score.split for score in scores}
        shown = "test" if "test" in splits else "validation"
        accuracies = [
            f"{score.domain} {score.value:.1%}"
            for score in scores
            if score.split == shown and score.metric == "accuracy"
        ]
        of_split = "" if shown == "test" else f"{shown} "
        self.progress.say(f"{self.stage}:{step} {of_split}" + " ".join(accuracies))
        if failures := [f"{score.domain} {score.failed}" for score in scores if score.failed]:
            self.progress.say(
                f"{self.stage}:{step} prompts left out, since rollouts failed: "
                + ", ".join(failures)
            )

    def _note(self, done: int, total: int) -> None:
        if done % NOTE_EVERY == 0:
            self.progress.note(self.stage, done, total, "evaluating")
