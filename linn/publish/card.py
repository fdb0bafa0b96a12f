"""The cards of what is published: what a checkpoint scores, what made it, where its limits are.

Numbers are the ledger's. Names in a recipe and in rows are anybody's text: each is escaped, so that
none of it becomes mark-up of a page that others read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linn.assets import model_config
from linn.chat.codec import Codec
from linn.chat.own import Own
from linn.ledger import Change, Difference, RewardsOf, changes, compared, latest
from linn.publish.data import Passed
from linn.publish.licences import Licence
from linn.publish.limits import limits_of
from linn.recipe.schema import Recipe
from linn.report.files import RunFiles, text
from linn.report.numbers import format_score
from linn.report.summary import given_back, recoveries
from linn.report.tables import table
from linn.serve.vllm import parser_flags
from linn.terminal import visible
from linn.types import Score

_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~])")
"""Characters that mean something in Markdown."""


@dataclass(frozen=True)
class Place:
    """A checkpoint of a run."""

    stage: str
    """Its stage."""
    step: int
    """The step of that stage."""
    is_last: bool
    """Whether the stage ended with it."""
    branch: str = "main"
    """The branch that holds it."""

    @property
    def name(self) -> str:
        """`STAGE`, or `STAGE:STEP` of one within it."""
        return self.stage if self.is_last else f"{self.stage}:{self.step}"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a card is about."""

    run: RunFiles
    """The run."""
    rewards: RewardsOf
    """Every prompt's reward behind its scores."""
    recipe: Recipe
    """Its recipe."""
    place: Place
    """The checkpoint."""
    others: tuple[Place, ...] = ()
    """Checkpoints in other branches."""
    licence: Licence | None = None
    """That of the weights."""
    base: str = ""
    """The base's name on the Hub, if it is known."""
    repo: str = ""
    """`OWNER/NAME` on the Hub; empty for a folder."""
    data_repo: str = ""
    """The same of the data."""
    passed: tuple[Passed, ...] = ()
    """What became of the training data."""

    @property
    def title(self) -> str:
        """The name of the model."""
        name = self.repo.partition("/")[2] or text(self.run.about, "name") or self.recipe.name
        return name if self.place.branch == "main" else f"{name}, {self.place.name}"

    @property
    def line(self) -> list[str]:
        """The stages that made the checkpoint, in run order, its teachers' included."""
        stages = {stage.name: stage for stage in self.run.stages}
        # Back from the checkpoint along starts and teachers, each stage once.
        made: set[str] = set()
        waiting = [self.place.stage]
        while waiting:
            name = waiting.pop()
            if name in made or name not in stages:
                continue
            made.add(name)
            stage = stages[name]
            waiting += [teacher.partition(":")[0] for teacher in stage.teachers.values()]
            waiting += [stage.parent] if stage.parent else []
        return [name for name in stages if name in made]


@dataclass(frozen=True)
class ScoreLine:
    """A score of the checkpoint."""

    score: Score
    """The ledger's row."""
    since: Difference | None
    """Against the first measured checkpoint that it came from."""


@dataclass(frozen=True)
class StageLine:
    """What a stage did."""

    name: str
    """The stage."""
    parent: str
    """Where it started."""
    kind: str
    """sft, rl or distill."""
    steps: str
    """Its steps."""
    domains: list[str]
    """What it trained on."""
    gains: list[str]
    """Changes that stand out, in words."""
    losses: list[str]
    """The same of losses."""
    others: str
    """How many measured changes do not; or that none was measured."""


