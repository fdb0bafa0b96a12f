"""Licences: where rows and weights state theirs, and which of them let others pass things on.

Nothing is guessed from a text of terms: a licence is a name that its owner wrote where names of
licences belong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linn.checkpoints import kept_base
from linn.data.names import is_remote, located
from linn.errors import UserError

CARD = "README.md"
"""The card of a data set or a model, whose head states the licence."""
OWN = "apache-2.0"
"""The licence of linn: of its kept bases, and of what its own domains make."""

_OPEN = re.compile(
    r"(?:"
    r"(?:apache|mit|isc|zlib|unlicense|0bsd|cc0|pddl|odbl|odc-by|mpl|gpl|lgpl|agpl|psf)"
    r"|bsd(?:-[234]-clause)?"
    r"|cdla-(?:permissive|sharing)"
    r"|cc-by(?:-nc)?(?:-sa)?"
    r")(?:-v?[\d.]+(?:-[a-z]+)*|-0)?"
)
"""Names, as `_plain` writes them, that let others pass rows on as they are.

Without those that forbid adaptations (`nd`): rows of a file among other files are an adaptation.
"""
_SEVERAL = re.compile(r"\s+(?:or|and|with)\s+|[,;/|]+", re.IGNORECASE)
"""What stands between the names of several licences."""
_KEYS = ("license", "licence")
"""Fields of rows and cards that name it."""


@dataclass(frozen=True)
class Licence:
    """A licence by name."""

    name: str
    """As it is written where it is stated."""
    source: str
    """Where that is, in words."""
    label: str = ""
    """The proper name and the address of one that the Hub calls `other`."""
    link: str = ""
    """The text of such a one: an address, or a file of the folder."""
    is_said: bool = False
    """Whether the person who publishes stated it."""

    @property
    def permits(self) -> bool:
        """Whether it lets others pass the rows on; what the publishing person states does."""
        return self.is_said or is_open(self.name)


def is_open(name: str) -> bool:
    """Whether a name is of licences that let others pass rows on, all of them if it is several."""
    parts = [_plain(part) for part in _SEVERAL.split(name) if part.strip()]
    return bool(parts) and all(_OPEN.fullmatch(part) for part in parts)


def _plain(name: str) -> str:
    """`cc-by-4.0` of `CC BY 4.0`, `apache-2.0` of `Apache License 2.0`, `mit` of `MIT License`."""
    words = re.split(r"[^a-z0-9.]+", name.casefold())
    return "-".join(word for word in words if word not in ("", "license", "licence"))


def of_row(row: Mapping[str, Any]) -> str | None:
    """The licence that a row names for itself; None where it names none.

    Rows that `linn tasks` makes have one, and so do many published ones.
    """
    # Published rows differ in where they keep it, and in whether it is one name or several.
    metadata = row.get("metadata")
    for place in (row, metadata if isinstance(metadata, Mapping) else {}):
        for key in _KEYS:
            value = place.get(key)
            if isinstance(value, list):
                value = ", ".join(map(str, value))
            if isinstance(value, str) and value.strip():
                return value.strip()
    return None


def of_file(name: str) -> Licence | None:
    """The licence of a file of rows, by the card of its data set; None where there is none.

    That of a local file stands beside it or one folder above; that of a file of the Hub in the
    root of its repository, from the local cache or by the network.
    """
    if is_remote(name):
        root = re.match(r"hf://datasets/[^/]+/[^/]+/", name)
        assert root is not None, name
        try:
            return of_card(located(root[0] + CARD), root[0] + CARD)
        # Neither in the cache nor to be had: nobody knows it, as for a file without a card.
        except UserError:
            return None
    # As data sets are laid out: rows at the top, or in a folder for each part.
    folder = Path(name).resolve().parent
    for place in (folder, folder.parent):
        licence = of_card(place / CARD, str(Path(name).parent / CARD))
        if licence is not None:
            return licence
    return None


def of_model(recipe_model: object, folder: Path) -> Licence | None:
    """The licence of the weights that a run starts from; `folder`: where they are.

    Of a model that the run made from scratch nobody knows it.
    """
    if not isinstance(recipe_model, str):
        return None
    if kept_base(recipe_model) is not None:
        return Licence(OWN, "linn's own base")
    return of_card(folder / CARD, "the card of the base")


def of_card(path: Path, where: str) -> Licence | None:
    """The licence in the head of a card; None where there is no card, head or licence."""
    data = card_head(path)
    for key in _KEYS:
        value = data.get(key)
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        if not isinstance(value, str) or not value.strip():
            continue
        # Terms that have no common name are called `other`, and named beside it.
        label, link = (str(data.get(f"{key}_{part}") or "") for part in ("name", "link"))
        return Licence(value.strip(), where, label, link)
    return None


def card_head(path: Path) -> dict[str, Any]:
    """The metadata at the head of a card; empty where there is none that can be read."""
    # Only now: it takes a third of a second, and help needs none of it.
    import yaml
    from huggingface_hub import metadata_load

    if not path.is_file():
        return {}
    # Somebody's README may begin with three dashes and hold anything.
    try:
        return dict(metadata_load(path) or {})
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
