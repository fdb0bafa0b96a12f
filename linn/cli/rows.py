"""The verbs over rows: `linn data`, `filter`, `tasks`, `grade`, `render`.

`main.py` registers them. Heavy imports happen inside the verbs, so that help and grader checks
start in a blink.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linn import stopping
from linn.cli.filter import Template, judges_for, template_choice
from linn.cli.filter import filter_rows as filter_rows
from linn.errors import UserError
from linn.terminal import echo, echo_json

if TYPE_CHECKING:
    from linn.chat.codec import Codec
    from linn.judges.panel import Judges

# ---------------------------------------------------------------- grade

Judge = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="the model that judges: RUN@STAGE, a checkpoint folder, or http://HOST:PORT/v1#MODEL",
    ),
]
GradeOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="an option of the domain, or judge.KEY of the judge; may be repeated",
    ),
]


def grade(
    domain: Annotated[str, typer.Argument(help="a domain's name or ./file.py")],
    rows: Annotated[str, typer.Option(help="JSONL or Parquet in the released row layout")],
    replies: Annotated[
        Path,
        typer.Option(help='JSONL or Parquet: {"row": i, "text": …} or {"row": i, "messages": […]}'),
    ],
    out: Annotated[Path, typer.Option(help="where the verdicts go, JSONL")],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="count and skip broken lines")
    ] = False,
    judge: Judge = None,
    options: GradeOptions = None,
) -> None:
    """Grade replies offline, by a domain's grader or a judge."""
    from contextlib import ExitStack

    from linn.data.names import located
    from linn.data.rows import writable, write_rows
    from linn.data.tally import Tally
    from linn.domains.load import load
    from linn.engine.open import open_engine
    from linn.offline.grade import grade as graded
    from linn.progress import reading
    from linn.recipe import load as recipes
    from linn.recipe.schema import ScaleConfig

    writable(out)
    config = recipes.domain_config(domain, judge, options or [])
    loaded = load(domain, config.options)
    broken = Tally()
    rewards: list[float] = []
    undecided: list[dict[str, Any]] = []

    def counted(verdicts: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for verdict in verdicts:
            if "undecided" in verdict:
                undecided.append(verdict)
            else:
                rewards.append(verdict["reward"])
            yield verdict

    with ExitStack() as stack:
        stack.callback(loaded.close)
        judges = None
        if config.judge is not None:
            # Worker processes start for a judge alone: graders need no engine.
            engine = open_engine(ScaleConfig())
            stack.callback(engine.close)
            judges = judges_for(loaded, config.judge, engine)
        with reading(str(replies)) as progress:
            tally = broken if skip_bad else None
            verdicts = stopping.run(graded(loaded, located(rows), replies, tally, judges, progress))
            write_rows(out, counted(verdicts))
    _print_grades(rewards, len(undecided), out, judges)
    for line in broken.told():
        echo(f"skipped: {line}", err=True)


def _print_grades(rewards: list[float], undecided: int, out: Path, judges: Judges | None) -> None:
    summary = f"{len(rewards) + undecided} verdicts"
    if rewards:
        summary += f", mean reward {sum(rewards) / len(rewards):.4f}"
    if undecided:
        summary += f", {undecided} undecided and left out"
    echo(f"{summary}: {out}")
    metrics = judges.metrics() if judges is not None else {}
    if metrics:
        echo(
            f"judge: {metrics['judge_questions']:.0f} questions, "
            f"{metrics['judge_unreadable']:.1%} unreadable, {metrics['judge_s']:.1f} s"
        )


# ---------------------------------------------------------------- tasks


def tasks(
    out: Annotated[Path | None, typer.Option(help="where the rows go, JSONL")] = None,
    packages: Annotated[
        str | None,
        typer.Option(
            help="packages, comma-separated, NAME or NAME==VERSION, fetched by pip; "
            "default: the eight that docs/domains.md lists"
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
    """Make repair tasks for swe_agentic.

    They are bugs in published packages, proved by the packages' own tests.
    """
    from linn.data.rows import writable, write_rows
    from linn.domains.swe_agentic.make_tasks import PACKAGES, make_all

    if check is not None:
        _prove_tasks(check)
        return
    if out is None:
        raise UserError("give --out FILE for new tasks, or --check FILE to prove those of a file")
    writable(out)
    names: Sequence[str] = PACKAGES
    if packages is not None:
        names = [name.strip() for name in packages.split(",") if name.strip()]
    levels = [level.strip() for level in difficulty.split(",")]

    rows: list[dict[str, Any]] = []
    for made in make_all(names, each, levels, seed):
        echo(made.line())
        if made.rows:
            rows += made.rows
            # After every package, so that an end before the last one loses little.
            write_rows(out, rows)
    if not rows:
        raise UserError("no task was made")
    used = {row["metadata"]["package"] for row in rows}
    echo(f"{len(rows)} tasks of {len(used)} packages: {out}")


def _prove_tasks(file: Path) -> None:
    from collections import Counter

    from linn.domains.swe_agentic.episode import disproofs

    proved: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    for package, where, why in disproofs(file):
        tasks[package] += 1
        if why:
            echo(f"{where}: {why}")
        else:
            proved[package] += 1
    for package, count in tasks.items():
        echo(f"{package:<24} {proved[package]:>4} of {count}")
    echo(f"{proved.total()} of {tasks.total()} fail before the golden patch and pass after it")
    if proved != tasks:
        raise typer.Exit(1)


# ---------------------------------------------------------------- render and data


def render(
    rows: Annotated[str, typer.Option(help="JSONL or Parquet in the released row layout")],
    out: Annotated[Path, typer.Option(help='JSONL of {"row": i, "text": …}')],
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="as this checkpoint reads it: its chat template, and token ids beside the text",
        ),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="ask every row as this domain does, in its mode")
    ] = None,
    template: Template = None,
) -> None:
    """Write what the model would see for each row."""
    from linn.data.names import located
    from linn.data.rows import read_rows, writable, write_rows
    from linn.offline.shown import Shown
    from linn.progress import reading

    writable(out)
    codec = _codec(tokens, template) if tokens else None
    if codec is None and template == "own":
        raise UserError("--template own: whose? name the checkpoint by --tokens")
    shown = Shown(domain, codec)

    def rendered(progress: Callable[[float, int], None]) -> Iterator[dict[str, Any]]:
        lines = read_rows(located(rows))
        for index, row in enumerate(lines):
            progress(lines.share, lines.line)
            try:
                yield {"row": index, **shown.entry(row, index)}
            except UserError as error:
                raise UserError(f"{rows} line {lines.line}: {error}") from None

    try:
        with reading(str(rows)) as progress:
            count = write_rows(out, rendered(progress))
    finally:
        shown.close()
    echo(f"{count} rows: {out}")


def _codec(checkpoint: str, template: str | None = None) -> Codec:
    from linn.chat.codec import Codec
    from linn.checkpoints import resolve

    return Codec.load(resolve(checkpoint), template_choice(template))


def data(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="JSONL, plain, gzip or zstd, or Parquet: a path or hf://datasets/OWNER/REPO/FILE",
        ),
    ],
    tokens: Annotated[
        str,
        typer.Option(
            metavar="CHECKPOINT",
            help="lengths in this checkpoint's tokens, or `characters`; "
            "default: the kept tiny base",
        ),
    ] = "tiny",
    template: Template = None,
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
    """Tell what a data file holds.

    With --against: which of its prompts overlap with evaluation sets.
    """
    from linn.data.names import located

    path = located(file)
    if against:
        _compare(path, against, ngram or [13], out, skip_bad, as_json)
        return
    if out is not None:
        raise UserError("--out: there is nothing to write without --against EVAL")
    _describe(path, tokens, template, domain, as_json)


