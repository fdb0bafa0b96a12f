"""A run that is changed: it goes on, keeps the promise that it names, and loses nothing unsaid."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fast_runs import HashEngine, changes_of, go, results, tree

from linn import stopping
from linn.checkpoints import resolve
from linn.errors import InfrastructureError, UserError
from linn.ledger import Ledger
from linn.recipe.explain import every_key
from linn.run.agreement import EFFECTS, Effect, effect_of
from linn.run.changes import Change, merged

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


@pytest.fixture(scope="module")
def reference(tmp_path_factory, patch):
    """A run of the recipe that nothing disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    go(folder, patch)
    return folder


def test_every_key_of_a_recipe_has_an_effect():
    kinds = ("sft", "rl", "distill")
    names = set()
    for key in every_key():
        head, _, rest = key.name.partition(".")
        names.add(f"STAGE.{rest}" if head in kinds else key.name)
    assert names - EFFECTS.keys() == set(), "a new key needs its line in linn/run/agreement.py"
    assert EFFECTS.keys() - names == set(), "the table names what is no key"
    assert effect_of("rl.lr") is EFFECTS["STAGE.lr"]


def test_the_documents_table_is_the_codes():
    text = (Path(__file__).parent.parent / "docs/running.md").read_text()
    for effect in Effect:
        (row,) = re.findall(rf"^\| {effect.value} \| (`.*`) \|$", text, re.MULTILINE)
        assert row.strip("`").split("`, `") == [k for k, e in EFFECTS.items() if e is effect]


def test_a_killed_fast_run_ends_with_the_same_bytes(reference, tmp_path, patch):
    for kill_at in (3, 9):
        go(tmp_path, patch, kill_at=kill_at - (6 if kill_at == 9 else 0))
    go(tmp_path, patch)
    assert results(tmp_path) == results(reference) and changes_of(tmp_path) == []


@pytest.mark.slow
@settings(max_examples=6)
@given(
    kill_at=st.integers(1, 6),
    steps=st.integers(7, 12),
    save_every=st.integers(1, 7),
    warmup=st.integers(0, 3),
)
def test_more_steps_in_the_middle_are_bytes_as_if_from_the_start(
    tmp_path_factory, patch, kill_at, steps, save_every, warmup
):
    """Under a constant rate, and under a schedule whose horizon the recipe says."""
    shapes = {"sft__warmup": warmup, "sft__save_every": save_every}
    if steps % 2:
        shapes |= {"sft__schedule": "cosine", "sft__min_lr": 1e-6, "sft__horizon": 6}
    folder, whole = (tmp_path_factory.mktemp(name) for name in ("changed", "whole"))
    # Killed in the stage, or (at 6) within the stage after it.
    go(folder, patch, tree(**shapes), kill_at=kill_at, until="sft" if kill_at < 6 else None)
    if kill_at == 6:
        shutil.rmtree(folder / "stages/02-rl")
    go(folder, patch, tree(**shapes, sft__steps=steps), until="sft")
    go(whole, patch, tree(**shapes, sft__steps=steps), until="sft")

    weights = f"stages/01-sft/checkpoints/step-{steps:04d}/model.safetensors"
    assert results(folder)[weights] == results(whole)[weights]
    promises = {promise for *_, promise in changes_of(folder)}
    assert promises <= {"bytes"}


def test_a_finished_stage_is_lengthened_and_its_old_end_stays(reference, tmp_path, patch):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    shutil.copytree(reference, folder)
    go(folder, patch, tree(rl__steps=12))
    go(whole, patch, tree(rl__steps=12))

    after, from_start = results(folder), results(whole)
    old_end = {name for name in after if "02-rl/checkpoints/step-0006" in name}
    assert old_end and {k: v for k, v in after.items() if k not in old_end} == from_start
    assert changes_of(folder) == [("rl", 6, "rl.steps", "bytes")]
    assert {row.step for row in Ledger(folder / "ledger.jsonl").read() if row.stage == "rl"} == {
        6,
        12,
    }
    assert resolve(f"{folder}@rl").name == "step-0012"
    assert resolve(f"{folder}@rl:6").name == "step-0006"


