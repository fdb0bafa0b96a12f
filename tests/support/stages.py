"""Stages without a model: a domain that flips coins, and stages over it."""

from pathlib import Path

from linn.domains.base import Domain
from linn.progress import Progress
from linn.recipe import load as recipes
from linn.stages.stage_run import StageRun
from linn.types import Message, Prompt, Verdict
from support.codec import END, Letters
from support.fake_engine import FakeEngine
from support.scripted import Scripted


class Coin(Domain):
    """Prompt `easy…` always earns 1; any other only where the reply is 1."""

    name = "coin"

    def prompts(self, split, seed=0):
        for i in range(10_000):
            text = "easy" if i % 4 else "hard"
            yield Prompt(self.name, f"p{i}", (Message("user", text),), thinking=False)

    def verify(self, prompt, reply):
        easy = prompt.messages[0].content == "easy"
        return Verdict(1.0 if easy else float(reply.text == "1"))


class Side(Coin):
    """A second domain of the same kind."""

    name = "side"


def stage(
    weights: dict[str, float],
    sampler=None,
    folder: Path = Path("nowhere"),
    domains=None,
    codec=None,
    **keys,
) -> StageRun:
    """A stage over `coin` and `side`, of RL unless `kind` says otherwise.

    Its policy is `sampler`, by default a coin as well.
    """
    tree = {
        "name": "t",
        "domains": {domain: {} for domain in weights},
        "stages": [{"name": "s", "kind": "rl", "domains": weights, **keys}],
    }
    recipe = recipes.parse(tree, "t")
    config = recipe.stages[0]
    coin = Scripted(Letters(), lambda text, seed: f"{seed % 2}{END}")
    return StageRun(
        config=config,
        folder=folder,
        start=Path("base"),
        seed=7,
        weights=recipe.weights_of(config),
        domains=domains or {"coin": Coin(), "side": Side()},
        codec=codec or Letters(),
        engine=FakeEngine(sampler or coin),  # type: ignore[arg-type]
        progress=Progress(),
    )
