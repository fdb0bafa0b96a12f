"""The command `linn` and its verbs over runs: `run`, `ls`, `report`, `compare`, `eval`, `export`, `explain`; those over rows are in `cli_rows.py`.

Exit 0 done, 1 the run failed, 2 the input is wrong (one line; `--debug` shows the traceback).
Heavy imports happen inside the verbs, so that help and grader checks start in a blink.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from linn.cli import rows as cli_rows
from linn.errors import LinnError, UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[Path | None, typer.Option(help="run folder; default runs/NAME")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="STAGE.KEY=VALUE", help="change one value of the recipe; may be repeated"
    ),
]


@app.callback()
def _options(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    """linn: post-train a language model by the Nemotron-Cascade 2 recipe."""
    _state.update(debug=debug, resumes=ctx.invoked_subcommand in ("run", "filter", "compare"))


_state = {"debug": False, "resumes": False}
_SPACE = "; free some space, then the same command goes on where it stands"


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="a recipe, e.g. recipes/tiny.yaml")],
    out: Out = None,
    changes: Changes = None,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="stop after this stage")
    ] = None,
    redo: Annotated[
        str | None, typer.Option(metavar="STAGE", help="make this stage and all later ones again")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="print the resolved recipe, what it would do and what it would cost"
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="with --dry-run: a100, h100, h200 or b200")] = "h100",
    mean_length: Annotated[
        float,
        typer.Option(help="with --dry-run: mean length of a reply, as a share of the longest"),
    ] = 0.4,
    as_json: Annotated[
        bool, typer.Option("--json", help="with --dry-run: print the price alone, as JSON")
    ] = False,
) -> None:
    """Run a recipe stage by stage; on an existing run folder, go on where it stands."""
    from linn.errors import nearest
    from linn.pricing.plan import check_inputs, model_shape, plan
    from linn.recipe import load as recipes

    parsed = recipes.load(recipe, changes or [])
    folder = out or Path("runs") / parsed.name
    for option, stage in (("--until", until), ("--redo", redo)):
        if stage is not None and stage not in (names := ["base", *(s.name for s in parsed.stages)]):
            raise UserError(
                f"{option}: stage {stage!r} is not in the recipe{nearest(stage, names)}"
            )
    domains = check_inputs(parsed, folder, dry_run)
    if dry_run:
        from linn.pricing.amounts import as_dict
        from linn.pricing.assumptions import Assumptions
        from linn.pricing.price import price
        from linn.pricing.table import table

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
    from linn.run.run import Run

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
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, finished or not")],
) -> None:
    """Write report.html, one self-contained file."""
    from linn.report import build

    typer.echo(f"report: {build(run_folder(folder))}")


for name, verb in (
    ("data", cli_rows.data), ("filter", cli_rows.filter_rows), ("tasks", cli_rows.tasks), ("grade", cli_rows.grade), ("check", cli_rows.check),
    ("render", cli_rows.render),
):  # fmt: skip
    app.command(name)(verb)


@app.command("eval")
def evaluate(
    checkpoint: Annotated[
        str, typer.Argument(metavar="RUN@STAGE[:STEP]", help="a checkpoint of a run, or a folder")
    ],
    recipe: Annotated[Path, typer.Option(help="whose domains and evaluate: block are used")] = Path(
        "recipes/tiny.yaml"
    ),
    out: Annotated[
        Path | None, typer.Option(help="also put the rows into this ledger file")
    ] = None,
    changes: Changes = None,
) -> None:
    """Measure one checkpoint on every domain of a recipe."""
    import asyncio

    from linn.checkpoints import resolve
    from linn.evals.once import evaluate_once
    from linn.judges.open import judge_folders
    from linn.ledger import Ledger
    from linn.recipe import load as recipes
    from linn.recipe.schema import short

    parsed = recipes.load(recipe, changes or [])
    judges = {
        short(name): keys.judge for name, keys in parsed.domains.items() if keys.judge is not None
    }
    run, at, _ = checkpoint.partition("@")
    folders = judge_folders(judges, (lambda stage: resolve(f"{run}@{stage}")) if at else None)
    scores = asyncio.run(evaluate_once(resolve(checkpoint), parsed, checkpoint, judges, folders))
    if out is not None:
        Ledger(out).upsert(scores)
    for score in scores:
        typer.echo(
            f"{score.domain:<14} {score.split:<10} {score.metric:<9} {score.value:7.1%}  [{score.low:.1%}, {score.high:.1%}]  n {score.n}"
        )


@app.command()
def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="RUN@STAGE[:STEP]", help="a checkpoint of a run, or a folder")
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="where the Hugging Face folder goes")
    ],
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16")] = "bfloat16",
) -> None:
    """Write a checkpoint as a Hugging Face folder with a model card that holds its ledger rows."""
    from linn.run.export import export_checkpoint

    typer.echo(f"exported: {export_checkpoint(checkpoint, folder, dtype)}")


@app.command()
def compare(
    recipe: Annotated[
        Path,
        typer.Argument(help="a recipe whose arms branch from one stage, e.g. recipes/compare.yaml"),
    ],
    arms: Annotated[
        str, typer.Option(help="two stages to compare, comma-separated")
    ] = "mopd,mixed-rl",
    seeds: Annotated[
        str, typer.Option(help="seeds, comma-separated; seed K starts from base tiny-K")
    ] = "0,1,2",
    out: Out = None,
    changes: Changes = None,
) -> None:
    """Run a recipe over several seeds and compare two of its stages by steps and by CPU-seconds."""
    from linn.report import build
    from linn.run.compare import compare_arms, table_of

    if not all(seed.strip().isdecimal() for seed in seeds.split(",")):
        raise UserError(
            f"--seeds {seeds!r}: expected whole numbers with commas between, such as 0,1,2"
        )
    wanted = list(dict.fromkeys(int(seed) for seed in seeds.split(",")))
    folder = compare_arms(
        recipe, out, list(dict.fromkeys(a.strip() for a in arms.split(","))), wanted, changes or []
    )
    typer.echo(table_of(folder))
    typer.echo(f"report: {build(folder)}")


@app.command()
def explain(
    key: Annotated[str | None, typer.Argument(help="a key or a part of one")] = None,
) -> None:
    """Every recipe key: type, default, meaning."""
    from linn.errors import nearest
    from linn.recipe.load import every_key

    keys = list(every_key())
    chosen = [k for k in keys if key is None or key in k[0]]
    if not chosen:
        raise UserError(
            f"no recipe key {key!r}{nearest(key or '', dict.fromkeys(k[0].rsplit('.', 1)[-1] for k in keys))}"
        )
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
        _fail(
            error,
            "stopped"
            + (
                "; the same command goes on where it stands"
                if _state["resumes"]
                else "; nothing was written"
            ),
            1,
        )
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _fail(
            error,
            f"{error.filename or 'file system'}: {error.strerror or error}{_SPACE if full else ''}",
            1,
        )
    except Exception as error:
        if hasattr(
            error, "format_message"
        ):  # a wrong word on the command line; typer's class for it has moved between versions
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
    return " ".join(error.format_message().split()).rstrip(".") + (
        f"; see {context.command_path} --help" if context else ""
    )


def _last_place(error: Exception) -> str:
    """Where in whose file something failed that nobody foresaw: a domain file of the user's, or a bug of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    libraries = (sys.base_prefix, sys.prefix, "<")
    place = next((f for f in reversed(frames) if not f.filename.startswith(libraries)), frames[-1])
    lines = str(error).strip().splitlines() or ["no message"]
    said = (
        lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"
    )  # a worker's error carries its own traceback
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