def test_a_schedule_over_all_steps_takes_its_new_shape_and_says_so(tmp_path, patch, capsys):
    linear = {"sft__schedule": "linear", "sft__min_lr": 0.0, "sft__lr": 1.0}
    go(tmp_path, patch, tree(**linear), until="sft")
    engine = go(tmp_path, patch, tree(**linear, sft__steps=11), until="sft")
    assert engine.rates == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])
    assert changes_of(tmp_path) == [("sft", 6, "sft.steps", "changed from step 7")]
    said = capsys.readouterr().err
    assert "the rate of step 7 is 0.4 (before: 0)" in said and "horizon: 6 keeps it" in said


def test_another_rate_from_the_next_step_on(tmp_path, patch, capsys):
    go(tmp_path, patch, kill_at=5, until="sft")
    engine = go(tmp_path, patch, tree(sft__lr=1e-3), until="sft")
    assert engine.rates == [1e-3, 1e-3], "steps 5 and 6: four were saved"
    assert changes_of(tmp_path) == [("sft", 4, "sft.lr", "changed from step 5")]
    assert "sft.lr 5e-05 → 0.001 from sft step 5 on: a run of two parts" in capsys.readouterr().err


@pytest.mark.slow
def test_changed_twice_and_changed_back(reference, tmp_path, patch):
    """A value that was taken back before any step was saved under it never was."""
    go(tmp_path, patch, kill_at=3)
    go(tmp_path, patch, tree(sft__lr=1e-3, sft__save_every=1), kill_at=0)
    go(tmp_path, patch, tree(sft__lr=2e-3), kill_at=1)
    assert changes_of(tmp_path) == [("sft", 2, "sft.lr", "changed from step 3")]
    go(tmp_path, patch)
    assert changes_of(tmp_path) == [] and results(tmp_path) == results(reference)

    # Once steps were made under it, both changes are on record.
    folder = tmp_path / "other"
    go(folder, patch, kill_at=3)
    go(folder, patch, tree(sft__lr=1e-3), kill_at=3)
    go(folder, patch)
    assert changes_of(folder) == [
        ("sft", 2, "sft.lr", "changed from step 3"),
        ("sft", 4, "sft.lr", "changed from step 5"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"sft__save_every": 5},
        {"sft__keep_every": 3},
        {"rl__keep_rollouts": 2},
        {"sft__skip_bad": True},
        {"rl__max_mismatch": 1.0},
    ],
)
def test_what_decides_no_number_leaves_the_bytes(changes, reference, tmp_path, patch):
    go(tmp_path, patch, kill_at=3)
    go(tmp_path, patch, tree(**changes))
    (promise,) = {promise for *_, promise in changes_of(tmp_path)} or {"bytes"}
    assert promise == "bytes"
    before, after = results(reference), results(tmp_path)
    gone = {name for name in before if name not in after}
    assert all("02-rl/rollouts" in name for name in gone) and bool(gone) == (
        "rl__keep_rollouts" in changes
    )
    assert {name: after[name] for name in before if name in after} == {
        name: value for name, value in before.items() if name not in gone
    }


def test_kept_checkpoints_are_measured_named_and_made_again(tmp_path, patch):
    recipe = tree(sft__keep_every=2, sft__save_every=4)
    go(tmp_path, patch, recipe, kill_at=3)
    assert not (tmp_path / "stages/01-sft/state").exists(), "nothing was saved yet"
    go(tmp_path, patch, recipe, until="sft")
    names = sorted(path.name for path in tmp_path.glob("stages/01-sft/checkpoints/*"))
    assert names == ["step-0002", "step-0004", "step-0006"]
    rows = Ledger(tmp_path / "ledger.jsonl").read()
    # Teachers are chosen on validation; what they are ahead by is told on test.
    assert {(row.split, row.metric) for row in rows if row.step == 2} == {
        ("validation", "accuracy"),
        ("test", "accuracy"),
    }
    assert resolve(f"{tmp_path}@sft:2").name == "step-0002"
    with pytest.raises(UserError, match="at step 3; there are 2, 4, 6"):
        resolve(f"{tmp_path}@sft:3")


