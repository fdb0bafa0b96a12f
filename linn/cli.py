"""The verbs: `linn run`, `ls`, `report`, `compare`, `eval`, `data`, `filter`, `tasks`, `grade`, `check`, `render`, `explain`.

Exit 0 done, 1 the run failed, 2 the input is wrong (one line; `--debug` shows the traceback).
Heavy imports happen inside the verbs, so that help and grader checks start in a blink.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linn.errors import LinnError, UserError

if TYPE_CHECKING:
    from linn.engine.pool import Engine
    from linn.evals.difficulty import Solver
    from linn.types import Sampling

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)

Out = Annotated[Path | None, typer.Option(help="run folder; default runs/NAME")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="change one value of the recipe; may be repeated")
]


@app.callback()
def _options(ctx: typer.Context, debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False) -> None:
    """linn: post-train a language model by the Nemotron-Cascade 2 recipe."""
    _state.update(debug=debug, resumes=ctx.invoked_subcommand in ("run", "filter", "compare"))


_state = {"debug": False, "resumes": False}
_SPACE = "; free some space, then the same command goes on where it stands"


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="a recipe, e.g. recipes/tiny.yaml")],
    out: Out = None,
    changes: Changes = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="stop after this stage")] = None,
    redo: Annotated[str | None, typer.Option(metavar="STAGE", help="make this stage and all later ones again")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the resolved recipe, what it would do and what it would cost")] = False,
    device: Annotated[str, typer.Option(help="with --dry-run: a100, h100, h200 or b200")] = "h100",
    mean_length: Annotated[float, typer.Option(help="with --dry-run: mean length of a reply, as a share of the longest")] = 0.4,
    as_json: Annotated[bool, typer.Option("--json", help="with --dry-run: print the price alone, as JSON")] = False,
) -> None:
    """Run a recipe stage by stage; on an existing run folder, go on where it stands."""
    from linn import recipe as recipes
    from linn.keys import nearest
    from linn.plan import inputs_hold, model_shape, plan

    parsed = recipes.load(recipe, changes or [])
    folder = out or Path("runs") / parsed.name
    for option, stage in (("--until", until), ("--redo", redo)):
        if stage is not None and stage not in (names := ["base", *(s.name for s in parsed.stages)]):
            raise UserError(f"{option}: stage {stage!r} is not in the recipe{nearest(stage, names)}")
    domains = inputs_hold(parsed, folder, dry_run)
    if dry_run:
        from linn.price import Assumptions, as_dict, price
        from linn.price_table import table

        if not as_json:
            typer.echo(recipes.resolved(parsed))
            typer.echo(plan(parsed, folder))
        try:
            shape = model_shape(parsed, folder)
        except UserError as unknown:  # a family without a formula runs all the same
            if as_json:
                raise
            typer.echo(f"\nno price: {unknown}")
            return
        priced = price(parsed, shape, domains, Assumptions(device, mean_length))
        typer.echo(json.dumps(as_dict(priced), indent=2) if as_json else "\n" + table(priced))
        return
    from linn.report import build
    from linn.run import Run

    Run(parsed, folder).go(until, redo)
    _tables(folder)
    typer.echo(f"report: {build(folder)}")


@app.command()
def ls(folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")]) -> None:
    """The ledger as a table: stages down, domains across, the best starred, losses flagged."""
    from linn.ledger import Ledger

    found = run_folder(folder)
    if not Ledger(found / "ledger.jsonl").read():
        typer.echo(f"{found}: nothing is measured yet")
    _tables(found)


def run_folder(name: Path) -> Path:
    """A run's folder from its path or its name under runs/."""
    for folder in (name, Path("runs") / name):
        if any((folder / file).is_file() for file in ("run.json", "compare.json")):
            return folder
    raise UserError(f"{name}: no run there (no run.json); give a folder made by linn run")


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, finished or not")]) -> None:
    """Write report.html, one self-contained file."""
    from linn.report import build

    typer.echo(f"report: {build(run_folder(folder))}")


