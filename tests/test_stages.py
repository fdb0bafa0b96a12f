"""What stages do between their sampler and their trainer.

Filtering with refill, seeds, prompts in proportion, resuming, and data that cannot serve.
"""

import asyncio
import itertools
import json
from pathlib import Path

import pytest
from support.codec import END, Letters
from support.scripted import Scripted
from support.stages import stage

from linn.domains.base import Domain, content_key
from linn.domains.splits import split_of
from linn.engine.training.pack import first_fit
from linn.errors import RunFailed, UserError
from linn.recipe import load as recipes
from linn.run.compare import compare_arms, table_of
from linn.stages.rl import batch_of_groups, rl
from linn.stages.sft import Batches, samples_of_demonstrations, samples_of_files, sft
from linn.stages.stage_run import StageRun
from linn.types import Message, Prompt


def test_dynamic_filtering_refills_the_batch_with_informative_groups():
    run = stage({"coin": 1}, dynamic_filter=True, prompts=6, rollouts=8, refill=10)
    groups, metrics = asyncio.run(batch_of_groups(run, run.config, 0))
    assert len(groups) == 6 and all(0 < sum(group.rewards) < 8 for group in groups)
    taken = run.position.taken["coin"]
    assert metrics["kept_groups"] == 6
    assert metrics["groups"] == taken > 6 + metrics["surplus_groups"]
    assert metrics["sampled_tokens"] == 2 * 8 * taken, "tokens of dropped groups were sampled too"
    seeds = [seed for batch in run.engine.sampler.batches for seed in batch]
    assert len(set(seeds)) == len(seeds) == 8 * taken


def test_refilling_ends_where_nothing_is_informative():
    sampler = Scripted(Letters(), lambda text, seed: f"1{END}")
    run = stage({"coin": 1}, sampler, dynamic_filter=True, prompts=3, rollouts=2, refill=4)
    groups, metrics = asyncio.run(batch_of_groups(run, run.config, 0))
    assert (metrics["kept_groups"], metrics["groups"]) == (0, 12)
    assert len(sampler.batches) == 4 and len(groups) == 3


@pytest.mark.parametrize(("hard", "trained"), [("1", False), ("seed", True)])
def test_a_batch_without_an_informative_group_trains_nothing(tmp_path, hard, trained):
    sampler = Scripted(Letters(), lambda text, seed: f"{seed % 2 if hard == 'seed' else hard}{END}")
    keys = {"dynamic_filter": True, "prompts": 3, "rollouts": 4, "refill": 4, "steps": 1}
    run = stage({"coin": 1}, sampler, tmp_path, **keys)
    rl(run)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert bool(run.engine.trainer.batches) == trained and ("idle" in json.loads(line)) == (
        not trained
    )


def test_the_step_on_record_counts_the_tokens_of_every_group_that_was_sampled(tmp_path):
    keys = {"dynamic_filter": True, "prompts": 3, "rollouts": 4, "steps": 1}
    run = stage({"coin": 1}, folder=tmp_path, **keys)
    rl(run)
    metrics = json.loads((tmp_path / "metrics.jsonl").read_text())
    rollouts = (tmp_path / "rollouts/step-0001.jsonl").read_text().splitlines()
    assert metrics["sampled_tokens"] == 2 * 4 * metrics["groups"] > 2 * len(rollouts)


def test_a_stage_resumes_after_its_last_saved_state_and_publishes_a_checkpoint(tmp_path):
    keys = {"prompts": 2, "rollouts": 2, "steps": 5, "save_every": 2, "kl": 0.1}
    broken = stage({"coin": 1}, folder=tmp_path, **keys)
    broken.engine.trainer.fails_at = 3
    broken.engine.trainer.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        rl(broken)
    assert not broken.checkpoint.exists()
    again = stage({"coin": 1}, folder=tmp_path, **keys)
    rl(again)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5] and len(again.engine.trainer.batches) == 3
    assert sorted(path.name for path in again.checkpoint.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]


def test_a_stage_killed_between_its_last_state_and_the_checkpoint_only_publishes(tmp_path):
    keys = {"prompts": 2, "rollouts": 2, "steps": 3}
    run = stage({"coin": 1}, folder=tmp_path, **keys)
    rl(run)
    for path in run.checkpoint.iterdir():
        path.unlink()
    run.checkpoint.rmdir()
    again = stage({"coin": 1}, folder=tmp_path, **keys)
    rl(again)
    assert again.engine.trainer.batches == [] and (again.checkpoint / "model.safetensors").exists()


