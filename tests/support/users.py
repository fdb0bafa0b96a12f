"""Running a piece of Python as a user without rights, where these tests run as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

NOBODY = "65534"
ROOT = Path(__file__).parents[2]


def run_as_nobody(code: str, *words: str) -> str:
    """What it prints; skips the test where no such user, or no interpreter for it, can be had."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user")
    packages = [path for path in sys.path if path.endswith("site-packages")]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), *packages]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": tempfile.gettempdir(),
    }
    become = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]

    # This interpreter may stand where others may not go; the system's own does not.
    for interpreter in (sys.executable, shutil.which("python3", path="/usr/bin:/bin")):
        if interpreter is None:
            continue
        words_of_all = [*become, interpreter, "-c"]
        trial = subprocess.run(
            [*words_of_all, "import linn.sandbox"],
            cwd="/",
            env=environment,
            capture_output=True,
            check=False,
        )
        if trial.returncode == 0:
            ran = subprocess.run(
                [*words_of_all, code, *words],
                cwd="/",
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode == 0, ran.stderr
            return ran.stdout
    pytest.skip("no interpreter that other users may start")
