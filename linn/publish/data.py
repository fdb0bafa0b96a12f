"""The training data of a run that may be passed on, as JSON Lines, and what is held back and why.

Rows of files go as they stand, if the run trained on them and a licence lets them be passed on:
their own, or that of their file. What a domain made is made again: demonstrations and prompts are
functions of the run's seed. Held-out rows stay out, since the card's scores stand on them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from linn import files
from linn.data.names import is_remote, located
from linn.data.rows import BadRow, Lines, object_of
from linn.domains.base import Domain
from linn.domains.load import load, reader
from linn.errors import UserError
from linn.publish.licences import OWN, Licence, of_file, of_row
from linn.recipe.base import short
from linn.recipe.schema import Recipe
from linn.recipe.stages import AnyStage, SftConfig
from linn.report.files import RunFiles, StageFiles
from linn.run.data_files import key_of, mark_of
from linn.stages.prompts import Position, PromptStream
from linn.stages.sft import demonstration
from linn.types import Message, Prompt, seed_of

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file of rows that a run trained on, or one domain that made prompts for a stage."""

    name: str
    """The recipe's word for it: a domain, or a file's name; what `--data-licence` takes."""
    path: str
    """Its place within the published data, such as `rl/mcqa.jsonl`."""
    origin: str
    """Where it comes from, in words."""
    stages: tuple[str, ...]
    """The stages that trained on it."""
    used: int | None
    """Prompts or rows that they took, with repetitions; None where no record says so."""
    licence: Licence | None
    """That of the whole; None: unknown, and only rows that name their own are passed on."""
    absent: str = ""
    """Why there is nothing to pass on; empty where there is."""
    file: str = ""
    """The file of rows, as the recipe names it; empty for what a domain made."""
    is_of_domain: bool = False
    """Whether it is a domain's file, and not one of an SFT stage."""


@dataclass
class Passed:
    """What became of a source's rows."""

    source: Source
    """The source."""
    rows: int = 0
    """Rows that were passed on."""
    licences: Counter[str] = field(default_factory=Counter)
    """How many of them under which licence."""
    held: Counter[str] = field(default_factory=Counter)
    """Rows that were held back, by reason."""


