"""`linn eval` and `linn benchmarks`: one model on a recipe's domains, on files, on benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linn import stopping
from linn.cli.filter import Template, template_choice
from linn.errors import UserError
from linn.terminal import echo, echo_json

if TYPE_CHECKING:
    from linn.chat.template import TemplateName
    from linn.evals.benchmarks.once import Asked
    from linn.recipe.benchmarks import BenchmarkUse
    from linn.recipe.schema import ScaleConfig
    from linn.types import Split

RECIPE = Path("recipes/tiny.yaml")
"""Whose domains are used, where nobody says."""


# The options of `linn eval`, in the order in which its help shows them.
Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="RUN@STAGE[:STEP]|FOLDER|URL#MODEL",
        help="a checkpoint of a run, a folder, or with --benchmark http://HOST:PORT/v1#MODEL",
    ),
]
Names = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="benchmarks, comma-separated, or ./FILE.yaml of your own"),
]
Samples = Annotated[int | None, typer.Option("--k", help="samples of each prompt (avg@k)")]
Limit = Annotated[
    int | None, typer.Option(help="only the first rows; the score is marked as of a part")
]
Protocol = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="KEY=VALUE",
        help="change a benchmark's protocol, such as max_tokens=512; may be repeated",
    ),
]
JudgeModel = Annotated[
    str | None, typer.Option(metavar="MODEL", help="who judges in judged benchmarks")
]
Rows = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]FILE",
        help="measure a domain on this file of rows, whole, and nothing else; with "
        "--benchmark: the rows of that benchmark; may be repeated",
    ),
]
Against = Annotated[
    Path | None, typer.Option(help="an earlier --json output to compare with, prompt by prompt")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for --against")]
LedgerFile = Annotated[Path | None, typer.Option(help="also put the scores into this ledger file")]
Seed = Annotated[int, typer.Option(help="of a benchmark's sampling")]
AtOnce = Annotated[
    int, typer.Option(min=1, help="conversations held and kept together, in benchmarks")
]
Concurrency = Annotated[int, typer.Option(min=1, help="requests at once, at endpoints")]
Timeout = Annotated[float, typer.Option(help="seconds a request to an endpoint may take")]
KeyEnv = Annotated[
    str | None, typer.Option(metavar="VARIABLE", help="holds the endpoints' API key")
]
NoMode = Annotated[
    bool,
    typer.Option("--no-mode", help="do not tell a served model whether to think"),
]
Cache = Annotated[
    Path | None, typer.Option(help="where benchmarks' rollouts are kept; default runs/.evals")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="play kept rollouts again")]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        help="whose domains and blocks are used; default recipes/tiny.yaml, with --benchmark "
        "the scale: of the checkpoint's own run"
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="STAGE.KEY=VALUE",
        help="change one value of the recipe; may be repeated",
    ),
]


def evaluate(
    checkpoint: Checkpoint,
    benchmark: Names = None,
    k: Samples = None,
    limit: Limit = None,
    changes_of: Protocol = None,
    judge: JudgeModel = None,
    rows: Rows = None,
    against: Against = None,
    as_json: AsJson = False,
    out: LedgerFile = None,
    seed: Seed = 0,
    at_once: AtOnce = 32,
    concurrency: Concurrency = 64,
    timeout: Timeout = 1800,
    key_env: KeyEnv = None,
    no_mode: NoMode = False,
    cache: Cache = None,
    fresh: Fresh = False,
    recipe: RecipeFile = None,
    changes: Changes = None,
    template: Template = None,
) -> None:
    """Measure one model. On a recipe's domains, on files, or on benchmarks."""
    chosen = template_choice(template)
    if benchmark is None:
        for option, value in (("--k", k), ("--limit", limit), ("--with", changes_of)):
            if value:
                raise UserError(f"{option} is of benchmarks: name some by --benchmark")
        _domains(checkpoint, recipe or RECIPE, rows or [], out, changes or [], chosen)
        return

    from linn.evals.benchmarks.kept import PLACE
    from linn.evals.benchmarks.once import Asked, uses_of
    from linn.evals.benchmarks.results import read_results

    common = use_of(k, limit, judge, changes_of or [])
    asked = Asked(
        model=checkpoint,
        against=read_results(against) if against is not None else (),
        uses=uses_of(benchmark, common, rows or []),
        template=chosen,
        scale=_scale(checkpoint, recipe, changes or []),
        seed=seed,
        at_once=at_once,
        concurrency=concurrency,
        timeout_s=timeout,
        key_env=key_env,
        asks_mode=not no_mode,
        place=cache or PLACE,
        fresh=fresh,
    )
    _benchmarks(asked, against, as_json, out)


def benchmarks(
    names: Annotated[list[str] | None, typer.Argument(help="benchmarks; default: all")] = None,
) -> None:
    """List the benchmarks. Their protocols, and where their rows are."""
    from linn.evals.benchmarks.shown import listing

    # With commas too, as --benchmark takes them.
    chosen = [name for text in names or [] for name in text.split(",") if name]
    for line in listing(chosen):
        echo(line)


# ---------------------------------------------------------------- benchmarks


