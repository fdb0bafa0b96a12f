"""What every engine must do, through the protocol alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.codec import Letters
from support.fake_engine import FakeEngine
from support.sampling import Request, sample_all, samples_of
from support.scripted import Scripted

from linn.engine.local.controller import LocalEngine
from linn.engine.open import open_engine
from linn.engine.protocol import Engine
from linn.errors import RunFailed, UserError
from linn.recipe.schema import ScaleConfig
from linn.types import Completion, Loss, Optim, Sample, Sampling

VOCAB = 64
LR = 1e-2
MOPD = Loss("mopd", "sequence")


def requests() -> list[Request]:
    """Groups of four siblings, with limits of every size."""
    return [(tuple(range(1, 4 + i // 4)), Sampling(5 + i % 7), i) for i in range(12)]


@dataclass(frozen=True)
class Setting:
    """An engine, and a checkpoint that it can load."""

    engine: Engine
    base: Path

    def load(self) -> Engine:
        self.engine.load(self.base, Optim())
        return self.engine

    def sample(self) -> list[Completion]:
        return sample_all(self.engine.sampler, requests())

    def batch(self) -> list[Sample]:
        return samples_of(requests(), self.sample())


def fake_engine() -> FakeEngine:
    """Says one letter for ever, another one after each step."""

    def reply(text: str, seed: int) -> str:
        return chr(1 + engine.weights % (VOCAB - 1)) * (seed % 5 + 1)

    scripted = Scripted(Letters(), reply)
    engine = FakeEngine(scripted, samplers={"base": scripted})
    return engine


def local_engine(processes: int) -> Engine:
    return open_engine(ScaleConfig(processes=processes))


def cluster_engine(colocated: bool) -> Engine:
    """Two trainer ranks over shards, two samplers, all on this machine's CPU."""
    samplers = {"replicas": 2, "colocated": colocated}
    tree = {"engine": "cluster", "device": "cpu", "trainers": {"ranks": 2, "sum": "step"}}
    return open_engine(ScaleConfig.model_validate(tree | {"samplers": samplers}))


