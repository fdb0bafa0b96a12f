"""bench/seeds.py: what several runs share, with ranges, and what only some show."""

import json
import shutil
from dataclasses import asdict

import pytest
from support.run_folder import make_run

from bench import seeds
from linn.errors import UserError
from linn.ledger import Ledger
from linn.report.files import read_run
from linn.report.tables import table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("seeds")
    return [make_run(home / f"run-{seed}", prompts=24, seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def summary(folders):
    return seeds.summary_of(seeds.read_runs(folders))


def test_a_cell_has_the_mean_and_the_range_of_the_runs_own_tables(folders, summary):
    assert summary.runs == ("seed 0", "seed 1", "seed 2")
    tables = []
    for folder in folders:
        run = read_run(folder)
        tables.append(table(run.scores, run.parents, rewards=run.rewards))
    for cell in summary.cells["accuracy"]:
        own = []
        for one in tables:
            own += [c for s, c in one.cells if (s, c.score.domain) == (cell.stage, cell.domain)]
        values = [c.score.value for c in own]
        assert cell.values == tuple(values)
        assert cell.mean == pytest.approx(sum(values) / 3)
        assert (cell.gained, cell.lost) == (sum(c.gained for c in own), sum(c.lost for c in own))


def test_losses_and_recoveries_name_their_runs_and_claims_are_asked_of_each(summary):
    assert summary.losses and all(loss["runs"] == list(loss["lines"]) for loss in summary.losses)
    counts = [len(loss["runs"]) for loss in summary.losses if loss["metric"] == "accuracy"]
    assert counts == sorted(counts, reverse=True)
    assert {entry["run"] for entry in summary.recoveries} == set(summary.runs)
    assert all(list(claim["seen"]) == list(summary.runs) for claim in summary.claims)
    small = [claim for claim in summary.claims if "n >= 300" in str(claim["seen"])]
    assert small and not small[0]["holds"], "24 prompts are too few for the claim"


def test_terminal_markdown_and_json_say_the_same(summary, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    seeds.print_terminal(summary)
    printed, document = capsys.readouterr().out, seeds.markdown(summary)
    for cell in summary.cells["accuracy"]:
        assert cell.text(3) in document
        assert cell.span in printed
    assert json.loads(json.dumps(asdict(summary)))["runs"] == list(summary.runs)


def test_a_cell_that_some_runs_lack_says_so(folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders[0], copy)
    path = copy / "ledger.jsonl"
    rows = [row for row in Ledger(path).read() if row.stage != "mopd"]
    path.unlink()
    Ledger(path).upsert(rows)
    found = seeds.summary_of(seeds.read_runs([copy, folders[1]]))
    texts = {cell.text(2) for cell in found.cells["accuracy"] if cell.stage == "mopd"}
    assert texts and all("in 1 of 2" in text for text in texts)


def test_runs_of_other_stages_are_refused(folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders[0], copy)
    about = json.loads((copy / "run.json").read_text())
    about["stages"][-1]["name"] = "other"
    (copy / "run.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="not runs of one recipe"):
        seeds.read_runs([folders[1], copy])
