"""The command `linn` and its verbs over runs; those over rows are in `rows.py`.

Exit 0 done, 1 the run failed, 2 the input is wrong (one line; `--debug` shows the traceback).
Heavy imports happen inside the verbs, so that help and grader checks start in a blink.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import textwrap
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from linn import stopping
from linn.cli import rows
from linn.cli.chat import chat
from linn.cli.check import check
from linn.cli.evaluate import benchmarks, evaluate
from linn.cli.folders import run_folder
from linn.cli.publish import publish
from linn.cli.serve import serve
from linn.cli.solve import solve
from linn.errors import LinnError, UserError
from linn.terminal import echo, echo_json

if TYPE_CHECKING:
    from linn.domains.base import Domain
    from linn.recipe.schema import Recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # Help as plain text: the library that draws boxes takes longer to import than all else here.
    rich_markup_mode=None,
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
    _state.update(debug=debug, resumes=ctx.invoked_subcommand in _RESUMES)


_RESUMES = ("run", "filter", "compare", "eval", "solve", "publish")
"""Verbs that go on where they were stopped."""

_state = {"debug": False, "resumes": False}
"""`debug`: errors show their traceback. `resumes`: the verb goes on where it was stopped."""

_LONGEST_NAME = 120
"""Characters of a name that a message shows; of a longer one, its beginning and its end."""
_SPACE = "; free some space, then run the same command again to resume"


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="a recipe, e.g. recipes/tiny.yaml")],
    out: Out = None,
    changes: Changes = None,
    scale: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="other hardware than the recipe's, e.g. recipes/scale/8xh200.yaml"
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="stop after this stage")
    ] = None,
    redo: Annotated[
        str | None, typer.Option(metavar="STAGE", help="make this stage and all later ones again")
    ] = None,
    from_here: Annotated[
        bool,
        typer.Option(
            "--from-here",
            help="let values that decided steps already made change for the steps to come",
        ),
    ] = False,
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
    """Run a recipe stage by stage. On an existing run folder, go on where it stands."""
    from linn.pricing.model_check import check_start
    from linn.pricing.plan import check_inputs
    from linn.recipe import load as recipes
    from linn.report import build
    from linn.run.run import Run, check_stages

    parsed = recipes.load(recipe, changes or [], scale)
    folder = out or Path("runs") / parsed.name
    parsed = recipes.continued(parsed, folder)

    # Everything that can be refused is refused before anything is written.
    check_stages(parsed, until, redo)
    domains = check_inputs(parsed, folder, dry_run)
    if dry_run:
        if not as_json:
            _print_changes(parsed, folder, redo, from_here)
        _print_plan(parsed, folder, domains, device, mean_length, as_json)
        return
    check_start(parsed, folder, _say)
    Run(parsed, folder).go(until, redo, from_here)
    _print_tables(folder)
    echo(f"report: {build(folder)}")


def _say(line: str) -> None:
    """A line for a person, beside what is printed as the result."""
    echo(line, err=True)


def _print_changes(recipe: Recipe, folder: Path, redo: str | None, from_here: bool) -> None:
    """What the recipe would change in a folder that is there; the run's refusal where it would."""
    from linn.run.folder import RunFolder

    existing = RunFolder(recipe, folder)
    plan = existing.check_recipe(redo, from_here)
    existing.check_data(plan, redo, from_here)
    for change in plan.changes:
        echo(f"would change: {change}")
    if plan.remeasured:
        echo(f"would be measured anew: {', '.join(plan.remeasured)}")
    if redo is not None:
        echo(f"--redo {redo} would remove {existing.losses(redo)}")


def _print_plan(
    recipe: Recipe,
    folder: Path,
    domains: dict[str, Domain],
    device: str,
    mean_length: float,
    as_json: bool,
) -> None:
    """What `--dry-run` prints: the resolved recipe, what it would do, what it would cost."""
    from linn.pricing.amounts import as_dict
    from linn.pricing.assumptions import Assumptions
    from linn.pricing.plan import model_shape, plan, tokenizer_of
    from linn.pricing.price import price
    from linn.pricing.prompt_lengths import prompt_lengths
    from linn.pricing.table import table
    from linn.recipe.load import resolved

    if not as_json:
        echo(resolved(recipe))
        echo(plan(recipe, folder))
    try:
        shape = model_shape(recipe, folder)
    except UserError as error:  # a family without a formula runs all the same
        if as_json:
            raise
        echo(f"\nno price: {error}")
        return
    prompts = prompt_lengths(recipe, domains, tokenizer_of(recipe, folder))
    priced = price(recipe, shape, domains, Assumptions(device, mean_length), prompts)
    if as_json:
        echo_json(json.dumps(as_dict(priced), indent=2))
    else:
        echo("\n" + table(priced))


@app.command()
def ls(folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")]) -> None:
    """Print the ledger as tables. Stages down, domains across, the best starred, losses flagged."""
    from linn.ledger import Ledger

    path = run_folder(folder)
    if not Ledger(path / "ledger.jsonl").read():
        echo(f"{path}: nothing is measured yet")
    _print_tables(path)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, finished or not")],
    watch: Annotated[
        bool,
        typer.Option("--watch", help="serve the page on this machine, renewed as the run goes on"),
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="with --watch; 0: any free one")
    ] = 8010,
) -> None:
    """Write report.html, one self-contained file. Or serve it while the run goes on."""
    from linn.report import build
    from linn.report.files import read_run

    path = run_folder(folder)
    if watch:
        from linn.report.watch import serve as serve_report

        serve_report(path, port)
        return
    echo(f"report: {build(path)}")
    for trouble in read_run(path).troubles:
        echo(f"⚠ {trouble}", err=True)


