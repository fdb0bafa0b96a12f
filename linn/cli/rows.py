"""The verbs over rows: `linn data`, `filter`, `tasks`, `grade`, `check`, `render`. `cli.py` registers them.

Heavy imports happen inside the verbs, so that help and grader checks start in a blink.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linn.errors import UserError

if TYPE_CHECKING:
    from linn.engine.protocol import Engine
    from linn.offline.difficulty import Solver
    from linn.types import Sampling


def grade(
    domain: Annotated[str, typer.Argument(help="a domain's name or ./file.py")],
    rows: Annotated[Path, typer.Option(help="JSONL in the released row layout")],
    replies: Annotated[
        Path, typer.Option(help='JSONL of {"row": i, "text": …} or {"row": i, "messages": […]}')
    ],
    out: Annotated[Path, typer.Option(help="where the verdicts go, JSONL")],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="count and skip broken lines")
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="the model that judges: RUN@STAGE, a checkpoint folder, or http://HOST:PORT/v1#MODEL",
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="an option of the domain, or judge.KEY of the judge; may be repeated",
        ),
    ] = None,
) -> None:
    """Grade replies offline with a domain's own grader, or a judge model."""
    import asyncio

    from linn.data.rows import writable, write_rows
    from linn.data.tally import Tally
    from linn.domains.load import load
    from linn.offline.grade import grade as graded
    from linn.progress import reading
    from linn.recipe import load as recipes

    writable(out)
    keys = recipes.domain_config(domain, judge, options or [])
    loaded = load(domain, keys.options)
    broken = Tally()
    judges, engine = None, None
    try:
        if keys.judge is not None:
            from linn.engine.open import open_engine
            from linn.judges.open import judge_folders, judges_of
            from linn.recipe.schema import ScaleConfig

            engine = open_engine(ScaleConfig())
            judges = judges_of(
                {loaded.name: keys.judge}, judge_folders({loaded.name: keys.judge}, None), engine
            )
        total = 0.0

        def counted(verdicts: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            nonlocal total
            for verdict in verdicts:
                total += verdict["reward"]
                yield verdict

        with reading(str(replies)) as progress:
            count = write_rows(
                out,
                counted(
                    asyncio.run(
                        graded(
                            loaded, rows, replies, broken if skip_bad else None, judges, progress
                        )
                    )
                ),
            )
    finally:
        loaded.close()
        if engine is not None:
            engine.close()
    typer.echo(
        f"{count} verdicts" + (f", mean reward {total / count:.4f}" if count else "") + f": {out}"
    )
    if judges is not None and (asked := judges.figures()):
        typer.echo(
            f"judge: {asked['judge_questions']:.0f} questions, {asked['judge_unreadable']:.1%} unreadable, {asked['judge_s']:.1f} s"
        )
    for told in broken.told():
        typer.echo(f"skipped: {told}", err=True)


def filter_rows(
    domain: Annotated[str, typer.Argument(help="a domain's name or ./file.py")],
    rows: Annotated[
        str,
        typer.Option(
            help="JSONL in the released row layout: a path or hf://datasets/OWNER/REPO/FILE"
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="where the rows that stay go, JSONL; OUT.rates.jsonl holds all pass rates"
        ),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="RUN@STAGE, a checkpoint folder, or http(s)://HOST:PORT/v1#MODEL",
        ),
    ] = None,
    rollouts: Annotated[int, typer.Option(min=1, help="rollouts a row")] = 8,
    keep_solved: Annotated[
        float, typer.Option(min=0, max=1, help="share of the rows solved every time that stays")
    ] = 0.0,
    keep_unsolved: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="share of the rows never solved that stays (agentic SWE: 0.1)"
        ),
    ] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="sampled tokens a turn at most")] = 49_152,
    temperature: Annotated[float, typer.Option(min=0, help="sampling temperature")] = 1.0,
    seed: Annotated[int, typer.Option(help="seed of sampling and of the shares")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="worker processes, for a checkpoint")] = 2,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="rows that have a pass_rate keep it")
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="go on where an earlier measurement stood, or begin anew")
    ] = True,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="count and skip broken rows")
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="the model that judges, in domains that need one"),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="KEY=VALUE", help="an option of the domain; may be repeated"
        ),
    ] = None,
) -> None:
    """Measure how often a model solves each row, and keep the rows worth training on."""
    import asyncio
    from contextlib import ExitStack

    from linn.data.rows import writable
    from linn.domains.load import load
    from linn.engine.open import open_engine
    from linn.judges.open import judge_folders, judges_of
    from linn.offline import difficulty
    from linn.progress import Progress
    from linn.recipe import load as recipes
    from linn.recipe.schema import ScaleConfig
    from linn.types import Sampling

    writable(out)
    keys = recipes.domain_config(domain, judge, options or []).model_copy(
        update={"rows": rows, "skip_bad": skip_bad}
    )
    loaded, how, kept, show = (
        load(domain, keys.options),
        Sampling(max_tokens, temperature),
        Path(f"{out}.rates.jsonl"),
        Progress(),
    )
    settings = {
        "domain": domain,
        "from": source,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "judge": judge,
        "options": options or [],
    }
    if not resume:
        kept.unlink(missing_ok=True)
    with ExitStack() as stack:
        stack.callback(loaded.close)
        stack.callback(show.close)
        engine = open_engine(ScaleConfig(processes=processes))
        stack.callback(engine.close)
        named = {loaded.name: keys.judge} if keys.judge is not None else {}
        judges = judges_of(named, judge_folders(named, None), engine) if named else None
        solver = _solver(source, how, engine, loaded.max_turns) if source else None

        def on_rows(done: int, total: int) -> None:
            show.step("filter", done, total, {})

        def on_read(share: float, line: int) -> None:
            if line % 1024 == 0:
                show.note("filter", round(100 * share), 100, f"{line:,} lines read")

        rates = asyncio.run(
            difficulty.measured(
                loaded, solver, rollouts, how, seed, kept, settings, reuse, judges, on_rows, on_read
            )
        )
        stay = difficulty.chosen(rates, keep_solved, keep_unsolved, seed)
        count = difficulty.write_kept(loaded, rates, stay, out)
    typer.echo(difficulty.histogram(rates))
    typer.echo(
        f"{count:,} of {len(rates):,} rows stay: {out}"
        + (f" (rows: {loaded.tally})" if loaded.tally.bad or loaded.tally.others else "")
    )


