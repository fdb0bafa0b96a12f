"""Test and validation prompts: shares of a domain's rows, or files of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from linn.data.rows import write_rows
from linn.domains.base import Domain, content_key
from linn.domains.load import load
from linn.domains.splits import Draw, Splits, split_of
from linn.errors import UserError
from linn.evals.evaluate import Evaluation
from linn.evals.once import on_files
from linn.offline.decontaminate import Against, decontaminate
from linn.recipe import load as recipes
from linn.recipe.schema import EvaluateConfig
from linn.types import Message, Prompt

SPLITS = ("train", "validation", "test")


def problem(i: int, words: str = "What is the sum of") -> dict[str, Any]:
    return {"problem": f"{words} {i} and {i}?", "answer": str(2 * i), "uuid": f"u{i}"}


def math(tmp_path: Path, **options: Any) -> Domain:
    return load("math", {"rows": str(tmp_path / "rows.jsonl"), **options})


def ids(domain: Domain, split: str) -> list[str]:
    return [prompt.id for prompt in domain.prompts(split)]  # type: ignore[arg-type]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    write_rows(tmp_path / "rows.jsonl", map(problem, range(300)))
    return tmp_path / "rows.jsonl"


def test_a_test_file_is_measured_whole_and_in_order_and_never_trained_on(
    tmp_path: Path, rows: Path
) -> None:
    # Every second row of the file also stands among the training rows, and one stands there twice.
    held = [problem(i) for i in range(20, 60, 2)] + [problem(1000 + i) for i in range(20)]
    write_rows(tmp_path / "test.jsonl", [*held, held[0]])
    domain = math(tmp_path, test=str(tmp_path / "test.jsonl"))
    expected = [row["uuid"] for row in held]
    assert ids(domain, "test")[:-1] == expected and len(set(ids(domain, "test"))) == 41
    assert ids(domain, "test") == ids(domain, "test")
    train, validation = set(ids(domain, "train")), set(ids(domain, "validation"))
    assert not (train | validation) & set(expected) and not train & validation
    assert len(train | validation) == 300 - 20
    assert 15 < len(validation) < 45, "a tenth of the rows, as ever"
    text = "also in the test or validation file, and not trained"
    assert domain.tally.others == {text: 20} and domain.tally.good == 280
    assert domain.measured_tallies["test"].good == 41


def test_rows_that_share_an_id_are_measured_one_by_one(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{**problem(i), "uuid": "same"} for i in range(100)])
    for split in ("test", "validation"):
        drawn = math(tmp_path).measured_prompts({split: 1000})[split]  # type: ignore[dict-item]
        names = {prompt.id for prompt in drawn}
        assert len(names) == len(drawn) > 3, "rewards are kept by the id"
        assert len(set(ids(math(tmp_path), split))) == len(drawn)
        few = math(tmp_path).measured_prompts({split: 2})[split]  # type: ignore[dict-item]
        assert [prompt.id for prompt in few] == [prompt.id for prompt in drawn[:3]]


def test_prompts_near_a_test_file_are_trained_and_counted(tmp_path: Path) -> None:
    long = "One of the thirteen words in a row is that here they are all alike, says"
    write_rows(tmp_path / "rows.jsonl", [problem(1), *(problem(i, long) for i in range(2, 9))])
    write_rows(tmp_path / "test.jsonl", [problem(100, long), problem(101)])
    domain = math(tmp_path, test=str(tmp_path / "test.jsonl"), validation=0.0001)
    assert len(ids(domain, "train")) == 8
    assert domain.tally.notes == {"near the test or validation file (13 words in a row)": 7}
    assert "7 near the test or validation file" in str(domain.tally)
    assert json.loads(json.dumps(domain.tally.record()))["notes"]


def test_both_may_be_files_and_a_generator_keeps_off_them(tmp_path: Path, rows: Path) -> None:
    write_rows(tmp_path / "v.jsonl", map(problem, range(290, 300)))
    files = {"test": str(tmp_path / "rows.jsonl"), "validation": str(tmp_path / "v.jsonl")}
    domain = load("math", files)
    assert len(ids(domain, "test")) == 300 and len(ids(domain, "validation")) == 10
    drawn = domain.prompts("train")
    assert all("sum of" not in next(drawn).messages[0].content for _ in range(20))

    made = load("arithmetic")
    held = [next(iter(made.prompts("train"))).messages[0].content]

    class Own(type(made)):  # type: ignore[misc]
        def from_row(self, row: Any, index: int) -> Prompt:
            return Prompt(self.name, str(index), (Message("user", row["q"]),), hidden=0)

    write_rows(tmp_path / "test.jsonl", [{"q": text} for text in held])
    own = Own()
    own.splits = Splits(test=str(tmp_path / "test.jsonl"))
    stream = own.prompts("train")
    texts = {next(stream).messages[0].content for _ in range(200)}
    assert not texts & set(held)


@pytest.mark.parametrize(("test", "validation"), [(0.3, 0.2), (None, 0.5), (0.05, None)])
def test_shares_are_shares(
    tmp_path: Path, rows: Path, test: float | None, validation: float | None
) -> None:
    domain = math(tmp_path, test=test, validation=validation)
    found = {split: set(ids(domain, split)) for split in SPLITS}
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 300
    for split, share in (("test", test), ("validation", validation)):
        expected = 300 * (0.1 if share is None else share)
        assert abs(len(found[split]) - expected) < 4 * (expected**0.5)


def test_without_a_word_the_splits_are_what_they_were() -> None:
    keys = [content_key(Prompt("d", "", (Message("user", str(i)),))) for i in range(500)]
    assert [Splits().of(key) for key in keys] == [split_of(key) for key in keys]


def test_measured_rows_are_drawn_from_the_whole_file_whatever_its_order(tmp_path: Path) -> None:
    first = [problem(i) for i in range(600)]
    last = [problem(i, "What do you get by adding") for i in range(600, 1200)]
    drawn = []
    for order in ([*first, *last], [*last, *first]):
        write_rows(tmp_path / "rows.jsonl", order)
        found = math(tmp_path).measured_prompts({"test": 30, "validation": 10})
        drawn.append([prompt.id for prompt in found["test"]])
        assert len(found["test"]) == 31 and len(found["validation"]) == 11
        assert all(split_of(content_key(prompt)) == "test" for prompt in found["test"])
    assert drawn[0] == drawn[1]
    late = sum(int(name[1:]) >= 600 for name in drawn[0])
    assert 6 <= late <= 25, "the first fitting ones were all of the file's beginning"
    fewer = math(tmp_path).measured_prompts({"test": 12})["test"]
    assert [prompt.id for prompt in fewer] == drawn[0][:13], "more prompts keep those before"


def test_a_draw_is_what_sorting_gives() -> None:
    prompts = [Prompt("d", str(i), (Message("user", str(i % 70)),)) for i in range(100)]
    for count in (1, 5, 69, 70, 200):
        draw = Draw(count)
        for prompt in prompts:
            draw.add(content_key(prompt), prompt)
        keys = sorted({content_key(p) for p in prompts}, key=lambda key: (int(key[8:], 16), key))
        found = [content_key(prompt) for prompt in draw.prompts()]
        assert found == keys[:count]


def test_how_much_of_a_file_is_measured_is_told(tmp_path: Path, rows: Path) -> None:
    lines: list[str] = []
    domains = {"math": load("math", {"test": str(rows), "level": "tiny"})}
    config = EvaluateConfig(test=50, validation=5)
    found = Evaluation(domains, config, say=lines.append).prompts
    assert [prompt.id for prompt in found["test"]] == [f"u{i}" for i in range(50)]
    assert lines == [f"test of math: the first 50 prompts of {rows}; evaluate.test takes more"]
    Evaluation(domains, config.model_copy(update={"test": 300}), say=lines.append)
    assert lines[1] == f"test of math: all 300 prompts of {rows}"
    assert [p.split for p in Evaluation(domains, config, ["test"]).whole] == ["test", "test"]


def recipe(**domain: Any) -> Any:
    stages = [{"name": "s", "kind": "rl"}]
    return recipes.parse({"name": "t", "domains": {"math": domain}, "stages": stages}, "t")


@pytest.mark.parametrize(
    ("domain", "fault"),
    [
        ({"test": 0}, "test: must be a file of rows, or a share above 0 and below 1; found 0"),
        ({"validation": 1.0}, "validation: must be a file"),
        ({"test": 0.6, "validation": 0.4}, "leave nothing to train on"),
        ({"test": 0.95}, "leave nothing to train on"),
        ({"test": True}, "test"),
    ],
)
def test_wrong_splits_are_refused(domain: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        recipe(**domain)


def test_eval_takes_a_file_whole_with_the_recipes_options(tmp_path: Path, rows: Path) -> None:
    parsed = recipe(rows="train.jsonl", validation=0.2, tools="python")
    for name in (str(rows), f"math={rows}"):
        changed = on_files(parsed, [name])
        (config,) = changed.domains.values()
        assert config.test == str(rows) and config.rows is None and config.validation is None
        assert config.options["tools"] == "python" and changed.evaluate.test > 10**6
    assert list(on_files(parsed, [f"gsm={rows}"]).domains) == ["gsm"]
    write_rows(tmp_path / "odd.jsonl", [{"x": 1}])
    with pytest.raises(UserError, match="say --rows DOMAIN="):
        on_files(parsed, [str(tmp_path / "odd.jsonl")])
    with pytest.raises(UserError, match="has a file already"):
        on_files(parsed, [str(rows), str(rows)])


def test_the_words_that_a_domain_adds_are_no_overlap(tmp_path: Path) -> None:
    # Five prompts: fewer than what makes wording common.
    write_rows(tmp_path / "rows.jsonl", map(problem, range(60)))
    asked = "Reason step by step and put the final answer, and nothing else, in \\boxed{}."
    turns = [
        {"role": "user", "content": f"Something else entirely.\n\n{asked}"},
        {"role": "assistant", "content": "a"},
    ]
    write_rows(tmp_path / "sft.jsonl", [{"messages": turns}])
    against = Against([f"math:{tmp_path / 'rows.jsonl'}"], [13])
    assert 0 < against.sets[0].prompts <= 10
    overlaps, _ = decontaminate(tmp_path / "sft.jsonl", against, None, False, lambda *_: None)
    assert overlaps.prompts == 1 and overlaps.dirty == 0


def test_a_file_that_a_domain_would_not_read_is_refused(tmp_path: Path, rows: Path) -> None:
    class Own(Domain):
        name = "own"

        def prompts(self, split: Any, seed: int = 0) -> Any:
            yield Prompt("own", "1", (Message("user", "q"),))

    own = Own()
    own.splits = Splits(test=str(rows))
    with pytest.raises(UserError, match=r"domains.own.test: .* is not read"):
        own.measured_prompts({"test": 3})
    row = {"responses_create_params": {"input": "q"}, "expected_answer": "a"}
    write_rows(tmp_path / "long.jsonl", [row])
    domain = load("longctx", {"level": "full", "test": str(tmp_path / "long.jsonl")})
    (prompt,) = domain.measured_prompts({"test": 3})["test"]
    assert prompt.messages[0].content == "q"


def test_a_split_without_prompts_names_its_file_and_the_key(tmp_path: Path, rows: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    file = str(tmp_path / "empty.jsonl")
    with pytest.raises(UserError, match="no test prompts .of .*empty.jsonl: .*domains.math.test"):
        Evaluation({"math": math(tmp_path, test=file)}, EvaluateConfig(test=3, validation=3))
    write_rows(tmp_path / "rows.jsonl", [problem(1)])
    with pytest.raises(UserError, match="1 good.*or name a file of its own as domains.math.test"):
        Evaluation({"math": math(tmp_path)}, EvaluateConfig(test=3, validation=3))
