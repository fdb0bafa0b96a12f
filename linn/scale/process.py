"""One process of a cluster on this machine: `python -m linn.scale.process FD`.

What it is to run comes first through the pipe FD, then the messages.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from linn.engine.local import heartbeat
from linn.engine.local.answering import die_with_parent, ignore_signals, serve
from linn.errors import LinnError
from linn.scale.places import Role, Unopened


def main(arguments: Sequence[str]) -> None:
    """Serve the pipe whose descriptor is the one argument."""
    pipe = Connection(int(arguments[0]))
    ignore_signals()
    role, beats, by_kernel = pipe.recv()
    assert isinstance(role, Role), role
    die_with_parent(by_kernel)
    # The first sign of life comes after the libraries: on a busy machine they take minutes, in
    # which no thread of this process comes to speak.
    kind = importlib.import_module(role.kind)
    heartbeat.beat(Path(beats))
    try:
        worker = kind.opened(role.options)
    except LinnError as error:
        worker = Unopened(error)
    serve(worker, role.name, pipe)
    os._exit(0)  # no interpreter shutdown: the watching thread holds standard input's lock


if __name__ == "__main__":
    main(sys.argv[1:])