@dataclass(frozen=True)
class TrainingData:
    """The data of some stages of a run."""

    run: RunFiles
    """The run."""
    recipe: Recipe
    """Its recipe."""
    stages: tuple[AnyStage, ...]
    """The stages whose data it is."""
    said: Mapping[str, str]
    """Licences that the publishing person states, by domain or name of a file."""

    def sources(self) -> list[Source]:
        """Every source, in the order of the stages; a file of several stages once."""
        found: dict[tuple[str, str], Source] = {}
        paths: Counter[str] = Counter()
        folders = {stage.name: stage for stage in self.run.stages}
        for config in self.stages:
            for source in self._of_stage(config, _taken(folders[config.name])):
                key = (source.file, source.path)
                if key in found:
                    found[key] = _joined(found[key], source)
                    continue
                # Files of one name in two folders.
                paths[source.path] += 1
                number = paths[source.path]
                path = source.path
                if number > 1:
                    path = path.replace(".jsonl", f"-{number}.jsonl")
                found[key] = replace(source, path=path)
        self._check_said(found.values())
        return list(found.values())

    def write(self, folder: Path, note: Callable[[float, int], None]) -> list[Passed]:
        """Write what may be passed on into an existing folder; says what became of each source.

        note: is told (share of the sources, rows written so far).
        """
        results = []
        total = 0
        sources = self.sources()
        for number, source in enumerate(sources):
            passed = Passed(source)
            results.append(passed)
            absent = source.absent or _out_of_reach(source)
            if absent:
                passed.held[absent] += source.used or 0
                continue
            path = folder / source.path
            with files.whole_file(path) as file:
                for row in self._permitted(source, passed):
                    file.write(files.json_line(row).encode("utf-8"))
                    note(number / len(sources), total + passed.rows)
            total += passed.rows
            if not passed.rows:
                path.unlink()
                with suppress(OSError):
                    path.parent.rmdir()  # unless others are in it
        return results

    # ------------------------------------------------------------ sources

    def _of_stage(self, config: AnyStage, taken: Mapping[str, int]) -> Iterator[Source]:
        if isinstance(config, SftConfig) and config.files:
            for name in config.files:
                key = key_of(config, name)
                count = taken.get("rows" if len(config.files) == 1 else f"rows {name}")
                yield self._of_file(name, key, config.name, count)
            return
        # A domain's rows are prompts for RL; for SFT they become demonstrations.
        for domain in self.recipe.weights_of(config):
            rows = self._block(domain).rows
            count = taken.get(domain)
            if rows is None or isinstance(config, SftConfig):
                yield self._made(domain, config, count)
            else:
                key = f"domains.{domain}.rows"
                yield self._of_file(rows, key, config.name, count, domain)

    def _of_file(
        self, name: str, key: str, stage: str, used: int | None, domain: str = ""
    ) -> Source:
        """A file of rows; `key`: of the recipe; `domain`: whose it is, empty for an SFT stage's."""
        absent = ""
        if not is_remote(name) and not Path(name).is_file():
            absent = "the file is not here any more"
        elif self._has_changed(key, name):
            absent = "the file has changed since the run"
        word = domain or Path(name).name
        return Source(
            name=word,
            path=f"rl/{domain}.jsonl" if domain else f"sft/{_stem(name)}.jsonl",
            origin=f"rows of {name if is_remote(name) else Path(name).name}",
            stages=(stage,),
            used=used,
            licence=self._licence(word, of_file(name)),
            absent=absent,
            file=name,
            is_of_domain=bool(domain),
        )

    def _has_changed(self, key: str, name: str) -> bool:
        """Whether a local file is another than the run began with; files of the Hub have theirs."""
        mark = self._marks.get(key)
        return mark is not None and not is_remote(name) and mark_of(Path(name)) != mark

    def _made(self, domain: str, config: AnyStage, used: int | None) -> Source:
        """What a domain made for a stage, demonstrations or prompts."""
        block = self._block(domain)
        kind, what = "rl", "prompts and right answers"
        if isinstance(config, SftConfig):
            kind, what = "sft", "demonstrations"
        licence: Licence | None = Licence(OWN, "made by linn")
        origin = f"{what} that linn's domain {domain} made, level {block.level}"
        if self._full_name(domain).endswith(".py"):
            licence, origin = None, f"{what} that the domain in {domain}.py made"
        if block.rows is not None:
            # Of a row that was made into something else, its own licence is out of sight.
            licence, origin = None, f"{what} from the rows of domain {domain}"
        return Source(
            name=domain,
            path=f"{kind}/{config.name}-{domain}.jsonl",
            origin=origin,
            stages=(config.name,),
            used=used,
            licence=self._licence(domain, licence),
            absent="" if used is not None else "no record says which",
        )

    def _licence(self, name: str, found: Licence | None) -> Licence | None:
        # What the publisher states goes before what a card says: they may have asked its owner.
        if name in self.said:
            return Licence(self.said[name], "stated by the publisher", is_said=True)
        return found

    def _check_said(self, sources: Iterable[Source]) -> None:
        """Refuse a licence of something that the run did not train on."""
        names = {source.name for source in sources}
        for name in self.said:
            if name not in names:
                allowed = ", ".join(sorted(names)) or "none: no data is published"
                raise UserError(
                    f"--data-licence {name}=…: no data has this name; there are: {allowed}"
                )

    # ------------------------------------------------------------ rows

    def _permitted(self, source: Source, passed: Passed) -> Iterator[Row]:
        """The rows that a licence lets be passed on; the others are counted."""
        whole = source.licence
        is_refused = whole is None or not whole.permits
        # Made rows name no licence of their own, and making them costs something.
        if not source.file and is_refused:
            passed.held[_unclear(whole)] += source.used or 0
            return
        for row in self._rows(source, passed):
            own = of_row(row) if source.file else None
            licence = whole if own is None else Licence(own, "the row itself")
            if licence is None or not licence.permits:
                passed.held[_unclear(licence)] += 1
                continue
            passed.rows += 1
            passed.licences[licence.name] += 1
            yield row

    def _rows(self, source: Source, passed: Passed) -> Iterator[Row]:
        if source.is_of_domain:
            # Rows that a model alone can grade are read as well.
            domain = reader(self._full_name(source.name), self._options(source.name))
            # What training refused is counted, whether or not it stopped there.
            domain.skip_bad = True
            try:
                for split, row in domain.split_rows():
                    if split == "train":
                        yield row
                    else:
                        passed.held["held out: scores stand on them"] += 1
            finally:
                domain.close()
            for why, count in [*domain.tally.bad.items(), *domain.tally.others.items()]:
                passed.held[f"not trained on: {why}"] += count
        elif source.file:
            yield from _rows_of_file(source, passed)
        else:
            yield from self._made_rows(source)

    def _made_rows(self, source: Source) -> Iterator[Row]:
        """What a domain made for a stage, once more; a prompt that it came to twice, once."""
        config = self.recipe.stage(source.stages[0])
        name = source.name
        seed = seed_of(self.recipe.seed, config.name)
        domain = load(self._full_name(name), self._options(name))
        try:
            # The order among domains has no part in which prompts a domain gives.
            stream = PromptStream(config, {name: domain}, {name: 1.0}, seed, Position())
            seen: set[str] = set()
            for _ in range(source.used or 0):
                (prompt,) = stream.take(1)
                if prompt.id not in seen:
                    seen.add(prompt.id)
                    yield made_row(domain, config, seed, prompt)
        finally:
            domain.close()

    # ------------------------------------------------------------ the recipe

    def _full_name(self, domain: str) -> str:
        """`./mine.py` of `mine`."""
        return next(name for name in self.recipe.domains if short(name) == domain)

    def _block(self, domain: str) -> Any:
        return self.recipe.domains[self._full_name(domain)]

    def _options(self, domain: str) -> dict[str, Any]:
        return dict(self._block(domain).options)

    @property
    def _marks(self) -> dict[str, str]:
        """Size and hash of every file of rows when the run began."""
        marks = self.run.about.get("data")
        return dict(marks) if isinstance(marks, dict) else {}