def _solver(source: str, how: Sampling, engine: Engine, turns: int) -> Solver:
    """Who answers the prompts: a checkpoint over `engine`, or an endpoint."""
    from linn.chat.codec import Codec
    from linn.checkpoints import resolve
    from linn.judges.endpoint import EndpointJudge
    from linn.offline.difficulty import CheckpointSolver, EndpointSolver
    from linn.recipe.schema import endpoint_of
    from linn.types import Optim

    if (endpoint := endpoint_of(source)) is not None:
        if turns > 1:
            raise UserError(
                f"--from {source}: an endpoint answers single-turn domains alone; give a checkpoint"
            )
        return EndpointSolver(EndpointJudge(*endpoint, how))
    folder = resolve(source)
    engine.load(folder, Optim())
    return CheckpointSolver(engine.sampler, Codec.load(folder))


def check(
    name: Annotated[str, typer.Argument(metavar="DOMAIN", help="a domain's name or ./file.py")],
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="an option of the domain, e.g. level=full or rows=FILE; may be repeated",
        ),
    ] = None,
) -> None:
    """Prove a domain: gold earns 1, another's gold doesn't, hostile replies neither raise, earn nor hang."""
    from linn.domains.check import check as findings_of
    from linn.domains.load import load
    from linn.recipe import load as recipes

    domain = load(name, recipes.domain_config(name, None, options).options if options else None)
    try:
        findings = findings_of(domain)
    finally:
        domain.close()
    for finding in findings:
        typer.echo(
            f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}"
            + ("" if finding.ok else f": {finding.detail}")
        )
    if not all(f.ok for f in findings):
        raise typer.Exit(1)


def tasks(
    out: Annotated[Path | None, typer.Option(help="where the rows go, JSONL")] = None,
    packages: Annotated[
        str | None,
        typer.Option(
            help="packages, comma-separated, NAME or NAME==VERSION, fetched by pip; default: the eight that docs/domains.md lists"
        ),
    ] = None,
    each: Annotated[int, typer.Option(help="tasks of each package at most", min=1)] = 20,
    difficulty: Annotated[
        str, typer.Option(help="easy, medium, hard, comma-separated; taken in turn")
    ] = "easy,medium,hard",
    seed: Annotated[int, typer.Option(help="which bugs")] = 0,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="make none; prove every task of a file that was made"),
    ] = None,
) -> None:
    """Make repair tasks for swe_agentic: bugs in published packages, proved by the packages' own tests."""
    from linn.data.rows import writable, write_rows
    from linn.domains.swe_agentic.make_tasks import PACKAGES, make_all

    if check is not None:
        _prove_tasks(check)
        return
    if out is None:
        raise UserError("give --out FILE for new tasks, or --check FILE to prove those of a file")
    writable(out)
    made = []
    names = (
        PACKAGES
        if packages is None
        else [name.strip() for name in packages.split(",") if name.strip()]
    )
    levels = [level.strip() for level in difficulty.split(",")]
    for found in make_all(names, each, levels, seed):
        typer.echo(found.line())
        if found.rows:
            made += found.rows
            write_rows(
                out, made
            )  # after every package, so that an end before the last one loses little
    if not made:
        raise UserError("no task was made")
    typer.echo(
        f"{len(made)} tasks of {len({row['metadata']['package'] for row in made})} packages: {out}"
    )


