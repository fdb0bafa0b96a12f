"""The cluster's driver: who is replaced, who is ended, and what is never trained on. No torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.fake_cluster import REQUESTS, Cluster, dies, messages
from support.fake_places import FakeProcess, drawn
from support.sampling import sample_all, samples_of

from linn.engine.local.device import device_of
from linn.engine.training.token_weights import StepFailed
from linn.errors import DiskFull, EngineLost, InfrastructureError, RunFailed, UserError
from linn.recipe.schema import ScaleConfig
from linn.scale import replicas
from linn.scale.open import open_cluster
from linn.scale.ranks import GRACE_LOOKS
from linn.types import Completion, Loss, Optim, Sampling

MOPD = Loss("mopd", "sequence")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path)
    made.engine.load(tmp_path / "base", Optim())
    return made


def test_samplers_take_the_weights_that_a_step_made(cluster: Cluster) -> None:
    before = cluster.sample()
    assert before == [drawn(*request, 0) for request in REQUESTS]
    cluster.engine.trainer.step(samples_of(REQUESTS, before), MOPD, 0.1)
    assert cluster.sample() == [drawn(*request, 1) for request in REQUESTS]
    first = cluster.places.of("sampler 0")[0]
    assert messages(first).count("take") == 1
    # Sampling twice from the same weights brings them over once.
    cluster.sample()
    assert messages(first).count("take") == 1


@pytest.mark.parametrize("does", [dies, lambda process, arguments: "hangs"])
def test_a_lost_sampler_is_replaced_and_does_its_own_share_again(
    cluster: Cluster, does: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first = cluster.sample()
    cluster.engine.trainer.step(samples_of(REQUESTS, first), MOPD, 0.1)
    turn = cluster.sample()
    cluster.once("sampler 1", "generate", does)
    # A second turn: it goes on from what the first one left in the sampler.
    longer = [
        ((*ids, *done.ids, 9), how, seed)
        for (ids, how, seed), done in zip(REQUESTS, turn, strict=True)
    ]
    assert sample_all(cluster.engine.sampler, longer) == [drawn(*one, 1) for one in longer]

    lost, new = cluster.places.of("sampler 1")
    assert lost.ended == "killed"
    assert messages(new) == ["load", "take", "generate", "generate"]
    assert new.asked[2:] == lost.asked[-2:], "the turn before, then the share that was lost"
    assert len(cluster.places.of("sampler 0")) == 1
    assert "sampler 1" in capsys.readouterr().err


def test_turns_that_are_too_many_to_keep_are_read_anew(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "MOST_TOKENS", 3)
    turn = cluster.sample()
    cluster.once("sampler 1", "generate", dies)
    longer = [
        ((*ids, *done.ids, 9), how, seed)
        for (ids, how, seed), done in zip(REQUESTS, turn, strict=True)
    ]
    assert sample_all(cluster.engine.sampler, longer) == [drawn(*one, 0) for one in longer]
    _, new = cluster.places.of("sampler 1")
    assert messages(new) == ["load", "generate"]
    assert not any(new.asked[1][1][2]), "nothing is known to it"


def test_a_sampler_that_is_lost_again_and_again_ends_the_call(cluster: Cluster) -> None:
    def fault(process: FakeProcess, message: str, arguments: tuple[Any, ...]) -> Any:
        if process.name == "sampler 1" and message == "generate":
            dies(process, arguments)

    cluster.faults.append(fault)
    with pytest.raises(EngineLost, match="sampler 1 ended with exit code -9.*lost"):
        cluster.sample()
    cluster.faults.clear()
    cluster.engine.load(Path("base"), Optim())
    assert cluster.sample() == [drawn(*request, 0) for request in REQUESTS]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda version, done: (version - 1, done), "sampler 0 sampled from version 0 of the weig"),
        (lambda version, done: (version, done[:-1]), "sampler 0 gave 3 completions for 4 requests"),
        (
            lambda version, done: (version, [Completion((1, 2), (-1.0,), "length")] * len(done)),
            "sampler 0, request of seed 0: 1 log-probs came back with 2 tokens",
        ),
        (
            lambda version, done: (version, [Completion((1,), (0.7,), "length")] * len(done)),
            "sampler 0, request of seed 0: a log-prob is 0.7",
        ),
        (
            lambda version, done: (
                version,
                [Completion((1,), (float("nan"),), "length")] * len(done),
            ),
            "sampler 0, request of seed 0: a log-prob is nan",
        ),
        (
            lambda version, done: (version, [Completion((), (), "length")] * len(done)),
            "sampler 0, request of seed 0: 0 tokens came back, 1 to 3 were asked for",
        ),
    ],
)
def test_what_no_sampler_can_have_drawn_is_refused(
    cluster: Cluster, change: Any, said: str
) -> None:
    cluster.sample()

    def lies(process: FakeProcess, arguments: tuple[Any, ...]) -> Any:
        return True, change(*cluster.generate(process, *arguments))

    cluster.once("sampler 0", "generate", lies)
    with pytest.raises(RunFailed, match=said):
        cluster.sample()


def test_samplers_that_have_not_the_trainers_weights_are_found_at_once(cluster: Cluster) -> None:
    def fault(process: FakeProcess, message: str, arguments: tuple[Any, ...]) -> Any:
        if process.name == "sampler 1" and message == "take":
            return True, None  # as if it had

    cluster.faults.append(fault)
    done = cluster.sample()
    cluster.engine.trainer.step(samples_of(REQUESTS, done), MOPD, 0.1)
    with pytest.raises(RunFailed, match="sampler 1 sampled from version 1"):
        cluster.sample()

    # One that says the right version, and computes otherwise.
    cluster.faults.clear()

    def slightly(process: FakeProcess, message: str, arguments: tuple[Any, ...]) -> Any:
        if process.name == "sampler 1" and message == "generate":
            version, own = cluster.generate(process, *arguments)
            off = [Completion(c.ids, tuple(x - 0.01 for x in c.logprobs), c.finish) for c in own]
            return True, (version, off)

    cluster.engine.load(Path("base"), Optim())
    cluster.faults.append(slightly)
    with pytest.raises(RunFailed, match="sampler 1 and the trainer disagree.*1.0e-02 on average"):
        cluster.sample()


def test_a_lost_rank_ends_all_and_the_engine_can_be_loaded_again(cluster: Cluster) -> None:
    done = cluster.sample()
    cluster.once("trainer rank 1", "step", dies)
    batch = samples_of(REQUESTS, done)
    with pytest.raises(EngineLost, match="trainer rank 1 ended with exit code -9.*in `step`"):
        cluster.engine.trainer.step(batch, MOPD, 0.1)
    assert [one.ended for one in cluster.places.processes[:2]] == ["killed", "killed"]

    cluster.engine.load(Path("base"), Optim())
    assert cluster.sample() == done
    met = [one.options for one in cluster.places.of("trainer rank 0")]
    assert len(met) == 2


def looks_of(cluster: Cluster) -> list[float]:
    """The seconds of each look at who has answered, from now on."""
    looks: list[float] = []
    answered = cluster.places.answered

    def noted(processes: Any, seconds: float) -> Any:
        looks.append(seconds)
        return answered(processes, seconds)

    cluster.places.answered = noted  # type: ignore[method-assign]
    return looks


def test_a_rank_that_fails_alone_ends_those_that_wait_for_it(cluster: Cluster) -> None:
    def fault(process: FakeProcess, message: str, arguments: tuple[Any, ...]) -> Any:
        if message != "step":
            return None
        return (False, RuntimeError("no memory")) if process.name.endswith("0") else "hangs"

    cluster.faults.append(fault)
    batch = samples_of(REQUESTS, cluster.sample())
    looks = looks_of(cluster)
    with pytest.raises(EngineLost, match="no memory; trainer rank 1 still waited"):
        cluster.engine.trainer.step(batch, MOPD, 0.1)
    assert len(looks) == GRACE_LOOKS + 1


@pytest.mark.parametrize(
    ("error", "most_looks"),
    [
        (DiskFull("No space left on device: /exchange needs 9 MB"), 1),
        (UserError("/base is not there"), GRACE_LOOKS + 1),
        (StepFailed("the loss is not finite"), GRACE_LOOKS + 1),
    ],
)
def test_what_no_new_start_cures_is_raised_as_itself(
    cluster: Cluster, error: Exception, most_looks: int
) -> None:
    batch = samples_of(REQUESTS, cluster.sample())

    def fault(process: FakeProcess, message: str, arguments: tuple[Any, ...]) -> Any:
        if message == "step":
            return (False, error) if process.name == "trainer rank 0" else "hangs"

    cluster.faults.append(fault)
    looks = looks_of(cluster)
    with pytest.raises(type(error), match=str(error)):
        cluster.engine.trainer.step(batch, MOPD, 0.1)
    assert len(looks) == most_looks
    assert [one.ended for one in cluster.places.processes[:2]] == ["killed", "killed"]


def test_a_sampler_that_ends_on_a_full_disk_is_not_replaced(cluster: Cluster) -> None:
    def full(process: FakeProcess, arguments: tuple[Any, ...]) -> Any:
        raise DiskFull("No space left on device for temporary files: sampler 1 ended")

    cluster.sample()
    cluster.once("sampler 1", "generate", full)
    with pytest.raises(DiskFull, match="sampler 1 ended"):
        cluster.sample()
    assert [one.ended for one in cluster.places.of("sampler 1")] == ["killed"]


def test_an_error_that_ranks_agree_on_is_raised_and_they_stay(cluster: Cluster) -> None:
    def fault(process: FakeProcess, message: str, arguments: tuple[Any, ...]) -> Any:
        if message == "step":
            own = process.name.endswith("1")
            return False, UserError("token 99") if own else StepFailed("another rank failed")

    batch = samples_of(REQUESTS, cluster.sample())
    cluster.faults.append(fault)
    with pytest.raises(UserError, match="token 99"):
        cluster.engine.trainer.step(batch, MOPD, 0.1)
    cluster.faults.clear()
    assert cluster.engine.trainer.step(batch, MOPD, 0.1) == {"loss": 1.0}
    assert not any(one.ended for one in cluster.places.processes)


def test_log_probs_of_before_a_cut_come_from_the_trainers(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    object.__setattr__(cluster.engine._options, "after_cut", True)
    cluster.engine.load(tmp_path / "base", Optim())
    cut = [
        (ids, Sampling(3, 0.5, top_p=0.9 if seed % 2 else 1.0), seed) for ids, _, seed in REQUESTS
    ]

    def fault(process: FakeProcess, message: str, arguments: tuple[Any, ...]) -> Any:
        # Only what was cut is asked for again, at its own temperature.
        if message == "score" and arguments[1] and arguments[2] == 0.5:
            return True, [[-9.0] * len(ids) for ids in arguments[1]]

    cluster.faults.append(fault)
    done = sample_all(cluster.engine.sampler, cut)
    for (_, how, _), completion in zip(cut, done, strict=True):
        assert (completion.logprobs == (-9.0,) * 3) is (how.top_p < 1)


def test_gpus_are_taken_where_there_are_enough() -> None:
    scale = ScaleConfig(engine="cluster", trainers={"ranks": 4}, samplers={"replicas": 4})  # type: ignore[arg-type]
    assert device_of(scale, 0) == "cpu"
    assert device_of(scale, 8) == "cuda"
    asked = scale.model_copy(update={"device": "cuda"})
    with pytest.raises(UserError, match="need 8 GPUs, this machine has 2; .*colocated: true"):
        device_of(asked, 2)
    assert device_of(asked.model_copy(update={"places": "ray"}), 0) == "cuda"
    in_turn = ScaleConfig(engine="cluster", samplers={"colocated": True})  # type: ignore[arg-type]
    assert (device_of(in_turn, 0), device_of(in_turn, 1)) == ("cpu", "cuda")
    with pytest.raises(UserError, match="has 0; .*set device: cpu or places: ray$"):
        device_of(in_turn.model_copy(update={"device": "cuda"}), 0)


def test_a_place_or_a_sampler_that_is_not_installed_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ray = ScaleConfig(engine="cluster", places="ray")
    with pytest.raises(UserError, match=r"scale.places: ray: it cannot be imported .*linn\[ray\]"):
        open_cluster(ray)
    # Before the first stage trains, though nothing samples until it has.
    monkeypatch.setattr("linn.scale.open.find_spec", lambda name: None)
    vllm = ScaleConfig(engine="cluster", samplers={"engine": "vllm"})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"vllm is not installed here; install linn\[vllm\]"):
        open_cluster(vllm)


def test_a_misspelt_argument_of_vllm_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vllm" / "engine").mkdir(parents=True)
    for package in ("vllm", "vllm/engine"):
        (tmp_path / package / "__init__.py").write_text("print('INFO: no newline', end='')\n")
    module = tmp_path / "vllm" / "engine" / "arg_utils.py"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def opened(**arguments: Any) -> None:
        samplers = {"engine": "vllm", "arguments": arguments}
        open_cluster(ScaleConfig(engine="cluster", samplers=samplers))  # type: ignore[arg-type]

    # Without arguments nothing is imported: this would fail.
    module.write_text("raise ImportError('libcudart.so.13: cannot open')\n")
    opened()
    with pytest.raises(UserError, match=r"vllm cannot be imported \(ImportError: libcudart.so.13"):
        opened(enforce_eager=True)
    module.write_text(
        "from dataclasses import dataclass\n\n@dataclass\nclass EngineArgs:\n"
        "    enforce_eager: bool = False\n    max_num_batched_tokens: int = 0\n"
    )
    opened(enforce_eager=True, max_num_batched_tokens=8)
    error = "scale.samplers.arguments: vLLM's engine has no 'enforce_eagre'; did you mean 'enforce_"
    with pytest.raises(UserError, match=error):
        opened(enforce_eager=True, enforce_eagre=True)
    assert "vllm" not in sys.modules


def test_the_driver_needs_no_torch() -> None:
    code = "import sys, linn.scale.open, linn.scale.cluster; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_lost_engine_is_the_machines_fault() -> None:
    assert issubclass(EngineLost, InfrastructureError)
