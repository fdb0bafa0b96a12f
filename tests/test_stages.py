"""What stages do between their sampler and their trainer: filtering with refill, seeds, prompts in proportion, and data that cannot serve."""

import asyncio
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.scripted import Scripted
from test_rollout import END, Letters

from linn.domains.base import Domain, content_key, split_of
from linn.engine.training.pack import first_fit
from linn.errors import UserError
from linn.recipe import load as recipes
from linn.run.compare import compare_arms
from linn.run.export import _replaceable, export_checkpoint
from linn.stages.rl import batch_of_groups, rl
from linn.stages.sft import Batches, _demonstrations, _rows, sft
from linn.stages.stage_run import StageRun
from linn.types import Message, Prompt, Verdict


class Coin(Domain):
    """Prompt `easy…` always earns 1; any other only where the reply is 1."""

    name = "coin"

    def prompts(self, split, seed=0):
        for i in range(10_000):
            yield Prompt(
                self.name, f"p{i}", (Message("user", "easy" if i % 4 else "hard"),), thinking=False
            )

    def verify(self, prompt, reply):
        return Verdict(1.0 if prompt.messages[0].content == "easy" else float(reply.text == "1"))


class Side(Coin):
    name = "side"


def stage(weights: dict[str, float], sampler=None, **keys) -> StageRun:
    tree = {
        "name": "t",
        "domains": {d: {} for d in weights},
        "stages": [{"name": "s", "kind": "rl", "domains": weights, **keys}],
    }
    recipe = recipes.parse(tree, "t")
    made = {"coin": Coin(), "side": Side()}
    engine = SimpleNamespace(
        sampler=sampler or Scripted(Letters(), lambda text, seed: f"{seed % 2}{END}")
    )
    chosen = recipe.stages[0]
    return StageRun(
        chosen,
        Path("nowhere"),
        Path("base"),
        7,
        recipe.weights_of(chosen),
        made,
        Letters(),
        engine,
        None,
    )  # type: ignore[arg-type]


def test_dynamic_filtering_refills_the_batch_with_informative_groups():
    run = stage({"coin": 1}, dynamic_filter=True, prompts=6, rollouts=8, refill=10)
    groups, figures = asyncio.run(batch_of_groups(run, run.keys, 0))  # type: ignore[arg-type]
    assert len(groups) == 6 and all(0 < sum(g.rewards) < 8 for g in groups)
    assert (
        figures["kept_groups"] == 6
        and figures["groups"] == run.taken["coin"] > 6 + figures["surplus_groups"]
    )
    assert figures["sampled_tokens"] == 2 * 8 * figures["groups"], (
        "tokens of dropped groups were sampled too"
    )
    seeds = [s for batch in run.engine.sampler.batches for s in batch]  # type: ignore[attr-defined]
    assert len(set(seeds)) == len(seeds) == 8 * figures["groups"]


def test_refilling_ends_where_nothing_is_informative():
    sampler = Scripted(Letters(), lambda text, seed: f"1{END}")
    run = stage({"coin": 1}, sampler, dynamic_filter=True, prompts=3, rollouts=2, refill=4)
    groups, figures = asyncio.run(batch_of_groups(run, run.keys, 0))  # type: ignore[arg-type]
    assert (figures["kept_groups"], figures["groups"], len(sampler.batches)) == (0, 12, 4) and len(
        groups
    ) == 3


@pytest.mark.parametrize(("hard", "trained"), [("1", False), ("seed", True)])
def test_a_batch_without_an_informative_group_trains_nothing(monkeypatch, hard, trained):
    sampler = Scripted(Letters(), lambda text, seed: f"{seed % 2 if hard == 'seed' else hard}{END}")
    run = stage({"coin": 1}, sampler, dynamic_filter=True, prompts=3, rollouts=4, refill=4)
    run.engine.cpu_seconds = lambda: 0.0  # type: ignore[attr-defined, method-assign]
    seen = []
    monkeypatch.setattr(StageRun, "steps", lambda self: iter([0]))
    monkeypatch.setattr(StageRun, "train", lambda self, step, samples, *rest: seen.extend(samples))
    rl(run)
    assert seen and any(any(s.mask) for s in seen) == trained


