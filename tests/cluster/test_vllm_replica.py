"""vLLM as a sampler: its numbers are the trainer's, and what it cannot compute is refused."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.cluster_models import WRITERS, Figures, write_qwen3

from linn.engine.models.load import load
from linn.engine.sampling.live_batch import BatchSampler
from linn.engine.training.trainer import Trainer
from linn.errors import UserError
from linn.scale.broadcast import WeightGroup
from linn.scale.options import ReplicaOptions
from linn.scale.vllm import VllmReplica
from linn.types import Completion, Optim, Sampling

VOCAB = 1024
CACHE = 24 << 20
CLOSE = 1e-5
"""Nats between the log-probs of sampler and trainer, both in float32; the most that is seen."""


@dataclass
class Setting:
    replica: VllmReplica
    folders: list[Path]
    """Two policies of the same shape; the replica begins with the first."""

    def sample(self, how: Sampling, known: int = 0) -> list[Completion]:
        asked = requests(how)
        _, done = self.replica.generate(None, asked, [known] * len(asked))
        return done


def requests(how: Sampling) -> list[tuple[tuple[int, ...], Sampling, int]]:
    """Groups of four siblings; long prompts, so that kept prefixes would matter."""
    draw = random.Random(0)
    asked = []
    for group in range(6):
        prompt = tuple(draw.randrange(VOCAB) for _ in range(draw.randint(8, 300)))
        asked += [(prompt, how, 10 * group + sibling) for sibling in range(4)]
    return asked


def gap(folder: Path, done: Sequence[Completion], how: Sampling, temperature: float = 1.0) -> float:
    """The largest difference to the log-probs of linn's trainer."""
    trainer = Trainer(load(folder), Optim(), width=1024, tokens=2048)
    asked = requests(how)
    whole = [[*ids, *one.ids] for (ids, _, _), one in zip(asked, done, strict=True)]
    worst = 0.0
    for (ids, _, _), one, row in zip(asked, done, trainer.score(whole, temperature), strict=True):
        gaps = [abs(a - b) for a, b in zip(row[len(ids) :], one.logprobs, strict=True)]
        worst = max(worst, *gaps)
    return worst


