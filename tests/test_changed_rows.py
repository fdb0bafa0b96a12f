"""Rows that change under their name in the middle of a run: noticed, and taken where asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.fast_runs import changes_of, go, results, tree

from linn.errors import UserError
from linn.run import data_files
from linn.run.data_files import mark_of

pytestmark = pytest.mark.slow


def write(path: Path, count: int, first: int = 0) -> Path:
    """Rows of sums; `first`: of which numbers."""
    rows = []
    for i in range(first, first + count):
        rows.append({"problem": f"What is {i} plus 1?", "answer": str(i + 1), "uuid": f"u{i}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(tmp_path: Path, **domain: str) -> dict[str, Any]:
    return {**tree(), "domains": {"math": {"rows": str(tmp_path / "rows.jsonl"), **domain}}}


def scores(folder: Path) -> list[tuple[str, str, int]]:
    rows = map(json.loads, (folder / "ledger.jsonl").read_text().splitlines())
    return [(row["stage"], row["metric"], row["n"]) for row in rows if row["split"] == "test"]


@pytest.mark.parametrize("changed", ["rows", "test", "validation"])
def test_rows_that_changed_in_the_middle_are_refused_by_name(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.jsonl", 60)
    files = {"test": write(tmp_path / "t.jsonl", 4, 900), "validation": tmp_path / "v.jsonl"}
    write(files["validation"], 3, 800)
    asks = recipe(tmp_path, **{key: str(file) for key, file in files.items()})
    run = tmp_path / "run"
    go(run, monkeypatch, asks, kill_at=4)

    file = files.get(changed, tmp_path / "rows.jsonl")
    before = file.read_bytes()
    write(file, 50, 500)
    for _ in range(2):
        with pytest.raises(UserError, match=rf"domains.math.{changed}: .* → .*(?s:.*)--from-here"):
            go(run, monkeypatch, asks)
    # Put back, it is as if nothing had been.
    file.write_bytes(before)
    go(run, monkeypatch, asks)
    whole = tmp_path / "whole"
    go(whole, monkeypatch, asks)
    assert results(run) == results(whole) and changes_of(run) == []

    # What is finished reads no rows any more.
    write(file, 50, 500)
    go(run, monkeypatch, asks)
    assert changes_of(run) == []


def test_other_rows_are_taken_where_that_is_asked_for_and_all_is_measured_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.jsonl", 60)
    asks = recipe(tmp_path, test=str(write(tmp_path / "t.jsonl", 2, 900)))
    run = tmp_path / "run"
    go(run, monkeypatch, asks, kill_at=9)
    assert {n for _, _, n in scores(run)} == {2}
    write(tmp_path / "t.jsonl", 3, 700)
    write(tmp_path / "rows.jsonl", 20, 300)  # shorter than where the stage stands in it
    go(run, monkeypatch, asks, from_here=True)
    assert {stage for stage, _, _ in scores(run)} == {"sft", "rl"}
    assert {n for _, _, n in scores(run)} == {3}, "the finished stage is measured anew"
    changes = json.loads((run / "run.json").read_text())["changes"]
    told = [(change["stage"], change["key"], change["promise"]) for change in changes]
    assert told == [
        ("rl", "domains.math.rows", "changed from step 3"),
        ("rl", "domains.math.test", "changed from step 3"),
    ]
    go(run, monkeypatch, asks)
    assert len(changes_of(run)) == 2


def test_a_redo_of_everything_takes_the_rows_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.jsonl", 60)
    asks = recipe(tmp_path)
    go(tmp_path / "run", monkeypatch, asks, kill_at=9)
    write(tmp_path / "rows.jsonl", 70)
    with pytest.raises(UserError, match=r"domains.math.rows"):
        go(tmp_path / "run", monkeypatch, asks, redo="rl")
    go(tmp_path / "run", monkeypatch, asks, redo="base")
    go(tmp_path / "new", monkeypatch, asks)
    assert results(tmp_path / "run") == results(tmp_path / "new")


def test_the_data_of_a_finished_stage_may_go_and_that_of_one_under_way_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    data = tmp_path / "sft.jsonl"
    data.write_text((json.dumps({"messages": turns}) + "\n") * 20)
    asks = tree(sft__data=str(data))
    asks["stages"][0].pop("domains", None)
    for kill_at, refused in ((4, True), (9, False)):
        data.write_text((json.dumps({"messages": turns}) + "\n") * 20)
        run = tmp_path / f"run{kill_at}"
        go(run, monkeypatch, asks, kill_at=kill_at)
        data.write_text((json.dumps({"messages": turns}) + "\n") * 30)
        if refused:
            with pytest.raises(UserError, match=r"sft.data:sft.jsonl: 1,\d+ bytes"):
                go(run, monkeypatch, asks)
        else:
            go(run, monkeypatch, asks)
            assert changes_of(run) == []


def test_a_large_file_is_known_by_its_size_and_three_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_files, "_WHOLE", 100)
    monkeypatch.setattr(data_files, "_PIECE", 10)
    file = tmp_path / "large"
    marks = set()
    for place in (None, 0, 500, 999):
        content = bytearray(1000)
        if place is not None:
            content[place] = 1
        file.write_bytes(content)
        marks.add(mark_of(file))
    file.write_bytes(bytes(1001))
    assert len({*marks, mark_of(file)}) == 5