def test_every_batch_holds_the_domains_in_proportion_and_a_resumed_stage_goes_on_with_the_next_prompt():
    run = stage({"coin": 0.55, "side": 0.45})
    for _ in range(5):
        batch = run.next_prompts(20)
        assert sum(p.domain == "coin" for p in batch) == 11
    assert run.taken == {"coin": 55, "side": 45}
    resumed = stage({"coin": 0.55, "side": 0.45})
    resumed.taken = dict(json.loads(json.dumps({"side": 45, "coin": 55})))
    assert resumed.next_prompts(9) == run.next_prompts(9)


def sft_stage(monkeypatch, **keys) -> StageRun:
    tree = {
        "name": "t",
        "domains": {"coin": {}},
        "stages": [{"name": "s", "kind": "sft", "batch": 2, **keys}],
    }
    recipe = recipes.parse(tree, "t")
    monkeypatch.setattr(StageRun, "steps", lambda self: iter([0]))
    monkeypatch.setattr(StageRun, "clock", lambda self: (0.0, 0.0))
    return StageRun(
        recipe.stages[0],
        Path("nowhere"),
        Path("base"),
        7,
        {"coin": 1.0},
        {"coin": Coin()},
        Letters(),
        None,
        None,
    )  # type: ignore[arg-type]


def test_data_without_rows_or_with_long_ones_alone_is_one_line_and_no_endless_loop(
    tmp_path, monkeypatch
):
    data = tmp_path / "rows.jsonl"
    data.write_text("\n")
    with pytest.raises(UserError, match="holds no rows"):
        sft(sft_stage(monkeypatch, data=str(data)))
    data.write_text(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "a" * 50},
                ]
            }
        )
        + "\n"
    )
    monkeypatch.setattr(
        Letters,
        "encode_spans",
        lambda self, spans, most=None: ([1] * 50, [True] * 50),
        raising=False,
    )
    with pytest.raises(UserError, match="over max_length 8"):
        sft(sft_stage(monkeypatch, data=str(data), max_length=8))


class FromRows(Domain):
    name = "rows"

    def from_row(self, row, index):
        return Prompt("rows", str(index), (Message("user", row["q"]),))


def test_held_out_rows_are_measured_once_and_never_trained_on(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"q": f"question {i % 60}"}) + "\n" for i in range(180)))
    domain = FromRows(rows=path)
    keys = {
        split: [content_key(p) for p in domain.prompts(split)]
        for split in ("train", "validation", "test")
    }  # type: ignore[arg-type]
    assert all(split_of(key) == split for split, found in keys.items() for key in found)
    assert (
        len(keys["test"]) == len(set(keys["test"])) > 0
        and len(keys["validation"]) == len(set(keys["validation"])) > 0
    )
    assert len(keys["train"]) == 3 * len(set(keys["train"]))


def test_an_export_replaces_an_export_and_nothing_else(tmp_path):
    own = tmp_path / "own"
    (own / "photos").mkdir(parents=True)
    (own / "config.json").write_text("{}")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    with pytest.raises(UserError, match="other things in it"):
        export_checkpoint(str(other), own, "float32")
    assert (own / "photos").is_dir()
    (own / "photos").rmdir()
    assert _replaceable(own) and not _replaceable(own / "config.json")


def test_arms_that_were_never_measured_cannot_be_compared(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        json.dumps(
            {
                "name": "c",
                "domains": {"mcqa": {}},
                "stages": [
                    {"name": "a", "kind": "rl", "from": "base"},
                    {"name": "b", "kind": "rl", "from": "base", "evaluate": False},
                ],
            }
        )
    )
    with pytest.raises(UserError, match="b, base must be measured"):
        compare_arms(path, tmp_path / "out", ["a", "b"], [0], [])


