"""One model on benchmarks, outside a run: a checkpoint or a served model."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from linn.assets import trained_length
from linn.chat.codec import Codec
from linn.chat.template import TemplateName
from linn.checkpoints import resolve
from linn.endpoint.address import Address, parse_endpoint
from linn.endpoint.client import Endpoint
from linn.engine.open import open_engine
from linn.engine.protocol import Engine
from linn.errors import UserError
from linn.evals.benchmarks import config
from linn.evals.benchmarks.config import Benchmark, identity
from linn.evals.benchmarks.kept import PLACE, Kept, served_digest, weights_digest, write_protocol
from linn.evals.benchmarks.measure import AT_ONCE, Measuring, Player, measure
from linn.evals.benchmarks.overlap import overlap, training_files
from linn.evals.benchmarks.results import Result, check_same, protocol_of, result_of
from linn.evals.benchmarks.rows import Task, task_of
from linn.judges.open import api_key_of, judge_folders, judges_of
from linn.judges.panel import Judges
from linn.play.remote import play_remote
from linn.play.rollout import play
from linn.recipe.benchmarks import BenchmarkUse
from linn.recipe.schema import JudgeConfig, ScaleConfig
from linn.types import Optim


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a person asked for."""

    model: str
    """RUN@STAGE[:STEP], a folder, or http(s)://HOST:PORT/v1#MODEL."""
    uses: Mapping[str, BenchmarkUse]
    """Benchmarks by name or file, and what is changed of each."""
    template: TemplateName | None = None
    """Chat template of a checkpoint; None: as its folder needs it."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    """Of the engine that holds a checkpoint."""
    seed: int = 0
    """Of all sampling."""
    at_once: int = AT_ONCE
    """Conversations held, and kept, together."""
    concurrency: int = 64
    """Requests under way at once, at endpoints."""
    timeout_s: float = 1800.0
    """Seconds that a request to an endpoint may take."""
    key_env: str | None = None
    """Environment variable with the endpoints' key."""
    asks_mode: bool = True
    """Whether a served model is told to think or not; see `play_remote`."""
    place: Path = PLACE
    """Where rollouts are kept."""
    fresh: bool = False
    """Whether kept rollouts are thrown away first."""
    against: Sequence[Result] = ()
    """Earlier results to compare with."""

    @property
    def endpoint(self) -> Address | None:
        """Where a served model is; None for a checkpoint."""
        return parse_endpoint(self.model)

    @property
    def run(self) -> Path | None:
        """The folder of the run that the checkpoint is of."""
        name, at, _ = self.model.partition("@")
        for folder in (Path(name), Path("runs") / name):
            if at and self.endpoint is None and (folder / "recipe.yaml").is_file():
                return folder
        return None


class Watcher(Protocol):
    """Hears how far a benchmark is."""

    def __call__(self, name: str, done: int, total: int) -> None:
        """So many conversations of so many are over."""
        ...


@dataclass(frozen=True)
class Measured:
    """One benchmark's result beside its protocol as published."""

    result: Result
    """The scores."""
    published: Benchmark
    """The benchmark as its file has it."""
    kept: Path
    """Where its rollouts are."""


async def benchmark_once(
    asked: Asked, say: Callable[[str], None], watch: Watcher
) -> list[Measured]:
    """Every benchmark's result, in the order asked for; the last word of each is said at once.

    What can be refused is refused before any model is loaded: unknown names, rows that are not
    here, judges that are missing.
    """
    tasks = []
    try:
        for name, use in asked.uses.items():
            # Rows, judge and earlier results are looked at before a model takes its memory.
            published = config.load(name)
            task = task_of(published.used(use), use.limit)
            tasks.append((published, task))
            check_judge(task, use)
            for other in asked.against:
                if other.benchmark == task.benchmark.name:
                    check_same(protocol_of(task), asked.model, other)
        async with _opened(asked, say) as model:
            return [await _one(asked, model, *pair, say, watch) for pair in tasks]
    finally:
        for _, task in tasks:
            task.domain.close()


def check_judge(task: Task, use: BenchmarkUse) -> None:
    """Refuse a judged benchmark that nobody judges."""
    judge = task.benchmark.judge
    if judge is not None and use.judge is None:
        raise UserError(
            f"benchmark {task.benchmark.name} is judged by a model (published: {judge.model}): "
            "name one by --judge MODEL"
        )


async def _one(
    asked: Asked,
    model: _Model,
    published: Benchmark,
    task: Task,
    say: Callable[[str], None],
    watch: Watcher,
) -> Measured:
    protocol = protocol_of(task)
    kept = Kept(kept_file(asked.place / model.digest, protocol, asked.seed))
    if asked.fresh:
        kept.forget()
    write_protocol(kept.path.with_suffix(".json"), protocol)
    say(f"{task.benchmark.name}: rollouts are kept in {kept.path}")

    # A judge is opened with the model: it may need the same engine.
    how = Measuring(
        player=model.player(task),
        judges=model.judges(task),
        seed=asked.seed,
        at_once=asked.at_once,
        longest=model.longest,
        on_done=functools.partial(watch, task.benchmark.name),
    )
    records = await measure(task, kept, how)
    result = result_of(task, records, asked.model, published, [overlap_line(task, asked.run, say)])
    if result is None:
        raise UserError(
            f"benchmark {task.benchmark.name}: nobody judged any of its {len(records)} rollouts; "
            f"the first: {records[0].error or records[0].note}"
        )
    return Measured(result, published, kept.path)