def made_row(domain: Domain, config: AnyStage, seed: int, prompt: Prompt) -> Row:
    """A prompt that a domain made, as a row that `linn render` and `linn data` read.

    For SFT with the demonstration; else with an answer that earns full reward, as `gold`.
    """
    messages = prompt.messages
    if isinstance(config, SftConfig):
        messages = demonstration(domain, config, seed, prompt)
    row: Row = {"id": prompt.id, "domain": prompt.domain}
    row["messages"] = [row_of(message) for message in messages]
    if prompt.tools:
        row["tools"] = list(prompt.tools)
    row["chat_template_kwargs"] = {"enable_thinking": prompt.thinking}
    if not isinstance(config, SftConfig):
        gold = domain.gold(prompt)
        row["gold"] = [row_of(message) for message in gold.messages] or gold.text
    return row


def row_of(message: Message) -> Row:
    """A turn in OpenAI's layout."""
    row: Row = {"role": message.role, "content": message.content}
    if message.reasoning:
        row["reasoning_content"] = message.reasoning
    if message.tool_calls:
        row["tool_calls"] = []
    for number, call in enumerate(message.tool_calls):
        arguments = call.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(dict(arguments), ensure_ascii=False)
        # Rows of a generator have no ids, and equal runs are to give equal bytes.
        function = {"name": call.name, "arguments": arguments}
        made = {"id": call.id or f"call_{number}", "type": "function", "function": function}
        row["tool_calls"].append(made)
    if message.tool_call_id:
        row["tool_call_id"] = message.tool_call_id
    return row


def _taken(stage: StageFiles) -> dict[str, int]:
    """Prompts or rows that a stage took, by domain or file; empty where its place is gone."""
    # The state of a stage under way goes before the place that a finished one keeps.
    for place in (stage.folder / "state" / "stage.json", stage.folder / "position.json"):
        try:
            record = json.loads(place.read_text(encoding="utf-8"))
            return {str(name): int(count) for name, count in record["taken"].items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return {}


def _out_of_reach(source: Source) -> str:
    """Why a file of the Hub cannot be read; empty where it can, or is a local one."""
    try:
        if source.file:
            located(source.file)
    except UserError:
        return "the file is neither in the local cache nor to be had"
    return ""


def _rows_of_file(source: Source, passed: Passed) -> Iterator[Row]:
    """The rows of an SFT stage's file."""
    for _, raw in Lines(located(source.file)):
        try:
            yield object_of(raw)
        except BadRow as error:
            passed.held[f"not trained on: {error.reason}"] += 1


def _joined(one: Source, two: Source) -> Source:
    """A file that two stages trained on."""
    used = None
    if one.used is not None and two.used is not None:
        used = one.used + two.used
    return replace(one, stages=(*one.stages, *two.stages), used=used)


def _stem(name: str) -> str:
    """A file's name without its endings, of letters that a name on the Hub may have."""
    stem = Path(name).name.split(".")[0]
    return re.sub(r"[^\w-]", "-", stem) or "rows"


def _unclear(licence: Licence | None) -> str:
    """Why rows under this licence are held back."""
    if licence is None:
        return "licence unknown"
    return f"licence {licence.name[:60]!r}, which linn does not know to let rows be passed on"