class Lengths(Domain):
    """Demonstrations of 1 to 40 tokens."""

    name = "coin"

    def prompts(self, split, seed=0):
        for i in range(10_000):
            yield Prompt(self.name, f"p{seed}.{i}", (Message("user", str(i)),), thinking=False)

    def demonstrate(self, prompt, rng, faulty):
        return (Message("assistant", "x" * rng.randint(1, 40)),)


def packed_stage(monkeypatch, taken=None, **keys) -> StageRun:
    monkeypatch.setattr(
        Letters,
        "encode_spans",
        lambda self, spans, most=None: ([1] * (n := len(spans[-1][0]) % 41 + 1), [True] * n),
        raising=False,
    )
    run = sft_stage(monkeypatch, packed=True, max_length=64, **keys)
    run.domains = {"coin": Lengths()}  # type: ignore[misc]
    run.engine = SimpleNamespace(width=64)  # type: ignore[assignment]
    run.taken.update(taken or {})
    return run


def test_packed_batches_fill_rows_lose_no_sequence_and_resume_alike(monkeypatch):
    run = packed_stage(monkeypatch, batch=4)
    feed = _demonstrations(run, run.keys)  # type: ignore[arg-type]
    batches, taken = [], []
    made = Batches(run, run.keys, feed)  # type: ignore[arg-type]
    for _ in range(6):
        samples, figures = made.next()
        assert (
            sum(len(s.tokens) for s in samples) <= 4 * 64
            and len(first_fit([len(s.tokens) for s in samples], 64)) <= 4
        )
        assert (
            figures["row_fill"] == pytest.approx(sum(len(s.tokens) for s in samples) / 256)
            and figures["row_fill"] > 0.7
        )
        batches.append([s.source for s in samples])
        taken.append(dict(run.taken))
    every = [source for batch in batches for source in batch]
    assert len(set(every)) == len(every) and [t["coin"] for t in taken] == list(
        itertools.accumulate(map(len, batches))
    )
    again = packed_stage(monkeypatch, batch=4, taken=taken[2])
    rest = Batches(again, again.keys, _demonstrations(again, again.keys))  # type: ignore[arg-type]
    assert [[s.source for s in rest.next()[0]] for _ in range(3)] == batches[3:]


def test_packed_rows_must_hold_the_longest_sequence():
    tree = {
        "name": "t",
        "domains": {"mcqa": {}},
        "scale": {"width": 64},
        "stages": [{"name": "s", "kind": "sft", "packed": True}],
    }
    with pytest.raises(UserError, match="max_length 4096 is over scale.width 64"):
        recipes.parse(tree, "t")


def test_several_files_are_mixed_by_weight_and_a_resumed_stage_reads_on(tmp_path, monkeypatch):
    files = {}
    for name, weight in (("a", 3), ("b", 1)):
        files[str(path := tmp_path / f"{name}.jsonl")] = weight
        row = {
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "w"}],
            "domain": name,
        }
        path.write_text("".join(json.dumps(row) + "\n" for _ in range(7)))
    run = packed_stage(monkeypatch, data=files, batch=4)
    feed = _rows(run, run.keys)  # type: ignore[arg-type]
    batches = Batches(run, run.keys, feed)  # type: ignore[arg-type]
    made, states = [], []
    for _ in range(5):
        made.append([(s.domain, s.source) for s in batches.next()[0]])
        states.append((dict(run.taken), run.tally.record()))
    every = list(itertools.chain(*made))
    assert [name for name, _ in every[:8]].count("b") == 2 and states[-1][1]["good"] == 14
    again = packed_stage(monkeypatch, data=files, batch=4, taken=states[1][0])
    again.tally.restore(states[1][1])
    rest = Batches(again, again.keys, _rows(again, again.keys))  # type: ignore[arg-type]
    assert [[(s.domain, s.source) for s in rest.next()[0]] for _ in range(3)] == made[2:]
    assert (again.taken, again.tally.record()) == states[-1]
