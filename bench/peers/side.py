"""The process of one side: `python -m bench.peers.side DESCRIPTOR TASK`, which the parent starts.

The task is JSON: `side` (whose), `work` (rollout, grpo, mopd, sft), `folder` (of the model),
`lengths` (of replies), `setting` (the side's own, a table of keys).
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from bench.peers.turns import Finished, Turns


def main(descriptor: str, text: str) -> None:
    """Work in turns until the parent wants no more."""
    task: dict[str, Any] = json.loads(text)
    turns = Turns(Connection(int(descriptor)))
    # Equal for all: linn's workers do it too.
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    side = import_module(f"bench.peers.of_{task['side']}")
    with suppress(Finished):
        getattr(side, task["work"])(task, turns)


if __name__ == "__main__":
    main(*sys.argv[1:])