@app.command()
def grade(
    domain: Annotated[str, typer.Argument(help="a domain's name or ./file.py")],
    rows: Annotated[Path, typer.Option(help="JSONL in the released row layout")],
    replies: Annotated[Path, typer.Option(help='JSONL of {"row": i, "text": …} or {"row": i, "messages": […]}')],
    out: Annotated[Path, typer.Option(help="where the verdicts go, JSONL")],
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="count and skip broken lines")] = False,
    judge: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="the model that judges: RUN@STAGE, a checkpoint folder, or http://HOST:PORT/v1#MODEL"),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="an option of the domain, or judge.KEY of the judge; may be repeated"),
    ] = None,
) -> None:
    """Grade replies offline with a domain's own grader, or a judge model."""
    from linn import recipe as recipes
    from linn.data.rows import writable, write_rows
    from linn.data.tally import Tally
    from linn.domains.load import load
    from linn.evals.grade import grade as graded
    from linn.show import reading

    writable(out)
    keys = recipes.domain_keys(domain, judge, options or [])
    loaded = load(domain, keys.options)
    broken = Tally()
    judges, engine = None, None
    try:
        if keys.judge is not None:
            from linn.engine.pool import Engine
            from linn.evals.judges import judges_of
            from linn.run import judge_folders

            engine = Engine()
            judges = judges_of({loaded.name: keys.judge}, judge_folders({loaded.name: keys.judge}, None), engine)
        total = 0.0

        def counted(verdicts: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            nonlocal total
            for verdict in verdicts:
                total += verdict["reward"]
                yield verdict

        with reading(str(replies)) as progress:
            count = write_rows(out, counted(graded(loaded, rows, replies, broken if skip_bad else None, judges, progress)))
    finally:
        loaded.close()
        if engine is not None:
            engine.close()
    typer.echo(f"{count} verdicts" + (f", mean reward {total / count:.4f}" if count else "") + f": {out}")
    if judges is not None and (asked := judges.figures()):
        typer.echo(f"judge: {asked['judge_questions']:.0f} questions, {asked['judge_unreadable']:.1%} unreadable, {asked['judge_s']:.1f} s")
    for told in broken.told():
        typer.echo(f"skipped: {told}", err=True)


@app.command("filter")
def filter_rows(
    domain: Annotated[str, typer.Argument(help="a domain's name or ./file.py")],
    rows: Annotated[str, typer.Option(help="JSONL in the released row layout: a path or hf://datasets/OWNER/REPO/FILE")],
    out: Annotated[Path, typer.Option(help="where the rows that stay go, JSONL; OUT.rates.jsonl holds all pass rates")],
    source: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="RUN@STAGE, a checkpoint folder, or http(s)://HOST:PORT/v1#MODEL")
    ] = None,
    rollouts: Annotated[int, typer.Option(min=1, help="rollouts a row")] = 8,
    keep_solved: Annotated[float, typer.Option(min=0, max=1, help="share of the rows solved every time that stays")] = 0.0,
    keep_unsolved: Annotated[float, typer.Option(min=0, max=1, help="share of the rows never solved that stays (agentic SWE: 0.1)")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="sampled tokens a turn at most")] = 49_152,
    temperature: Annotated[float, typer.Option(min=0, help="sampling temperature")] = 1.0,
    seed: Annotated[int, typer.Option(help="seed of sampling and of the shares")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="worker processes, for a checkpoint")] = 2,
    reuse: Annotated[bool, typer.Option("--reuse", help="rows that have a pass_rate keep it")] = False,
    resume: Annotated[bool, typer.Option(help="go on where an earlier measurement stood, or begin anew")] = True,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="count and skip broken rows")] = False,
    judge: Annotated[str | None, typer.Option(metavar="MODEL", help="the model that judges, in domains that need one")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="an option of the domain; may be repeated")
    ] = None,
) -> None:
    """Measure how often a model solves each row, and keep the rows worth training on."""
    from contextlib import ExitStack

    from linn import recipe as recipes
    from linn.data.rows import writable
    from linn.domains.load import load
    from linn.engine.pool import Engine
    from linn.evals import difficulty
    from linn.evals.judges import judges_of
    from linn.run import judge_folders
    from linn.show import Progress
    from linn.types import Sampling

    writable(out)
    keys = recipes.domain_keys(domain, judge, options or []).model_copy(update={"rows": rows, "skip_bad": skip_bad})
    loaded, how, kept, show = load(domain, keys.options), Sampling(max_tokens, temperature), Path(f"{out}.rates.jsonl"), Progress()
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
        engine = stack.enter_context(Engine(processes))
        named = {loaded.name: keys.judge} if keys.judge is not None else {}
        judges = judges_of(named, judge_folders(named, None), engine) if named else None
        solver = _solver(source, how, engine, loaded.max_turns) if source else None

        def on_rows(done: int, total: int) -> None:
            show.step("filter", done, total, {})

        def on_read(share: float, line: int) -> None:
            if line % 1024 == 0:
                show.note("filter", round(100 * share), 100, f"{line:,} lines read")

        rates = difficulty.measured(loaded, solver, rollouts, how, seed, kept, settings, reuse, judges, on_rows, on_read)
        stay = difficulty.chosen(rates, keep_solved, keep_unsolved, seed)
        count = difficulty.write_kept(loaded, rates, stay, out)
    typer.echo(difficulty.histogram(rates))
    typer.echo(
        f"{count:,} of {len(rates):,} rows stay: {out}" + (f" (rows: {loaded.tally})" if loaded.tally.bad or loaded.tally.others else "")
    )


