"""How long the prompts of a recipe's rows are, from the first of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from linn.chat.codec import Codec
from linn.data.names import is_remote
from linn.domains.base import Domain
from linn.errors import UserError
from linn.recipe.base import short
from linn.recipe.schema import Recipe

ROWS = 64
"""Prompts of a file that are looked at."""
BYTES_PER_TOKEN = 4
"""Of English text, where there is no tokenizer yet."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of a file's prompts, with everything that the template puts around them."""

    median: int
    """Half of them are shorter."""
    long: int
    """19 of 20 are shorter."""
    rows: int
    """How many were looked at."""


def prompt_lengths(
    recipe: Recipe, domains: Mapping[str, Domain], codec: Codec | None
) -> dict[str, Lengths]:
    """Of every domain that reads a file of this machine, by its short name.

    `codec`: of the model at hand; None: its tokenizer is not there, so bytes are counted. A file
    without usable rows has no entry: the run itself says what is wrong with it.
    """
    lengths = {}
    for name, config in recipe.domains.items():
        if not isinstance(config.rows, str) or is_remote(config.rows):
            continue
        if name.endswith(".py"):  # a dry run does not run somebody's code
            continue
        try:
            counted = _counted(domains[short(name)], codec)
        except UserError:
            continue
        if counted:
            lengths[short(name)] = Lengths(
                median=counted[len(counted) // 2],
                long=counted[len(counted) * 19 // 20],
                rows=len(counted),
            )
    return lengths


def _counted(domain: Domain, codec: Codec | None) -> list[int]:
    """Tokens of the first prompts, the shortest first."""
    counts = []
    for prompt in itertools.islice(domain.prompts("train"), ROWS):
        if codec is None:
            size = sum(len(message.content.encode()) for message in prompt.messages)
            counts.append(max(1, size // BYTES_PER_TOKEN))
        else:
            counts.append(len(codec.prompt_ids(prompt)))
    return sorted(counts)
