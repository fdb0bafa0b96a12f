"""Prints the table of docs/models.md.

Tiny random models of thirteen families, each with its family's tokenizer layout and chat template,
go from a folder through SFT, RL and MOPD to an export that stock transformers opens.

    python -m bench.agreement.models [FAMILY …]

About half a minute on one core.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

# What it shares with the tests imports its own neighbours as the tests do.
sys.path.append(str(Path(__file__).parents[2] / "tests"))

from support.journey import HEADING, travel
from support.model_families import MODELS

from linn.engine.local.controller import LocalEngine


def main(families: list[str]) -> None:
    """Print the heading, and a row for each family."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    print(HEADING)
    with LocalEngine(processes=1, width=512) as engine, tempfile.TemporaryDirectory() as home:
        for family in families or MODELS:
            arrival = travel(family, Path(home) / family, engine)
            print(arrival.row, flush=True)
            for what, found in (("ids", arrival.ids), ("text", arrival.text)):
                if found:
                    print(f"  {what} differ: {found!r}")


if __name__ == "__main__":
    main(sys.argv[1:])
