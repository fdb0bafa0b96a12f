"""What a worker process runs first: `python -m linn.engine.local.start FD`; then `worker.main`."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Load the worker, then serve the pipe whose descriptor is the one argument."""
    # Nothing that torch makes while it is loaded is garbage, and all of it stays: looking through
    # it takes a tenth of the time that a worker needs to start, and again at every collection.
    gc.disable()
    from linn.engine.local import worker

    gc.freeze()
    gc.enable()
    worker.main(sys.argv[1:])


if __name__ == "__main__":
    main()