def _compare(
    path: Path,
    against: list[str],
    sizes: list[int],
    out: Path | None,
    skip_bad: bool,
    as_json: bool,
) -> None:
    """Print which prompts of a file overlap with evaluation sets; write the others to `out`."""
    from linn.data.rows import writable
    from linn.files import json_text
    from linn.offline.decontaminate import Against, decontaminate
    from linn.progress import reading

    if out is not None:
        writable(out)
    sets = Against(against, sizes)
    with reading(str(path)) as progress:
        overlaps, written = decontaminate(path, sets, out, skip_bad, progress)
    if as_json:
        echo_json(json_text(sets.record(overlaps), 1))
    else:
        echo(sets.report(path, overlaps))
    if out is not None:
        echo(f"{written:,} rows: {out}", err=as_json)


def _describe(
    path: Path, tokens: str, template: str | None, domain: str | None, as_json: bool
) -> None:
    """Print what a file holds; lengths are in `tokens`' tokens, or in characters."""
    from linn.files import json_text
    from linn.offline import describe
    from linn.progress import reading

    codec = None
    unit = "characters"
    if tokens != "characters":
        codec = _codec(tokens, template)
        unit = f"tokens of {tokens}"
    if tokens == "tiny":
        unit = "tokens of the kept tiny base (--tokens CHECKPOINT)"

    with reading(str(path)) as progress:
        description = describe.describe(path, codec, domain, progress)
    if as_json:
        echo_json(json_text(description.record(), 1))
    else:
        echo(describe.table(path, description, unit, shutil.get_terminal_size().columns))
