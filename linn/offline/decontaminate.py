"""Training prompts against evaluation sets: `linn data FILE --against …`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from linn.data.names import is_remote, located
from linn.data.overlap import Evaluated, Hit, asked, words_of
from linn.data.rows import Lines, object_of, write_lines
from linn.data.tally import Tally, fault
from linn.domains.base import Domain, content_key, split_of
from linn.domains.load import NAMES, reader
from linn.errors import UserError

GENERATED = 1000
"""Test prompts taken of a domain that generates them without end."""
EXAMPLES = 10
"""Overlaps that are shown."""


@dataclass
class Overlaps:
    """What a comparison found."""

    prompts: int = 0
    """Training prompts compared."""
    held_out: int = 0
    """Rows of the file that are themselves the domain's validation or test split; never trained on, kept."""
    hits: dict[tuple[str, int], int] = field(default_factory=dict)
    """Prompts that meet each evaluation set, by its name and the n of the n-grams."""
    dirty: int = 0
    """Prompts that meet any of them."""
    examples: list[tuple[int, Hit]] = field(default_factory=list)
    """The first of them, by line."""
    tally: Tally = field(default_factory=Tally)
    """Rows that could not be compared."""


class Against:
    """Evaluation sets by name: a file, a domain's generated test split (`mcqa`), or a file's test split under a domain (`mcqa:FILE`)."""

    def __init__(self, names: Sequence[str], sizes: Sequence[int] = (13,)) -> None:
        """`sizes`: words of the n-grams; a prompt is contaminated that meets a set by any of them."""
        self.sizes = sorted(set(sizes))
        self._splits: list[tuple[Path, Domain]] = []
        self.sets = [
            Evaluated(name, self._prompts(name), n)
            for name in dict.fromkeys(names)
            for n in self.sizes
        ]

    def _prompts(self, name: str) -> Iterator[Sequence[str]]:
        domain, _, file = name.partition(":")
        if is_remote(name) or (Path(name).is_file() and not name.endswith(".py")):
            path = located(name)
            for number, raw in Lines(path):
                try:
                    yield asked(object_of(raw))
                except UserError as error:
                    raise UserError(f"--against {path} line {number}: {error}") from None
        elif domain in NAMES or domain.endswith(".py"):
            loaded = reader(domain, {"rows": file, "skip_bad": True} if file else None)
            try:
                for prompt in (
                    loaded.prompts("test") if file else islice(loaded.prompts("test"), GENERATED)
                ):
                    yield [m.content for m in prompt.messages if m.role == "user"]
            finally:
                loaded.close()
            if file:
                self._splits.append((located(file), loaded))
        else:
            raise UserError(
                f"--against {name}: no such file, and no domain; domains: {', '.join(NAMES)}, or DOMAIN:FILE for a file's test split"
            )

    def scan(
        self, path: Path, found: Overlaps, skip_bad: bool, progress: Callable[[float, int], None]
    ) -> Iterator[bytes]:
        """The lines of the clean file; what is left out is counted in `found`."""
        own = [domain for file, domain in self._splits if os.path.samefile(file, path)]
        lines = Lines(path)
        for number, raw in lines:
            progress(lines.share, number)
            try:
                row = object_of(raw)
                turns = [words_of(text) for text in asked(row)]
            except UserError as error:
                message, reason = fault(error)
                told = f"{path} line {number}: {message}"
                if not skip_bad:
                    raise UserError(
                        f"{told}; --skip-bad counts such rows and leaves them out"
                    ) from None
                found.tally.add_bad(reason, told)
                continue
            if any(_held_out(domain, row, number) for domain in own):
                found.held_out += 1
                yield raw
                continue
            found.prompts += 1
            hits = [hit for one in self.sets if (hit := one.hit(turns))]
            for hit in hits:
                met = hit.name, hit.ngram
                found.hits[met] = found.hits.get(met, 0) + 1
            if not hits:
                yield raw
                continue
            found.dirty += 1
            if len(found.examples) < EXAMPLES:
                found.examples.append((number, max(hits, key=lambda hit: hit.grams)))

    def report(self, path: Path, found: Overlaps) -> str:
        """What was found, for a person."""
        grams = " and ".join(f"{n}-grams" for n in self.sizes)
        lines = [f"{path}: {found.prompts:,} prompts compared by {grams} of words"]
        if found.held_out:
            lines.append(f"  {found.held_out:,} rows are held out of training themselves")
        for one in self.sets:
            lines.append(f"  {found.hits.get((one.name, one.n), 0):>9,} overlap with {one.name}")
            lines.append(
                f"            ({one.prompts:,} prompts, {one.grams:,} {one.n}-grams, {one.common:,} too common to count)"
            )
        if len(self.sets) > 1:
            lines.append(f"  {found.dirty:>9,} overlap with any")
        for number, hit in found.examples:
            lines += [
                f"  line {number}: {hit.grams:,} {hit.ngram}-grams shared with {hit.name}",
                f"    {hit.words}"[:80],
            ]
        return "\n".join([*lines, *(f"  skipped: {told}" for told in found.tally.told())])

    def record(self, found: Overlaps) -> dict[str, Any]:
        """The same as JSON."""
        sets = [
            {
                "name": s.name, "ngram": s.n, "prompts": s.prompts, "grams": s.grams, "common": s.common,
                "overlap": found.hits.get((s.name, s.n), 0),
            }
            for s in self.sets
        ]  # fmt: skip
        examples = [{"line": line, **vars(hit)} for line, hit in found.examples]
        return {
            "ngram": self.sizes, "prompts": found.prompts, "held_out": found.held_out, "overlap": found.dirty, "sets": sets,
            "examples": examples, "bad": found.tally.record()["bad"],
        }  # fmt: skip


def decontaminate(
    path: Path,
    against: Against,
    out: Path | None,
    skip_bad: bool,
    progress: Callable[[float, int], None],
) -> tuple[Overlaps, int | None]:
    """Compare a whole file and write its clean rows to `out`, bytes as they were; gives what was found and the rows written."""
    found = Overlaps()
    clean = against.scan(path, found, skip_bad, progress)
    if out is not None:
        return found, write_lines(out, clean)
    for _ in clean:
        pass
    return found, None


def _held_out(domain: Domain, row: dict[str, Any], line: int) -> bool:
    try:
        return split_of(content_key(domain.from_row(row, line - 1))) != "train"
    except UserError:
        return False
