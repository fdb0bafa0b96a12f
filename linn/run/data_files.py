"""The files of rows that a run reads, and whether they are those that it began with.

A stage's place in its data is a line of a file, and a split is a part of one. So rows that change
under the same name would change a run without a word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from linn.data.names import is_remote
from linn.errors import UserError
from linn.recipe.schema import Recipe
from linn.recipe.stages import SftConfig

_WHOLE = 2**26
"""Bytes up to which a file is read as a whole; of a larger one, its size and three pieces."""
_PIECE = 2**20
"""Bytes of each of them."""

Marks = dict[str, str]
"""Size and hash of every file, by the key of the recipe that names it."""


def marks_of(recipe: Recipe) -> Marks:
    """The files that a recipe names and that are there; those of the Hub have their revision."""
    marks = {}
    for key, name in _files(recipe):
        if not is_remote(name) and Path(name).is_file():
            marks[key] = mark_of(Path(name))
    return marks


def mark_of(path: Path) -> str:
    """A file's size and a hash of what it holds."""
    digest = hashlib.blake2b(digest_size=8)
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for place in (0, size // 2, size - _PIECE):
                file.seek(place)
                digest.update(file.read(_PIECE))
    return f"{size:,} bytes, {digest.hexdigest()}"


def changed(old: Mapping[str, str], new: Mapping[str, str], done: Iterable[str]) -> list[str]:
    """The keys whose files hold something else now; the data of stages that are `done` is used."""
    used = tuple(f"{stage}.data:" for stage in done)
    return [key for key in new if old.get(key, new[key]) != new[key] and not key.startswith(used)]


def check_unchanged(
    where: str, keys: Iterable[str], old: Mapping[str, str], new: Mapping[str, str], step: str
) -> None:
    """UserError where files changed; `step`: where the run would go on."""
    lines = [f"  {key}: {old[key]} → {new[key]}" for key in keys]
    if lines:
        files = "files of rows have" if len(lines) > 1 else "a file of rows has"
        raise UserError(
            "\n".join(
                [
                    f"run folder {where}: {files} changed since it began",
                    *lines,
                    "to go on: put back what was there, or give --out another folder;",
                    f"or --from-here takes the new rows from {step} on, measures finished stages "
                    "anew, and run.json records it",
                ]
            )
        )


def _files(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(key, file) of everything that rows are read from."""
    for domain, config in recipe.domains.items():
        for split in ("rows", "test", "validation"):
            value = getattr(config, split)
            if isinstance(value, str):
                yield f"domains.{domain}.{split}", value
    for benchmark, use in recipe.evaluate.benchmarks.items():
        if use.rows is not None:
            yield f"evaluate.benchmarks.{Path(benchmark).stem}.rows", use.rows
    for stage in recipe.stages:
        if isinstance(stage, SftConfig):
            for name in stage.files:
                yield key_of(stage, name), name


def key_of(stage: SftConfig, name: str) -> str:
    """The key of one of a stage's files: by its own name, so that the folder may move.

    By its whole name where others of the stage have the same.
    """
    own = Path(name).name
    is_shared = sum(Path(other).name == own for other in stage.files) > 1
    return f"{stage.name}.data:{name if is_shared else own}"