def model_card(subject: Subject, folder: Path) -> str:
    """The model card of an exported folder."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    scores, since = _scores(subject)
    found = changes_of(subject)
    greedy = table(subject.run.scores, subject.run.parents, metric="greedy")
    # The Hub reads scores from the metadata, people from the tables below it.
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=line.score.domain,
            dataset_name=line.score.domain,
            dataset_split="test",
            metric_type=line.score.metric,
            metric_name=_metric_name(line.score),
            metric_value=round(line.score.value, 4),
        )
        for line in scores
    ]
    licence = subject.licence
    is_other = licence is not None and bool(licence.label)
    data = ModelCardData(
        base_model=subject.base or None,
        datasets=[subject.data_repo] if subject.data_repo else None,
        eval_results=results or None,
        library_name="transformers",
        license=_hub_name(licence),
        license_name=licence.label if licence and is_other else None,
        license_link=licence.link or None if licence and is_other else None,
        model_name=subject.title,
        pipeline_tag="text-generation",
        tags=["linn", "post-training", *sorted({s.kind for s in subject.run.stages} - {"base"})],
    )
    body = render(
        "model_card.md.jinja",
        **_about(subject),
        **_how_to_run(subject, folder),
        scores=scores,
        since=since,
        stages=_stage_lines(subject, found),
        changes=found,
        has_greedy=bool(greedy.rows),
        sampled_alone=[name for name in greedy.unmeasured if name in subject.line],
        teachers=_teachers(subject),
        branches=[_branch_line(subject, place) for place in subject.others],
        data=[data_line(passed) for passed in _data_of(subject)],
        limits=limits_of(subject.run, subject.recipe, subject.line, licence, model_config(folder)),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def data_card(subject: Subject, title: str) -> str:
    """The card of the published data."""
    from huggingface_hub import DatasetCard, DatasetCardData

    passed = [one for one in subject.passed if one.rows]
    # The Hub shows one licence or a list of them; the table says which is whose.
    licences = list(dict.fromkeys(name for one in passed for name in one.licences))
    configs = [_config(one.source.path) for one in passed]
    data = DatasetCardData(
        license=[_hub_licence(name) for name in licences] or None,
        pretty_name=title,
        task_categories=["text-generation"],
        tags=["linn", "post-training"],
        configs=configs or None,
    )
    # A source may be passed on in part, so it may stand in both tables.
    held = [
        {"origin": one.source.origin, "rows": rows or "not counted", "why": why}
        for one in subject.passed
        for why, rows in one.held.items()
    ]
    body = render(
        "data_card.md.jinja",
        **_about(subject) | {"title": title},
        passed=[data_line(one) | {"path": one.source.path, "rows": one.rows} for one in passed],
        held=held,
    )
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def _config(path: str) -> dict[str, str]:
    """A file as a part of the data set that can be loaded by itself."""
    name = path.removesuffix(".jsonl").replace("/", "-")
    return {"config_name": name, "data_files": path}


def _data_of(subject: Subject) -> list[Passed]:
    """What the checkpoint itself was trained on."""
    line = set(subject.line)
    return [passed for passed in subject.passed if line.intersection(passed.source.stages)]


def data_line(passed: Passed) -> dict[str, Any]:
    """A source of the training data in words."""
    source = passed.source
    licence = source.licence
    # Of rows that name their own licences, each with its count.
    word = "unknown" if licence is None else f"{licence.name} ({licence.source})"
    if set(passed.licences) - {licence.name if licence else ""}:
        word = ", ".join(f"{name}: {rows:,}" for name, rows in passed.licences.most_common())
    told = [f"{passed.rows:,} rows"] if passed.rows else []
    for why, rows in passed.held.items():
        told.append(f"held back: {rows or 'all'} ({why})")
    return {
        "origin": source.origin,
        "stages": ", ".join(source.stages),
        "used": "not on record" if source.used is None else f"{source.used:,}",
        "licence": word,
        "passed": "; ".join(told) or "nothing",
    }


# ---------------------------------------------------------------- what the ledger says


def changes_of(subject: Subject) -> list[Change]:
    """Every measured change of the stages that made a checkpoint, in run order.

    Flags are those of the report: controlled over all changes of the run.
    """
    run, line = subject.run, subject.line
    # A table for each metric, as in the report; its flags look at all of them together.
    metrics = dict.fromkeys(row.metric for row in run.scores if row.split == "test")
    found = []
    for metric in metrics:
        found += changes(run.scores, run.parents, "test", metric, subject.rewards)
    of_line = [change for change in found if change.stage in line]
    return sorted(of_line, key=lambda change: line.index(change.stage))


def _scores(subject: Subject) -> tuple[list[ScoreLine], str]:
    """The checkpoint's test scores, and the stage that their changes are counted from."""
    run, place = subject.run, subject.place
    rows = [row for row in run.scores if row.split == "test"]
    own = [row for row in rows if (row.stage, row.step) == (place.stage, place.step)]
    # The start of a run is often not measured: then the first stage that was.
    ancestors = _ancestors(run, place.stage)
    first = next((name for name in ancestors if any(row.stage == name for row in rows)), "")
    if first == place.stage:
        first = ""
    lines = []
    for row in own:
        before = latest(rows, "test", row.metric).get((first, row.domain))
        since = compared(before, row, subject.rewards) if before is not None else None
        lines.append(ScoreLine(row, since))
    return lines, first


def _ancestors(run: RunFiles, stage: str) -> list[str]:
    """A stage and what it came from, the first first."""
    line: list[str] = []
    ancestor: str | None = stage
    while ancestor is not None and ancestor not in line:
        line.insert(0, ancestor)
        ancestor = run.parents.get(ancestor)
    return line


def _stage_lines(subject: Subject, found: Sequence[Change]) -> list[StageLine]:
    stages = {stage.name: stage for stage in subject.run.stages}
    lines = []
    for name in subject.line:
        stage = stages[name]
        if stage.parent is None:
            continue  # what the run started from
        own = [change for change in found if change.stage == name]
        gains = [_in_words(change) for change in own if change.gained]
        losses = [_in_words(change) for change in own if change.lost]
        lines.append(
            StageLine(
                name=name,
                parent=stage.parent,
                kind=stage.kind,
                steps=str(subject.recipe.stage(name).steps),
                domains=list(stage.domains),
                gains=gains,
                losses=losses,
                others=str(len(own) - len(gains) - len(losses)) if own else "not measured",
            )
        )
    return lines


