"""What a worker process runs first: `python -m linn.engine.local.start MODULE FD`; then its main.

MODULE: `worker` or `live_worker`.
"""

from __future__ import annotations

import gc
import importlib
import sys


def main() -> None:
    """Load the worker, then serve the pipe whose descriptor is the one argument."""
    # Nothing that torch makes while it is loaded is garbage, and all of it stays: looking through
    # it takes a tenth of the time that a worker needs to start, and again at every collection.
    gc.disable()
    worker = importlib.import_module(f"linn.engine.local.{sys.argv[1]}")

    gc.freeze()
    gc.enable()
    worker.main(sys.argv[2:])


if __name__ == "__main__":
    main()
