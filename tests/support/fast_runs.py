"""Whole runs in a fraction of a second: an engine whose weights are a hash of what made them.

Another batch, rate, order or beginning gives other weights, so equal bytes mean what they mean with
a model. Domains, stages, files, ledger and resume are the real ones.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from linn import files
from linn.chat.codec import Codec
from linn.checkpoints import BASES
from linn.recipe import load as recipes
from linn.run import run as run_module
from linn.run.run import Run
from linn.types import Loss, Optim, Sample, seed_of
from support.fake_engine import FakeEngine, weights_in
from support.runs import fingerprint
from support.scripted import Scripted

RECIPE: dict[str, Any] = {
    "name": "fast",
    "model": "tiny",
    "domains": {"arithmetic": {}, "mcqa": {}},
    "evaluate": {"test": 4, "validation": 3, "max_tokens": 4},
    "scale": {"processes": 1, "width": 512},
    "stages": [
        {"name": "sft", "kind": "sft", "steps": 6, "batch": 2, "save_every": 2, "max_length": 500},
        {
            "name": "rl",
            "kind": "rl",
            "steps": 6,
            "prompts": 2,
            "rollouts": 2,
            "max_tokens": 4,
            "save_every": 2,
            "kl": 0.1,  # so that every batch trains, whatever its rewards
        },
    ],
}


class Killed(BaseException):
    """Stands for SIGKILL at a step: nothing handles it."""


class HashEngine(FakeEngine):
    """A policy of one number, with moments that a fresh optimiser does not have."""

    def __init__(self, kill_at: int | None = None) -> None:
        """`kill_at`: the optimiser step, counted over the whole run, before which it dies."""
        self.codec = Codec.load(BASES / "tiny-0")
        super().__init__(Scripted(self.codec, self._reply), width=512)
        self.trainer = self  # type: ignore[assignment]
        self.moments = 0
        self.steps = 0
        self.kill_at = kill_at
        self.rates: list[float] = []
        """The learning rate of every step."""

    def _reply(self, text: str, seed: int) -> str:
        return f"</think>{seed_of(self.weights, text, seed) % 3}<|im_end|>"

    def load(self, folder: Path, optim: Optim) -> None:
        super().load(folder, optim)
        self.moments = seed_of(str(optim))

    def step(self, samples: Sequence[Sample], loss: Loss, lr: float) -> dict[str, float]:
        if self.steps == self.kill_at:
            raise Killed
        self.steps += 1
        self.rates.append(lr)
        batch = [str((list(s.tokens), list(s.mask), list(s.advantage))) for s in samples]
        self.moments = seed_of(self.moments, *batch)
        self.weights = seed_of(self.weights, self.moments, str(lr), str(loss))
        return {"loss": self.weights % 1000 / 1000, "mismatch_max": 0.0}

    def save(self, folder: Path) -> None:
        super().save(folder)
        (folder / "trainer.json").write_text(json.dumps(self.moments))

    def restore(self, folder: Path) -> None:
        self.weights = weights_in(folder)
        self.moments = json.loads((folder / "trainer.json").read_text())


def tree(**changes: Any) -> dict[str, Any]:
    """The recipe with changes: `sft__lr=1e-3` of a stage, `evaluate__test=9` of a block."""
    recipe = copy.deepcopy(RECIPE)
    blocks = {stage["name"]: stage for stage in recipe["stages"]}
    for name, value in changes.items():
        *head, key = name.split("__")
        block = recipe
        for part in head:
            block = blocks.get(part) or block[part]
        block[key] = value
    return recipe


def go(
    folder: Path,
    monkeypatch: Any,
    recipe: dict[str, Any] | None = None,
    kill_at: int | None = None,
    open_engine: Callable[[], HashEngine] | None = None,
    **options: Any,
) -> HashEngine:
    """Run a recipe in a folder, killed before an optimiser step if asked. Gives the engine."""
    engine = open_engine() if open_engine else HashEngine(kill_at)
    monkeypatch.setattr(run_module, "open_engine", lambda scale: engine)
    monkeypatch.setattr(files.os, "fsync", lambda handle: None)  # no power cut is tested here
    run = Run(recipes.parse(recipe or tree(), "t"), folder)
    try:
        run.go(**options)
    except Killed:
        assert kill_at is not None
    else:
        assert kill_at is None, "the run ended before it was killed"
    return engine


def results(folder: Path) -> dict[str, str]:
    """Hashes of weights, rollouts and evaluations: the recipe and its checkpoints' ledger apart."""
    kept = fingerprint(folder)
    kept.pop("recipe.yaml")
    kept.pop("ledger.jsonl")
    return kept


def changes_of(folder: Path) -> list[tuple[str, int, str, str]]:
    """(stage, step, key, promise) of every change on record."""
    entries = json.loads((folder / "run.json").read_text())["changes"]
    return [(e["stage"], e["step"], e["key"], e["promise"]) for e in entries]