def _solver(source: str, how: Sampling, engine: Engine, turns: int) -> Solver:
    """Who answers the prompts: a checkpoint over `engine`, or an endpoint."""
    from linn.chat import Codec
    from linn.evals.difficulty import CheckpointSolver, EndpointSolver
    from linn.keys import endpoint_of
    from linn.play.endpoint import EndpointJudge
    from linn.run import resolve
    from linn.types import Optim

    if (endpoint := endpoint_of(source)) is not None:
        if turns > 1:
            raise UserError(f"--from {source}: an endpoint answers single-turn domains alone; give a checkpoint")
        return EndpointSolver(EndpointJudge(*endpoint, how))
    folder = resolve(source)
    engine.load(folder, Optim())
    return CheckpointSolver(engine.sampler, Codec.load(folder))


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="DOMAIN", help="a domain's name or ./file.py")],
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="an option of the domain, e.g. level=full or rows=FILE; may be repeated"),
    ] = None,
) -> None:
    """Prove a domain: gold earns 1, another's gold doesn't, hostile replies neither raise, earn nor hang."""
    from linn import recipe as recipes
    from linn.domains.check import check as findings_of
    from linn.domains.load import load

    domain = load(name, recipes.domain_keys(name, None, options).options if options else None)
    try:
        findings = findings_of(domain)
    finally:
        domain.close()
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}" + ("" if finding.ok else f": {finding.detail}"))
    if not all(f.ok for f in findings):
        raise typer.Exit(1)


@app.command()
def tasks(
    out: Annotated[Path | None, typer.Option(help="where the rows go, JSONL")] = None,
    packages: Annotated[
        str | None,
        typer.Option(
            help="packages, comma-separated, NAME or NAME==VERSION, fetched by pip; default: the eight that docs/domains.md lists"
        ),
    ] = None,
    each: Annotated[int, typer.Option(help="tasks of each package at most", min=1)] = 20,
    difficulty: Annotated[str, typer.Option(help="easy, medium, hard, comma-separated; taken in turn")] = "easy,medium,hard",
    seed: Annotated[int, typer.Option(help="which bugs")] = 0,
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="make none; prove every task of a file that was made")] = None,
) -> None:
    """Make repair tasks for swe_agentic: bugs in published packages, proved by the packages' own tests."""
    from linn.data.rows import writable, write_rows
    from linn.domains.repair.tasks import PACKAGES, make_all

    if check is not None:
        _prove_tasks(check)
        return
    if out is None:
        raise UserError("give --out FILE for new tasks, or --check FILE to prove those of a file")
    writable(out)
    made = []
    names = PACKAGES if packages is None else [name.strip() for name in packages.split(",") if name.strip()]
    levels = [level.strip() for level in difficulty.split(",")]
    for found in make_all(names, each, levels, seed):
        typer.echo(found.line())
        if found.rows:
            made += found.rows
            write_rows(out, made)  # after every package, so that an end before the last one loses little
    if not made:
        raise UserError("no task was made")
    typer.echo(f"{len(made)} tasks of {len({row['metadata']['package'] for row in made})} packages: {out}")