app.command("data")(rows.data)
app.command("filter")(rows.filter_rows)
app.command("tasks")(rows.tasks)
app.command("solve")(solve)
app.command("grade")(rows.grade)
app.command("check")(check)
app.command("render")(rows.render)
app.command("eval")(evaluate)
app.command("benchmarks")(benchmarks)
app.command("chat")(chat)
app.command("serve")(serve)
app.command("publish")(publish)


@app.command()
def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="RUN@STAGE[:STEP]", help="a checkpoint of a run, or a folder")
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="where the Hugging Face folder goes")
    ],
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16; default: that of the base's weights"),
    ] = None,
    shard_size: Annotated[
        str, typer.Option(help="weights above it are cut into files of at most this size")
    ] = "5GB",
) -> None:
    """Write a checkpoint as a Hugging Face folder. Its model card holds its ledger rows."""
    from linn.run.export import export_checkpoint

    echo(f"exported: {export_checkpoint(checkpoint, folder, dtype, shard_size)}")


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
    """Compare two stages of a recipe over several seeds. By steps and by CPU-seconds."""
    from linn.report import build
    from linn.run.compare import compare_arms, table_of

    texts = seeds.split(",")
    if not all(text.strip().isdecimal() for text in texts):
        raise UserError(
            f"--seeds {seeds!r}: expected whole numbers with commas between, such as 0,1,2"
        )
    folder = compare_arms(
        recipe,
        out,
        arms=list(dict.fromkeys(arm.strip() for arm in arms.split(","))),
        seeds=list(dict.fromkeys(int(text) for text in texts)),
        changes=changes or [],
    )
    echo(table_of(folder))
    echo(f"report: {build(folder)}")


@app.command()
def explain(
    key: Annotated[str | None, typer.Argument(help="a key or a part of one")] = None,
) -> None:
    """Every recipe key: type, default, meaning."""
    from linn.errors import nearest
    from linn.recipe.explain import every_key

    keys = list(every_key())
    # Without a word, every key.
    part = key or ""
    matches = [entry for entry in keys if part in entry.name]
    if not matches:
        last_parts = dict.fromkeys(entry.name.rsplit(".", 1)[-1] for entry in keys)
        raise UserError(f"no recipe key {part!r}{nearest(part, last_parts)}")
    for entry in matches:
        echo(entry.name)
        for text in (entry.meaning, f"{entry.type}; default {entry.default}"):
            for line in textwrap.wrap(text, 75, break_on_hyphens=False):
                echo(f"    {line}")


def _print_tables(folder: Path) -> None:
    from linn.report.terminal import print_tables

    print_tables(folder)


def main() -> None:
    """Entry point: errors become one line and an exit code."""
    stopping.listen()
    # A signal may come before typer has read the command line.
    _state["resumes"] = any(word in _RESUMES for word in sys.argv[1:3])
    try:
        code = app(prog_name="linn", standalone_mode=False)
        if code == 130:  # typer's word for Ctrl-C
            raise KeyboardInterrupt
    except LinnError as error:
        advice = _SPACE if os.strerror(errno.ENOSPC) in str(error) else ""
        _fail(error, f"{error}{advice}", error.exit_code)
    except (KeyboardInterrupt, typer.Abort) as error:
        advice = "; nothing was written"
        if _state["resumes"]:
            advice = "; run the same command again to resume"
        _fail(error, f"interrupted{advice}", 1)
    except OSError as error:
        _fail(error, *_of_system(error))
    except Exception as error:
        # A wrong word on the command line: typer's class for it has moved between versions.
        if hasattr(error, "format_message"):
            _fail(error, _usage(error), 2)
        if os.strerror(errno.ENOSPC) in str(error):  # as the weights' writer says it
            _fail(error, " ".join(str(error).split()) + _SPACE, 1)
        _fail(error, _last_place(error), 1)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Any) -> str:
    """What is wrong with the command line; the help itself where there was no word at all."""
    if type(error).__name__ == "NoArgsIsHelpError":
        echo(error.format_message())
        return "say which verb, e.g. linn run recipes/tiny.yaml"
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}; see {context.command_path} --help" if context else message


def _of_system(error: OSError) -> tuple[str, int]:
    """What the system refused, in one line, and the exit code."""
    where = str(error.filename or "file system")
    # Nothing of ours has such a name: it is one that a recipe or the command line gives.
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        if len(where) > _LONGEST_NAME:
            half = _LONGEST_NAME // 2
            where = f"{where[:half]}…{where[-half:]}"
        return f"{where}: {error.strerror}; give the name of a file or folder that is there", 2
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{where}: {error.strerror or error}{_SPACE if full else ''}", 1


def _last_place(error: Exception) -> str:
    """Where in whose file something failed that nobody foresaw.

    It is a domain file of the user's, or a bug of ours: the last frame outside all libraries.
    """
    frames = traceback.extract_tb(error.__traceback__)
    libraries = (sys.base_prefix, sys.prefix, "<")
    place = frames[-1]
    for frame in frames:
        if not frame.filename.startswith(libraries):
            place = frame

    lines = str(error).strip().splitlines() or ["no message"]
    message = lines[0]
    if len(lines) > 1:  # a worker's error carries its own traceback
        message = f"{lines[0]} … {lines[-1]}"
    return (
        f"{type(error).__name__}: {message} ({place.filename} line {place.lineno}, "
        f"in {place.name}); linn --debug VERB … shows the whole traceback"
    )


def _fail(error: BaseException, line: str, code: int) -> NoReturn:
    if _state["debug"]:
        echo("".join(traceback.format_exception(error)), err=True)
    echo(f"linn: {line}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
