"""The verb `linn check`: proves a domain, or tries a model.

Heavy imports happen inside, so that a grader is checked in a blink.
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from linn.errors import UserError, nearest
from linn.terminal import echo, echo_json

if TYPE_CHECKING:
    from linn.types import Finding


def check(
    name: Annotated[
        str,
        typer.Argument(
            metavar="DOMAIN|MODEL",
            help="a domain's name or ./file.py; or a model: a folder, RUN@STAGE, or a kept base",
        ),
    ],
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="an option of the domain, e.g. level=full or rows=FILE; may be repeated",
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="with a model: a recipe, whose lengths and memory are tried")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Prove a domain and its grader, or try a model.

    A domain: gold earns 1, another's gold doesn't, hostile replies neither raise, earn nor hang. A
    model: weights, arithmetic against its own code, tokenizer, template, stop tokens, lengths.
    """
    folder = _model_folder(name)
    if folder is None and recipe is not None:
        raise UserError(f"--recipe belongs to a model, and {name!r} is a domain's name")
    if folder is not None and options:
        raise UserError(f"--option belongs to a domain, and {name!r} is a model")

    findings = _proof_of(name, options) if folder is None else _trial_of(folder, recipe)
    if as_json:
        from linn.files import json_text

        echo_json(json_text([asdict(finding) for finding in findings], 1))
    else:
        for finding in findings:
            echo(_told(finding) if folder else _told_of_domain(finding))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _model_folder(name: str) -> Path | None:
    """The folder of a model that is called so; None for a domain's name or file.

    A bare word that is a domain's name is the domain, whatever folder is there.
    """
    from linn.domains.load import NAMES

    if name in NAMES or name.endswith(".py"):
        return None
    if not (Path(name).is_dir() or "/" in name or "@" in name or name.startswith("tiny")):
        raise UserError(
            f"{name!r} is neither a folder nor a domain of linn (your own: ./FILE.py)"
            f"{nearest(name, NAMES)}"
        )
    from linn.checkpoints import resolve

    return resolve(name)


def _trial_of(folder: Path, recipe: Path | None) -> list[Finding]:
    """What was tried of a model."""
    from linn.pricing.model_check import check_folder
    from linn.recipe import load as recipes

    return check_folder(folder, recipes.load(recipe, []) if recipe else None)


def _proof_of(name: str, options: list[str] | None) -> list[Finding]:
    """What was tried of a domain."""
    from linn.domains.check import check as findings_of
    from linn.domains.load import load

    settings = None
    if options:
        # Reading options takes the recipe's validation, a tenth of a second to import.
        from linn.recipe import load as recipes

        settings = recipes.domain_config(name, None, options).options
    domain = load(name, settings)
    try:
        return findings_of(domain)
    finally:
        domain.close()


def _told_of_domain(finding: Finding) -> str:
    """One finding of a domain in a line."""
    if finding.ok:
        return f"ok    {finding.what}"
    return f"FAIL  {finding.what}: {finding.detail}"


def _told(finding: Finding) -> str:
    """One finding of a model, in lines of 79."""
    mark = "works " if finding.ok else "FAIL  "
    text = f"{finding.what}: {finding.detail}" if finding.detail else finding.what
    return textwrap.fill(
        text,
        79,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_on_hyphens=False,
        break_long_words=False,
    )
