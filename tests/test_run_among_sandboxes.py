"""A run over sandboxes and conversations, killed in the middle: the same bytes in the end."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from support.runs import fingerprint, linn, steps_done, write


@pytest.mark.long
def test_killed_among_sandboxes_and_conversations_ends_with_the_same_bytes(tmp_path):
    """The same with the kept base, so that programs, edits and calls are real.

    The domains are code, both SWE domains, workplace, and math with math-verify.
    """
    rl = {"steps": 4, "prompts": 4, "rollouts": 4, "max_tokens": 64, "lr": 5e-4, "save_every": 2}
    names = {"code": 1, "swe_agentic": 1, "swe_agentless": 1, "workplace": 1}
    recipe = write(
        tmp_path,
        model="tiny",
        domains={"math": {}, **{name: {} for name in names}},
        evaluate={"test": 2, "validation": 1, "max_tokens": 64},
        scale={"processes": 1},
        stages=[
            {"name": "sft", "kind": "sft", "steps": 2, "batch": 10, "lr": 1e-3, "faulty": 0.5},
            {"name": "rl", "kind": "rl", "domains": names, **rl},
        ],
    )
    reference, out = tmp_path / "reference", tmp_path / "run"
    assert linn("run", recipe, "--out", reference).returncode == 0
    for target in (1, 5):  # of 6 steps: before a state was saved, and after one
        process = subprocess.Popen(
            [sys.executable, "-m", "linn.cli.main", "run", str(recipe), "--out", str(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and steps_done(out) < target:
            time.sleep(0.05)
        assert process.poll() is None, "the run was over before it could be killed"
        process.kill()
        process.wait()
    assert linn("run", recipe, "--out", out).returncode == 0
    assert fingerprint(out) == fingerprint(reference)
