"""A whole small cascade: killed at random points it ends with the same bytes.

Wrong input is one line, and nothing is lost.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.cli import refused
from support.runs import RECIPE, fingerprint, linn, steps_done, write

from linn.checkpoints import resolve
from linn.errors import RunFailed, UserError
from linn.recipe import load as recipes
from linn.run.run import Run
from linn.run.teachers import Candidates, choose_teachers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Path]:
    """(recipe, run folder) of an uninterrupted run."""
    home = tmp_path_factory.mktemp("uninterrupted")
    recipe = write(home)
    done = linn("run", recipe, "--out", home / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    return recipe, home / "run"


def test_a_run_leaves_what_the_design_says(finished):
    _, folder = finished
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert {(r["stage"], r["step"]) for r in rows} == {
        ("sft", 5),
        ("rl", 4),
        ("kl", 2),
        ("mopd", 2),
        ("mopd", 3),
    }
    assert {(r["split"], r["metric"]) for r in rows} == {
        ("test", "accuracy"),
        ("test", "greedy"),
        ("validation", "accuracy"),
    }
    metrics = [
        json.loads(line)
        for line in (folder / "stages/02-rl/metrics.jsonl").read_text().splitlines()
    ]
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    assert all(m["mismatch_max"] <= 1e-4 for m in metrics if "mismatch_max" in m), (
        "sampler and trainer disagree"
    )
    assert (folder / "report.html").stat().st_size > 10_000 and not (
        folder / "stages/02-rl/state"
    ).exists()
    about = json.loads((folder / "run.json").read_text())
    assert (
        about["stages"][4]["teachers"] == {"arithmetic": "sft", "mcqa": "rl"}
        and about["stages"][3]["parent"] == "sft"
    )


@pytest.mark.long
def test_killed_at_random_points_ends_with_the_same_bytes(finished, tmp_path):
    """SIGKILL at a random moment after each of a few random steps.

    It may come in sampling, in training, in saving, in evaluation or between stages.
    """
    recipe, reference = finished
    out = tmp_path / "run"
    # The base is there when the first kill comes: making it anew would load torch once more.
    shutil.copytree(reference / "stages/00-base", out / "stages/00-base")
    command = [sys.executable, "-m", "linn.cli.main", "run", str(recipe), "--out", str(out)]
    rng = random.Random(int(os.environ.get("LINN_KILL_SEED", "0")))
    kills = 0
    for target in sorted(rng.sample(range(14), 5)):  # of 14 steps in all
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and steps_done(out) < max(1, target):
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.5))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 3, "the run was hardly killed"
    done = linn("run", recipe, "--out", out)
    assert done.returncode == 0, done.stderr[-2000:]
    assert fingerprint(out) == fingerprint(reference)


def test_a_finished_run_is_left_alone(finished):
    recipe, folder = finished
    before = fingerprint(folder)
    again = linn("run", recipe, "--out", folder)
    assert again.returncode == 0 and fingerprint(folder) == before


def test_another_recipe_is_refused_with_the_difference(finished):
    recipe, folder = finished
    said = linn("run", recipe, "--out", folder, "--set", "rl.lr=5e-4")
    assert (
        said.returncode == 2
        and "stage 'rl' was made under another recipe" in said.stderr
        and "rl.lr 0.001 → 0.0005" in said.stderr
    )
    assert "--redo rl removes rl (4 steps" in said.stderr and "Traceback" not in said.stderr


def test_processes_from_two_to_one_in_the_middle_keep_the_state(finished, tmp_path, monkeypatch):
    """And a doubled number of steps, killed right after the change: sums differ by rounding."""
    import torch
    from safetensors.torch import load_file

    from linn.stages.stage_run import StageRun

    def run_until(step: int | None, **changes) -> None:
        record = StageRun.record

        def stop(self, at, *arguments):
            record(self, at, *arguments)
            if at + 1 == step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(StageRun, "record", stop)
            sft = {**RECIPE["stages"][0], "faulty": 0.5, **changes}
            scale = {**RECIPE["scale"], "processes": 2 if step == 3 else 1}
            tree = {**RECIPE, "scale": scale, "stages": [sft, *RECIPE["stages"][1:]]}
            Run(recipes.parse(tree, "t"), tmp_path).go(until="sft")

    with pytest.raises(KeyboardInterrupt):
        run_until(3)
    with pytest.raises(KeyboardInterrupt):
        run_until(4, keep_every=5, steps=6)
    run_until(None, keep_every=5, steps=6)
    changes = json.loads((tmp_path / "run.json").read_text())["changes"]
    assert {(c["key"], c["step"], c["promise"]) for c in changes} == {
        ("scale.processes", 2, "state"),
        ("sft.steps", 2, "bytes"),
        ("sft.keep_every", 2, "bytes"),
    }
    # The fifth step, kept on the way, against the run that had one process and five steps.
    place = "stages/01-sft/checkpoints/step-0005/model.safetensors"
    ours, theirs = load_file(tmp_path / place), load_file(finished[1] / place)
    # AdamW moves a weight whose gradient is nothing but rounding as far as any other: a few in a
    # million, here two.
    gaps = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in theirs])
    assert gaps.mean() < 1e-7 and (gaps > 2e-5).sum() <= 10 and gaps.max() < 5e-5


def test_names_of_checkpoints(finished):
    _, folder = finished
    assert (
        resolve(f"{folder}@mopd").name == "step-0003"
        and resolve(f"{folder}@rl:4").name == "step-0004"
    )
    for name, said in [
        (f"{folder}@mopdd", "did you mean 'mopd'"),
        (f"{folder}@rl:9", "at step 9"),
        ("nowhere", "neither"),
        ("nowhere@x", "no run with a stage"),
    ]:
        with pytest.raises(UserError, match=said):
            resolve(name)


def test_wrong_input_is_one_line_and_exit_2(tmp_path):
    good = write(tmp_path)
    cases = [
        (["run", tmp_path / "absent.yaml"], "cannot be read"),
        (["run", good, "--set", "rl.step=3"], "did you mean 'steps'"),
        (["run", good, "--set", "model=nowhere", "--out", tmp_path / "a"], "neither a kept base"),
        (["run", good, "--until", "rll", "--out", tmp_path / "b"], "did you mean 'rl'"),
        (["ls", tmp_path / "nowhere"], "no run there"),
        (["check", "arithmetics"], "did you mean 'arithmetic'"),
        (["explain", "lernrate"], "no recipe key"),
        (
            [
                "run",
                write(
                    tmp_path / "d" if (tmp_path / "d").mkdir() is None else tmp_path,
                    domains={"./gone.py": {}},
                ),
                "--out",
                tmp_path / "c",
            ],
            "",
        ),
    ]
    for arguments, words in cases:
        assert words in refused(*arguments)


def test_a_corrupted_ledger_is_refused_and_kept(finished, tmp_path):
    recipe, folder = finished
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "stages/04-mopd")
    with open(copy / "ledger.jsonl", "a") as file:
        file.write('{"stage": "rl", "step"')
    before = (copy / "ledger.jsonl").read_bytes()
    said = linn("run", recipe, "--out", copy)
    assert (
        said.returncode == 2
        and "ledger.jsonl: line" in said.stderr
        and (copy / "ledger.jsonl").read_bytes() == before
    )


def test_a_teacher_that_is_not_there_yet():
    mopd = recipes.parse({**RECIPE, "name": "t"}, "t").stage("mopd")
    with pytest.raises(UserError, match="teacher sft of arithmetic is not there yet"):
        choose_teachers(
            mopd,  # type: ignore[arg-type]
            domains=["arithmetic", "mcqa"],
            candidates=Candidates(
                earlier=["base", "sft", "rl"],
                line=["rl", "sft", "base"],
                last_step=lambda stage: 2,
                is_there=lambda stage, step: False,
            ),
            rows=[],
        )


def test_two_at_once_are_refused(finished):
    import fcntl

    recipe, folder = finished
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = linn("run", recipe, "--out", folder)
    assert said.returncode == 2 and "another linn works in it" in said.stderr


def test_a_batch_that_is_not_finite_stops_the_run_and_keeps_the_batch(tmp_path):
    recipe = recipes.parse(
        {
            **RECIPE,
            "stages": [
                {**RECIPE["stages"][0], "lr": 1e30, "steps": 6, "save_every": 1, "clip": 1e30}
            ],
        },
        "t",
    )
    run = Run(recipe, tmp_path / "run")
    with pytest.raises(RunFailed, match="batch kept in .*failed-step"):
        run.go()
    (batch,) = (tmp_path / "run/stages/01-sft").glob("failed-step-*.jsonl")
    assert len(batch.read_text().splitlines()) == 8
    assert (tmp_path / "run/stages/01-sft/state/trainer/model.safetensors").exists()


@pytest.mark.long
def test_a_redo_on_a_full_disk_is_one_line_and_the_run_goes_on_later(finished, tmp_path):
    """A file-size limit stands for a full disk: the first state of the stage cannot be written."""
    recipe, reference = finished
    out = tmp_path / "run"
    shutil.copytree(reference, out)
    command = f"{sys.executable} -m linn.cli.main run {recipe} --out {out} --redo mopd"
    limited = f"ulimit -f 3000; trap '' XFSZ; exec {command}"
    full = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=1200)
    assert full.returncode == 1 and "Traceback" not in full.stderr, full.stderr[-1500:]
    assert "File too large" in full.stderr and not (out / "stages/04-mopd/DONE").exists()
    done = linn("run", recipe, "--out", out)
    assert done.returncode == 0, done.stderr[-2000:]
    assert fingerprint(out) == fingerprint(reference)
