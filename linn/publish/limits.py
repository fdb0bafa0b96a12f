"""What a reader of a model card should know before they use the model, as far as a run tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from linn.publish.licences import Licence
from linn.recipe.schema import Recipe
from linn.recipe.stages import SftConfig
from linn.report.files import RunFiles, number


def limits_of(
    run: RunFiles,
    recipe: Recipe,
    line: Sequence[str],
    licence: Licence | None,
    config: Mapping[str, Any],
) -> list[str]:
    """Sentences. `line`: the stages that made the checkpoint; `config`: its config.json."""
    found = [_measured(run, recipe), *_of_weights(config)]
    if licence is None:
        found.append("The licence of the base is unknown, so nobody can say what may be done.")
    found += _of_stages(run, recipe, line)
    for change in run.changes:
        found.append(f"Changed in the middle of the run: {change}.")
    found.append(
        "Nothing here measures safety, bias or factual knowledge; what the base has of them, "
        "training on rewards may have moved."
    )
    return found


def _measured(run: RunFiles, recipe: Recipe) -> str:
    """What the scores are of."""
    # Prompts of a generator say little about prompts of people.
    made = [name for name, block in recipe.domains.items() if block.rows is None]
    domains = {row.domain for row in run.scores if row.split == "test"}
    if not domains:
        return "Nothing was measured on test prompts."
    text = f"Scores are of {len(domains)} domains of the recipe and say nothing of others"
    if made:
        levels = sorted({recipe.domains[name].level for name in made})
        text += f"; {len(made)} of them are prompts of generators, level {', '.join(levels)}"
    return f"{text}."


def _of_weights(config: Mapping[str, Any]) -> list[str]:
    """What differs between these weights elsewhere and the policy that was measured."""
    found = []
    # A run evaluates its checkpoints, and those are float32 whatever the base has.
    dtype = str(config.get("dtype", "float32"))
    if dtype != "float32":
        found.append(
            f"Scores were measured with float32 weights; those here are rounded to {dtype}."
        )
    if config.get("model_type") == "nemotron_h":
        found.append(
            "transformers floors Mamba-2's time step at `time_step_min` in its forward pass, which "
            "training did not: log-probs differ where heads have learnt a smaller one."
        )
    return found


def _of_stages(run: RunFiles, recipe: Recipe, line: Sequence[str]) -> list[str]:
    found = []
    for stage in run.stages:
        if stage.name not in line or stage.parent is None:
            continue
        config = recipe.stage(stage.name)
        # Files have their own faults; those of demonstrations are put in by the recipe.
        if isinstance(config, SftConfig) and not config.files:
            shares = {domain: config.faulty_share(domain) for domain in stage.domains}
            faulty = sorted(domain for domain, share in shares.items() if share > 0)
            if faulty:
                most = max(shares.values())
                found.append(
                    f"{stage.name} trained on demonstrations of which up to {most:.0%} carry a "
                    f"fault on purpose, in {', '.join(faulty)}: later stages are to unlearn it."
                )
        # At the stage's end, where a policy that never stops would show.
        rows = stage.metrics()
        cut = number(rows[-1], "truncated") if rows else None
        if cut:
            found.append(
                f"In the last step of {stage.name}, {cut:.0%} of the replies reached the limit "
                "of tokens."
            )
    # They are neither right nor wrong, so nothing else on the card tells of them.
    failed = [row for row in run.scores if row.failed and row.stage in line]
    if failed:
        prompts = sum(row.failed for row in failed)
        found.append(f"{prompts} test prompts left the scores, since their rollouts failed.")
    return found
