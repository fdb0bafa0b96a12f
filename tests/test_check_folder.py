"""`linn check MODEL`: the tokenizer, the template, the recipe's lengths, and what is said of them.

The engine's own findings are `tests/test_model_check.py`'s; here it answers from a script.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.cli import refused, said
from support.fake_engine import FakeEngine

from linn.checkpoints import BASES, devices_of
from linn.cli.check import _model_folder
from linn.engine import open as engine_open
from linn.engine.local import accelerator, device
from linn.engine.local.controller import LocalEngine
from linn.engine.local.device import cuda_ids, device_line, gpus
from linn.engine.protocol import ModelCheck
from linn.errors import UserError
from linn.pricing import model_check
from linn.recipe.load import load
from linn.recipe.scale import SamplersConfig, ScaleConfig, TrainersConfig
from linn.types import Finding

GOOD = ModelCheck((Finding("weights", True, "llama"),), vocab=1024, trained_length=64)
RECIPE = """
name: r
model: {model}
domains: {{arithmetic: {{}}}}
evaluate: {{max_tokens: 8, max_sequence: 40}}
stages:
  - {{name: sft, kind: sft, steps: 1, max_length: {length}}}
  - {{name: rl, kind: rl, steps: 1, max_tokens: 8, max_sequence: {sequence}}}
"""


class Scripted(FakeEngine):
    """An engine that finds what it is told to."""

    def __init__(self, checked: ModelCheck) -> None:
        super().__init__(None)
        self.checked = checked

    def check(self, folder: Path) -> ModelCheck:
        return self.checked


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what the engine finds."""

    def script(checked: ModelCheck = GOOD) -> None:
        monkeypatch.setattr(model_check, "open_engine", lambda scale: Scripted(checked))
        monkeypatch.setattr(model_check, "gpus", list)

    script()
    return script


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A chat model's folder, without weights."""
    out = tmp_path / "model"
    out.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        shutil.copyfile(BASES / "tiny-0" / name, out / name)
    return out


def recipe(tmp_path: Path, model: Path, length: int = 32, sequence: int | str = 32) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.format(model=model, length=length, sequence=sequence))
    return path


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def test_every_line_says_works_or_what_to_do(finds: Any, folder: Path) -> None:
    code, out, _ = said("check", folder)
    assert code == 0
    assert all(line.startswith(("works ", "      ")) for line in out.splitlines())
    assert all(len(line) < 80 for line in out.splitlines())
    assert "a turn ends at <|im_end|>" in out and "thinking off" in out and "the CPU" in out

    broken = Finding("decoding with the cache", False, "log-probs differ by 5 nats")
    finds(replace(GOOD, findings=(broken,)))
    code, out, _ = said("check", folder)
    assert code == 1
    assert "FAIL  decoding with the cache: log-probs differ by 5 nats" in out
    assert json.loads(said("check", folder, "--json")[1])[0]["ok"] is False


def test_padded_rows_are_told_and_a_missing_row_that_the_template_needs_fails(
    finds: Any, folder: Path
) -> None:
    finds(replace(GOOD, vocab=1100))
    found = by_name(model_check.check_folder(folder))
    assert found["tokenizer"].ok and "76 rows" in found["tokenizer"].detail

    # The added tokens of a template are the last ones of many tokenizers.
    finds(replace(GOOD, vocab=600))
    findings = model_check.check_folder(folder)
    templates = [one for one in findings if one.what.startswith("template")]
    assert templates and not any(one.ok for one in templates)
    assert "resize_token_embeddings" in templates[0].detail


def test_a_tokenizer_that_changes_text_fails(finds: Any, folder: Path) -> None:
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    file.write_text(json.dumps(tokenizer))
    found = by_name(model_check.check_folder(folder))
    assert "comes back from its token ids" in found["template nemotron, thinking on"].detail
    file.write_text("{}")
    assert not by_name(model_check.check_folder(folder))["tokenizer"].ok


