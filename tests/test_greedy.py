"""`evaluate.greedy`: which stages are measured at temperature 0, and what reads their scores."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from support.cli import said
from support.fast_runs import changes_of, go, results, tree
from support.run_folder import make_run

from linn.checkpoints import BASES
from linn.errors import UserError
from linn.ledger import Ledger
from linn.pricing.plan import plan
from linn.publish.publish import Order, Publication
from linn.recipe import load as recipes
from linn.recipe.schema import Recipe
from linn.report.files import read_run
from linn.report.page import build
from linn.report.summary import greedy_moves
from linn.report.tables import recovery, table
from linn.report.terminal import print_tables
from linn.types import Score

TINY = Path(__file__).parent.parent / "recipes/tiny.yaml"


def recipe_of(**changes: Any) -> Recipe:
    return recipes.parse(tree(**changes), "r")


def greedy_stages(folder: Path) -> set[str]:
    return {row.stage for row in Ledger(folder / "ledger.jsonl").read() if row.metric == "greedy"}


def rows_of(folder: Path) -> list[Score]:
    """The ledger, whatever the order in which its rows came."""
    rows = Ledger(folder / "ledger.jsonl").read()
    return sorted(rows, key=lambda row: (row.stage, row.step, row.domain, row.split, row.metric))


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


@pytest.fixture(scope="module")
def only_sft(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    """A run of two stages, of which the first alone is greedy."""
    folder = tmp_path_factory.mktemp("greedy") / "run"
    go(folder, patch, tree(evaluate__greedy=["sft"]))
    return folder


# ---------------------------------------------------------------- the key


@pytest.mark.parametrize(
    ("given", "measured"),
    [
        (True, ["sft", "rl"]),
        (False, []),
        ([], []),
        (["rl"], ["rl"]),
        (["rl", "sft", "rl"], ["sft", "rl"]),
    ],
)
def test_values_and_what_they_cost(given: Any, measured: list[str]) -> None:
    recipe = recipe_of(evaluate__greedy=given)
    counts = {name: recipe.conversations_after(name) for name in recipe.stage_names()}
    assert counts == {"base": 0} | {n: 7 + 4 * (n in measured) for n in ("sft", "rl")}
    again = recipes.parse(recipe.model_dump(mode="json", by_alias=True), "r")
    assert again.evaluate.greedy == given


@pytest.mark.parametrize("given", [3, 1, None, "sft", {"sft": True}, ["sfx"], ["best"], [["sft"]]])
def test_what_is_no_stage_is_refused_in_a_line_that_lists_them(given: Any) -> None:
    with pytest.raises(UserError, match=r"r: evaluate\.greedy: .*list of sft, rl$") as refused:
        recipe_of(evaluate__greedy=given)
    assert "\n" not in str(refused.value)


def test_what_is_not_measured_cannot_be_greedy() -> None:
    with pytest.raises(UserError, match="'base' is not measured; say evaluate.start: true"):
        recipe_of(evaluate__greedy=["base"])
    assert recipe_of(evaluate__greedy=["base"], evaluate__start=True).conversations_after("base")
    with pytest.raises(UserError, match="'rl' is not measured; take its evaluate: false away"):
        recipe_of(evaluate__greedy=["rl"], rl__evaluate=False)


def test_the_demo_holds_15000_of_70000_conversations_less() -> None:
    def conversations(*changes: str) -> int:
        recipe = recipes.load(TINY, changes)
        return len(recipe.domains) * sum(map(recipe.conversations_after, recipe.stage_names()))

    assert conversations("evaluate.greedy=true") == 70_000
    assert conversations() == 55_000
    words = " ".join(plan(recipes.load(TINY), Path("nowhere")).split())
    assert words.endswith(
        "after every stage: 4,000 held-out conversations over 10 domains; 3,000 greedy ones more "
        "after sft, if-rl, multi-domain, rlhf-teacher, mopd"
    )


# ---------------------------------------------------------------- a run


def test_a_stage_that_is_not_named_is_sampled_alone(only_sft: Path, capsys: Any) -> None:
    kinds = {(row.stage, row.split, row.metric) for row in Ledger(only_sft / "ledger.jsonl").read()}
    sampled = {(s, split, "accuracy") for s in ("sft", "rl") for split in ("test", "validation")}
    assert kinds == sampled | {("sft", "test", "greedy")}
    assert not (only_sft / "stages/02-rl/evals/test-greedy.jsonl").exists()

    print_tables(only_sft)
    shown = capsys.readouterr().out
    greedy = shown[shown.index("test split, greedy") :]
    assert re.search(r"\n *rl +– +– *\n", greedy)
    assert "– not measured at temperature 0: rl" in greedy
    assert max(map(len, shown.splitlines())) <= 80

    page = build(only_sft).read_text()
    assert "Not measured so (–): rl." in page
    greedy_rows = page[page.index("<h3>Greedy</h3>") :].split("</table>")[0]
    assert greedy_rows.count('<td class="soft">–</td>') == 2
    assert "prompts of test-accuracy, against sft" in page, "transcripts are of what both have"


def test_without_any_greedy_scores_there_is_no_greedy_table(
    tmp_path: Path, patch: Any, capsys: Any
) -> None:
    go(tmp_path, patch, tree(evaluate__greedy=False))
    assert greedy_stages(tmp_path) == set()
    print_tables(tmp_path)
    shown = capsys.readouterr().out
    assert "sampled" in shown and "greedy" not in shown and "temperature 0" not in shown
    assert "Greedy" not in build(tmp_path).read_text()


def test_a_stage_that_joins_the_list_is_measured_anew_and_no_other(
    only_sft: Path, tmp_path: Path, patch: Any, capsys: Any
) -> None:
    folder, whole = tmp_path / "run", tmp_path / "whole"
    shutil.copytree(only_sft, folder)
    go(folder, patch, tree(evaluate__greedy=["sft", "rl"]))
    assert "to be measured anew: rl\n" in capsys.readouterr().err
    assert changes_of(folder) == [("rl", 6, "evaluate.greedy", "scores")]
    go(whole, patch)
    assert results(folder) == results(whole) and rows_of(folder) == rows_of(whole)

    # The same in other words is no change.
    for same in (["rl", "sft"], True):
        go(folder, patch, tree(evaluate__greedy=same))
    assert capsys.readouterr().err.count("measured anew") == 0
    assert len(changes_of(folder)) == 1


def test_a_killed_run_goes_on_with_a_longer_list(
    only_sft: Path, tmp_path: Path, patch: Any, capsys: Any
) -> None:
    folder = tmp_path / "run"
    go(folder, patch, tree(evaluate__greedy=False), kill_at=9)
    go(folder, patch, tree(evaluate__greedy=["sft"]))
    assert "to be measured anew: sft\n" in capsys.readouterr().err
    assert changes_of(folder) == [("rl", 2, "evaluate.greedy", "scores")]
    assert results(folder) == results(only_sft) and rows_of(folder) == rows_of(only_sft)
    # A further stage is the list's business alone.
    more = tree(evaluate__greedy=["sft", "more"])
    more["stages"].append({**more["stages"][0], "name": "more", "steps": 1})
    go(folder, patch, more)
    assert greedy_stages(folder) == {"sft", "more"} and len(changes_of(folder)) == 1


def test_a_stage_that_leaves_the_list_keeps_its_scores_until_it_is_measured_anew(
    tmp_path: Path, patch: Any, capsys: Any
) -> None:
    """Greedy scores of other prompts than the sampled ones beside them would mislead."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    go(folder, patch, tree(evaluate__pass_at=2))
    go(folder, patch, tree(evaluate__pass_at=2, evaluate__greedy=["sft"]))
    said = capsys.readouterr().err
    assert "measured anew" not in said and "no longer names keep the scores" in said
    assert greedy_stages(folder) == {"sft", "rl"}

    larger = tree(evaluate__test=9, evaluate__greedy=["sft"])
    go(folder, patch, larger)
    assert "rl:6 greedy, pass@2: no longer measured" in capsys.readouterr().err
    go(whole, patch, larger)
    assert results(folder) == results(whole) and rows_of(folder) == rows_of(whole)


