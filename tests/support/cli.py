"""The command `linn` in this process: its exit code and what it prints."""

import contextlib
import io
import sys
from pathlib import Path

from linn.cli import main as cli


def said(*arguments: str | Path) -> tuple[int, str, str]:
    """(exit code, standard output, standard error); anything but an exit would raise here."""
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["linn", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        return int(end.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = argv
    return 0, out.getvalue(), err.getvalue()


def refused(*arguments: str | Path, code: int = 2) -> str:
    """The one line with which the command refuses."""
    exit_code, out, err = said(*arguments)
    assert exit_code == code, (arguments, exit_code, out[-500:], err[-500:])
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err, err
    return err