def _prove_tasks(file: Path) -> None:
    from collections import Counter

    from linn.domains.swe_agentic.episode import disproofs

    held: Counter[str] = Counter()
    every: Counter[str] = Counter()
    for named, where, why in disproofs(file):
        every[named] += 1
        held[named] += not why
        if why:
            typer.echo(f"{where}: {why}")
    for named, count in every.items():
        typer.echo(f"{named:<24} {held[named]:>4} of {count}")
    typer.echo(f"{held.total()} of {every.total()} fail before the golden patch and pass after it")
    if held != every:
        raise typer.Exit(1)


def render(
    rows: Annotated[Path, typer.Option(help="JSONL in the released row layout")],
    out: Annotated[Path, typer.Option(help='JSONL of {"row": i, "text": …}')],
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT", help="also write token ids under this checkpoint's tokenizer"
        ),
    ] = None,
) -> None:
    """Write what the model would see for each row."""
    from linn.chat.codec import Codec
    from linn.chat.request import render_row
    from linn.data.rows import read_rows, writable, write_rows
    from linn.progress import reading

    writable(out)
    codec = None
    if tokens:
        from linn.checkpoints import resolve

        codec = Codec.load(resolve(tokens))

    def rendered(progress: Callable[[float, int], None]) -> Iterator[dict[str, Any]]:
        found = read_rows(rows)
        for index, row in enumerate(found):
            progress(found.share, found.line)
            try:
                text = render_row(row)
            except UserError as error:
                raise UserError(f"{rows} line {found.line}: {error}") from None
            yield {"row": index, "text": text} | ({"tokens": codec.encode(text)} if codec else {})

    with reading(str(rows)) as progress:
        count = write_rows(out, rendered(progress))
    typer.echo(f"{count} rows: {out}")


def data(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="JSONL, plain, gzip or zstd: a path or hf://datasets/OWNER/REPO/FILE",
        ),
    ],
    tokens: Annotated[
        str,
        typer.Option(
            metavar="CHECKPOINT",
            help="lengths in this checkpoint's tokens, or `characters`; default: the kept tiny base",
        ),
    ] = "tiny",
    domain: Annotated[
        str | None, typer.Option(help="read every row by this domain, whatever agent it names")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EVAL",
            help="evaluation set to compare prompts with: a file, DOMAIN, or DOMAIN:FILE",
        ),
    ] = None,
    ngram: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="words in a row that make an overlap; default 13; --ngram 9 --ngram 13: either",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="where the rows without overlap go (with --against)")
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="count rows that cannot be compared and leave them out"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Tell what a data file holds, or which of its prompts overlap with evaluation sets."""
    from linn.data.names import located
    from linn.data.rows import writable
    from linn.files import json_text
    from linn.offline import describe
    from linn.offline.decontaminate import Against, decontaminate
    from linn.progress import reading

    path = located(file)
    if against:
        if out is not None:
            writable(out)
        sets = Against(against, ngram or [13])
        with reading(str(path)) as progress:
            found, written = decontaminate(path, sets, out, skip_bad, progress)
        typer.echo(json_text(sets.record(found), 1) if as_json else sets.report(path, found))
        if out is not None:
            typer.echo(f"{written:,} rows: {out}", err=as_json)
        return
    if out is not None:
        raise UserError("--out: there is nothing to write without --against EVAL")
    codec = None
    if tokens != "characters":
        from linn.chat.codec import Codec
        from linn.checkpoints import resolve

        codec = Codec.load(resolve(tokens))
    with reading(str(path)) as progress:
        told = describe.describe(path, codec, domain, progress)
    unit = (
        "characters"
        if codec is None
        else "tokens of "
        + (tokens if tokens != "tiny" else "the kept tiny base (--tokens CHECKPOINT)")
    )
    typer.echo(
        json_text(told.record(), 1)
        if as_json
        else describe.table(path, told, unit, shutil.get_terminal_size().columns)
    )