def _prove_tasks(file: Path) -> None:
    from collections import Counter

    from linn.domains.repair.episode import disproofs

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


@app.command()
def render(
    rows: Annotated[Path, typer.Option(help="JSONL in the released row layout")],
    out: Annotated[Path, typer.Option(help='JSONL of {"row": i, "text": …}')],
    tokens: Annotated[str | None, typer.Option(metavar="CHECKPOINT", help="also write token ids under this checkpoint's tokenizer")] = None,
) -> None:
    """Write what the model would see for each row."""
    from linn import chat
    from linn.data.rows import read_rows, writable, write_rows
    from linn.show import reading

    writable(out)
    codec = None
    if tokens:
        from linn.run import resolve

        codec = chat.Codec.load(resolve(tokens))

    def rendered(progress: Callable[[float, int], None]) -> Iterator[dict[str, Any]]:
        found = read_rows(rows)
        for index, row in enumerate(found):
            progress(found.share, found.line)
            try:
                text = chat.render_row(row)
            except UserError as error:
                raise UserError(f"{rows} line {found.line}: {error}") from None
            yield {"row": index, "text": text} | ({"tokens": codec.encode(text)} if codec else {})

    with reading(str(rows)) as progress:
        count = write_rows(out, rendered(progress))
    typer.echo(f"{count} rows: {out}")


