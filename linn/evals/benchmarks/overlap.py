"""Whether a benchmark's rows stand among the rows that a run was trained on: runs of 13 words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from linn.data.layouts import as_messages
from linn.data.names import is_remote
from linn.data.overlap import COMMON, asked, words_of
from linn.data.rows import Lines, object_of
from linn.errors import UserError
from linn.evals.benchmarks.rows import Task
from linn.recipe import load as recipes
from linn.recipe.stages import SftConfig

WORDS = 13
"""Words in a row that count as overlap."""


@dataclass
class Overlap:
    """What a comparison found."""

    files: list[str] = field(default_factory=list)
    """The training files that were read."""
    gone: list[str] = field(default_factory=list)
    """Those that are not there any more, or cannot be read."""
    rows: int = 0
    """Training rows compared."""
    prompts: set[int] = field(default_factory=set)
    """Places of the benchmark's prompts that share a run of words with a training row."""

    def line(self, task: Task) -> str:
        """What was found, for a person."""
        if not self.files and not self.gone:
            return "training rows: the run's record names no files (generated prompts alone)"
        text = (
            f"overlap: {len(self.prompts)} of {len(task.prompts)} prompts share {WORDS} words in "
            f"a row with {self.rows:,} training rows of {len(self.files)} files"
        )
        if self.gone:
            text += f"; not read: {', '.join(self.gone)}"
        return text


def training_files(run: Path) -> list[str]:
    """The files of rows that a run was trained on, by its own record; those held out are not."""
    recipe = recipes.load_resolved(run / "recipe.yaml")
    names = [config.rows for config in recipe.domains.values() if config.rows is not None]
    for stage in recipe.stages:
        if isinstance(stage, SftConfig):
            names += list(stage.files)
    return list(dict.fromkeys(names))


def overlap(
    task: Task,
    files: Sequence[str],
    progress: Callable[[float, int], None] = lambda share, count: None,
) -> Overlap:
    """Read the training files and look for the benchmark's runs of words in what they ask."""
    grams = _grams_of(task)
    found = Overlap()
    for name in files:
        if is_remote(name) or not Path(name).is_file():
            found.gone.append(name)
            continue
        found.files.append(name)
        for turns in _asked_in(Path(name), progress):
            found.rows += 1
            for text in turns:
                for gram in set(_runs(words_of(text))) & grams.keys():
                    found.prompts |= grams[gram]
    return found


def _grams_of(task: Task) -> dict[int, set[int]]:
    """Run of words -> the prompts that hold it; the wording of a template is left out."""
    grams: dict[int, set[int]] = {}
    for place, prompt in enumerate(task.prompts):
        texts = [message.content for message in prompt.messages if message.role == "user"]
        if place < len(task.rows):
            texts = _texts(task.rows[place]) or texts
        for text in texts:
            for gram in _runs(words_of(text)):
                grams.setdefault(gram, set()).add(place)
    return {gram: places for gram, places in grams.items() if len(places) <= COMMON}


def _runs(words: Sequence[str]) -> Iterator[int]:
    """The hash of every run of words; of a shorter text, its own."""
    if 0 < len(words) < WORDS:
        yield hash(tuple(words))
        return
    shifted = [islice(words, start, None) for start in range(WORDS)]
    yield from map(hash, zip(*shifted, strict=False))


def _asked_in(path: Path, progress: Callable[[float, int], None]) -> Iterator[list[str]]:
    """What each row of a file asks; rows that ask nothing are passed over."""
    lines = Lines(path)
    for number, raw in lines:
        progress(lines.share, number)
        try:
            yield _texts(object_of(raw))
        except UserError:
            continue


def _texts(row: Mapping[str, Any]) -> list[str]:
    try:
        return asked(as_messages(row))
    except UserError:
        return []
