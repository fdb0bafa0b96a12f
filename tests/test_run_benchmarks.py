"""Benchmarks of a recipe: columns of the ledger, with the resume promises of everything else."""

import json
from pathlib import Path

import pytest
from support import fast_runs
from support.cli import said
from support.fast_runs import go, results
from test_benchmarks import wrote

from linn.errors import UserError
from linn.evals.benchmarks import kept
from linn.evals.benchmarks.once import Asked
from linn.evals.benchmarks.overlap import training_files
from linn.ledger import Ledger
from linn.recipe import load as recipes

pytestmark = pytest.mark.slow


class Stopped(BaseException):
    """Stands for SIGKILL between two batches."""


def tree(folder: Path, **use):
    wrote(
        folder,
        rows={"file": str(rows_of(folder)), "full": 6},
        domain="longctx",
        prompt="{problem}",
        fields={"expected_answer": "answer"},
        majority=False,
    )
    block = {"benchmarks": {str(folder / "sums.yaml"): {"k": 2, "max_tokens": 8, **use}}}
    evaluate = {**fast_runs.RECIPE["evaluate"], **block, "at_once": 4, "start": True}
    return fast_runs.tree(evaluate=evaluate)


def rows_of(folder: Path) -> Path:
    """Answers that the engine of fast runs gives by chance: 0, 1 or 2."""
    file = folder / "asked.jsonl"
    asked = [{"id": f"q{i}", "problem": f"{i} mod 3?", "answer": str(i % 3)} for i in range(6)]
    file.write_text("".join(json.dumps(row) + "\n" for row in asked))
    return file


def test_they_become_columns_of_the_ledger_and_of_the_report(tmp_path, monkeypatch):
    go(tmp_path / "run", monkeypatch, tree(tmp_path))
    scores = [row for row in Ledger(tmp_path / "run/ledger.jsonl").read() if row.domain == "sums"]
    assert [(row.stage, row.metric, row.split, row.n) for row in scores] == [
        ("base", "avg@2", "test", 6),
        ("sft", "avg@2", "test", 6),
        ("rl", "avg@2", "test", 6),
    ]
    assert len({row.value for row in scores}) > 1 and all(0 < row.value < 1 for row in scores)
    whole = json.loads((tmp_path / "run/stages/02-rl/evals/benchmarks.json").read_text())
    assert whole[0]["passed"]["value"] >= whole[0]["avg"]["value"] == scores[-1].value

    code, out, err = said("ls", tmp_path / "run")
    assert code == 0 and "benchmarks, avg@2" in out, err
    assert said("report", tmp_path / "run")[0] == 0
    assert "Benchmarks, avg@2" in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize("batch", [1, 4])
def test_killed_while_it_measures_it_ends_with_the_same_bytes(tmp_path, monkeypatch, batch):
    recipe = tree(tmp_path)
    go(tmp_path / "whole", monkeypatch, recipe)
    add, calls = kept.Kept.add, 0

    def killed(self, records):
        nonlocal calls
        calls += 1
        if calls == batch + 1:
            raise Stopped
        add(self, records)

    monkeypatch.setattr(kept.Kept, "add", killed)
    with pytest.raises(Stopped):
        go(tmp_path / "resumed", monkeypatch, recipe)
    go(tmp_path / "resumed", monkeypatch, recipe)
    assert results(tmp_path / "resumed") == results(tmp_path / "whole")
    for path in (tmp_path / "whole").rglob("benchmarks/**/*.json*"):
        other = tmp_path / "resumed" / path.relative_to(tmp_path / "whole")
        assert other.read_bytes() == path.read_bytes(), path


def test_the_training_files_are_those_of_the_runs_own_record(tmp_path, monkeypatch):
    train, held = tmp_path / "train.jsonl", tmp_path / "held.jsonl"
    row = {"question": "What is 1 + 1?", "answer": "2"}
    for file in (train, held):
        file.write_text("".join(json.dumps({**row, "uuid": str(i)}) + "\n" for i in range(40)))
    recipe = fast_runs.tree()
    recipe["domains"]["math"] = {"rows": str(train), "test": str(held)}
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipes.resolved(recipes.parse(recipe, "t")))
    assert training_files(folder) == [str(train)]
    monkeypatch.chdir(tmp_path)
    assert Asked(model="run@sft", uses={}).run == Path("run")
    assert Asked(model=str(train), uses={}).run is None


def test_another_protocol_measures_finished_stages_anew(tmp_path, monkeypatch):
    go(tmp_path / "run", monkeypatch, tree(tmp_path))
    go(tmp_path / "run", monkeypatch, tree(tmp_path, k=3))
    metrics = {row.metric for row in Ledger(tmp_path / "run/ledger.jsonl").read()}
    assert "avg@3" in metrics
    changes = json.loads((tmp_path / "run/run.json").read_text())["changes"]
    assert [change["promise"] for change in changes] == ["scores"]


def test_a_benchmark_that_cannot_be_measured_is_refused_at_the_start(tmp_path, monkeypatch):
    recipe = tree(tmp_path)
    recipe["evaluate"]["benchmarks"] = ["aime26"]
    with pytest.raises(UserError, match="its rows are not here"):
        go(tmp_path / "run", monkeypatch, recipe)
    recipe["evaluate"]["benchmarks"] = {"hle": {"rows": str(tmp_path / "asked.jsonl")}}
    with pytest.raises(UserError, match="hle"):
        go(tmp_path / "run", monkeypatch, recipe)
    assert not (tmp_path / "run/ledger.jsonl").exists()
