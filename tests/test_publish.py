"""`linn publish`: cards from the ledger, data with licences, folders and the Hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
)
from support.cli import refused, said
from support.fast_runs import HashEngine, go, tree
from support.hub import FakeHub

from linn import files
from linn.checkpoints import BASES
from linn.data.conversations import conversation
from linn.errors import InfrastructureError, UserError
from linn.ledger import Ledger
from linn.publish.card import escaped
from linn.publish.hub import target_of
from linn.publish.licences import is_open, of_file, of_row
from linn.publish.publish import Order, Publication, public_recipe
from linn.run.export import export_checkpoint, planned_export
from linn.types import Loss

pytestmark = pytest.mark.slow

CARD = "---\nlicense: {}\n---\n# Rows\n"


class Watched(HashEngine):
    """Keeps the sequences that it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[tuple[int, ...]] = []

    def step(self, samples: Any, loss: Loss, lr: float) -> dict[str, float]:
        if loss.kind == "sft":
            self.trained += [tuple(sample.tokens) for sample in samples]
        return super().step(samples, loss, lr)


def finished(folder: Path, monkeypatch: Any, recipe: dict[str, Any] | None = None) -> Watched:
    """A run in a folder, whose checkpoints are then given the weights of a kept base."""
    engine = go(folder, monkeypatch, recipe, open_engine=Watched)
    for checkpoint in folder.glob("stages/*/checkpoints/*"):
        shutil.rmtree(checkpoint)
        shutil.copytree(BASES / "tiny-0", checkpoint)
    assert isinstance(engine, Watched)
    return engine


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(folder, engine) of a run whose every prompt was made by domains."""
    folder = tmp_path_factory.mktemp("runs") / "fast"
    with pytest.MonkeyPatch.context() as patch:
        yield folder, finished(folder, patch)


@pytest.fixture
def hub(monkeypatch: Any) -> Callable[..., FakeHub]:
    def opened(error: tuple[str, Exception] | None = None) -> FakeHub:
        fake = FakeHub(error)
        monkeypatch.setattr(huggingface_hub, "HfApi", fake.api)
        return fake

    return opened


def rows_in(path: Path) -> list[dict[str, Any]]:
    return list(files.json_objects(path))


# ---------------------------------------------------------------- the folder


def test_every_checkpoint_is_a_folder_and_what_was_planned_is_what_is_written(
    run: Any, tmp_path: Path
) -> None:
    folder, _ = run
    planned = Publication(Order(run=folder)).plan()
    out = tmp_path / "out"
    made = Publication(Order(run=folder, folder=out)).go()
    assert planned == made
    assert {path.name for path in (out / "model").iterdir()} == {"main", "sft"}
    for part in made.parts:
        there = out / part.address
        sizes = {str(p.relative_to(there)): p.stat().st_size for p in there.rglob("*.*")}
        assert sizes == part.sizes

    # What an export gives, and the card and recipe beside it.
    export = export_checkpoint(f"{folder}@rl", tmp_path / "export")
    for path in export.iterdir():
        if path.name != "README.md":
            assert (out / "model/main" / path.name).read_bytes() == path.read_bytes()


def test_a_plan_of_shards_and_other_dtypes_has_the_very_sizes(tmp_path: Path) -> None:
    for number, (dtype, size) in enumerate(
        [(None, "500KB"), ("float32", "1MB"), ("float16", "1GB")]
    ):
        place = tmp_path / f"plan-{number}"
        place.mkdir()
        planned = planned_export("tiny", place, dtype, size)
        out = export_checkpoint("tiny", tmp_path / f"out-{number}", dtype, size)
        real = {path.name: path.stat().st_size for path in out.iterdir()}
        assert planned == {name: size for name, size in real.items() if name != "README.md"}


def test_nothing_that_exists_is_replaced_and_the_run_is_left_as_it_was(
    run: Any, tmp_path: Path
) -> None:
    folder, _ = run
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (tmp_path / "mine").write_text("x")
    assert "things in it" in refused("publish", folder, "--out", tmp_path)
    assert "say where" in refused("publish", folder)
    Publication(Order(run=folder, place="sft")).plan()
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


# ---------------------------------------------------------------- the card


def test_the_numbers_on_the_card_are_the_ledgers(run: Any, tmp_path: Path) -> None:
    folder, _ = run
    Publication(Order(run=folder, folder=tmp_path / "out")).go()
    card = ModelCard((tmp_path / "out/model/main/README.md").read_text())
    rows = Ledger(folder / "ledger.jsonl").read()
    own = [row for row in rows if (row.stage, row.step, row.split) == ("rl", 6, "test")]
    assert own and card.data.license == "apache-2.0"
    found = {(r.dataset_type, r.metric_type): r for r in card.data.eval_results}
    assert len(found) == len(own)
    for row in own:
        result = found[row.domain, row.metric]
        assert result.metric_value == round(row.value, 4)
        assert f"{row.low:.4f} to {row.high:.4f}, n {row.n}" in result.metric_name

    # Each stage stands there with what it cost, and each branch.
    assert re.search(r"^\| rl \| sft \| rl \| 6 \| arithmetic, mcqa \|", card.text, re.MULTILINE)
    assert "| sft | sft | 6 | base |" in card.text
    assert "pass" not in card.text.split("## How to run it")[0] or "passed on" in card.text
    stage = ModelCard((tmp_path / "out/model/sft/README.md").read_text())
    assert "rl" not in stage.text.split("## Training data")[1].split("## Limits")[0].split()
    assert "The other checkpoints" not in stage.text


def test_names_of_strangers_are_no_mark_up() -> None:
    raw = "a|b <script> [x](http://y) `rm` *b*\n## c \u202e"
    assert escaped(raw) == (
        "a\\|b \\<script\\> \\[x\\](http://y) \\`rm\\` \\*b\\* \\#\\# c \\<U+202E\\>"
    )


def test_the_published_recipe_tells_nothing_of_the_machine() -> None:
    raw = (
        "model: /home/me/secret/base\n"
        "domains: {~/mine.py: {rows: ../x/rows.jsonl, judge: {model: 'http://10.0.0.7:80/v1#q'}}}\n"
    )
    told = public_recipe(raw)
    assert "secret" not in told and "10.0.0.7" not in told and "/x/" not in told
    assert "model: base" in told and "mine.py" in told and "#q" in told


# ---------------------------------------------------------------- the data


def test_made_data_is_what_was_trained(run: Any, tmp_path: Path) -> None:
    """Rows of demonstrations give the trained tokens again; prompts are those of the rollouts."""
    folder, engine = run
    Publication(Order(run=folder, folder=tmp_path / "out")).go()
    data = tmp_path / "out/data"
    texts = set()
    for path in (data / "sft").iterdir():
        for row in rows_in(path):
            read = conversation(row)
            spans = engine.codec.spans(read.messages, read.tools, read.thinking, True)
            texts.add(tuple(engine.codec.encode_spans(spans)[0]))
    assert texts == set(engine.trained) and len(texts) > 4

    asked: dict[str, set[str]] = {}
    for path in folder.glob("stages/02-rl/rollouts/*.jsonl"):
        for row in rows_in(path):
            asked.setdefault(row["domain"], set()).add(row["prompt_id"])
    for domain, ids in asked.items():
        rows = rows_in(data / f"rl/rl-{domain}.jsonl")
        assert ids <= {row["id"] for row in rows}
        assert all(row["gold"] and row["messages"] for row in rows)


def with_rows(tmp_path: Path, monkeypatch: Any) -> Path:
    """A run whose SFT reads two files and whose RL reads a third, of which licences differ."""
    for name, licence in (("free", "cc-by-4.0"), ("bound", "all rights reserved"), ("mute", "")):
        place = tmp_path / name
        place.mkdir()
        rows = []
        for number in range(20):
            turns = [{"role": "user", "content": f"{name} {number}"}]
            turns.append({"role": "assistant", "content": "yes"})
            rows.append({"messages": turns})
        if name == "mute":
            rows[3]["license"] = "MIT License"
            rows[4]["metadata"] = {"licence": "CC BY-ND 4.0"}
        files.write_jsonl(place / "rows.jsonl", rows)
        if licence:
            (place / "README.md").write_text(CARD.format(licence))
    choices = [
        {
            "responses_create_params": {"input": [{"role": "user", "content": f"q{n}? A: x B: y"}]},
            "options": [{"A": "x"}, {"B": "y"}],
            "expected_answer": "B",
            "grading_mode": "strict_single_letter_boxed",
        }
        for n in range(60)
    ]
    files.write_jsonl(tmp_path / "choices.jsonl", choices)
    (tmp_path / "README.md").write_text(CARD.format("odc-by"))
    recipe = tree(
        sft__data={str(tmp_path / name / "rows.jsonl"): 1.0 for name in ("free", "bound", "mute")},
        domains__mcqa={"rows": str(tmp_path / "choices.jsonl")},
        rl__domains={"mcqa": 1},
    )
    # The files lie beside cards of their own, not of the folder above.
    finished(tmp_path / "run", monkeypatch, recipe)
    return tmp_path / "run"


def test_only_rows_whose_licence_is_known_to_permit_it_are_passed_on_and_the_rest_is_counted(
    tmp_path: Path, monkeypatch: Any
) -> None:
    folder = with_rows(tmp_path, monkeypatch)
    (tmp_path / "README.md").rename(tmp_path / "choices.md")
    made = Publication(Order(run=folder, folder=tmp_path / "out")).go()
    by_path = {passed.source.path: passed for passed in made.passed}
    free, bound, mute = (by_path[f"sft/rows{end}.jsonl"] for end in ("", "-2", "-3"))
    assert (free.rows, free.licences, free.held) == (20, {"cc-by-4.0": 20}, {})
    assert (bound.rows, sum(bound.held.values())) == (0, 20)
    assert "all rights reserved" in next(iter(bound.held))
    assert (mute.rows, mute.licences) == (1, {"MIT License": 1})
    assert mute.held["licence unknown"] == 18 and sum(mute.held.values()) == 19
    assert by_path["rl/mcqa.jsonl"].rows == 0
    assert {
        str(p.relative_to(tmp_path / "out/data")) for p in (tmp_path / "out/data").rglob("*.*")
    } == {
        "README.md",
        "sft/rows.jsonl",
        "sft/rows-3.jsonl",
    }
    card = (tmp_path / "out/data/README.md").read_text()
    assert "| 18 | licence unknown |" in card and "cc-by-4.0" in card


def test_held_out_rows_stay_out_and_a_stated_licence_counts(
    tmp_path: Path, monkeypatch: Any
) -> None:
    folder = with_rows(tmp_path, monkeypatch)
    order = Order(run=folder, folder=tmp_path / "out", data_licences={"mcqa": "ours, ask us"})
    made = Publication(order).go()
    (passed,) = [one for one in made.passed if one.source.path == "rl/mcqa.jsonl"]
    held = passed.held["held out: scores stand on them"]
    assert passed.rows + held == 60 and held > 3 and passed.rows > 30
    measured = set()
    for path in folder.glob("stages/*/evals/*.jsonl"):
        measured |= {row["text"] for row in rows_in(path) if row["domain"] == "mcqa"}
    for row in rows_in(tmp_path / "out/data/rl/mcqa.jsonl"):
        question = row["responses_create_params"]["input"][0]["content"].split("?")[0]
        assert not any(f"{question}?" in text for text in measured)
    with pytest.raises(UserError, match="no data has this name; there are: mcqa, rows.jsonl"):
        Publication(Order(run=folder, data_licences={"math": "mit"}))


def test_files_that_are_gone_or_changed_are_not_passed_on(tmp_path: Path, monkeypatch: Any) -> None:
    folder = with_rows(tmp_path, monkeypatch)
    (tmp_path / "mute/rows.jsonl").unlink()
    with (tmp_path / "choices.jsonl").open("a") as file:
        file.write("{}\n")
    made = Publication(Order(run=folder)).plan()
    held = {passed.source.path: " ".join(passed.held) for passed in made.passed}
    assert held["sft/rows-3.jsonl"] == "the file is not here any more"
    assert held["rl/mcqa.jsonl"] == "the file has changed since the run"


@pytest.mark.parametrize(
    ("name", "permits"),
    [
        ("apache-2.0", True),
        ("Apache License 2.0", True),
        ("MIT", True),
        ("MIT OR Apache-2.0", True),
        ("CC BY 4.0", True),
        ("cc-by-nc-sa-4.0", True),
        ("CC0-1.0", True),
        ("ODC-By", True),
        ("BSD-3-Clause", True),
        ("GPL-3.0-or-later", True),
        ("cc-by-nd-4.0", False),
        ("cc-by-nc-nd-4.0", False),
        ("other", False),
        ("proprietary", False),
        ("unknown", False),
        ("mitigated", False),
        ("MIT AND proprietary", False),
        ("llama3.2", False),
        ("", False),
    ],
)
def test_licences_by_name(name: str, permits: bool) -> None:
    assert is_open(name) == permits


def test_where_licences_are_read(tmp_path: Path) -> None:
    assert of_row({"license": ["mit", "cc-by-4.0"]}) == "mit, cc-by-4.0"
    assert of_row({"metadata": {"licence": "MIT"}, "license": " "}) == "MIT"
    assert of_row({"license": 4, "metadata": "x"}) is None
    rows = tmp_path / "data" / "a" / "rows.jsonl"
    assert of_file(str(rows)) is None
    for head in ("license: [1", "- mit", "license:", "no head"):
        (tmp_path / "README.md").write_text(f"---\n{head}\n---\n")
        assert of_file(str(tmp_path / "rows.jsonl")) is None, head
    (tmp_path / "README.md").write_text(CARD.format("other\nlicense_name: ours\nlicense_link: L"))
    found = of_file(str(tmp_path / "rows.jsonl"))
    assert found is not None and (found.name, found.label, found.permits) == (
        "other",
        "ours",
        False,
    )


# ---------------------------------------------------------------- the Hub


def test_the_hub_gets_the_data_every_branch_and_main_last(run: Any, hub: Any) -> None:
    folder, _ = run
    fake = hub()
    target = target_of("hf://me/small")
    fake.repositories["model", "me/small"] = {
        "main": {"model-00001-of-00002.safetensors": b"old", "picture.png": b"mine"}
    }
    before = set(folder.rglob("*"))
    Publication(Order(run=folder, target=target)).go()
    assert set(folder.rglob("*")) == before, "the room for parts is taken away again"
    models = fake.repositories["model", "me/small"]
    data = fake.repositories["dataset", "me/small-data"]["main"]
    assert set(models) == {"main", "sft"}
    # A shard of before would be read; a picture is somebody's.
    assert "model-00001-of-00002.safetensors" not in models["main"]
    assert models["main"]["picture.png"] == b"mine"
    assert {"model.safetensors", "README.md", "recipe.yaml"} <= set(models["sft"])
    card = ModelCard(models["main"]["README.md"].decode())
    assert card.data.datasets == ["me/small-data"]
    assert 'name = "me/small"' in card.text and "me/small-data" in card.text
    assert 'revision="sft"' in models["sft"]["README.md"].decode()
    assert any(name.startswith("sft/") for name in data) and b"apache-2.0" in data["README.md"]
    order = [
        call.get("revision") or call["repo_type"] for name, call in fake.calls if "upload" in name
    ]
    assert order == ["dataset", "sft", "main"]

    # Once more: the same content, nothing refused.
    again = {name: dict(files) for name, files in models.items()}
    Publication(Order(run=folder, target=target)).go()
    assert again == models


def test_a_dry_run_lists_files_and_sizes_and_asks_nobody(run: Any, hub: Any) -> None:
    folder, _ = run
    fake = hub()
    code, out, err = said("publish", folder, "--to", "hf://me/small", "--dry-run")
    assert (code, err, fake.calls) == (0, "", [])
    assert "hf://datasets/me/small-data: training data" in out
    assert "hf://me/small@sft: sft, step 6" in out and "hf://me/small: rl, step 6" in out
    assert re.search(r"2\.4 MB  model\.safetensors", out)
    assert re.search(r"would be published: \d+ files, \d", out)


def test_one_checkpoint_goes_to_main_with_its_own_data(run: Any, hub: Any) -> None:
    folder, _ = run
    fake = hub()
    code, out, _ = said("publish", f"{folder}@sft", "--to", "hf://me/one", "--private")
    assert code == 0, out
    assert set(fake.repositories["model", "me/one"]) == {"main"}
    data = fake.repositories["dataset", "me/one-data"]["main"]
    assert not any(name.startswith("rl/") for name in data)
    assert all(call["private"] for name, call in fake.calls if name == "create_repo")


def response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("POST", "http://hub"))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (("create_repo", LocalTokenNotFoundError("no token")), UserError, "hf auth login"),
        (
            ("create_repo", HfHubHTTPError("Forbidden", response=response(403))),
            UserError,
            "hf auth login",
        ),
        (
            ("upload_folder", HfHubHTTPError("Bad gateway", response=response(502))),
            InfrastructureError,
            "the same command goes on",
        ),
        (("upload_folder", httpx.ConnectError("no route")), InfrastructureError, "no route"),
        (("create_branch", OSError("gone")), InfrastructureError, "the branch sft"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    run: Any, hub: Any, error: tuple[str, Exception], kind: type[Exception], words: str
) -> None:
    folder, _ = run
    hub(error)
    before = set(folder.rglob("*"))
    order = Order(run=folder, target=target_of("hf://me/small"))
    with pytest.raises(kind, match=words) as caught:
        Publication(order).go()
    assert "\n" not in str(caught.value)
    assert set(folder.rglob("*")) == before


def test_wrong_names_are_refused_before_any_work(run: Any, hub: Any, tmp_path: Path) -> None:
    folder, _ = run
    fake = hub()
    for name in ("me/small", "hf://me", "hf://me/a/b", "hf://datasets/me/a", "hf://me/a--b"):
        assert "--to" in refused("publish", folder, "--to", name, "--dry-run"), name
    assert "did you mean 'sft'" in refused("publish", f"{folder}@sfx", "--dry-run")
    assert "no step" in refused("publish", f"{folder}@sft:x", "--dry-run")
    assert "holds none at step 3" in refused("publish", f"{folder}@sft:3", "--to", "hf://me/x")
    assert "--dtype" in refused("publish", folder, "--to", "hf://me/x", "--dtype", "int8")
    given = ("--no-data", "--data-licence", "mcqa=mit")
    assert "leave one of them out" in refused("publish", folder, "--dry-run", *given)
    assert "no run there" in refused("publish", tmp_path, "--dry-run")
    assert "DATA=NAME" in refused("publish", folder, "--dry-run", "--data-licence", "mit")
    assert not fake.calls


def test_a_folder_with_an_at_sign_is_a_run(tmp_path: Path, monkeypatch: Any) -> None:
    finished(tmp_path / "me@home", monkeypatch)
    code, _, err = said("publish", tmp_path / "me@home", "--dry-run", "--no-data")
    assert code == 0, err
    assert said("publish", f"{tmp_path}/me@home@sft", "--dry-run", "--no-data")[0] == 0


def test_files_of_the_hub_that_are_not_to_be_had_are_held_back(
    tmp_path: Path, monkeypatch: Any
) -> None:
    folder = tmp_path / "run"
    finished(folder, monkeypatch)
    recipe = (folder / "recipe.yaml").read_text()

    def nothing(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", nothing)
    name = "hf://datasets/me/rows/a.jsonl"
    (folder / "recipe.yaml").write_text(recipe.replace("data: null", f"data: {name}"))
    made = Publication(Order(run=folder)).plan()
    assert made.passed[0].rows == 0
    assert "neither in the local cache" in " ".join(made.passed[0].held)


def test_weights_of_an_unknown_licence_are_not_uploaded_until_it_is_stated(
    tmp_path: Path, monkeypatch: Any, hub: Any
) -> None:
    base = tmp_path / "base"
    shutil.copytree(BASES / "tiny-0", base)
    finished(tmp_path / "run", monkeypatch, tree(model=str(base)))
    fake = hub()
    line = refused("publish", tmp_path / "run", "--to", "hf://me/small")
    assert "--licence NAME" in line and not fake.calls
    code, _, err = said("publish", tmp_path / "run", "--dry-run")
    assert code == 0 and "licence of the weights is not known" in err

    (base / "README.md").write_text(CARD.format("mit"))
    assert said("publish", tmp_path / "run", "--to", "hf://me/small", "--no-data")[0] == 0
    card = ModelCard(fake.repositories["model", "me/small"]["main"]["README.md"].decode())
    assert card.data.license == "mit" and "base" in card.text and str(tmp_path) not in card.text
    assert ("dataset", "me/small-data") not in fake.repositories


def test_a_run_under_way_publishes_what_is_done(tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "run"
    finished(folder, monkeypatch)
    (folder / "stages/02-rl/DONE").unlink()
    made = Publication(Order(run=folder)).plan()
    assert [part.what for part in made.parts if part.address == "model/main"] == ["sft, step 6"]
    assert made.left_out == ("rl: not finished",)
    shutil.rmtree(folder / "stages/01-sft/checkpoints")
    with pytest.raises(UserError, match="no stage has a checkpoint"):
        Publication(Order(run=folder))
