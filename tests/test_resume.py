"""What a kill between two writes leaves behind, and what --redo may touch; no engine runs here."""

import json
import shutil
from pathlib import Path

import pytest

from linn import files
from linn.checkpoints import resolve
from linn.errors import UserError
from linn.ledger import score
from linn.recipe import load as recipes
from linn.run.run import Run

RECIPE = {
    "name": "r",
    "domains": {"mcqa": {}},
    "stages": [
        {"name": "sft", "kind": "sft"},
        {"name": "rl", "kind": "rl"},
        {"name": "late", "kind": "rl"},
    ],
}
OTHER_LR = {1: {"lr": 1e-4}}


class Begun(Exception):
    """The run went past its checks and would start to work."""


class Halted(Run):
    """A run that stops where its first stage would begin."""

    def run_stage(self, config) -> None:
        raise Begun(config.name)


def open_run(folder: Path, tree: dict) -> Run:
    return Halted(recipes.parse(tree, "t"), folder)


def run_of(folder: Path, changes: dict[int, dict] | None = None) -> Run:
    """A run of `RECIPE`, with keys of some stages changed (by their place)."""
    stages = [dict(stage) for stage in RECIPE["stages"]]  # type: ignore[arg-type]
    for place, keys in (changes or {}).items():
        stages[place].update(keys)
    return open_run(folder, {**RECIPE, "stages": stages})


def finished(folder: Path) -> Path:
    """A run folder in which every stage is done."""
    run = run_of(folder)
    for name in run.folder.names[1:]:
        stage = run.folder.stage_folder(name)
        files.write_text(stage / "metrics.jsonl", '{"step": 1}\n')
        files.write_text(stage / "checkpoints/step-0100/config.json", "{}")
        files.write_text(stage / "DONE", "")
        run.folder.ledger.upsert([score(name, 100, "mcqa", "test", "accuracy", [1.0, 0.0])])
    run.go()
    return folder


def stages_in(run: Run) -> list[str]:
    return [row.stage for row in run.folder.ledger.read()]


def test_a_folder_is_never_lost_between_the_two_renames_that_replace_it(tmp_path, monkeypatch):
    state = tmp_path / "state"
    with files.whole_folder(state) as folder:
        files.write_text(folder / "stage.json", "old")
    real = files.os.replace

    def killed(source, target):
        if Path(target) == state:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(files.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt), files.whole_folder(state) as folder:
        files.write_text(folder / "stage.json", "new")
    monkeypatch.setattr(files.os, "replace", real)
    assert not state.exists()
    files.recover(state)
    assert (state / "stage.json").read_text() == "old"
    with files.whole_folder(state) as folder:
        files.write_text(folder / "stage.json", "newer")
    files.recover(state)
    assert (state / "stage.json").read_text() == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_removed_folder_is_whole_or_gone_whenever_the_removal_stops(tmp_path, monkeypatch):
    folder = tmp_path / "02-rl"
    files.write_text(folder / "DONE", "")
    # killed before a file was deleted
    monkeypatch.setattr(files.shutil, "rmtree", lambda path, ignore_errors: None)
    files.remove_folder(folder)
    assert not folder.exists()


def test_what_killed_writes_and_deletions_left_is_removed_once_nothing_needs_it(tmp_path):
    """Also a state that is only there under its old name comes back instead."""
    folder = finished(tmp_path / "run")
    stage = folder / "stages/02-rl"
    left = [
        stage / "checkpoints/.step-0050.gone/model.safetensors",
        stage / "checkpoints/.step-0100.part/config.json",
        stage / ".state.part/trainer/model.safetensors",
        folder / "stages/01-sft/.state.old/stage.json",
        stage / "evals/.test-greedy.jsonl.part",
        folder / ".report.html.part",
        folder / "..recipe.yaml.part.mode",
    ]
    kept = [folder / ".lock", stage / "checkpoints/.hidden"]
    for path in (*left, *kept):
        files.write_text(path, '{"step": 1}')
    before = {path: path.read_text() for path in folder.rglob("*") if path.name == "config.json"}
    run_of(folder).go()
    assert not [path for path in left if path.exists()] and all(path.exists() for path in kept)
    assert (folder / "stages/01-sft/state/stage.json").exists()
    assert all(path.exists() for path in before if ".part" not in str(path))