def test_a_damaged_state_is_refused_and_kept(tmp_path):
    run = stage({"coin": 1}, folder=tmp_path)
    run.state.mkdir()
    (run.state / "stage.json").write_text('{"step"')
    with pytest.raises(UserError, match=r"stage.json: cannot be read .* begin the stage anew"):
        run.resume()
    assert (run.state / "stage.json").read_text() == '{"step"'


def test_a_batch_that_fails_is_kept(tmp_path):
    run = stage({"coin": 1}, folder=tmp_path, prompts=2, rollouts=2, steps=3, kl=0.1)
    run.engine.trainer.fails_at = 1
    with pytest.raises(RunFailed, match="stage s step 2: .*; batch kept in .*failed-step-0002"):
        rl(run)
    assert len((tmp_path / "failed-step-0002.jsonl").read_text().splitlines()) == 4


def test_a_sampler_that_disagrees_with_the_trainer_stops_the_run(tmp_path):
    run = stage({"coin": 1}, folder=tmp_path, prompts=2, rollouts=2, steps=3, kl=0.1)
    run.engine.trainer.metrics = {"mismatch_max": 0.5}
    with pytest.raises(RunFailed, match="disagree by 0.5 in log-prob"):
        rl(run)


def test_experts_that_are_all_but_equal_do_not_stop_a_run(tmp_path):
    """Rounding may choose another expert for a few tokens; most tokens show nothing wrong."""
    cases = [
        ({"n_routed_experts": 8}, 1e-6, True),
        ({"num_local_experts": 8}, 1e-6, True),
        ({"n_routed_experts": 8}, 0.4, False),
        ({"num_experts": 1}, 1e-6, False),
        ({"hidden_size": 8}, 1e-6, False),
    ]
    for number, (config, p95, goes_on) in enumerate(cases):
        folder = tmp_path / str(number)
        run = stage({"coin": 1}, folder=folder, prompts=2, rollouts=2, steps=1, kl=0.1)
        run.start = folder / "start"
        run.start.mkdir(parents=True)
        (run.start / "config.json").write_text(json.dumps(config))
        said = []
        run.progress.say = said.append
        run.engine.trainer.metrics = {"mismatch_max": 0.5, "mismatch_p95": p95}
        if goes_on:
            rl(run)
            assert any("a few tokens differ by up to 0.5" in line for line in said)
        else:
            with pytest.raises(RunFailed, match="disagree by 0.5"):
                rl(run)


def test_every_batch_holds_the_domains_in_proportion_and_a_resumed_stage_takes_the_next_prompt():
    run = stage({"coin": 0.55, "side": 0.45})
    for _ in range(5):
        batch = run.prompts.take(20)
        assert sum(prompt.domain == "coin" for prompt in batch) == 11
    assert run.position.taken == {"coin": 55, "side": 45}
    resumed = stage({"coin": 0.55, "side": 0.45})
    resumed.position.restore(json.loads(json.dumps(run.position.record())))
    assert resumed.prompts.take(9) == run.prompts.take(9)


class Numbered(Letters):
    """A codec that can read conversations: one token per letter of the last span, 41 at most."""

    def encode_spans(self, spans, most=None):
        length = len(spans[-1][0]) % 41 + 1
        return [1] * length, [True] * length


class Long(Letters):
    """A codec for which every conversation has 50 tokens."""

    def encode_spans(self, spans, most=None):
        return [1] * 50, [True] * 50


class Lengths(Domain):
    """Demonstrations of 1 to 40 tokens."""

    name = "coin"

    def prompts(self, split, seed=0):
        for i in range(10_000):
            yield Prompt(self.name, f"p{seed}.{i}", (Message("user", str(i)),), thinking=False)

    def demonstrate(self, prompt, rng, faulty):
        return (Message("assistant", "x" * rng.randint(1, 40)),)


def sft_stage(codec, **keys) -> StageRun:
    keys = {"kind": "sft", "batch": 2, **keys}
    return stage({"coin": 1}, domains={"coin": Lengths()}, codec=codec, **keys)


