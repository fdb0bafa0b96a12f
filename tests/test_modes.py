"""The template and the mode of a run: keys, records, warnings, SFT of every turn, `linn render`."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from support import families
from support.cli import said
from support.codec import END, Letters
from support.scripted import Scripted
from support.stages import stage as stage_run

from linn.chat.codec import Codec
from linn.checkpoints import resolve
from linn.data.rows import write_rows
from linn.domains.base import Domain
from linn.domains.load import load
from linn.errors import UserError
from linn.evals.evaluate import Evaluation
from linn.play.rollout import Job, play
from linn.play.thoughts import warnings
from linn.recipe import load as recipes
from linn.recipe.schema import EvaluateConfig
from linn.recipe.stages import SftConfig
from linn.run.folder import RunFolder
from linn.stages.prompts import Position
from linn.stages.sft import samples_of_files
from linn.types import Message, Prompt, Reply, Rollout, Sampling, Verdict


def recipe(**keys: Any) -> Any:
    stages = [{"name": "s", "kind": "rl", "steps": 1}]
    tree = {"name": "t", "domains": {"arithmetic": {}}, "stages": stages, **keys}
    return recipes.parse(tree, "t")


# ---------------------------------------------------------------- thinking, by domain and by row


def test_thinking_of_a_domain_decides_over_its_rows_and_defaults_to_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = []
    for n, mode in enumerate((True, False, None) * 20):
        kwargs = {} if mode is None else {"enable_thinking": mode}
        asked = {"input": [{"role": "user", "content": f"{n} plus 1?"}]}
        rows.append(
            {"responses_create_params": asked, "chat_template_kwargs": kwargs, "answer": "1"}
        )
    write_rows(path, rows)
    modes = {}
    for thinking in (None, True, False):
        options = {"rows": str(path), "thinking": thinking}
        domain = load("math", {k: v for k, v in options.items() if v is not None})
        drawn = list(itertools.islice(map(domain.in_mode, domain.prompts("train")), 20))
        modes[thinking] = {prompt.thinking for prompt in drawn}
        domain.close()
    assert modes == {None: {True, False}, True: {True}, False: {False}}


def test_a_generator_asks_in_the_recipes_mode_in_stages_and_in_evaluation(tmp_path: Path) -> None:
    parsed = recipe(domains={"arithmetic": {"thinking": False}, "workplace": {"thinking": True}})
    domains = {name: load(name, options) for name, options in parsed.domain_options().items()}
    evaluation = Evaluation(domains, EvaluateConfig(test=2, validation=1))
    modes = {(prompt.domain, prompt.thinking) for prompt in evaluation.prompts["test"]}
    assert modes == {("arithmetic", False), ("workplace", True)}
    for domain in domains.values():
        domain.close()

    class Thoughtless(Domain):
        name = "coin"

        def make(self, rng: Any) -> Prompt:
            return Prompt("coin", "", (Message("user", f"{rng.random()}"),))

    domain = Thoughtless()
    domain.thinking = False
    stage = stage_run({"coin": 1.0}, folder=tmp_path, domains={"coin": domain})
    assert [prompt.thinking for prompt in stage.prompts.take(3)] == [False] * 3


def test_a_mode_that_is_no_mode_is_refused() -> None:
    with pytest.raises(UserError, match=r"domains.arithmetic.thinking: .*, found 'maybe'"):
        recipe(domains={"arithmetic": {"thinking": "maybe"}})
    with pytest.raises(UserError, match="template: must be 'own' or 'nemotron'"):
        recipe(template="chatml")


# ---------------------------------------------------------------- the run's template


def run_folder(model: Path | str, path: Path, **keys: Any) -> RunFolder:
    return RunFolder(recipe(model=str(model), **keys), path)


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    families.write("qwen3", folder)
    (folder / "config.json").write_text("{}")
    return folder


def test_the_templates_name_is_in_run_json_and_another_is_refused(
    chat_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    folder = run_folder(chat_model, path)
    assert folder.template == "own"
    (path / "stages" / "01-s").mkdir(parents=True)
    folder.write_run_json()
    assert json.loads((path / "run.json").read_text())["template"] == "own"
    folder.check_template()

    other = run_folder(chat_model, path, template="nemotron")
    other.check_template()  # nothing was made yet
    (path / "stages" / "01-s" / "metrics.jsonl").touch()
    with pytest.raises(UserError, match="under template: own.*set template: own"):
        other.check_template()
    other.check_template(redo="base")


def test_a_run_of_an_earlier_version_was_made_in_linns_protocol(
    chat_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    folder = run_folder(chat_model, path)
    (path / "stages" / "01-s").mkdir(parents=True)
    (path / "stages" / "01-s" / "metrics.jsonl").touch()
    folder.write_run_json()
    record = json.loads((path / "run.json").read_text())
    del record["template"]
    (path / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="set template: nemotron"):
        folder.check_template()
    run_folder(chat_model, path, template="nemotron").check_template()
    run_folder("tiny", path).check_template()


def test_a_domain_that_the_template_cannot_write_is_refused_before_anything_runs(
    tmp_path: Path,
) -> None:
    families.write("gemma2", tmp_path)
    domains = {name: load(name) for name in ("arithmetic", "workplace")}
    evaluation = Evaluation(domains, EvaluateConfig(test=2, validation=1))
    with pytest.raises(UserError, match="domain workplace: .*cannot write tools"):
        evaluation.check(Codec.load(tmp_path))
    evaluation.check(Codec.load(resolve("tiny")))


# ---------------------------------------------------------------- what replies say


class Asks:
    """An environment that answers as the user, once."""

    def step(self, message: Message) -> tuple[Message, ...] | None:
        return (Message("user", "more"),)

    def close(self) -> None:
        pass


class Chat(Domain):
    name = "chat"
    max_turns = 2

    def env(self, prompt: Prompt) -> Asks:
        return Asks()

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        return Verdict(1.0)


def rollouts(reply: str, count: int = 3, turns: int = 2) -> list[Rollout]:
    domain = Chat()
    domain.max_turns = turns
    jobs = []
    for i in range(count):
        prompt = Prompt("chat", f"p{i}", (Message("user", f"{i}"),))
        jobs.append(Job(prompt, 0, Sampling(100), seed=i))
    sampler = Scripted(Letters(), lambda text, seed: reply + END)
    return asyncio.run(play(jobs, {"chat": domain}, sampler, Letters()))  # type: ignore[arg-type]


def test_replies_without_an_end_of_their_thought_are_told_loudly() -> None:
    (line,) = warnings(rollouts("I go on and on", turns=1), Letters.template)
    assert "100% of 3 replies never closed their thought (</think>)" in line
    assert "thinking: false" in line and "template: own" in line
    assert warnings(rollouts("so</think>yes", turns=1), Letters.template) == []
    # A closed thought without an answer is a bad answer, and no sign of a wrong template.
    assert warnings(rollouts("so</think>", turns=1), Letters.template) == []


def test_an_environment_that_answers_as_user_keeps_thoughts_and_says_so() -> None:
    held = rollouts("so</think>yes")
    (line,) = warnings(held, Letters.template)
    assert "100% of 3 conversations hold earlier turns otherwise" in line
    assert "so</think>yes" in held[0].turns[1].text, "what the model saw stays"
    assert warnings(rollouts("</think>yes"), Letters.template) == []


# ---------------------------------------------------------------- SFT of every turn


TALK = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b", "reasoning_content": "thought 1"},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "d", "reasoning_content": "thought 2"},
    {"role": "user", "content": "e"},
    {"role": "assistant", "content": "f", "reasoning_content": "thought 3"},
]


def feed(path: Path, position: Position, **keys: Any) -> Any:
    config = SftConfig(name="sft", kind="sft", data=str(path), **keys)
    return samples_of_files(config, Codec.load(resolve("tiny")), 3, position)


def trained(sample: Any, codec: Codec) -> str:
    ids = [t for t, flag in zip(sample.tokens, sample.mask, strict=True) if flag]
    return codec.decode(ids)


def test_a_row_whose_history_is_cut_gives_a_sample_per_stretch(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"messages": TALK}])
    codec = Codec.load(resolve("tiny"))
    position = Position()
    samples = list(itertools.islice(feed(path, position), 3))
    assert [trained(sample, codec) for sample in samples] == [
        "thought 1\n</think>\nb<|im_end|>",
        "thought 2\n</think>\nd<|im_end|>",
        "thought 3\n</think>\nf<|im_end|>",
    ]
    assert "<think></think>\nb" in codec.decode(samples[2].tokens)
    assert position.taken == {"rows": 1} and position.tally.good == 1

    (whole, _) = itertools.islice(feed(path, Position(), every_turn=False), 2)
    assert trained(whole, codec) == "thought 3\n</think>\nf<|im_end|>"


def test_a_stage_resumes_in_the_middle_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = []
    for n in range(12):
        turns = TALK[: 2 + 2 * (n % 3)]
        rows.append({"messages": [{**turns[0], "content": f"a{n}"}, *turns[1:]]})
    write_rows(path, rows)
    run = feed(path, Position())
    drawn = [tuple(next(run).tokens) for _ in range(60)]
    for stop in (1, 2, 3, 5, 8, 24, 25, 47):
        first = Position()
        rows_of_first = feed(path, first)
        for _ in range(stop):
            next(rows_of_first)
        second = Position()
        second.restore(json.loads(json.dumps(first.record())))
        again = feed(path, second)
        assert [tuple(next(again).tokens) for _ in range(60 - stop)] == drawn[stop:]
        assert second.tally.good == 12 or stop > 24


def test_files_keep_their_weights_in_samples_where_rows_give_several(tmp_path: Path) -> None:
    long, short = tmp_path / "long.jsonl", tmp_path / "short.jsonl"
    write_rows(long, [{"messages": TALK}] * 20)
    write_rows(short, [{"messages": TALK[:2]}] * 20)
    config = SftConfig(name="sft", kind="sft", data={str(long): 1, str(short): 1})
    samples = samples_of_files(config, Codec.load(resolve("tiny")), 3, Position())
    lengths = [len(next(samples).tokens) for _ in range(60)]
    assert lengths.count(min(lengths)) in range(30, 51)


def test_rows_that_a_template_refuses_are_bad_rows(chat_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    tools = [{"role": "assistant", "content": "x"}]
    families.write("gemma2", tmp_path / "gemma")
    doubled = {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}
    doubled["messages"] += tools
    write_rows(path, [{"messages": TALK[:2]}, doubled] * 3)
    config = SftConfig(name="sft", kind="sft", data=str(path), skip_bad=True)
    position = Position()
    codec = Codec.load(tmp_path / "gemma")
    samples = samples_of_files(config, codec, 3, position)
    list(itertools.islice(samples, 4))
    assert position.tally.bad["refused by the chat template"] >= 1
    strict = SftConfig(name="sft", kind="sft", data=str(path))
    with pytest.raises(UserError, match="roles must alternate|Roles must alternate"):
        list(itertools.islice(samples_of_files(strict, codec, 3, Position()), 6))


# ---------------------------------------------------------------- linn render


def test_render_shows_what_the_checkpoints_template_reads(chat_model: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    asked = {"input": [{"role": "user", "content": "Hi <|im_end|> there"}]}
    kwargs = {"enable_thinking": False}
    write_rows(path, [{"responses_create_params": asked, "chat_template_kwargs": kwargs}])
    codec = Codec.load(chat_model)
    for template, ending in (
        ([], "<think>\n\n</think>\n\n"),
        (["--template", "nemotron"], "<think></think>"),
    ):
        assert (
            said("render", "--rows", path, "--out", out, "--tokens", chat_model, *template)[0] == 0
        )
        (row,) = [json.loads(line) for line in out.read_text().splitlines()]
        assert row["text"].endswith(ending)
        assert "Hi <|im_end|> there" in row["text"]
        assert row["tokens"].count(codec.eos) == row["text"].count(END) - 1