def test_a_kept_checkpoint_teaches(tmp_path, patch):
    recipe = tree(sft__keep_every=2)
    mopd = {"name": "mopd", "kind": "distill", "steps": 1, "prompts": 1, "max_tokens": 4}
    mopd |= {"teachers": {"arithmetic": "sft:2", "mcqa": "rl"}, "warmup": 0}
    recipe["stages"].append(mopd)
    go(tmp_path, patch, recipe)
    stages = json.loads((tmp_path / "run.json").read_text())["stages"]
    assert stages[-1]["teachers"] == {"arithmetic": "sft:2", "mcqa": "rl"}
    mopd["teachers"] = {"arithmetic": "sft:3", "mcqa": "rl"}
    with pytest.raises(UserError, match="keeps no checkpoint of step 3"):
        go(tmp_path, patch, recipe)


def test_the_best_checkpoint_teaches_also_one_that_was_kept_within_a_stage(tmp_path, patch):
    recipe = tree(sft__keep_every=2)
    go(tmp_path, patch, recipe)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    (row,) = [
        row
        for row in ledger.read()
        if (row.step, row.domain, row.split) == (2, "mcqa", "validation")
    ]
    ledger.upsert([replace(row, value=1.0, low=0.9, high=1.0)])
    mopd = {"name": "mopd", "kind": "distill", "steps": 1, "prompts": 1, "max_tokens": 4}
    recipe["stages"].append(mopd | {"warmup": 0})
    go(tmp_path, patch, recipe)
    stages = json.loads((tmp_path / "run.json").read_text())["stages"]
    # Everything else scores 0, so the student's own start teaches the other domain.
    assert stages[-1]["teachers"] == {"arithmetic": "rl", "mcqa": "sft:2"}


def test_rollouts_of_the_last_steps_alone(tmp_path, patch):
    for keep, there in ((0, []), (2, ["step-0005", "step-0006"])):
        folder = tmp_path / str(keep)
        go(folder, patch, tree(rl__keep_rollouts=keep))
        assert sorted(p.stem for p in folder.glob("stages/02-rl/rollouts/*")) == there


def test_larger_test_sets_measure_every_stage_anew(reference, tmp_path, patch, capsys):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    shutil.copytree(reference, folder)
    go(folder, patch, tree(evaluate__test=9))
    go(whole, patch, tree(evaluate__test=9))
    assert results(folder) == results(whole)
    assert Ledger(folder / "ledger.jsonl").read() == Ledger(whole / "ledger.jsonl").read()
    assert changes_of(folder) == [("rl", 6, "evaluate.test", "scores")]
    assert "to be measured anew: sft, rl" in capsys.readouterr().err


def test_only_what_is_measured_is_measured_anew(tmp_path, patch, capsys):
    go(tmp_path, patch, tree(sft__evaluate=False))
    go(tmp_path, patch, tree(sft__evaluate=False, evaluate__start=True))
    said = capsys.readouterr().err
    assert "measured anew" not in said and "base:0" in said
    go(tmp_path, patch, tree(sft__evaluate=False, evaluate__start=True, evaluate__test=5))
    assert "to be measured anew: base, rl\n" in capsys.readouterr().err
    go(tmp_path, patch, tree(evaluate__start=True, evaluate__test=5))
    assert "to be measured anew: sft\n" in capsys.readouterr().err
    sizes = {(r.stage, r.n) for r in Ledger(tmp_path / "ledger.jsonl").read() if r.split == "test"}
    assert sizes == {("base", 5), ("sft", 5), ("rl", 5)}