@app.command()
def data(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSONL, plain, gzip or zstd: a path or hf://datasets/OWNER/REPO/FILE")],
    tokens: Annotated[
        str, typer.Option(metavar="CHECKPOINT", help="lengths in this checkpoint's tokens, or `characters`; default: the kept tiny base")
    ] = "tiny",
    domain: Annotated[str | None, typer.Option(help="read every row by this domain, whatever agent it names")] = None,
    against: Annotated[
        list[str] | None, typer.Option(metavar="EVAL", help="evaluation set to compare prompts with: a file, DOMAIN, or DOMAIN:FILE")
    ] = None,
    ngram: Annotated[
        list[int] | None, typer.Option(min=1, help="words in a row that make an overlap; default 13; --ngram 9 --ngram 13: either")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="where the rows without overlap go (with --against)")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="count rows that cannot be compared and leave them out")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Tell what a data file holds, or which of its prompts overlap with evaluation sets."""
    from linn import describe
    from linn.data.names import located
    from linn.data.rows import writable
    from linn.decontaminate import Against, decontaminate
    from linn.files import json_text
    from linn.show import reading

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
        from linn.chat import Codec
        from linn.run import resolve

        codec = Codec.load(resolve(tokens))
    with reading(str(path)) as progress:
        told = describe.describe(path, codec, domain, progress)
    unit = "characters" if codec is None else "tokens of " + (tokens if tokens != "tiny" else "the kept tiny base (--tokens CHECKPOINT)")
    typer.echo(json_text(told.record(), 1) if as_json else describe.table(path, told, unit, shutil.get_terminal_size().columns))


@app.command("eval")
def evaluate(
    checkpoint: Annotated[str, typer.Argument(metavar="RUN@STAGE[:STEP]", help="a checkpoint of a run, or a folder")],
    recipe: Annotated[Path, typer.Option(help="whose domains and evaluate: block are used")] = Path("recipes/tiny.yaml"),
    out: Annotated[Path | None, typer.Option(help="also put the rows into this ledger file")] = None,
    changes: Changes = None,
) -> None:
    """Measure one checkpoint on every domain of a recipe."""
    from linn import recipe as recipes
    from linn.evals.once import evaluate_once
    from linn.keys import short
    from linn.ledger import Ledger
    from linn.run import judge_folders, resolve

    parsed = recipes.load(recipe, changes or [])
    judges = {short(name): keys.judge for name, keys in parsed.domains.items() if keys.judge is not None}
    run, at, _ = checkpoint.partition("@")
    folders = judge_folders(judges, (lambda stage: resolve(f"{run}@{stage}")) if at else None)
    scores = evaluate_once(resolve(checkpoint), parsed, checkpoint, judges, folders)
    if out is not None:
        Ledger(out).upsert(scores)
    for score in scores:
        typer.echo(
            f"{score.domain:<14} {score.split:<10} {score.metric:<9} {score.value:7.1%}  [{score.low:.1%}, {score.high:.1%}]  n {score.n}"
        )


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(metavar="RUN@STAGE[:STEP]", help="a checkpoint of a run, or a folder")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="where the Hugging Face folder goes")],
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16")] = "bfloat16",
) -> None:
    """Write a checkpoint as a Hugging Face folder with a model card that holds its ledger rows."""
    from linn.export import export_checkpoint

    typer.echo(f"exported: {export_checkpoint(checkpoint, folder, dtype)}")


@app.command()
def compare(
    recipe: Annotated[Path, typer.Argument(help="a recipe whose arms branch from one stage, e.g. recipes/compare.yaml")],
    arms: Annotated[str, typer.Option(help="two stages to compare, comma-separated")] = "mopd,mixed-rl",
    seeds: Annotated[str, typer.Option(help="seeds, comma-separated; seed K starts from base tiny-K")] = "0,1,2",
    out: Out = None,
    changes: Changes = None,
) -> None:
    """Run a recipe over several seeds and compare two of its stages by steps and by CPU-seconds."""
    from linn.compare import compare_arms, table_of
    from linn.report import build

    if not all(seed.strip().isdecimal() for seed in seeds.split(",")):
        raise UserError(f"--seeds {seeds!r}: expected whole numbers with commas between, such as 0,1,2")
    wanted = list(dict.fromkeys(int(seed) for seed in seeds.split(",")))
    folder = compare_arms(recipe, out, list(dict.fromkeys(a.strip() for a in arms.split(","))), wanted, changes or [])
    typer.echo(table_of(folder))
    typer.echo(f"report: {build(folder)}")


@app.command()
def explain(key: Annotated[str | None, typer.Argument(help="a key or a part of one")] = None) -> None:
    """Every recipe key: type, default, meaning."""
    from linn.keys import nearest
    from linn.recipe import every_key

    keys = list(every_key())
    chosen = [k for k in keys if key is None or key in k[0]]
    if not chosen:
        raise UserError(f"no recipe key {key!r}{nearest(key or '', dict.fromkeys(k[0].rsplit('.', 1)[-1] for k in keys))}")
    for name, kind, default, meaning in chosen:
        typer.echo(f"{name}\n    {meaning}\n    {kind}; default {default}")


def _tables(folder: Path) -> None:
    from linn.report.terminal import print_tables

    print_tables(folder)


def main() -> None:
    """Entry point: errors become one line and an exit code."""
    try:
        code = app(prog_name="linn", standalone_mode=False)
        if code == 130:  # typer's word for Ctrl-C
            raise KeyboardInterrupt
    except LinnError as error:
        _fail(error, str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort) as error:
        _fail(error, "stopped" + ("; the same command goes on where it stands" if _state["resumes"] else "; nothing was written"), 1)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _fail(error, f"{error.filename or 'file system'}: {error.strerror or error}{_SPACE if full else ''}", 1)
    except Exception as error:
        if hasattr(error, "format_message"):  # a wrong word on the command line; typer's class for it has moved between versions
            _fail(error, _usage(error), 2)
        full = os.strerror(errno.ENOSPC) in str(error)  # as the weights' writer tells it
        _fail(error, " ".join(str(error).split()) + _SPACE if full else _last_place(error), 1)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Any) -> str:
    """What is wrong with the command line; the help itself where there was no word at all."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
        return "say which verb, e.g. linn run recipes/tiny.yaml"
    return " ".join(error.format_message().split()).rstrip(".") + (f"; see {context.command_path} --help" if context else "")


def _last_place(error: Exception) -> str:
    """Where in whose file something failed that nobody foresaw: a domain file of the user's, or a bug of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    libraries = (sys.base_prefix, sys.prefix, "<")
    place = next((f for f in reversed(frames) if not f.filename.startswith(libraries)), frames[-1])
    lines = str(error).strip().splitlines() or ["no message"]
    said = lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"  # a worker's error carries its own traceback
    return (
        f"{type(error).__name__}: {said} ({place.filename} line {place.lineno}, in {place.name}); "
        "linn --debug VERB … shows the whole traceback"
    )


def _fail(error: BaseException, line: str, code: int) -> None:
    if _state["debug"]:
        raise error
    print(f"linn: {line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