ENGINES = {
    "one process": lambda: local_engine(1),
    "two processes": lambda: local_engine(2),
    "cluster": lambda: cluster_engine(colocated=False),
    "colocated cluster": lambda: cluster_engine(colocated=True),
    "fake": fake_engine,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from linn.bases.make import new_model

    folder = tmp_path_factory.mktemp("models") / "base"
    folder.mkdir()
    new_model(folder, VOCAB, seed=1)
    (folder / "tokenizer.json").write_text("{}")
    return folder


SETTINGS = [
    pytest.param(name, marks=pytest.mark.long if "cluster" in name else ()) for name in ENGINES
]


@pytest.fixture(scope="module", params=SETTINGS)
def any_engine(request: pytest.FixtureRequest, base: Path) -> Iterator[Setting]:
    engine = ENGINES[request.param]()
    yield Setting(engine, base)
    engine.close()


@pytest.fixture
def computing(any_engine: Setting) -> Setting:
    """Engines whose numbers come from a model."""
    if isinstance(any_engine.engine, FakeEngine):
        pytest.skip("its numbers come from no model")
    return any_engine


def files_of(engine: Engine, folder: Path) -> dict[str, bytes]:
    """The policy as bytes."""
    folder.mkdir(exist_ok=True)
    engine.export(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_the_same_requests_give_the_same_completions(any_engine: Setting) -> None:
    any_engine.load()
    done = any_engine.sample()
    assert any_engine.sample() == done
    any_engine.load()
    assert any_engine.sample() == done
    for (_, how, _), completion in zip(requests(), done, strict=True):
        assert 1 <= len(completion.ids) == len(completion.logprobs) <= how.max_tokens


@pytest.mark.slow
def test_after_a_step_the_sampler_samples_from_the_new_weights(
    any_engine: Setting, tmp_path: Path
) -> None:
    engine = any_engine.load()
    before = any_engine.sample()
    engine.trainer.step(samples_of(requests(), before), MOPD, LR)
    after = any_engine.sample()
    assert [c.ids for c in after] != [c.ids for c in before]

    # Not merely other weights: those that an export of the policy has.
    files_of(engine, tmp_path)
    sequences = [sample.tokens for sample in samples_of(requests(), after)]
    for (ids, _, _), completion, row in zip(
        requests(), after, engine.score(tmp_path, sequences), strict=True
    ):
        assert row[len(ids) :] == pytest.approx(completion.logprobs, abs=1e-4)


@pytest.mark.slow
def test_scores_have_one_entry_per_token_and_the_first_is_zero(any_engine: Setting) -> None:
    any_engine.load()
    sequences = [[5, 6, 7], [9], [1, 2, 3, 4, 5, 6]]
    scores = any_engine.engine.score(any_engine.base, sequences)
    assert [len(row) for row in scores] == [3, 1, 6]
    for row in scores:
        assert row[0] == 0.0
        assert all(value < 0 for value in row[1:])


@pytest.mark.slow
def test_a_folder_without_a_model_is_the_users_mistake(computing: Setting) -> None:
    engine, nowhere = computing.load(), computing.base / "nowhere"
    done = computing.sample()
    with pytest.raises(UserError, match="nowhere"):
        engine.score(nowhere, [[1, 2]])
    with pytest.raises(UserError, match="nowhere"):
        sample_all(engine.sampler_of(nowhere), requests())
    assert computing.sample() == done


@pytest.mark.slow
def test_a_model_is_tried_and_a_bad_one_is_a_finding(any_engine: Setting) -> None:
    checked = any_engine.engine.check(any_engine.base)
    assert checked.ok and checked.findings
    nowhere = any_engine.engine.check(any_engine.base / "nowhere")
    assert not nowhere.ok
    assert any("nowhere" in finding.detail for finding in nowhere.findings)


@pytest.mark.slow
def test_scores_are_the_trainers_log_probs(computing: Setting) -> None:
    engine = computing.load()
    batch = computing.batch()
    scores = engine.score(computing.base, [sample.tokens for sample in batch])
    itself = [replace(s, teacher=row) for s, row in zip(batch, scores, strict=True)]
    metrics = engine.trainer.step(itself, MOPD, LR)
    assert metrics["teacher_gap"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["mismatch_max"] <= 1e-4 and metrics["mismatch_mean"] <= 1e-5
    assert 0 <= metrics["mismatch_p95"] <= metrics["mismatch_max"]


@pytest.mark.slow
def test_scores_of_another_temperature_are_those_of_its_samples(computing: Setting) -> None:
    engine = computing.load()
    warm: list[Request] = [(ids, Sampling(6, 0.5), seed) for ids, _, seed in requests()]
    done = sample_all(engine.sampler, warm)
    sequences = [(*ids, *c.ids) for (ids, _, _), c in zip(warm, done, strict=True)]
    scores = engine.score(computing.base, sequences, 0.5)
    for (ids, _, _), completion, row in zip(warm, done, scores, strict=True):
        assert row[len(ids) :] == pytest.approx(completion.logprobs, abs=1e-4)


@pytest.mark.slow
def test_a_restored_state_goes_on_bit_for_bit(any_engine: Setting, tmp_path: Path) -> None:
    engine = any_engine.load()
    batch = any_engine.batch()
    engine.trainer.step(batch, MOPD, LR)
    engine.save(tmp_path / "state")
    metrics = engine.trainer.step(batch, MOPD, LR)
    policy, done = files_of(engine, tmp_path / "unbroken"), any_engine.sample()

    any_engine.load()
    assert files_of(engine, tmp_path / "base") != policy
    engine.restore(tmp_path / "state")
    assert engine.trainer.step(batch, MOPD, LR) == metrics
    assert files_of(engine, tmp_path / "resumed") == policy
    assert any_engine.sample() == done
    with pytest.raises(UserError, match=r"trainer\.json"):
        engine.restore(any_engine.base)


@pytest.mark.slow
def test_an_export_loads_again_and_leaves_other_files_alone(
    any_engine: Setting, tmp_path: Path
) -> None:
    engine = any_engine.load()
    engine.trainer.step(any_engine.batch(), MOPD, LR)
    done = any_engine.sample()
    (tmp_path / "notes.txt").write_text("mine")
    exported = files_of(engine, tmp_path)
    assert sorted(exported) == ["config.json", "model.safetensors", "notes.txt"]
    engine.load(tmp_path, Optim())
    assert any_engine.sample() == done


@pytest.mark.slow
def test_a_small_export_has_the_bytes_of_the_saved_state(
    computing: Setting, tmp_path: Path
) -> None:
    if not isinstance(computing.engine, LocalEngine):
        pytest.skip("its state is cut into shards")
    engine = computing.load()
    engine.save(tmp_path / "state")
    exported = files_of(engine, tmp_path / "export")
    for name, content in exported.items():
        assert content == (tmp_path / "state" / name).read_bytes(), name


@pytest.mark.slow
def test_a_large_export_is_cut_into_shards_that_give_the_same_log_probs(
    computing: Setting, tmp_path: Path
) -> None:
    engine = computing.load()
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    files_of(engine, whole)
    files_of(engine, cut)
    engine.export(cut, shard_bytes=400_000)
    names = {path.name for path in cut.iterdir()}
    shards = names - {"config.json", "model.safetensors.index.json"}
    assert len(shards) > 2 and names - shards == {"config.json", "model.safetensors.index.json"}
    assert "model.safetensors" not in shards, "the whole file would be read in place of the shards"
    assert all((cut / name).stat().st_size < 450_000 for name in shards)

    sequences = [[5, 6, 7, 8, 9]] * 3
    assert engine.score(cut, sequences) == engine.score(whole, sequences)
    engine.export(cut)
    assert {path.name for path in cut.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.slow
def test_another_checkpoints_sampler_leaves_the_policy_alone(any_engine: Setting) -> None:
    engine = any_engine.load()
    at_base = any_engine.sample()
    other = engine.sampler_of(any_engine.base)
    assert sample_all(other, requests()) == at_base
    engine.trainer.step(samples_of(requests(), at_base), MOPD, LR)
    trained = any_engine.sample()
    if not isinstance(engine, FakeEngine):
        assert sample_all(other, requests()) == at_base
    assert any_engine.sample() == trained


@pytest.mark.slow
def test_a_batch_that_is_not_finite_raises_and_changes_nothing(
    any_engine: Setting, tmp_path: Path
) -> None:
    engine = any_engine.load()
    done, policy = any_engine.sample(), files_of(engine, tmp_path)
    batch = samples_of(requests(), done)
    broken = replace(batch[0], advantage=[math.nan] * len(batch[0].tokens))
    with pytest.raises(RunFailed):
        engine.trainer.step([broken, *batch[1:]], MOPD, LR)
    assert files_of(engine, tmp_path) == policy
    assert any_engine.sample() == done


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_raises_and_changes_nothing(
    computing: Setting, tmp_path: Path
) -> None:
    engine = computing.load()
    batch, policy = computing.batch(), files_of(engine, tmp_path)
    huge = [replace(s, advantage=[1e38] * len(s.tokens)) for s in batch]
    with pytest.raises(RunFailed, match="unchanged"):
        engine.trainer.step(huge, Loss("grpo", kl=1e38), LR)
    assert files_of(engine, tmp_path) == policy


@pytest.mark.slow
def test_a_closed_engine_can_be_loaded_again(any_engine: Setting) -> None:
    engine = any_engine.load()
    done = any_engine.sample()
    assert engine.cpu_seconds() >= 0.0
    engine.close()
    engine.close()
    assert engine.cpu_seconds() == 0.0
    any_engine.load()
    assert any_engine.sample() == done


@pytest.mark.slow
def test_work_costs_processor_time(computing: Setting) -> None:
    engine = computing.load()
    before = engine.cpu_seconds()
    computing.sample()
    assert engine.cpu_seconds() > before > 0