def test_a_deleted_checkpoint_keeps_its_old_scores_and_is_named(reference, tmp_path, patch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(reference, folder)
    shutil.rmtree(folder / "stages/01-sft/checkpoints")
    go(folder, patch, tree(evaluate__test=9))
    assert "sft: cannot be measured anew" in capsys.readouterr().err
    sizes = {(r.stage, r.n) for r in Ledger(folder / "ledger.jsonl").read() if r.split == "test"}
    assert sizes == {("sft", 4), ("rl", 9)}


def test_deleted_checkpoints_are_told_and_made_again_where_that_loses_nothing(
    reference, tmp_path, patch, capsys
):
    folder = tmp_path / "run"
    shutil.copytree(reference, folder)
    go(folder, patch)
    assert capsys.readouterr().err == ""
    shutil.rmtree(folder / "stages/02-rl/checkpoints")
    engine = go(folder, patch)
    said = capsys.readouterr().err
    assert "rl: its last checkpoint was deleted; written again from its saved state" in said
    assert engine.steps == 0 and results(folder) == results(reference)
    shutil.rmtree(folder / "stages/01-sft/checkpoints")
    go(folder, patch)
    said = capsys.readouterr().err
    assert "sft: its last checkpoint was deleted" in said and "--redo sft" in said

    # Without its state, only a redo makes it again; and it must be there for what starts from it.
    shutil.rmtree(folder / "stages/02-rl/checkpoints")
    shutil.rmtree(folder / "stages/02-rl/state")
    go(folder, patch)
    assert "removes rl (6 steps, 0.0 h) and makes it again" in capsys.readouterr().err
    with pytest.raises(UserError, match="starts from sft, whose checkpoint .* was deleted"):
        go(folder, patch, redo="rl")
    with pytest.raises(UserError, match="were deleted; put them back"):
        resolve(f"{folder}@sft")


def test_what_the_machine_did_names_stage_and_step(tmp_path, patch):
    class Stopped(HashEngine):
        def step(self, samples, loss, lr):
            if self.steps == 8:
                raise InfrastructureError("engine process 1 has given no sign of life")
            return super().step(samples, loss, lr)

    with pytest.raises(InfrastructureError, match="stage rl step 3: engine process 1"):
        go(tmp_path, patch, open_engine=Stopped)


def test_a_signal_lets_the_step_end_and_its_state_be_saved(reference, tmp_path, patch, capfd):
    """The second one ends at once; so does the first one outside of training."""

    class Signalled(HashEngine):
        signals = (signal.SIGTERM,)

        def step(self, samples, loss, lr):
            if self.steps == 2:
                for number in self.signals:
                    os.kill(os.getpid(), number)
            return super().step(samples, loss, lr)

    class CtrlC(Signalled):
        signals = (signal.SIGINT,)

    class Twice(Signalled):
        signals = (signal.SIGTERM, signal.SIGHUP)

    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    # Ignored where a script has started us, or nohup.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stopping.listen()
    try:
        for kind, saved in ((Signalled, 3), (CtrlC, 3), (Twice, 2)):
            with pytest.raises(KeyboardInterrupt):
                go(tmp_path / kind.__name__, patch, open_engine=kind)
            place = tmp_path / kind.__name__ / "stages/01-sft/state/stage.json"
            assert json.loads(place.read_text())["step"] == saved
            name = kind.signals[0].name
            assert f"{name}: stopping after this step" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(60)
    finally:
        for number, handler in zip(stopping.SIGNALS, before, strict=True):
            signal.signal(number, handler)
    go(tmp_path / "Signalled", patch)
    assert results(tmp_path / "Signalled") == results(reference)


def test_what_decided_steps_already_made_needs_from_here(tmp_path, patch):
    go(tmp_path, patch, kill_at=9)
    other = tree(rl__temperature=0.7)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UserError) as refused:
        go(tmp_path, patch, other)
    said = str(refused.value)
    assert "rl.temperature 1 → 0.7" in said and "--from-here" in said
    assert said.index("--from-here") < said.index("--redo rl removes rl (3 steps, 0.0 h)")
    assert (tmp_path / "run.json").read_bytes() == before, "a refusal changes nothing"
    go(tmp_path, patch, other, from_here=True)
    # Evaluation samples a domain as its last rl stage does, so every score is another one.
    assert sorted(changes_of(tmp_path)) == [
        ("rl", 2, "evaluate.temperature", "scores"),
        ("rl", 2, "rl.temperature", "changed from step 3"),
    ]


def test_what_was_made_is_refused_and_every_loss_is_named(reference, tmp_path, patch):
    folder = tmp_path / "run"
    shutil.copytree(reference, folder)
    cases = [
        ({"seed": 1}, "base removes .*sft .6 steps.*rl .6 steps.*12 steps, 0.0 h in all"),
        ({"sft__domains": {"mcqa": 1}}, "redo sft removes sft"),
        ({"sft__lr": 1.0}, "no step is left(.|\n)*further stage with from: sft"),
        ({"rl__lr": 1.0}, "no step is left(.|\n)*rl.steps above 6"),
        (
            {"sft__steps": 12},
            "rl started from(.|\n)*further stage(.|\n)*redo rl removes rl .6",
        ),
        ({"rl__steps": 3}, "has made 6 steps already, and 3 are asked"),
        ({"domains": {"mcqa": {}}}, "'rl'|'sft'"),
    ]
    before = results(folder)
    for changes, said in cases:
        with pytest.raises(UserError, match=said):
            go(folder, patch, tree(**changes), from_here=True)
    assert results(folder) == before


