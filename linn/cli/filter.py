"""The verb `linn filter`: how often a model solves each row, and which rows are worth training on.

Heavy imports happen inside the verb, so that help starts in a blink.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from linn import stopping
from linn.errors import UserError
from linn.terminal import aside, echo

if TYPE_CHECKING:
    from linn.chat.template import TemplateName
    from linn.domains.base import Domain
    from linn.engine.protocol import Engine
    from linn.judges.panel import Judges
    from linn.offline.difficulty import Measurement, Rate, Solver
    from linn.recipe.schema import JudgeConfig

Rows = Annotated[
    str,
    typer.Option(
        help="JSONL or Parquet in the released row layout: a path or hf://datasets/OWNER/REPO/FILE"
    ),
]
Out = Annotated[
    Path,
    typer.Option(help="where the rows that stay go, JSONL; OUT.rates.jsonl holds all pass rates"),
]
Source = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="MODEL",
        help="RUN@STAGE, a checkpoint folder, or http(s)://HOST:PORT/v1#MODEL",
    ),
]
KeepSolved = Annotated[
    float, typer.Option(min=0, max=1, help="share of the rows solved every time that stays")
]
KeepUnsolved = Annotated[
    float,
    typer.Option(min=0, max=1, help="share of the rows never solved that stays (agentic SWE: 0.1)"),
]
Reuse = Annotated[bool, typer.Option("--reuse", help="rows that have a pass_rate keep it")]
Resume = Annotated[
    bool, typer.Option(help="go on where an earlier measurement stood, or begin anew")
]
MaxFailed = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="share of rollouts that may fail, environment or grader broken; above it, stop",
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="count and skip broken rows")]
Judge = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="the model that judges, in domains that need one"),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="an option of the domain; may be repeated"),
]


Template = Annotated[
    str | None,
    typer.Option(
        metavar="own|nemotron",
        help="the checkpoint's own chat template, or linn's protocol; default: own for a chat "
        "model, else nemotron",
    ),
]


def template_choice(name: str | None) -> TemplateName | None:
    """The word of `--template`; UserError where it is none."""
    if name is None:
        return None
    if name == "own":
        return "own"
    if name == "nemotron":
        return "nemotron"
    raise UserError(f"--template {name!r}: allowed: own, nemotron")


def filter_rows(
    domain: Annotated[str, typer.Argument(help="a domain's name or ./file.py")],
    rows: Rows,
    out: Out,
    source: Source = None,
    rollouts: Annotated[int, typer.Option(min=1, help="rollouts a row")] = 8,
    keep_solved: KeepSolved = 0.0,
    keep_unsolved: KeepUnsolved = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="sampled tokens a turn at most")] = 49_152,
    temperature: Annotated[float, typer.Option(min=0, help="sampling temperature")] = 1.0,
    seed: Annotated[int, typer.Option(help="seed of sampling and of the shares")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="worker processes, for a checkpoint")] = 2,
    max_failed: MaxFailed = 0.1,
    reuse: Reuse = False,
    resume: Resume = True,
    skip_bad: SkipBad = False,
    judge: Judge = None,
    options: Options = None,
    template: Template = None,
) -> None:
    """Keep the rows worth training on. A model shows it: how often does it solve each?"""
    from linn.data.rows import writable
    from linn.domains.load import load
    from linn.offline import difficulty
    from linn.recipe import load as recipes
    from linn.types import Sampling

    writable(out)
    config = recipes.domain_config(domain, judge, options or []).model_copy(
        update={"rows": rows, "skip_bad": skip_bad}
    )
    loaded = load(domain, config.options)
    # What the rates depend on: a file of rates made under other settings is refused.
    settings = {
        "domain": domain,
        "from": source,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "judge": judge,
        "options": options or [],
    }
    chosen = _template_of(source, template)
    if chosen == "own":
        settings["template"] = chosen
    measurement = difficulty.Measurement(
        domain=loaded,
        rollouts=rollouts,
        how=Sampling(max_tokens, temperature),
        seed=seed,
        kept=Path(f"{out}.rates.jsonl"),
        settings=settings,
        reuse=reuse,
        max_failed=max_failed,
    )
    if not resume:
        measurement.kept.unlink(missing_ok=True)
    try:
        rates = _rates(measurement, source, chosen, config.judge, processes)
        stay = difficulty.chosen(rates, keep_solved, keep_unsolved, seed)
        count = difficulty.write_kept(loaded, rates, stay, out)
    finally:
        loaded.close()

    echo(difficulty.histogram(rates))
    summary = f"{count:,} of {len(rates):,} rows stay: {out}"
    if loaded.tally.bad or loaded.tally.others:
        summary += f" (rows: {loaded.tally})"
    echo(summary)
    failed = sum(rollouts - (rate.total or 0) for rate in rates.values() if rate.total is not None)
    if failed > 0 and not reuse:
        unknown = sum(not rate.is_known for rate in rates.values())
        echo(
            f"{failed:,} rollouts failed and count for nothing; {unknown:,} rows have no other, "
            "so no rate: they do not stay"
        )


def _rates(
    measurement: Measurement,
    source: str | None,
    template: TemplateName | None,
    judge: JudgeConfig | None,
    processes: int,
) -> dict[int, Rate]:
    """The pass rate of every row by its line, measured by the model `source`."""
    from contextlib import ExitStack

    from linn.engine.local.device import say_device
    from linn.engine.open import open_engine
    from linn.offline import difficulty
    from linn.progress import Progress
    from linn.recipe.schema import ScaleConfig

    show = Progress()

    def on_rows(done: int, total: int) -> None:
        show.step("filter", done, total, {})

    def on_read(share: float, line: int) -> None:
        if line % 1024 == 0:
            show.note("filter", round(100 * share), 100, f"{line:,} lines read")

    domain = measurement.domain
    with ExitStack() as stack:
        stack.callback(show.close)
        say_device(show.say)
        engine = open_engine(ScaleConfig(processes=processes))
        stack.callback(engine.close)
        judges = judges_for(domain, judge, engine, show.say) if judge is not None else None
        solver = None
        if source:
            solver = _solver(source, template, engine, domain.max_turns, show.say)
            if isinstance(solver, difficulty.CheckpointSolver):
                show.say(solver.codec.described())
        return stopping.run(
            difficulty.measured(measurement, solver, judges, on_rows=on_rows, on_read=on_read)
        )


def _template_of(source: str | None, choice: str | None) -> TemplateName | None:
    """The template of the checkpoint that is measured; None where it is no checkpoint."""
    from linn.chat.folder import template_name
    from linn.checkpoints import resolve
    from linn.endpoint.address import parse_endpoint

    chosen = template_choice(choice)
    if source is None or parse_endpoint(source) is not None:
        if chosen is not None:
            raise UserError("--template: only a checkpoint (--from) has one")
        return None
    return chosen or template_name(resolve(source))


def _solver(
    source: str,
    template: TemplateName | None,
    engine: Engine,
    turns: int,
    say: Callable[[str], None],
) -> Solver:
    """Who answers the prompts: a checkpoint over `engine`, or an endpoint.

    `say` hears how long an endpoint is waited for.
    """
    from linn.chat.codec import Codec
    from linn.checkpoints import resolve
    from linn.endpoint.address import parse_endpoint
    from linn.endpoint.client import Endpoint
    from linn.offline.difficulty import CheckpointSolver, EndpointSolver
    from linn.types import Optim

    endpoint = parse_endpoint(source)
    if endpoint is not None:
        if turns > 1:
            raise UserError(
                f"--from {source}: an endpoint answers single-turn domains alone; give a checkpoint"
            )
        return EndpointSolver(Endpoint(*endpoint, name="--from", say=say))
    folder = resolve(source)
    codec = Codec.load(folder, template)
    engine.load(folder, Optim())
    return CheckpointSolver(engine.sampler, codec)


def judges_for(
    domain: Domain,
    config: JudgeConfig,
    engine: Engine,
    say: Callable[[str], None] = aside,
) -> Judges:
    """The judge of one domain, over `engine` where it is a checkpoint.

    `say` hears how long an endpoint is waited for.
    """
    from linn.judges.open import judge_folders, judges_of

    configs = {domain.name: config}
    return judges_of(configs, judge_folders(configs, None), engine, say=say)
