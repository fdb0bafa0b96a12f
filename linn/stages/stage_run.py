"""What every stage's loop stands on: its prompts, its steps (resumable), its records and its checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from linn import files
from linn.chat.codec import Codec
from linn.data.tally import Tally
from linn.domains.base import Domain
from linn.engine.protocol import Engine
from linn.errors import RunFailed, UserError
from linn.judges.panel import Judges
from linn.recipe.schema import CurriculumConfig, RlConfig, RolloutConfig, StageConfig
from linn.stages import step_costs as clock
from linn.stages.curriculum import Pool
from linn.stages.step_costs import Clock
from linn.types import Group, Loss, Prompt, Sample, seed_of

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
)


class Show(Protocol):
    """Where a person watches."""

    def step(self, stage: str, step: int, steps: int, figures: Mapping[str, float]) -> None:
        """One step is over."""
        ...

    def say(self, text: str) -> None:
        """One line worth reading."""
        ...


@dataclass
class StageRun:
    """One stage in one run folder."""

    keys: StageConfig
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
    show: Show
    """Where a person watches."""
    judges: Judges = field(default_factory=Judges)
    """The judge models of the domains that have one."""
    measure: Callable[[int], None] = lambda step: None
    """Measures the engine's policy on the stage's domains into the ledger, at a step within the stage (`curve_every`)."""
    taken: dict[str, int] = field(default_factory=dict)
    """Prompts taken so far, a domain; `rows`: lines of an SFT stage's file."""
    tally: Tally = field(default_factory=Tally)
    """What became of the rows of an SFT stage's file."""
    now: int = 0
    """The step that is being made."""
    _streams: dict[str, tuple[int, Iterator[Prompt]]] = field(default_factory=dict)
    _pools: dict[str, Pool] = field(default_factory=dict)
    """Under a curriculum: the prompts of each domain that wait."""
    _kept_pools: dict[str, Any] = field(default_factory=dict)
    """Pools of a saved state, to be restored at their first use."""

    @property
    def checkpoint(self) -> Path:
        """Where the stage's final weights go."""
        return self.folder / "checkpoints" / f"step-{self.keys.steps:04d}"

    # ------------------------------------------------------------ steps

    def steps(self) -> Iterator[int]:
        """Step numbers from where the stage stands; saves a resumable state every `save_every` steps, and the checkpoint at the end."""
        state = self.folder / "state"
        files.recover(state)
        first = 0
        if state.exists():
            try:
                kept = json.loads((state / "stage.json").read_text())
                first, self.taken, self._kept_pools = (
                    int(kept["step"]),
                    dict(kept["taken"]),
                    dict(kept.get("pools", {})),
                )
                self.tally.restore(kept["rows"])
            except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
                raise UserError(
                    f"{state / 'stage.json'}: cannot be read ({error}); delete {state} to begin the stage anew"
                ) from None
        self._forget_after(first)
        self.engine.load(self.start, self.keys.optim)
        if first:
            self.engine.restore(state / "trainer")
            self.show.say(f"{self.keys.name}: going on after step {first} of {self.keys.steps}")
        for step in range(first, self.keys.steps):
            self.now = step
            yield step
            if (step + 1) % self.keys.save_every == 0 or step + 1 == self.keys.steps:
                with files.whole_folder(state) as folder:
                    self.engine.save(folder / "trainer")
                    kept = {
                        "step": step + 1,
                        "taken": self.taken,
                        "rows": self.tally.record(),
                    } | self._pool_states()
                    files.write_json(folder / "stage.json", kept)
                self._keep_tallies(step + 1 == self.keys.steps)
        with files.whole_folder(self.checkpoint) as folder:
            for name in ("config.json", "model.safetensors"):
                shutil.copyfile(state / "trainer" / name, folder / name)
            copy_tokenizer(self.start, folder)

    def _keep_tallies(self, last: bool) -> None:
        """rows.json: what became of the rows read so far; said once, when the stage ends, where not all were good."""
        read = {"data": self.tally} | {name: self.domains[name].tally for name in self.weights}
        used = {
            name: tally for name, tally in read.items() if tally.good or tally.bad or tally.others
        }
        if used:
            files.write_json(
                self.folder / "rows.json", {name: tally.record() for name, tally in used.items()}
            )
        for name, tally in used.items():
            if last and (tally.bad or tally.others):
                self.show.say(
                    f"{self.keys.name}: rows of {name} read so far: {tally}; the first of each kind in {self.folder / 'rows.json'}"
                )

    def _forget_after(self, step: int) -> None:
        """Drop records of steps that a killed run made after its last saved state; they will be made again."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            lines = path.read_text().splitlines()
            files.write_text(path, "".join(line + "\n" for line in lines if _step_of(line) <= step))
        for file in (self.folder / "rollouts").glob("step-*.jsonl"):
            if int(file.stem.removeprefix("step-")) > step:
                file.unlink()

    def clock(self) -> Clock:
        """What the run has cost so far."""
        return clock.read(self.domains, self.engine.cpu_seconds())

    def train(
        self,
        step: int,
        samples: Sequence[Sample],
        loss: Loss,
        figures: Mapping[str, float],
        began: Clock,
        groups: Sequence[Group] = (),
    ) -> None:
        """One optimiser step and its records: metrics.jsonl, rollouts/step-NNNN.jsonl, the live line. Stops the run on a bad batch.

        `began`: the `clock` when the step's sampling started. A batch in which everything is masked (counted as `idle`) updates nothing.
        """
        lr = self.keys.lr_at(step)
        idle = not any(any(s.mask) for s in samples)
        try:
            metrics = {"idle": 1.0} if idle else self.engine.trainer.step(samples, loss, lr)
            if (
                isinstance(self.keys, RolloutConfig)
                and metrics.get("mismatch_max", 0.0) > self.keys.max_mismatch
            ):
                raise RunFailed(
                    f"sampler and trainer disagree by {metrics['mismatch_max']:.3g} in log-prob (max_mismatch {self.keys.max_mismatch:g}); raise it only where the precision explains that"
                )
        except RunFailed as failure:
            batch = self.folder / f"failed-step-{step + 1:04d}.jsonl"
            files.write_jsonl(
                batch, (vars(s) | {"tokens": list(s.tokens), "mask": list(s.mask)} for s in samples)
            )
            raise RunFailed(
                f"stage {self.keys.name} step {step + 1}: {failure}; batch kept in {batch}, the last good state in {self.folder / 'state'}"
            ) from None
        row = {
            "step": step + 1,
            "lr": lr,
            **metrics,
            **figures,
            **clock.between(began, self.clock()),
        }
        if groups:
            files.write_jsonl(
                self.folder / "rollouts" / f"step-{step + 1:04d}.jsonl", _rollout_rows(groups)
            )
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({k: _short(v) for k, v in row.items()}) + "\n")
        self.show.step(self.keys.name, step + 1, self.keys.steps, row)
        every = getattr(self.keys, "curve_every", 0)
        if every and (step + 1) % every == 0 and step + 1 < self.keys.steps:
            self.measure(step + 1)

    # ------------------------------------------------------------ prompts

    def next_prompts(self, count: int) -> list[Prompt]:
        """The next `count` training prompts: domains interleaved so that every batch holds them in their weights' proportions."""
        chosen = []
        for _ in range(count):
            total = sum(self.taken.values()) + 1
            name = max(self.weights, key=lambda d: self.weights[d] * total - self.taken.get(d, 0))
            chosen.append(self._next_of(name))
        return chosen

    def _next_of(self, name: str) -> Prompt:
        position = self.taken.get(name, 0)
        if isinstance(self.keys, RlConfig) and self.keys.curriculum:
            self.taken[name] = position + 1
            return self._pool(name, self.keys.curriculum).take(
                self.now / max(1, self.keys.steps - 1)
            )
        if name not in self._streams:
            self._streams[name] = (0, iter(()))
            for _ in range(position):  # after a resume: walk to where the stage stood
                self._draw(name)
        prompt = self._draw(name)
        self.taken[name] = position + 1
        return prompt

    def _pool(self, name: str, keys: CurriculumConfig) -> Pool:
        if name not in self._pools:
            self._streams[name] = (0, iter(()))
            self._pools[name] = Pool(
                keys, lambda: self._draw(name), seed_of(self.seed, "curriculum", name)
            )
            if name in self._kept_pools:
                self._pools[name].restore(self._kept_pools.pop(name))
        return self._pools[name]

    def _pool_states(self) -> dict[str, Any]:
        """The pools as `stage.json` keeps them; those not used since the last save stay as they were."""
        pools = self._kept_pools | {name: pool.state() for name, pool in self._pools.items()}
        return {"pools": pools} if pools else {}

    def _draw(self, name: str) -> Prompt:
        epoch, stream = self._streams[name]
        prompt = next(stream, None)
        if prompt is None:
            stream = iter(self.domains[name].prompts("train", seed_of(self.seed, "train", epoch)))
            prompt = next(stream, None)
            self._streams[name] = (epoch + 1, stream)
            if prompt is None:
                told = (
                    f" (of its rows: {self.domains[name].tally})"
                    if self.domains[name].rows is not None
                    else ""
                )
                raise UserError(
                    f"stage {self.keys.name}: domain {name} has no training prompts{told}; give it rows or another level"
                )
        return prompt


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy tokenizer and chat template of one checkpoint into another."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


def _rollout_rows(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    from linn.play.rollout import transcript

    for group in groups:
        for rollout, reward in zip(group.rollouts, group.rewards, strict=True):
            yield {
                "prompt_id": rollout.prompt.id, "domain": rollout.prompt.domain, "sibling": rollout.sibling, "status": rollout.status,
                "error": rollout.error, "reward": reward, "note": rollout.verdict.note, "length": sampled_length(rollout.turns),
                "text": transcript(rollout),
            }  # fmt: skip


def sampled_length(turns: Sequence[Any]) -> int:
    """Tokens that the policy sampled in a conversation."""
    return sum(len(turn.ids) for turn in turns if turn.logprobs is not None)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut short by a kill: its step will be made again


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
