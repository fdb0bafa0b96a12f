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
from linn.domains.base import Domain, content_key
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
    """Rows of the file that are the domain's own validation or test split.

    They are never trained on, and stay in the file."""
    hits: dict[tuple[str, int], int] = field(default_factory=dict)
    """Prompts that meet each evaluation set, by its name and the n of the n-grams."""
    dirty: int = 0
    """Prompts that meet any of them."""
    examples: list[tuple[int, Hit]] = field(default_factory=list)
    """The first of them, by line."""
    tally: Tally = field(default_factory=Tally)
    """Rows that could not be compared."""

    def add(self, line: int, hits: Sequence[Hit]) -> None:
        """Count a prompt that meets evaluation sets."""
        self.dirty += 1
        for hit in hits:
            name = hit.name, hit.ngram
            self.hits[name] = self.hits.get(name, 0) + 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((line, max(hits, key=lambda hit: hit.grams)))


class Against:
    """Evaluation sets by name.

    A name is a file, a domain whose test split is generated (`mcqa`), or `DOMAIN:FILE` for the
    test split of a file.
    """

    def __init__(self, names: Sequence[str], sizes: Sequence[int] = (13,)) -> None:
        """`sizes`: words of the n-grams; a prompt that meets a set by any is contaminated."""
        self.sizes = sorted(set(sizes))
        self._splits: list[tuple[Path, Domain]] = []
        """Files whose test split is compared with, and the domains that read them."""
        self.sets = []
        for name in dict.fromkeys(names):
            for n in self.sizes:
                self.sets.append(Evaluated(name, self._prompts(name), n))

    def _prompts(self, name: str) -> Iterator[Sequence[str]]:
        """The texts of each prompt's user turns."""
        domain, _, file = name.partition(":")
        if is_remote(name) or (Path(name).is_file() and not name.endswith(".py")):
            yield from _file_prompts(located(name))
        elif domain in NAMES or domain.endswith(".py"):
            yield from self._domain_prompts(domain, file)
        else:
            raise UserError(
                f"--against {name}: no such file, and no domain; domains: {', '.join(NAMES)}, "
                "or DOMAIN:FILE for a file's test split"
            )

    def _domain_prompts(self, name: str, file: str) -> Iterator[Sequence[str]]:
        options = {"rows": file, "skip_bad": True} if file else None
        domain = reader(name, options)
        try:
            if file:
                yield from _test_texts(domain, located(file))
                self._splits.append((located(file), domain))
                return
            # Generated without end.
            for prompt in islice(domain.prompts("test"), GENERATED):
                yield [m.content for m in prompt.messages if m.role == "user"]
        finally:
            domain.close()

    def scan(
        self,
        path: Path,
        overlaps: Overlaps,
        skip_bad: bool,
        progress: Callable[[float, int], None],
    ) -> Iterator[bytes]:
        """The lines of the clean file; what is left out is counted in `overlaps`."""
        own = [domain for file, domain in self._splits if os.path.samefile(file, path)]
        lines = Lines(path)

        for number, raw in lines:
            progress(lines.share, number)
            try:
                row = object_of(raw)
                turns = [words_of(text) for text in asked(row)]
            except UserError as error:
                _count_or_raise(f"{path} line {number}", error, overlaps, skip_bad)
                continue

            if any(_is_held_out(domain, row, number) for domain in own):
                overlaps.held_out += 1
                yield raw
                continue

            overlaps.prompts += 1
            hits = [hit for one in self.sets if (hit := one.hit(turns))]
            if hits:
                overlaps.add(number, hits)
            else:
                yield raw

    def report(self, path: Path, overlaps: Overlaps) -> str:
        """What was found, for a person."""
        sizes = " and ".join(f"{n}-grams" for n in self.sizes)
        lines = [f"{path}: {overlaps.prompts:,} prompts compared by {sizes} of words"]
        if overlaps.held_out:
            lines.append(f"  {overlaps.held_out:,} rows are held out of training themselves")
        for one in self.sets:
            count = overlaps.hits.get((one.name, one.n), 0)
            lines.append(f"  {count:>9,} overlap with {one.name}")
            about = f"{one.prompts:,} prompts, {one.grams:,} {one.n}-grams"
            lines.append(f"            ({about}, {one.common:,} too common to count)")

        if len(self.sets) > 1:
            lines.append(f"  {overlaps.dirty:>9,} overlap with any")
        for number, hit in overlaps.examples:
            grams = f"{hit.grams:,} {hit.ngram}-grams"
            lines.append(f"  line {number}: {grams} shared with {hit.name}")
            lines.append(f"    {hit.words}"[:80])

        for line in overlaps.tally.told():
            lines.append(f"  skipped: {line}")

        return "\n".join(lines)

    def record(self, overlaps: Overlaps) -> dict[str, Any]:
        """The same as JSON."""
        sets = []
        for one in self.sets:
            sets.append(
                {
                    "name": one.name,
                    "ngram": one.n,
                    "prompts": one.prompts,
                    "grams": one.grams,
                    "common": one.common,
                    "overlap": overlaps.hits.get((one.name, one.n), 0),
                }
            )

        return {
            "ngram": self.sizes,
            "prompts": overlaps.prompts,
            "held_out": overlaps.held_out,
            "overlap": overlaps.dirty,
            "sets": sets,
            "examples": [{"line": line, **vars(hit)} for line, hit in overlaps.examples],
            "bad": overlaps.tally.record()["bad"],
        }


def decontaminate(
    path: Path,
    against: Against,
    out: Path | None,
    skip_bad: bool,
    progress: Callable[[float, int], None],
) -> tuple[Overlaps, int | None]:
    """Compare a whole file and write its clean rows to `out`, bytes as they were.

    Gives what was found, and the rows written (None without `out`).
    """
    overlaps = Overlaps()
    clean = against.scan(path, overlaps, skip_bad, progress)
    if out is not None:
        return overlaps, write_lines(out, clean)
    # The scan counts as it is read.
    for _ in clean:
        pass

    return overlaps, None


def _test_texts(domain: Domain, path: Path) -> Iterator[Sequence[str]]:
    """What the rows of a file's test split ask, without the words that a domain puts around it."""
    for number, raw in Lines(path):
        prompt = domain._of_line(path, number, raw)
        if prompt is None or domain.splits.of(content_key(prompt)) != "test":
            continue
        try:
            yield asked(object_of(raw))
        except UserError:
            yield [m.content for m in prompt.messages if m.role == "user"]


def _file_prompts(path: Path) -> Iterator[Sequence[str]]:
    for number, raw in Lines(path):
        try:
            yield asked(object_of(raw))
        except UserError as error:
            raise UserError(f"--against {path} line {number}: {error}") from None


def _count_or_raise(where: str, error: UserError, overlaps: Overlaps, skip_bad: bool) -> None:
    message, reason = fault(error)
    if not skip_bad:
        raise UserError(
            f"{where}: {message}; --skip-bad counts such rows and leaves them out"
        ) from None
    overlaps.tally.add_bad(reason, f"{where}: {message}")


def _is_held_out(domain: Domain, row: dict[str, Any], line: int) -> bool:
    try:
        return domain.splits.of(content_key(domain.from_row(row, line - 1))) != "train"
    except UserError:
        return False