def test_with_the_loss_named_a_built_on_stage_goes_on_from_its_end(
    reference, tmp_path, patch, capsys
):
    """Its moments went when the next stage was done, and that is said."""
    folder = tmp_path / "run"
    shutil.copytree(reference, folder)
    engine = go(folder, patch, tree(sft__steps=8), redo="rl")
    said = capsys.readouterr().err
    assert "--redo rl: removing rl (6 steps" in said and "AdamW's moments begin anew" in said
    assert engine.steps == 2 + 6
    assert changes_of(folder) == [("sft", 6, "sft.steps", "changed from step 7")]


def test_a_redo_names_its_loss_and_makes_the_same_bytes(reference, tmp_path, patch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(reference, folder)
    assert go(folder, patch, redo="rl").steps == 6
    assert "--redo rl: removing rl (6 steps, 0.0 h)" in capsys.readouterr().err
    assert results(folder) == results(reference) and changes_of(folder) == []


def test_other_processes_keep_the_state(tmp_path, patch):
    go(tmp_path, patch, tree(scale__processes=2), kill_at=9)
    go(tmp_path, patch, tree(scale__processes=1))
    assert changes_of(tmp_path) == [("rl", 2, "scale.processes", "state")]


def test_a_kill_between_the_record_and_the_recipe_is_no_harm(reference, tmp_path, patch):
    folder = tmp_path / "run"
    shutil.copytree(reference, folder)
    from linn.run.folder import RunFolder

    with patch.context() as broken:
        broken.setattr(RunFolder, "write_recipe", lambda self: (_ for _ in ()).throw(OSError()))
        with pytest.raises(OSError):
            go(folder, patch, tree(rl__steps=12))
    go(folder, patch, tree(rl__steps=12))
    assert changes_of(folder) == [("rl", 6, "rl.steps", "bytes")]


def test_a_file_by_another_name_and_a_project_that_moved(reference, tmp_path, patch):
    def with_data(name):
        return tree(sft__data=str(name), sft__max_length=500)

    home = tmp_path / "home"
    home.mkdir()
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (home / "rows.jsonl").write_text(json.dumps(row) + "\n")
    go(tmp_path / "run", patch, with_data(home / "rows.jsonl"), until="sft")
    patch.chdir(home)
    go(tmp_path / "run", patch, with_data("rows.jsonl"), until="sft")
    assert changes_of(tmp_path / "run") == []

    patch.chdir(tmp_path)
    (tmp_path / "other.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="sft.data"):
        go(tmp_path / "run", patch, with_data("other.jsonl"), until="sft")
    home.rename(tmp_path / "moved")
    go(tmp_path / "run", patch, with_data("moved/rows.jsonl"), until="sft")
    assert changes_of(tmp_path / "run") == [("sft", 6, "sft.data", "bytes")]


def test_a_further_domain_is_measured_everywhere(reference, tmp_path, patch):
    folder = tmp_path / "run"
    shutil.copytree(reference, folder)
    both = {"arithmetic": 0.5, "mcqa": 0.5}
    with_weights = {"sft__domains": both, "rl__domains": both}
    more = tree(**with_weights, domains={"arithmetic": {}, "mcqa": {}, "structured": {}})
    go(folder, patch, more)
    rows = Ledger(folder / "ledger.jsonl").read()
    assert {row.stage for row in rows if row.domain == "structured"} == {"sft", "rl"}


def test_changes_merge_only_at_one_place():
    def at(step, old, new):
        return Change("rl", step, "rl.lr", old, new, "bytes")

    assert merged([at(1, 1, 2)], [at(1, 2, 3)]) == [at(1, 1, 3)]
    assert merged([at(1, 1, 2)], [at(1, 2, 1)]) == []
    assert merged([at(1, 1, 2)], [at(3, 2, 1)]) == [at(1, 1, 2), at(3, 2, 1)]