def test_one_checkpoint_by_itself_is_measured_both_ways(patch: Any, tmp_path: Path) -> None:
    from linn.domains.load import load_all
    from linn.evals.evaluate import Evaluation

    for greedy, expected in ((["sft"], True), (True, True), (False, False)):
        config = recipe_of(evaluate__greedy=greedy).evaluate
        evaluation = Evaluation(load_all({"mcqa": {}}), config)
        assert ("greedy" in {probe.metric for probe in evaluation.whole}) == expected


# ---------------------------------------------------------------- what reads greedy scores


def without_greedy(folder: Path, *stages: str) -> Path:
    """The run as if these stages had been sampled alone."""
    ledger = Ledger(folder / "ledger.jsonl")
    rows = ledger.read()
    ledger.drop(row.stage for row in rows)
    ledger.upsert(row for row in rows if row.stage not in stages or row.metric != "greedy")
    for stage in stages:
        for path in folder.glob(f"stages/*-{stage}/evals/test-greedy.jsonl"):
            path.unlink()
    return folder


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", steps=4, prompts=30)


def test_a_recovery_is_told_greedily_whole_or_not_at_all(
    made_up: Path, tmp_path: Path, capsys: Any
) -> None:
    """Over the domains whose teacher happens to be measured it would be another number."""
    teachers = {s.name: s.teachers for s in read_run(made_up).stages}["mopd"]
    one = teachers["preference"]
    assert len(set(teachers.values())) > 1

    folder = without_greedy(Path(shutil.copytree(made_up, tmp_path / "run")), one)
    whole, part = read_run(made_up), read_run(folder)

    def shares(run: Any, metric: str) -> Any:
        return recovery(run.scores, "multi-domain", "mopd", teachers, metric=metric)

    assert shares(whole, "greedy") is not None and shares(part, "greedy") is None
    assert shares(part, "accuracy") == shares(whole, "accuracy")

    print_tables(folder)
    shown = capsys.readouterr().out
    assert "mopd: of the gap to the teacher, test split, accuracy" in shown
    assert "mopd: of the gap to the teacher, test split, greedy" not in shown
    said_so = "mopd, greedy: no share of the gap, since not all of it was measured so: " + one
    assert said_so in " ".join(shown.split())
    assert re.search(r"mopd closed \d+ % of the gap", unescape(build(folder).read_text()))