def packed_stage(position=None, **keys) -> StageRun:
    run = sft_stage(Numbered(), packed=True, max_length=64, **keys)
    if position is not None:
        run.position.restore(position)
    return run


def batches_of(run: StageRun) -> Batches:
    config = run.config
    if config.files:
        feed = samples_of_files(config, run.codec, run.seed, run.position)
    else:
        feed = samples_of_demonstrations(run, config)
    return Batches(config, run.engine.width, feed, run.position)


def test_data_without_rows_or_with_long_ones_alone_is_one_line_and_no_endless_loop(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("\n")
    with pytest.raises(UserError, match="holds no rows"):
        sft(sft_stage(Long(), data=str(data), folder=tmp_path))
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    data.write_text(json.dumps({"messages": turns}) + "\n")
    with pytest.raises(UserError, match="over max_length 8"):
        sft(sft_stage(Long(), data=str(data), max_length=8, folder=tmp_path))


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


def test_the_table_of_a_comparison_fits_into_80_columns(tmp_path):
    def point(seed: int, step: int, value: float) -> dict:
        lead = value - (0.75, 0.9)[seed]  # of the seed's teachers
        return {
            "seed": seed,
            "step": step,
            "cpu_s": 12_345.6 * step,
            "value": value,
            "lead": {"value": lead, "low": lead - 0.06, "high": lead + 0.06, "paired": True},
        }

    arms = {
        "mopd": [point(0, 0, 0.5), point(1, 0, 0.55), point(0, 10, 0.8), point(1, 10, 1.0)],
        "mixed-rl": [point(0, 0, 0.5), point(1, 0, 0.55), point(0, 20, 0.7)],
    }
    teachers = [{"seed": 0, "low": 0.7}, {"seed": 1, "low": 0.85}]
    content = {"seeds": [0, 1], "arms": arms, "teachers": teachers, "teacher_mean": 0.85}
    (tmp_path / "compare.json").write_text(json.dumps(content))
    lines = table_of(tmp_path).splitlines()
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["0", "10", "20"]
    assert rows[1] == ["10", "90.0%", "80.0%", "to", "100.0%", "123456"]
    table = lines[: lines.index(next(line for line in lines if line.startswith("teachers'")))]
    assert max(map(len, table)) <= 80
    assert lines[-2].startswith("mopd is no longer below the teachers (prompt by prompt): seed 0")
    assert lines[-2].endswith("seed 0 step 10 (123456 CPU-s), seed 1 step 10 (123456 CPU-s)")
    assert lines[-1].endswith("seed 0 step 20 (246912 CPU-s), seed 1 never")

    for points in arms.values():
        for old in points:
            del old["lead"]
    (tmp_path / "compare.json").write_text(json.dumps(content))
    assert table_of(tmp_path).splitlines()[-1].startswith("teachers' mean")


def test_packed_batches_fill_rows_lose_no_sequence_and_resume_alike():
    run = packed_stage(batch=4)
    batches = batches_of(run)
    made, positions = [], []
    for _ in range(6):
        samples, metrics = batches.next()
        lengths = [len(sample.tokens) for sample in samples]
        assert sum(lengths) <= 4 * 64 and len(first_fit(lengths, 64)) <= 4
        assert metrics["row_fill"] == pytest.approx(sum(lengths) / 256)
        assert metrics["row_fill"] > 0.7
        made.append([sample.source for sample in samples])
        positions.append(run.position.record())
    every = [source for batch in made for source in batch]
    assert len(set(every)) == len(every)
    taken = [position["taken"]["coin"] for position in positions]
    assert taken == list(itertools.accumulate(map(len, made)))
    rest = batches_of(packed_stage(positions[2], batch=4))
    assert [[sample.source for sample in rest.next()[0]] for _ in range(3)] == made[3:]


def test_packed_rows_must_hold_the_longest_sequence():
    tree = {
        "name": "t",
        "domains": {"mcqa": {}},
        "scale": {"width": 64},
        "stages": [{"name": "s", "kind": "sft", "packed": True}],
    }
    with pytest.raises(UserError, match="max_length 4096 is over scale.width 64"):
        recipes.parse(tree, "t")


def test_several_files_are_mixed_by_weight_and_a_resumed_stage_reads_on(tmp_path):
    weights = {}
    for name, weight in (("a", 3), ("b", 1)):
        path = tmp_path / f"{name}.jsonl"
        weights[str(path)] = weight
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "w"}]
        path.write_text((json.dumps({"messages": turns, "domain": name}) + "\n") * 7)
    run = packed_stage(data=weights, batch=4)
    batches = batches_of(run)
    made, positions = [], []
    for _ in range(5):
        made.append([(sample.domain, sample.source) for sample in batches.next()[0]])
        positions.append(run.position.record())
    every = list(itertools.chain(*made))
    assert [name for name, _ in every[:8]].count("b") == 2
    assert positions[-1]["rows"]["good"] == 14
    again = packed_stage(positions[1], data=weights, batch=4)
    rest = batches_of(again)
    samples = [[(sample.domain, sample.source) for sample in rest.next()[0]] for _ in range(3)]
    assert samples == made[2:] and again.position.record() == positions[-1]


