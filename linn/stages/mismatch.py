"""Whether sampler and trainer gave the same tokens the same log-probs, as on-policy training needs.

Both compute the same function in another order, so they differ by rounding. Where a model routes
tokens to experts, two experts can be so near to equal that rounding decides between them: then the
tokens of one sequence differ by more, from the place of the choice on. A fault of sampler or
trainer shows in most tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from linn.errors import RunFailed


def check_mismatch(metrics: Mapping[str, float], most: float, model: Path) -> str:
    """What is to be said of a step's log-probs; empty where they agree.

    most: the stage's `max_mismatch`. model: a folder of the model; if it routes tokens to experts,
    a twentieth of the step's tokens may differ by more than `most`. Raises RunFailed beyond.
    """
    largest = metrics.get("mismatch_max", 0.0)
    if largest <= most:
        return ""
    if metrics.get("mismatch_p95", largest) <= most and _routes_tokens(model):
        return (
            f"⚑ a few tokens differ by up to {largest:.3g} in log-prob between sampler and trainer "
            f"(max_mismatch {most:g}): rounding decided between two experts; 95 % of the tokens "
            f"differ by at most {metrics['mismatch_p95']:.3g}"
        )
    raise RunFailed(
        f"sampler and trainer disagree by {largest:.3g} in log-prob "
        f"(max_mismatch {most:g}); raise it only where the precision explains that"
    )


def _routes_tokens(folder: Path) -> bool:
    """Whether the model of a folder is a mixture of experts, by its config.json."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # the engine says what is wrong with it
    if not isinstance(config, dict):
        return False
    # num_experts, num_local_experts, n_routed_experts: families differ in the name.
    counts = [value for key, value in config.items() if key.endswith("experts")]
    return any(isinstance(count, int) and count > 1 for count in counts)