def test_the_report_takes_stages_without_greedy_scores(
    made_up: Path, tmp_path: Path, capsys: Any
) -> None:
    late = ("rlhf", "long-context", "code", "swe-agentic")
    folder = without_greedy(Path(shutil.copytree(made_up, tmp_path / "run")), *late)
    run = read_run(folder)
    greedy = table(run.scores, run.parents, metric="greedy", rewards=run.rewards)
    assert greedy.unmeasured == list(late) and len(greedy.rows) == len(run.parents)
    assert {change.stage for change in greedy.changes}.isdisjoint(late)
    (sentence,) = greedy_moves(run, greedy)
    assert sentence.startswith("At temperature 0, measured after 6 of 10 stages, the largest")

    print_tables(folder)
    shown = capsys.readouterr().out
    tables = shown[: shown.index("teacher  ☆")]
    assert max(map(len, tables.splitlines())) <= 80
    page = build(folder).read_text()
    assert "of test-accuracy" not in page, "this run keeps greedy replies alone"
    ids = set(re.findall(r' id="([\w-]+)"', page))
    assert set(re.findall(r'href="#([\w-]+)"', page)) <= ids


@pytest.mark.slow
def test_a_card_says_which_stages_were_sampled_alone(only_sft: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(only_sft, folder)
    for checkpoint in folder.glob("stages/*/checkpoints/*"):
        shutil.rmtree(checkpoint)
        shutil.copytree(BASES / "tiny-0", checkpoint)

    def cards(out: Path, place: str = "") -> dict[str, str]:
        Publication(Order(run=folder, place=place, folder=out)).go()
        return {p.parent.name: p.read_text() for p in (out / "model").glob("*/README.md")}

    some = cards(tmp_path / "some")
    assert "Not measured at temperature 0, so sampled changes alone: rl." in some["main"]
    assert "| greedy |" not in some["main"] and "| greedy |" in some["sft"]
    assert "Not measured at temperature 0" not in some["sft"]
    without_greedy(folder, "sft")
    none = cards(tmp_path / "none", place="rl")
    assert "temperature 0" not in none["main"].split("## Training data")[0]


def test_the_ledgers_rows_are_printed_by_ls(only_sft: Path) -> None:
    code, out, _ = said("ls", only_sft)
    assert code == 0 and "– not measured at temperature 0: rl" in out