class Characters(Letters):
    """A codec of a token per four characters, cut as the real one cuts."""

    def encode_spans(self, spans, most=None):
        length = sum(len(text) for text, _ in spans) // 4
        if most is not None:
            length = min(length, most + 1)
        return [1] * length, [True] * length

    def decode(self, ids, specials=True):
        return "x" * 4 * len(ids)


def rows_with_faults(path: Path, name: str, every: int) -> None:
    """60 rows; of every so many one fits, the others are too long or have no answer."""
    lines = []
    for i in range(60):
        answer: str | None = "w" if i % every == 0 else "w" * 500
        if i % every == 1:
            answer = None
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": turns, "domain": name}) + "\n")
    path.write_text("".join(lines))


@pytest.mark.parametrize("packed", [False, True])
def test_weights_of_files_hold_of_what_is_trained_and_skips_are_told(tmp_path, packed):
    weights = {}
    for name, every in (("whole", 1), ("mostly-long", 6)):
        rows_with_faults(tmp_path / f"{name}.jsonl", name, every)
        weights[str(tmp_path / f"{name}.jsonl")] = 0.5
    keys = {"data": weights, "batch": 8, "max_length": 64, "skip_bad": True, "packed": packed}
    run = sft_stage(Characters(), **keys)
    batches = batches_of(run)
    made, positions, skipped = [], [], 0.0
    for _ in range(8):
        samples, metrics = batches.next()
        made.append([sample.domain for sample in samples])
        positions.append(run.position.record())
        skipped += metrics["skipped_long"] + metrics["skipped_bad"]
    every = list(itertools.chain(*made))
    assert abs(every.count("whole") - every.count("mostly-long")) <= 1, "was 5 to 1"
    assert skipped == sum(positions[-1]["skipped"].values()) > 0

    again = sft_stage(Characters(), **keys)
    again.position.restore(json.loads(json.dumps(positions[3])))
    rest = batches_of(again)
    assert [[s.domain for s in rest.next()[0]] for _ in range(4)] == made[4:]
    assert again.position.record() == positions[-1]


def test_domains_keep_their_shares_where_long_demonstrations_are_passed_over():
    run = stage(
        {"coin": 0.5, "side": 0.5},
        domains={"coin": Lengths(), "side": Short()},
        codec=Characters(),
        kind="sft",
        batch=10,
        max_length=29,
    )
    samples, metrics = batches_of(run).next()
    assert sum(sample.domain == "coin" for sample in samples) == 5
    assert metrics["skipped_long"] > 0


class Short(Lengths):
    name = "side"

    def demonstrate(self, prompt, rng, faulty):
        return (Message("assistant", "x"),)


def test_a_stage_says_how_much_is_too_long_and_what_length_would_hold_it(tmp_path, capsys):
    rows_with_faults(tmp_path / "rows.jsonl", "r", 6)
    keys = {"data": str(tmp_path / "rows.jsonl"), "max_length": 64, "skip_bad": True, "steps": 5}
    sft(sft_stage(Characters(), folder=tmp_path, batch=2, **keys))
    said = " ".join("".join(capsys.readouterr()).split())
    assert "sequences" in said and "are longer than max_length 64 and are not trained" in said
    length = int(said.partition(" holds 95 %")[0].rpartition(" ")[2])
    assert 135 < length < 155, "the answer, the marks around it, and 2 %"
    assert "over max_length 64" in json.dumps(json.loads((tmp_path / "rows.json").read_text()))