def overlap_line(task: Task, run: Path | None, say: Callable[[str], None]) -> str:
    """Whether the rows were trained on, as far as the run's own record tells."""
    from linn.progress import reading

    if run is None:
        return "training rows: the model has no record of them, so overlap is unknown"
    files = training_files(run)
    with reading(f"{task.benchmark.name}: comparing with training rows") as progress:
        return overlap(task, files, progress).line(task)


def kept_file(folder: Path, protocol: Mapping[str, object], seed: int) -> Path:
    """Where the rollouts of a model under a protocol are.

    linn's version is in the name: another version's grader may judge otherwise.
    """
    known = identity({**protocol, "seed": seed, "linn": version("linn")})
    return folder / f"{protocol['benchmark']}-{known}.jsonl"


# ---------------------------------------------------------------- the models


@dataclass(frozen=True)
class _Model:
    """The model that is measured, opened, and what judges."""

    digest: str
    """What its rollouts are kept under."""
    player: Callable[[Task], Player]
    """Plays a benchmark."""
    judges: Callable[[Task], Judges]
    """The judge of a benchmark, empty where it has none."""
    longest: int | None = None
    """Tokens of the longest conversation that it was made for."""


@asynccontextmanager
async def _opened(asked: Asked, say: Callable[[str], None]) -> AsyncIterator[_Model]:
    """The model, and what judges; closed at the end."""
    async with AsyncExitStack() as stack:
        engine = None
        judges = [use.judge for use in asked.uses.values() if use.judge is not None]
        if any(parse_endpoint(name) is None for name in [asked.model, *judges]):
            engine = open_engine(asked.scale)
            stack.callback(engine.close)

        if asked.endpoint is not None:
            yield await _served(asked, engine, stack)
            return
        assert engine is not None
        folder = resolve(asked.model)
        codec = Codec.load(folder, asked.template)
        say(codec.described())
        longest = trained_length(folder)
        if longest is not None:
            say(f"conversations end at the {longest:,} tokens that the model was made for")
        engine.load(folder, Optim())
        sampler = engine.sampler

        def local(task: Task) -> Player:
            domains = {task.domain.name: task.domain}
            return functools.partial(play, domains=domains, sampler=sampler, codec=codec)

        yield _Model(
            digest=f"{weights_digest(folder)}-{codec.template.name}",
            player=local,
            judges=functools.partial(_judges, asked, engine),
            longest=longest,
        )


async def _served(asked: Asked, engine: Engine | None, stack: AsyncExitStack) -> _Model:
    """A model behind an endpoint; its connections are kept for all benchmarks."""
    assert asked.endpoint is not None
    url, name = asked.endpoint
    key = api_key_of(JudgeConfig(model=asked.model, key_env=asked.key_env))
    client = Endpoint(
        url,
        name,
        key,
        key_name=asked.key_env or "--key-env",
        concurrency=asked.concurrency,
        timeout_s=asked.timeout_s,
    )
    await stack.enter_async_context(client)

    def remote(task: Task) -> Player:
        domains = {task.domain.name: task.domain}
        return functools.partial(
            play_remote, domains=domains, client=client, asks_mode=asked.asks_mode
        )

    return _Model(
        digest=f"{served_digest(url, name)}-served",
        player=remote,
        judges=functools.partial(_judges, asked, engine),
    )


def judges_for(task: Task, engine: Engine | None, **requests: Any) -> Judges:
    """Who judges a benchmark: sampled as its protocol says; `requests`: keys of `JudgeConfig`."""
    judge = task.benchmark.judge
    if judge is None:
        return Judges()
    block = JudgeConfig(
        model=judge.model,
        temperature=judge.temperature,
        top_p=judge.top_p,
        max_tokens=judge.max_tokens,
        **requests,
    )
    named = {task.domain.name: block}
    folders = judge_folders(named, None)
    assert engine is not None or not folders, judge.model
    return judges_of(named, folders, engine)  # type: ignore[arg-type]


def _judges(asked: Asked, engine: Engine | None, task: Task) -> Judges:
    judge = task.benchmark.judge
    is_served = judge is not None and parse_endpoint(judge.model) is not None
    return judges_for(
        task,
        engine,
        concurrency=asked.concurrency,
        timeout_s=asked.timeout_s,
        key_env=asked.key_env if is_served else None,  # a key is sent to endpoints alone
    )


def uses_of(names: str, common: BenchmarkUse, rows: Sequence[str]) -> dict[str, BenchmarkUse]:
    """`aime25,humaneval` with what is changed of all; `rows`: `NAME=FILE` of some."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise UserError("--benchmark: name one or several, with commas; linn benchmarks lists them")
    files: dict[str, str] = {}
    for text in rows:
        name, separator, file = text.partition("=")
        if not separator or name not in wanted:
            raise UserError(
                f"--rows {text}: with --benchmark it is NAME=FILE, NAME one of {', '.join(wanted)}"
            )
        files[name] = file
    uses = {}
    for name in dict.fromkeys(wanted):
        changes = {"rows": files[name]} if name in files else {}
        uses[name] = common.model_copy(update=changes)
    return uses
