"""A run whose judge is one of its stages, killed and resumed to the same bytes; grading with it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.cli import refused, said
from support.runs import fingerprint, linn, steps_done

pytestmark = pytest.mark.slow

RL = {
    "kind": "rl",
    "steps": 2,
    "prompts": 2,
    "rollouts": 3,
    "max_tokens": 64,
    "lr": 1e-4,
    "save_every": 1,
}
RECIPE = {
    "name": "judged",
    "model": "tiny",
    "domains": {
        "mcqa": {},
        "preference": {
            # A judge of one step of training says nothing that can be read.
            "judge": {"model": "@sft", "max_tokens": 16, "retries": 1, "max_unreadable": 1},
            "pairs": "circular",
        },
    },
    "evaluate": {"test": 2, "validation": 1, "max_tokens": 32},
    "scale": {"processes": 1},
    "stages": [
        {"name": "warm", "kind": "sft", "steps": 1, "batch": 4, "lr": 1e-4},
        {"name": "sft", "kind": "sft", "steps": 1, "batch": 4, "lr": 1e-4},
        {"name": "rlhf", "domains": {"preference": 1}, "kl": 0.03, **RL},
    ],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("judged")
    (home / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    done = linn("run", home / "recipe.yaml", "--out", home / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    return home / "recipe.yaml", home / "run"


def test_a_stages_checkpoint_judges_the_stages_after_it(finished):
    _, folder = finished
    metrics = [
        json.loads(line)
        for line in (folder / "stages/03-rlhf/metrics.jsonl").read_text().splitlines()
    ]
    assert [m["judge_questions"] for m in metrics] == [2 * 3] * 2, "two circular groups of three"
    assert all(0 <= m["judge_unreadable"] <= 1 and m["judge_s"] > 0 for m in metrics)
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    measured = {(r["stage"], r["domain"]) for r in rows}
    assert measured == {(stage, "mcqa") for stage in ("warm", "sft", "rlhf")}
    log = (folder / "stages/02-sft/log-1.txt").read_text()
    assert "nobody judged any of the 2 prompts of preference" in log
    assert (
        "not measured: the judge comes with a later stage"
        in (folder / "stages/01-warm/log-1.txt").read_text()
    )
    assert "judges: " in (folder / "stages/03-rlhf/log-1.txt").read_text()


@pytest.mark.long
def test_killed_among_questions_ends_with_the_same_bytes(finished, tmp_path):
    recipe, reference = finished
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "linn.cli.main", "run", str(recipe), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and steps_done(out) < 3:  # of 4 steps: in the middle of rlhf
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (out / "stages/03-rlhf/DONE").exists(), "the run was over before it could be killed"
    assert linn("run", recipe, "--out", out).returncode == 0
    assert fingerprint(out) == fingerprint(reference)


def test_grade_takes_a_checkpoint_as_judge(finished, tmp_path):
    recipe, folder = finished
    (tmp_path / "rows.jsonl").write_text('{"prompt": "why?"}\n')
    (tmp_path / "replies.jsonl").write_text(
        '{"row": 0, "text": "because"}\n{"row": 0, "text": ""}\n'
    )
    words = [
        "--rows",
        tmp_path / "rows.jsonl",
        "--replies",
        tmp_path / "replies.jsonl",
        "--out",
        tmp_path / "out.jsonl",
    ]
    code, out, err = said(
        "grade",
        "preference",
        *words,
        "--judge",
        f"{folder}@sft",
        "--option",
        "judge.max_tokens=8",
        "--option",
        "judge.retries=0",
    )
    assert code == 0 and "judge: 1 questions" in out, err
    assert [
        json.loads(line)["row"] for line in (tmp_path / "out.jsonl").read_text().splitlines()
    ] == [0, 0]
    assert "names a stage of a run" in refused("eval", "tiny", "--recipe", recipe)