def test_stops_of_the_folders_own_generation_end_a_turn_too(finds: Any, folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    stops = by_name(model_check.check_folder(folder))["stop tokens"]
    assert stops.ok and "<|im_end|> (2), <|endoftext|> (0)" in stops.detail


@pytest.mark.parametrize(
    ("length", "sequence", "wrong"),
    [
        (32, 32, ""),
        (33, 32, "stage sft: max_length is 33; set it to 32 or less"),
        (32, 40, "stage rl: max_sequence is 40"),
        (32, "null", "stage rl: max_sequence has no limit"),
    ],
)
def test_a_recipe_may_not_ask_for_more_positions_than_there_are(
    finds: Any, folder: Path, tmp_path: Path, length: int, sequence: int | str, wrong: str
) -> None:
    finds(replace(GOOD, positions=32))
    parsed = load(recipe(tmp_path, folder, length, sequence), ["evaluate.max_sequence=32"])
    lengths = by_name(model_check.check_folder(folder, parsed))["lengths"]
    assert lengths.ok == (not wrong)
    assert wrong in lengths.detail


def test_lengths_beyond_training_are_told(finds: Any, folder: Path, tmp_path: Path) -> None:
    parsed = load(recipe(tmp_path, folder, length=65, sequence=70))
    lengths = by_name(model_check.check_folder(folder, parsed))["lengths"]
    assert lengths.ok and "max_length 65" in lengths.detail and "max_sequence 70" in lengths.detail


def test_memory_is_compared_with_the_machine(
    finds: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = load(recipe(tmp_path, folder))
    assert by_name(model_check.check_folder(folder, parsed))["memory"].ok
    monkeypatch.setattr(model_check, "machine_bytes", lambda: 0.5e9)
    memory = by_name(model_check.check_folder(folder, parsed))["memory"]
    assert not memory.ok and "scale.processes" in memory.detail


def test_a_cluster_that_the_model_cannot_be_shared_out_over_is_refused(
    finds: Any, folder: Path, tmp_path: Path
) -> None:
    """Before hours of SFT: a sampler opens when a stage first samples."""
    for tensor, what in ((3, "layout"), (2, "memory")):
        keys = f"scale={{engine: cluster, samplers: {{engine: vllm, tensor: {tensor}}}}}"
        parsed = load(recipe(tmp_path, folder), [keys])
        finding = by_name(model_check.check_folder(folder, parsed))[what]
        assert finding.ok == (what == "memory")
        assert finding.ok or finding.detail.startswith("scale.samplers.tensor: 3: the heads of")


def test_a_run_is_refused_in_one_line_before_anything_is_written(
    finds: Any, folder: Path, tmp_path: Path
) -> None:
    finds(replace(GOOD, findings=(Finding("weights", False, "NaN"),)))
    path = recipe(tmp_path, folder)
    (folder / "model.safetensors").write_bytes(b"")
    code, _, err = said("run", path, "--out", tmp_path / "run")
    assert code == 2 and "weights: NaN" in err and not (tmp_path / "run").exists()
    code, _, err = said("eval", folder, "--recipe", path)
    assert code == 2 and "weights: NaN" in err

    # A run that has begun was checked then, and linn's own bases are known.
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}")
    model_check.check_start(load(path), tmp_path / "run", print)
    model_check.check_start(load(path, ["model=tiny"]), tmp_path / "new", print)
    with pytest.raises(UserError, match="NaN"):
        model_check.check_start(load(path), tmp_path / "new", print)


def test_models_and_domains_are_told_apart(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _model_folder(str(folder)) == folder
    assert _model_folder("tiny") == BASES / "tiny-0"
    assert _model_folder("math") is None and _model_folder("./mine.py") is None

    # A domain's name is the domain, also where a folder is called so.
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "math")
    assert _model_folder("math") is None
    assert _model_folder("./math") == Path("math")
    assert "neither" in refused("check", "./nothere")
    assert "neither a folder nor a domain" in refused("check", "nothere")
    assert "--recipe" in refused("check", "math", "--recipe", "r.yaml")
    assert "--option" in refused("check", "./math", "--option", "a=b")


def test_a_gpu_that_is_not_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert gpus(tmp_path) == [] and device_line(ScaleConfig(), []) == "the CPU"
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    (tmp_path / "dev/nvidiactl").touch()
    assert gpus(tmp_path) == ["NVIDIA GPU"]
    card = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\n")
    assert gpus(tmp_path) == ["NVIDIA H100 80GB HBM3"]
    on_cpu = ScaleConfig(device="cpu")
    assert "H100 80GB HBM3 is not used, scale.device is cpu" in device_line(on_cpu, gpus(tmp_path))
    for number, units in enumerate(("0", "304")):
        node = tmp_path / f"sys/class/kfd/kfd/topology/nodes/{number}"
        node.mkdir(parents=True)
        (node / "properties").write_text(f"cpu_cores_count 8\nsimd_count {units}\n")
    assert gpus(tmp_path) == ["NVIDIA H100 80GB HBM3", "AMD GPU"]
    # A cluster takes those that it was given, by the names that they were given by.
    assert cuda_ids(tmp_path) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7")
    assert cuda_ids(tmp_path) == ["5", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus(tmp_path) == [] == cuda_ids(tmp_path)


def test_a_driver_that_tells_nothing_of_a_card_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses to read the properties of a card that another container has."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    nodes = tmp_path / "sys/class/kfd/kfd/topology/nodes"
    for number, text in enumerate(("simd_count", "simd_count\n304 1\n", "a 1\nsimd_count 304\n")):
        (nodes / str(number)).mkdir(parents=True)
        (nodes / str(number) / "properties").write_text(text)
    # A folder in its place is unreadable for root as well.
    (nodes / "3/properties").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/gpus/0/information").mkdir(parents=True)
    assert gpus(tmp_path) == ["NVIDIA GPU", "AMD GPU"]


def torch_built_for(toolkits: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The torch that is installed has these lines in its version.py; its number says nothing."""
    folder.mkdir(exist_ok=True)
    (folder / "version.py").write_text(f"__version__ = '2.13.0'\ndebug = False\n{toolkits}\n")
    found = SimpleNamespace(origin=str(folder / "__init__.py"))
    monkeypatch.setattr(device, "find_spec", lambda package: found)


def test_the_torch_of_these_tests_is_read_as_it_reads_itself() -> None:
    import torch

    assert device._is_cpu_build() == (torch.version.cuda is None and torch.version.hip is None)


def test_the_local_engine_takes_a_gpu_that_torch_can_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = ["NVIDIA H100 80GB HBM3"]
    auto, asked = ScaleConfig(processes=4), ScaleConfig(device="cuda", precision="bfloat16")
    torch_built_for("cuda = '13.0'\nhip = None", tmp_path, monkeypatch)
    assert device.local_device(auto, card) == "cuda"
    assert device.local_device(auto, []) == device.local_device(auto, [device.APPLE]) == "cpu"
    assert device_line(asked, card) == "NVIDIA H100 80GB HBM3, products in bfloat16"
    assert "the first of 2" in device_line(auto, card * 2)

    torch_built_for("cuda: Optional[str] = None\nhip: Optional[str] = '7.1'", tmp_path, monkeypatch)
    assert device.local_device(auto, card) == "cuda"
    torch_built_for("cuda: Optional[str] = None\nhip: Optional[str] = None", tmp_path, monkeypatch)
    assert device.local_device(auto, card) == "cpu"
    assert "a build for CPUs" in device_line(auto, card)
    # A GPU has one process, and moments may wait beside it; all else stays the cluster's.
    assert asked.devices == asked.training_processes == asked.sampling_processes == 1
    ScaleConfig(device="cuda", trainers={"moments": "host"})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="scale.device: cuda"):
        device.local_device(asked, [])
    with pytest.raises(ValueError, match="trainers: only a cluster"):
        ScaleConfig(trainers={"ranks": 2})  # type: ignore[arg-type]


def test_a_worker_without_the_gpu_that_is_asked_for_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    engine = LocalEngine(processes=1, device="cuda")
    with engine, pytest.raises(UserError, match="install the build of torch"):
        engine.check(Path("anywhere"))


def test_a_run_that_goes_on_elsewhere_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that `auto` finds is no key, so nothing else would tell."""
    recipe = load(BASES.parents[1] / "recipes" / "tiny.yaml", ["scale.device=auto"])
    (tmp_path / "run.json").write_text(json.dumps({"devices": ["CPUs"]}))
    told: list[str] = []
    model_check.check_start(recipe, tmp_path, told.append)
    assert told == [] and devices_of(tmp_path) == ["CPUs"]

    monkeypatch.setattr(device, "gpus", lambda: ["NVIDIA H100 80GB HBM3"])
    torch_built_for("cuda = '13.0'\nhip = None", tmp_path / "torch", monkeypatch)
    model_check.check_start(recipe, tmp_path, told.append)
    assert told[0] == "computing on NVIDIA H100 80GB HBM3, in float32"
    assert "computed on CPUs so far and goes on on NVIDIA H100" in told[1]
    assert devices_of(tmp_path / "nowhere") == []


def test_the_default_of_caches_is_a_share_of_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a GPU a quarter; of a machine an eighth for all its processes, and never too little."""
    assert ScaleConfig().cache_bytes(80e9, on_gpu=True) == 20e9
    assert ScaleConfig(processes=2).cache_bytes(32e9, on_gpu=False) == 2e9
    assert ScaleConfig(processes=2).cache_bytes(1e9, on_gpu=False) == 192 << 20
    trainers, samplers = TrainersConfig(ranks=3), SamplersConfig(replicas=5)
    cluster = ScaleConfig(engine="cluster", trainers=trainers, samplers=samplers, device="cpu")
    assert cluster.cache_bytes(64e9, on_gpu=False) == 1e9
    assert ScaleConfig(cache=3).cache_bytes(80e9, on_gpu=True) == 3 << 20

    # What opens an engine asks the machine, and leaves a GPU's share to who computes there.
    monkeypatch.setattr(engine_open, "machine_bytes", lambda: 32 * 10**9)
    assert engine_open.cache_bytes(ScaleConfig(processes=2), on_gpu=False) == 2e9
    assert engine_open.cache_bytes(ScaleConfig(), on_gpu=True) is None
    assert engine_open.cache_bytes(ScaleConfig(cache=3), on_gpu=True) == 3 << 20
    cpu = torch.device("cpu")
    assert accelerator.cache_bytes(None, cpu) == 192 << 20 and accelerator.cache_bytes(5, cpu) == 5