def test_half_a_surrogate_pair_in_a_transcript_is_written(tmp_path):
    files.write_jsonl(tmp_path / "rows.jsonl", [{"note": "expected \ud800, ä"}, {"note": "ä"}])
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["note"] for line in lines] == ["expected \ud800, ä", "ä"]


def test_redo_takes_another_recipe_for_what_it_removes_and_refuses_it_for_what_it_keeps(tmp_path):
    folder = finished(tmp_path / "run")
    with pytest.raises(UserError, match="--redo rl"):
        run_of(folder, OTHER_LR).go()
    with pytest.raises(UserError, match="'rl' was made under another recipe"):
        run_of(folder, OTHER_LR).go(redo="late")
    assert stages_in(run_of(folder)) == ["sft", "rl", "late"], "a refused redo removed something"
    run = run_of(folder, OTHER_LR)
    with pytest.raises(Begun, match="rl"):
        run.go(redo="rl")
    assert stages_in(run) == ["sft"]
    assert run.folder.is_done("sft") and not run.folder.is_done("late")
    with pytest.raises(Begun, match="rl"):
        run_of(folder, OTHER_LR).go()  # and without --redo it goes on


def test_redo_removes_the_stages_of_a_recipe_with_other_names(tmp_path):
    folder = finished(tmp_path / "run")
    run = run_of(folder, {1: {"name": "rl2"}, 2: {"name": "last"}})
    with pytest.raises(Begun, match="rl2"):
        run.go(redo="rl2")
    assert stages_in(run) == ["sft"] and not list(folder.glob("stages/0[23]-*"))


def test_rows_of_a_redo_that_was_killed_before_the_ledger_are_forgotten(tmp_path):
    folder = finished(tmp_path / "run")
    shutil.rmtree(folder / "stages/03-late")
    run = run_of(folder)
    with pytest.raises(Begun, match="late"):
        run.go()
    assert stages_in(run) == ["sft", "rl"]


def test_a_start_measured_under_another_model_is_not_kept(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Begun):
        run_of(folder).go()
    files.write_text(folder / "stages/00-base/DONE", "")
    tree = {**RECIPE, "model": "tiny-1"}
    with pytest.raises(UserError, match="'model' of its stages"):
        Run(recipes.parse(tree, "t"), folder).go()


def test_until_takes_stages_only_and_a_step_must_be_a_number(tmp_path):
    with pytest.raises(UserError, match="'base' is not in the recipe"):
        run_of(tmp_path / "run").go(until="base")
    folder = finished(tmp_path / "other")
    with pytest.raises(UserError, match="'last' is no step"):
        resolve(f"{folder}@rl:last")
    at = tmp_path / "me@home"
    files.write_text(at / "config.json", "{}")
    assert resolve(str(at)) == at


def test_a_judge_may_move_but_not_change(tmp_path):
    def judged_run(**changes) -> Run:
        judge = {"model": "http://one:1/v1#m", **changes}
        tree = {**RECIPE, "domains": {"preference": {"judge": judge}}}
        return open_run(tmp_path / "run", tree)

    with pytest.raises(Begun):
        judged_run().go()
    files.write_text(tmp_path / "run/stages/01-sft/metrics.jsonl", '{"step": 1}\n')
    files.write_text(tmp_path / "run/stages/01-sft/state/stage.json", '{"step": 1}\n')

    for change in (
        {"model": "http://two:2/v1#m"},
        {"timeout_s": 5, "concurrency": 2, "key_env": "KEY"},
    ):
        with pytest.raises(Begun):
            judged_run(**change).go()
    for change in (
        {"model": "http://one:1/v1#other"},
        {"temperature": 0.5},
        {"retries": 1},
        {"model": "@sft"},
    ):
        with pytest.raises(UserError, match="made under another recipe|needs the judge"):
            judged_run(**change).go()