@pytest.fixture(scope="module", params=list(WRITERS))
def setting(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    root = tmp_path_factory.mktemp(request.param)
    folders = [WRITERS[request.param](root / str(seed), seed) for seed in range(2)]
    replica = VllmReplica(ReplicaOptions(device="cpu", capacity=16, cache_bytes=CACHE))
    replica.load(folders[0], 1)
    yield Setting(replica, folders)


def test_log_probs_are_the_trainers(setting: Setting, figures: Figures) -> None:
    name = setting.folders[0].parent.name
    # More requests than rows, and more prompt tokens than vLLM computes at once.
    for temperature in (1.0, 0.7, 0.0):
        how = Sampling(24, temperature)
        done = setting.sample(how)
        worst = gap(setting.folders[0], done, how, temperature or 1.0)
        figures.note(f"{name}: vllm beside the trainer, T {temperature}, at most", f"{worst:.1e}")
        assert worst < CLOSE
        if not temperature:
            own = BatchSampler(load(setting.folders[0]), 64).generate(requests(how))
            assert [one.ids for one in own] == [one.ids for one in done]


def test_stops_are_kept_and_end_a_completion(setting: Setting) -> None:
    stop = tuple(range(100))
    for one in setting.sample(Sampling(40, stop=stop)):
        ended = [token in stop for token in one.ids]
        assert not any(ended[:-1])
        assert ended[-1] == (one.finish == "stop")
        assert ended[-1] or len(one.ids) == 40


def test_a_batch_is_a_function_of_itself_and_of_the_weights(setting: Setting) -> None:
    how = Sampling(24)
    first = setting.sample(how)
    assert setting.sample(how) == first
    # Prefixes that were computed with the old weights would be off by 0.07 on average.
    setting.replica.take(setting.folders[1], 2)
    taken = setting.sample(how)
    assert gap(setting.folders[1], taken, how) < CLOSE
    # The next stage's policy comes by `load`, into the same engine.
    setting.replica.load(setting.folders[0], 3)
    assert setting.sample(how) == first
    assert setting.replica.generate(None, [], []) == (3, [])


def test_what_it_cannot_compute_is_refused_and_it_goes_on(setting: Setting) -> None:
    how = Sampling(24)
    before = setting.sample(how)
    ask = setting.replica.generate
    with pytest.raises(UserError, match=f"token {VOCAB + 3}, and the model has embeddings"):
        ask(None, [((1, VOCAB + 3), how, 0)], [0])
    with pytest.raises(ValueError, match="a prompt token is -1"):
        ask(None, [((1, -1), how, 0)], [0])
    with pytest.raises(UserError, match="a sequence of 9,001 tokens: vLLM computes .*scale.cache"):
        ask(None, [((1,) * 9000, how, 0)], [0])
    # It may end before the limit, so it is tried.
    longest = setting.replica._longest
    with pytest.raises(UserError, match="tokens: vLLM computes"):
        ask(None, [((1,) * (longest - 4), Sampling(9), 0)], [0])
    assert setting.sample(how) == before


def test_ids_without_text_are_never_sampled_and_another_shape_gets_another_engine(
    tmp_path: Path,
) -> None:
    replica = VllmReplica(ReplicaOptions(device="cpu", capacity=16, cache_bytes=CACHE))
    replica.load(write_qwen3(tmp_path / "small", layers=1), 1)
    # Half of its ids are in no text: by chance every second token would be one.
    padded = write_qwen3(tmp_path / "padded", vocab=2 * VOCAB)
    replica.load(padded, 2)
    how = Sampling(24)
    asked = requests(how)
    version, done = replica.generate(None, asked, [0] * len(asked))
    assert version == 2
    assert all(token < VOCAB for one in done for token in one.ids)
    assert gap(padded, done, how) < CLOSE


def test_two_processes_that_hold_one_model_take_weights_by_files_and_by_broadcast(
    tmp_path: Path,
) -> None:
    """Each takes its part of every tensor; both ways the same tokens and log-probs."""
    folders = [write_qwen3(tmp_path / str(seed), seed) for seed in range(2)]
    replica = VllmReplica(ReplicaOptions(device="cpu", capacity=16, cache_bytes=CACHE, tensor=2))
    replica.load(folders[0], 1)
    how = Sampling(24)
    setting = Setting(replica, folders)
    begun = setting.sample(how)
    assert gap(folders[0], begun, how) < CLOSE

    replica.take(folders[1], 2)
    by_files = setting.sample(how)
    assert gap(folders[1], by_files, how) < CLOSE
    replica.take(folders[0], 3)
    assert setting.sample(how) == begun

    meeting = f"file://{tmp_path}/meeting"
    with ThreadPoolExecutor() as sender:
        sent = sender.submit(send, meeting, folders[1], 3)
        replica.take_broadcast(meeting, 1, 3, 4)
        sent.result()
    assert setting.sample(how) == by_files


def send(meeting: str, folder: Path, members: int) -> None:
    """All tensors of a folder to the others, as the first trainer rank does it."""
    with closing(WeightGroup(meeting, 0, members, torch.device("cpu"))) as group:
        for name, tensor in load_file(folder / "model.safetensors").items():
            group.send(name, tensor)
        group.end()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"modes": 0}, "unexpected keyword argument 'modes'"),
        ({"enforce_eager": "maybe"}, "enforce_eager: Input should be a valid boolean"),
        ({"quantization": "none"}, "Unknown quantization method: none"),
        ({"compilation_config": {"modes": 0}}, "Field 'modes' not found in CompilationConfig"),
    ],
)
def test_arguments_that_vllm_refuses_are_named(
    tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    options = ReplicaOptions(device="cpu", capacity=16, cache_bytes=CACHE, arguments=arguments)
    folder = write_qwen3(tmp_path / "base", layers=1)
    (name,) = arguments
    with pytest.raises(UserError, match=said) as caught:
        VllmReplica(options).load(folder, 1)
    assert str(caught.value).endswith(f"; look at scale.samplers.arguments ({name})")
    assert "\n" not in str(caught.value)