def _in_words(change: Change) -> str:
    """`math +0.12 (0.05 to 0.19, n 300)`; of another metric than accuracy, with its name."""
    metric = "" if change.after.metric == "accuracy" else f" {change.after.metric}"
    by = change.by
    ends = f"{_signed(by.low)} to {_signed(by.high)}"
    return f"{change.domain}{metric} {_signed(by.value)} ({ends}, n {_prompts(change)})"


def _prompts(change: Change) -> str:
    if change.by.paired:
        return str(change.by.pairs)
    return f"{min(change.before.n, change.after.n)}, not prompt by prompt"


def _teachers(subject: Subject) -> list[str]:
    """Who taught what, of every distillation that the checkpoint came from."""
    told = []
    for stage in subject.run.stages:
        if stage.name in subject.line and stage.teachers:
            pairs = ", ".join(f"{domain} by {place}" for domain, place in stage.teachers.items())
            told.append(f"{stage.name}: {pairs}")
    return told


def _metric_name(score: Score) -> str:
    ends = f"{score.low:.4f} to {score.high:.4f}"
    return f"{score.metric}, mean reward; 95 % interval {ends}, n {score.n}"


# ---------------------------------------------------------------- what it is, and how to run it


def _about(subject: Subject) -> dict[str, Any]:
    found = [
        given_back(stage, recovery)
        for stage, recovery in recoveries(subject.run)
        if stage.name in subject.line
    ]
    versions = subject.run.about.get("versions")
    linn = text(versions, "linn") if isinstance(versions, dict) else ""
    # A folder's place is nobody else's business; its name tells which base it was.
    base = subject.base or subject.recipe.model
    return {
        "title": subject.title,
        "run": text(subject.run.about, "name") or subject.recipe.name,
        "linn": linn,
        "base": Path(base).name if isinstance(base, str) and not subject.base else str(base),
        "place": subject.place,
        "sentences": found,
        "data_repo": subject.data_repo,
    }


def _how_to_run(subject: Subject, folder: Path) -> dict[str, Any]:
    """What the snippets need: the modes of the template, and who reads calls and thoughts."""
    # Read from the export itself: this is what a stranger will open.
    codec = Codec.load(folder)
    branch = subject.place.branch
    template = codec.template
    silent: Mapping[str, Any] = {"enable_thinking": False}
    if isinstance(template, Own):
        silent = template.form.switch.get(False, {})
    modes = ", ".join(f"{key}={value!r}" for key, value in silent.items())
    names = {"own": "the base's own chat template", "nemotron": "the protocol of Nemotron 3"}
    return {
        "is_template": True,
        "template": names[template.name],
        "where": subject.repo or "DIR",
        "revision": "" if branch == "main" or not subject.repo else f', revision="{branch}"',
        "vllm_revision": "" if branch == "main" or not subject.repo else f" --revision {branch}",
        "trust": ", trust_remote_code=True" if "auto_map" in model_config(folder) else "",
        "mode": f", {modes}" if modes else "",
        "modes": modes,
        "flags": "".join(f" {flag}" for flag in parser_flags(codec)),
    }


def _branch_line(subject: Subject, place: Place) -> dict[str, Any]:
    parent = subject.run.parents.get(place.stage)
    return {
        "name": place.branch,
        "stage": place.stage,
        "step": place.step,
        "parent": parent or "",
    }


def _hub_name(licence: Licence | None) -> str | None:
    if licence is None:
        return None
    return "other" if licence.label else _hub_licence(licence.name)


def _hub_licence(name: str) -> str:
    """A licence as the Hub spells them; `other` for what is no single word."""
    plain = re.sub(r"\s+", "-", name.strip().casefold())
    return plain if re.fullmatch(r"[a-z0-9.-]+", plain) else "other"


# ---------------------------------------------------------------- text


def render(name: str, **values: Any) -> str:
    """A card's body; every value is shown as text, whatever is in it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def code(value: object) -> Markup:
        """Within a block or a span of code, where nothing but its end means something."""
        return Markup(" ".join(visible(str(value)).replace("`", "'").split(" ")))

    def shown(value: object) -> object:
        return escaped(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    # `finalize` sees every value, and autoescaping would write HTML where Markdown is meant.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        finalize=shown,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        short=format_score,
        signed=_signed,
        prompts=_prompts,
        change=_since,
        code=code,
    )
    # Blocks of the template that say nothing leave their blank lines.
    body = environment.get_template(name).render(**values)
    return re.sub(r"\n{3,}", "\n\n", body)


def escaped(raw: str) -> str:
    """Text of which nothing is mark-up, in one line."""
    return _MARKUP.sub(r"\\\1", " ".join(visible(raw).split()))


def _signed(value: float) -> str:
    return f"{'+' if round(value, 2) > 0 else ''}{format_score(value)}"


def _since(difference: Difference) -> str:
    ends = f"{_signed(difference.low)} to {_signed(difference.high)}"
    return f"{_signed(difference.value)} ({ends})"