def _benchmarks(asked: Asked, against: Path | None, as_json: bool, out: Path | None) -> None:
    from linn.checkpoints import resolve
    from linn.engine.local.device import say_device
    from linn.evals.benchmarks import results as results_of
    from linn.evals.benchmarks.once import benchmark_once
    from linn.evals.benchmarks.shown import difference_line, table
    from linn.ledger import Ledger
    from linn.pricing.model_check import is_kept, refuse_unfit
    from linn.progress import Progress

    if asked.endpoint is None and asked.run is None:
        folder = resolve(asked.model)
        if not is_kept(folder):
            refuse_unfit(folder, None, _say, asked.template)

    if asked.endpoint is None:
        say_device(_say)
    progress = Progress()
    lines: dict[str, int] = {}

    def watch(name: str, done: int, total: int) -> None:
        progress.note(name, done, total, "conversations")
        # Without a terminal: a line a tenth.
        if not progress.console.is_terminal and 10 * done // total > lines.get(name, -1):
            lines[name] = 10 * done // total
            _say(f"{name}: {done} of {total} conversations")

    try:
        measured = stopping.run(benchmark_once(asked, _say, watch))
    finally:
        progress.close()

    results = [one.result for one in measured]
    if out is not None:
        rows = [row for result in results for row in result.scores(asked.model, 0)]
        Ledger(out).upsert(rows)
    compared = []
    for result in results:
        for other in asked.against:
            if other.benchmark == result.benchmark:
                compared.append((result, other, results_of.against(result, other)))
    if against is not None and not compared:
        raise UserError(f"--against {against}: holds none of {', '.join(asked.uses)}")
    if as_json:
        echo_json(results_of.as_json(results))
        for pair in compared:
            _say(difference_line(*pair))
        return
    for line in table([(one.result, one.published) for one in measured]):
        echo(line)
    for pair in compared:
        echo(difference_line(*pair))


def use_of(
    k: int | None, limit: int | None, judge: str | None, changes: Sequence[str]
) -> BenchmarkUse:
    """What the command changes of a benchmark's protocol."""
    import yaml
    from pydantic import ValidationError

    from linn.errors import nearest
    from linn.recipe.benchmarks import BenchmarkUse

    tree: dict[str, Any] = {"k": k, "limit": limit, "judge": judge}
    for text in changes:
        key, separator, value = text.partition("=")
        if not separator or key not in BenchmarkUse.model_fields:
            near = nearest(key, BenchmarkUse.model_fields)
            raise UserError(f"--with {text}: expected KEY=VALUE with a key of a protocol{near}")
        try:
            tree[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--with {text}: the value is not YAML") from None
    try:
        return BenchmarkUse.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        what = str(first["msg"]).replace("Input should", "must")
        raise UserError(f"{first['loc'][0]}: {what}, found {first['input']!r}") from None


def _scale(checkpoint: str, recipe: Path | None, changes: Sequence[str]) -> ScaleConfig:
    """The engine's block: of the named recipe, else of the checkpoint's run, else as it is."""
    from linn.evals.benchmarks.once import Asked
    from linn.recipe import load as recipes
    from linn.recipe.schema import ScaleConfig
    from linn.recipe.validate import block_of

    run = Asked(model=checkpoint, uses={}).run
    if recipe is not None:
        return recipes.load(recipe, changes).scale
    if run is not None:
        return recipes.load(run / "recipe.yaml", changes).scale
    block: dict[str, Any] = {}
    for text in changes:
        key, separator, value = text.partition("=")
        if not separator or not key.startswith("scale."):
            raise UserError(f"--set {text}: without --recipe only scale.KEY=VALUE can be set")
        block[key.removeprefix("scale.")] = value
    issues: list[str] = []
    scale = block_of(ScaleConfig, block, "scale", issues)
    if scale is None:
        raise UserError("; ".join(issues))
    return scale


# ---------------------------------------------------------------- domains


def _domains(
    checkpoint: str,
    recipe: Path,
    rows: Sequence[str],
    out: Path | None,
    changes: Sequence[str],
    template: TemplateName | None,
) -> None:
    """A recipe's domains, or files of rows."""
    from linn.checkpoints import resolve
    from linn.engine.local.device import say_device
    from linn.evals.once import evaluate_once, on_files
    from linn.judges.open import judge_folders
    from linn.ledger import Ledger
    from linn.pricing.model_check import is_kept, refuse_unfit
    from linn.recipe import load as recipes

    parsed = recipes.load(recipe, changes)
    if template is not None:
        parsed = parsed.model_copy(update={"template": template})

    splits: tuple[Split, ...] = ("test", "validation")
    if rows:
        parsed = on_files(parsed, rows)
        splits = ("test",)

    # `judge: "@STAGE"` means a stage of the run that the checkpoint is of.
    run, at, _ = checkpoint.partition("@")

    def of_same_run(stage: str) -> Path:
        return resolve(f"{run}@{stage}")

    judges = parsed.judges()
    folders = judge_folders(judges, of_same_run if at else None)
    start = resolve(checkpoint)
    # A run's checkpoints are of a model that was checked when the run began.
    if not (at or is_kept(start)):
        refuse_unfit(start, None, _say, parsed.template)
    if parsed.scale.engine == "local":
        say_device(_say, parsed.scale)
    scores = stopping.run(
        evaluate_once(start, parsed, checkpoint, judges, folders, splits, say=_say)
    )
    if out is not None:
        Ledger(out).upsert(scores)
    for score in scores:
        name = f"{score.domain:<14} {score.split:<10} {score.metric:<9}"
        interval = f"[{score.low:.1%}, {score.high:.1%}]"
        echo(f"{name} {score.value:7.1%}  {interval}  n {score.n}")


def _say(line: str) -> None:
    echo(line, err=True)
