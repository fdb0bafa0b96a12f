"""What leaves linn: other people's folders in every layout, checkpoints and exports beside them."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import families
from tokenizers import Tokenizer
from torch import Tensor

from linn import files
from linn.assets import TEMPLATES, copy_assets, write_chat
from linn.bases.make import new_model
from linn.chat.codec import Codec
from linn.chat.render import render
from linn.chat.template import Nemotron, TemplateName
from linn.engine.models.export import export
from linn.engine.models.load import load
from linn.errors import InfrastructureError, UserError
from linn.run.export import bytes_in, export_checkpoint
from linn.types import Message

pytestmark = pytest.mark.slow

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
}


def base(folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A Qwen3 folder with tied embeddings, as transformers writes it."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(**SIZES | {"tie_word_embeddings": True} | changes)
    Qwen3ForCausalLM(config).to(dtype).save_pretrained(folder)
    return folder


def config_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


def change_config(folder: Path, **changes: Any) -> None:
    config = config_in(folder) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def weights(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    dtypes = [{name: value.dtype for name, value in state.items()} for state in (one, two)]
    return dtypes[0] == dtypes[1] and all(torch.equal(one[name], two[name]) for name in one)


def trained(start: Path, folder: Path, shard_bytes: int = 10**9) -> Path:
    """A checkpoint as a stage writes it, without any step."""
    with files.whole_folder(folder) as part:
        export(load(start), part, shard_bytes)
        copy_assets(start, part)
    return folder


# ---------------------------------------------------------------- dtype and size


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16], ids=str)
def test_an_export_has_the_dtype_and_the_size_of_its_base(tmp_path: Path, dtype) -> None:
    """A checkpoint holds float32; what was not trained leaves with its base's very bits."""
    start = base(tmp_path / "base", dtype)
    checkpoint = trained(start, tmp_path / "checkpoint")
    assert {value.dtype for value in weights(checkpoint).values()} == {torch.float32}
    assert config_in(checkpoint)["dtype"] == "float32"

    # Two stages on: what the base had is not forgotten.
    later = trained(checkpoint, tmp_path / "later")
    out = export_checkpoint(str(later), tmp_path / "out")
    assert same(weights(out), weights(start))
    assert (out / "model.safetensors").stat().st_size == pytest.approx(
        (start / "model.safetensors").stat().st_size, rel=0.01
    )
    name = str(dtype).removeprefix("torch.")
    assert (config_in(out)["dtype"], config_in(out)["torch_dtype"]) == (name, name)
    assert "linn" not in config_in(out)


def test_a_head_that_is_tied_is_written_once(tmp_path: Path) -> None:
    """Also where somebody's folder holds it twice. Nemotron-H's is not tied in transformers."""
    start = base(tmp_path / "base", torch.bfloat16)
    state = weights(start)
    twice = state | {"lm_head.weight": state["model.embed_tokens.weight"].clone()}
    save_file(twice, start / "model.safetensors", metadata={"format": "pt"})
    assert same(weights(export_checkpoint(str(start), tmp_path / "converted")), state)
    checkpoint = trained(start, tmp_path / "checkpoint")
    assert same(weights(export_checkpoint(str(checkpoint), tmp_path / "out")), state)

    own = tmp_path / "own"
    own.mkdir()
    new_model(own, 64, seed=0)
    change_config(own, tie_word_embeddings=True)
    head, embeddings = "lm_head.weight", "backbone.embeddings.weight"
    state = {name: value.bfloat16() for name, value in weights(own).items()}
    state[head] = state[embeddings].clone()
    save_file(state, own / "model.safetensors", metadata={"format": "pt"})
    model = load(own)
    with torch.no_grad():
        model.backbone.embeddings.weight.add_(1e-5)  # type: ignore[union-attr]
    with files.whole_folder(tmp_path / "own-checkpoint") as part:
        export(model, part, 10**9)
    again = weights(export_checkpoint(str(tmp_path / "own-checkpoint"), tmp_path / "own-out"))
    assert torch.equal(again[head], again[embeddings])
    assert not torch.equal(again[head], state[head])


def test_tensors_that_a_bfloat16_base_keeps_in_float32_stay_so(tmp_path: Path) -> None:
    start = tmp_path / "base"
    start.mkdir()
    new_model(start, 64, seed=0)
    exact = ("A_log", "e_score_correction_bias")
    mixed = {}
    for name, value in weights(start).items():
        mixed[name] = value if name.endswith(exact) else value.bfloat16()
    save_file(mixed, start / "model.safetensors", metadata={"format": "pt"})
    checkpoint = trained(start, tmp_path / "checkpoint")
    out = export_checkpoint(str(checkpoint), tmp_path / "out")
    assert same(weights(out), mixed)

    wide = export_checkpoint(str(checkpoint), tmp_path / "wide", dtype="float32")
    assert {value.dtype for value in weights(wide).values()} == {torch.float32}
    half = export_checkpoint(str(checkpoint), tmp_path / "half", dtype="float16")
    assert config_in(half)["dtype"] == "float16"
    assert {v.dtype for n, v in weights(half).items() if not n.endswith(exact)} == {torch.float16}


@pytest.mark.parametrize("config_says", [None, "float32"])
def test_the_dtype_is_that_of_the_weights_whatever_the_config_says(tmp_path: Path, config_says):
    start = base(tmp_path / "base", torch.bfloat16)
    change_config(start, dtype=config_says, torch_dtype=None)
    out = export_checkpoint(str(trained(start, tmp_path / "checkpoint")), tmp_path / "out")
    assert config_in(out)["dtype"] == "bfloat16" and same(weights(out), weights(start))


def test_a_value_beyond_the_dtype_is_refused(tmp_path: Path) -> None:
    start = base(tmp_path / "base")
    state = weights(start)
    name = "model.norm.weight"
    for value, said in (
        (1e5, r"model\.norm\.weight holds 1e\+05.*bfloat16"),
        (torch.nan, "broken"),
    ):
        state[name] = torch.full_like(state[name], value)
        save_file(state, start / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError, match=said):
            export_checkpoint(str(start), tmp_path / "out", dtype="float16")
        assert not list(tmp_path.glob("*out*"))


# ---------------------------------------------------------------- shards


def test_shards_are_written_and_read_again_everywhere(tmp_path: Path) -> None:
    start = base(tmp_path / "base")
    whole = weights(start)
    checkpoint = trained(start, tmp_path / "checkpoint", shard_bytes=20_000)
    assert len(list(checkpoint.glob("*.safetensors"))) > 2
    assert not (checkpoint / "model.safetensors").exists()

    # A later stage, an export of shards, an export into other shards, one into a single file.
    assert same(weights(trained(checkpoint, tmp_path / "next")), whole)
    out = export_checkpoint(str(checkpoint), tmp_path / "out", shard_size="30KB")
    sizes = [file.stat().st_size for file in out.glob("*.safetensors")]
    assert len(sizes) > 2 and max(sizes) < 32_000
    assert same(weights(out), whole)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == whole.keys()
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in whole.values())
    assert same(weights(export_checkpoint(str(out), tmp_path / "one")), whole)
    assert not (tmp_path / "one/model.safetensors.index.json").exists()

    # transformers reads them too.
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(out).state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in whole.items())

    sorted(out.glob("*.safetensors"))[1].unlink()
    with pytest.raises(UserError, match="no model-00002"):
        load(out)


def test_sizes_of_shards() -> None:
    assert (bytes_in("5GB"), bytes_in("1.5 mb"), bytes_in("2GiB")) == (5 * 10**9, 1_500_000, 2**31)
    for size in ("5", "GB", "0GB", "-1GB", "5TB", ""):
        with pytest.raises(UserError, match="5GB"):
            bytes_in(size)


# ---------------------------------------------------------------- config


def test_the_config_is_the_bases_own(tmp_path: Path) -> None:
    """Old words that transformers of today renames, and keys it does not know, stay."""
    start = base(tmp_path / "base", torch.bfloat16)
    rope = {"rope_type": "linear", "factor": 2.0}
    change_config(
        start,
        rope_parameters=None,
        rope_theta=5e5,
        rope_scaling=rope,
        auto_map={"AutoConfig": "configuration_mine.MineConfig"},
        mine={"deep": [1, 2]},
        dtype=None,
        torch_dtype="bfloat16",
    )
    before = config_in(start)
    for folder in (
        trained(start, tmp_path / "checkpoint"),
        export_checkpoint(str(tmp_path / "checkpoint"), tmp_path / "out"),
    ):
        after = config_in(folder)
        for key in before.keys() - {"torch_dtype"}:
            assert after[key] == before[key], key
        assert after.keys() - before.keys() <= {"dtype", "linn"}
    ids = torch.arange(1, 9)[None]
    one, two = load(start), load(tmp_path / "checkpoint")
    assert torch.equal(one.hidden(ids, ids * 0), two.hidden(ids, ids * 0))


# ---------------------------------------------------------------- files beside the weights

KEPT = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer.model.v3",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "qwen.tiktoken",
    "modeling_mine.py",
    "preprocessor_config.json",
    "LICENSE.txt",
)
LEFT = (
    "tf_model.h5",
    "flax_model.msgpack",
    "consolidated.00.pth",
    "model.gguf",
    "model.onnx",
    "model.onnx_data",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "rust_model.ot",
    "extra.safetensors",
    "adapter_config.json",
    "hf_quant_config.json",
    "README.md",
    ".gitattributes",
)


def test_files_of_the_tokenizer_are_kept_and_weights_in_other_formats_are_not(tmp_path: Path):
    start = base(tmp_path / "base")
    for name in (*KEPT, *LEFT):
        (start / name).write_text("{}")
    (start / "onnx").mkdir()
    checkpoint = trained(start, tmp_path / "checkpoint")
    names = {path.name for path in checkpoint.iterdir()}
    assert names == {*KEPT, "config.json", "generation_config.json", "model.safetensors"}
    out = export_checkpoint(str(checkpoint), tmp_path / "out")
    assert {path.name for path in out.iterdir()} == names | {"README.md"}


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_are_those_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        start = base(tmp_path / "base")
        (start / "tokenizer.json").write_text("{}")
        (start / "tokenizer.json").chmod(0o400)
        checkpoint = trained(start, tmp_path / "checkpoint", shard_bytes=20_000)
        out = export_checkpoint(str(checkpoint), tmp_path / "out")
        export(load(start), checkpoint, 10**9)  # not within a whole folder
    finally:
        os.umask(before)
    for path in [*checkpoint.iterdir(), *out.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path


def test_a_folder_of_the_hubs_cache(tmp_path: Path) -> None:
    """Links into a store of blobs, in folders that cannot be written to."""
    plain = base(tmp_path / "plain", torch.bfloat16)
    (plain / "tokenizer.json").write_text("{}")
    snapshot = tmp_path / "models--me--it/snapshots/abc"
    blobs = tmp_path / "models--me--it/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(plain.iterdir())):
        shutil.copyfile(file, blobs / str(number))
        (blobs / str(number)).chmod(0o444)
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    snapshot.chmod(0o555)
    checkpoint = trained(snapshot, tmp_path / "checkpoint")
    out = export_checkpoint(str(checkpoint), tmp_path / "out")
    direct = export_checkpoint(str(snapshot), tmp_path / "direct")
    for folder in (checkpoint, out, direct):
        assert not any(path.is_symlink() for path in folder.iterdir())
        assert (folder / "tokenizer.json").read_text() == "{}"
    assert same(weights(out), weights(plain)) and same(weights(direct), weights(plain))
    snapshot.chmod(0o755)


# ---------------------------------------------------------------- refusals


def test_weights_that_cannot_be_trained_are_one_line(tmp_path: Path) -> None:
    start = base(tmp_path / "base")
    state = weights(start)
    torch.save(state, start / "pytorch_model.bin")
    (start / "model.safetensors").rename(tmp_path / "kept")
    for call in (load, lambda folder: export_checkpoint(str(folder), tmp_path / "out")):
        with pytest.raises(UserError, match=r"safetensors only, not pytorch_model\.bin.*save_pre"):
            call(start)

    whole = (tmp_path / "kept").read_bytes()
    (start / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    for call in (load, lambda folder: export_checkpoint(str(folder), tmp_path / "out")):
        with pytest.raises(UserError, match=r"model\.safetensors: not whole safetensors"):
            call(start)

    (start / "model.safetensors").write_bytes(whole)
    change_config(start, quantization_config={"quant_method": "mxfp4"})
    with pytest.raises(UserError, match=r"quantization_config \(mxfp4\)"):
        load(start)
    change_config(start, quantization_config=None)
    state["model.norm.weight"] = state["model.norm.weight"].to(torch.float8_e4m3fn)
    save_file(state, start / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model\.norm\.weight is F8_E4M3: quantised"):
        load(start)
    (start / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(UserError, match="not an index of shards"):
        load(start)


def test_an_export_never_destroys_what_is_there(tmp_path: Path) -> None:
    start = base(tmp_path / "base")
    out = tmp_path / "out"
    out.mkdir()
    export_checkpoint(str(start), out)  # an empty folder will do
    before = {path: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for target in (out, start, tmp_path / "file", tmp_path / "link"):
        with pytest.raises(UserError, match="give a new folder"):
            export_checkpoint(str(start), target)
    assert {path: path.read_bytes() for path in out.iterdir()} == before

    with pytest.raises(UserError, match=r"float64.*float32, bfloat16, float16"):
        export_checkpoint(str(start), tmp_path / "new", dtype="float64")
    with pytest.raises(UserError, match="lots.*5GB"):
        export_checkpoint(str(start), tmp_path / "new", shard_size="lots")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "file", "link", "out"]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    start = base(tmp_path / "base")
    (start / "tokenizer.json").write_text("x" * 60_000)

    # A limit on the size of a file stands for a full disk; SIGXFSZ is ignored by Python.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, dtype in ((20_000, None), (50_000, "bfloat16")):  # in the weights; after them
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(InfrastructureError, match=r"out: cannot be written .*nothing was;"):
                export_checkpoint(str(start), tmp_path / "out", dtype)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [path.name for path in tmp_path.iterdir()] == ["base"]

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(InfrastructureError, match=r"weights take 0\.00 GB.*another disk"):
        export_checkpoint(str(start), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_only_one_shard_is_held_at_a_time(tmp_path: Path, monkeypatch) -> None:
    """An export of a model larger than the memory is one of its shards at a time."""
    from linn.engine.models import weight_files

    start = base(tmp_path / "base")
    held: list[int] = []
    import safetensors.torch

    original = safetensors.torch.save_file

    def noted(tensors: dict[str, Tensor], *arguments: Any, **options: Any) -> None:
        held.append(sum(tensor.nbytes for tensor in tensors.values()))
        original(tensors, *arguments, **options)

    monkeypatch.setattr(safetensors.torch, "save_file", noted)
    assert weight_files.WHOLE == "model.safetensors"
    export_checkpoint(str(start), tmp_path / "out", shard_size="20KB")
    assert len(held) > 2 and max(held) <= 20_000


# ---------------------------------------------------------------- template and stops


class Own(Nemotron):
    """A template of a model's own, as far as a folder tells of it."""

    name: TemplateName = "own"
    jinja = "{% for m in messages %}{{ m.content }}<|eot_id|>{% endfor %}"
    stops = ("<|eot_id|>", "<|end_of_text|>")


class OwnCodec(Codec):
    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.template = tokenizer, Own()
        self.stops = tuple(tokenizer.token_to_id(stop) for stop in Own.stops)
        self.eos = self.stops[0]


def read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def with_many_templates(folder: Path) -> None:
    """As tokenizers of several templates were saved before 2025, and as they are today."""
    named = [{"name": n, "template": n} for n in ("default", "tool_use", "rag", "../../evil")]
    config = read(folder / "tokenizer_config.json")
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": named}))
    (folder / "chat_template.json").write_text('{"chat_template": "another"}')
    (folder / TEMPLATES).mkdir()
    for name in ("tool_use", "short"):
        (folder / TEMPLATES / f"{name}.jinja").write_text(name)


TOOLS = ({"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},)


def test_no_second_template_contradicts_the_trained_one(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    families.write("qwen3", tmp_path)
    with_many_templates(tmp_path)
    write_chat(tmp_path, Codec.load(tmp_path, "nemotron"))
    assert sorted(p.name for p in tmp_path.rglob("*template*")) == ["chat_template.jinja"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = render([Message("user", "hi")], TOOLS, thinking=False)
    for tools in (None, list(TOOLS)):
        written = tokenizer.apply_chat_template(
            [{"role": "user", "content": "hi"}],
            tools=tools,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        assert tools is None or written == text


def test_templates_that_are_used_by_name_stay_beside_a_models_own(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "a" / "b"
    tokenizer = families.write("llama3", folder)
    with_many_templates(folder)
    write_chat(folder, OwnCodec(tokenizer))
    assert sorted(path.name for path in (folder / TEMPLATES).iterdir()) == [
        "rag.jinja",
        "short.jinja",
    ]
    assert not list(tmp_path.glob("*.jinja")) and not (folder / "chat_template.json").exists()
    theirs = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "hi"}]
    for tools in (None, list(TOOLS)):
        assert theirs.apply_chat_template(turns, tools=tools, tokenize=False) == "hi<|eot_id|>"
    assert theirs.apply_chat_template(turns, chat_template="rag", tokenize=False) == "rag"


def test_stops_and_padding_stand_everywhere(tmp_path: Path) -> None:
    """The base's other settings stay; a folder without a generation config gets one."""
    tokenizer = families.write("llama3", tmp_path)
    codec = OwnCodec(tokenizer)
    as_token = {"content": "<|end_of_text|>", "lstrip": False, "special": True}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": as_token}))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": as_token, "mine": 1}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(
        json.dumps({"eos_token_id": 7, "text_config": {"eos_token_id": [7]}, "pad_token_id": None})
    )
    generation = {"eos_token_id": 7, "temperature": 0.3, "_from_model_config": True}
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))

    write_chat(tmp_path, codec)
    stops = list(codec.stops)
    pad = tokenizer.token_to_id("<|eot_id|>")
    assert read(tmp_path / "generation_config.json") == {
        "eos_token_id": stops,
        "temperature": 0.3,
        "pad_token_id": pad,
    }
    config = read(tmp_path / "config.json")
    assert config["eos_token_id"] == config["text_config"]["eos_token_id"] == stops
    assert config["pad_token_id"] is None, "its row of the embeddings would not be trained"
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = read(tmp_path / name)
        assert (file["eos_token"], file["pad_token"]) == (as_token, "<|eot_id|>"), name
    assert read(tmp_path / "tokenizer_config.json")["mine"] == 1

    # Said again, nothing changes; without a generation config, there is one.
    before = contents(tmp_path)
    write_chat(tmp_path, codec)
    assert contents(tmp_path) == before
    (tmp_path / "generation_config.json").unlink()
    write_chat(tmp_path, codec)
    assert read(tmp_path / "generation_config.json")["eos_token_id"] == stops


def test_the_tokenizers_end_is_one_of_training(tmp_path: Path) -> None:
    """The base's where its own template writes it, or where it ends a turn too."""
    codec = OwnCodec(families.write("llama3", tmp_path))
    file = tmp_path / "tokenizer_config.json"
    config = read(file)
    for eos, jinja, expected in (
        ("<|end_of_text|>", Own.jinja, "<|end_of_text|>"),
        ("<|python_tag|>", Own.jinja, "<|eot_id|>"),
        ("<|python_tag|>", "{{ eos_token }}" + Own.jinja, "<|python_tag|>"),
        (None, Own.jinja, "<|eot_id|>"),
    ):
        file.write_text(json.dumps(config | {"eos_token": eos}))
        codec.template.jinja = jinja  # type: ignore[misc]
        write_chat(tmp_path, codec)
        assert read(file)["eos_token"] == expected, (eos, jinja)
    families.write("qwen2", tmp_path)
    file.write_text(json.dumps(read(file) | {"eos_token": "<|endoftext|>"}))
    write_chat(tmp_path, Codec.load(tmp_path, "nemotron"))
    assert read(file)["eos_token"] == "<|im_end|>"


def test_a_base_keeps_its_own_padding(tmp_path: Path) -> None:
    families.write("qwen2", tmp_path)
    config = read(tmp_path / "tokenizer_config.json")
    for base_pad, expected in (
        ("<|im_start|>", "<|im_start|>"),
        (
            {"content": "<|im_start|>", "lstrip": False},
            {"content": "<|im_start|>", "lstrip": False},
        ),
        (None, "<|endoftext|>"),
        ("<gone>", "<|endoftext|>"),
    ):
        (tmp_path / "tokenizer_config.json").write_text(
            json.dumps(config | {"pad_token": base_pad})
        )
        write_chat(tmp_path, Codec.load(tmp_path, "nemotron"))
        assert read(tmp_path / "tokenizer_config.json")["pad_token"] == expected


def test_a_run_of_before_is_exported_in_the_template_that_it_trained(tmp_path: Path) -> None:
    """Its checkpoints hold the base's template; all of them were trained in linn's own."""
    checkpoint = tmp_path / "run/stages/01-sft/checkpoints/step-0003"
    base(checkpoint, vocab_size=448)
    families.write("qwen3", checkpoint)
    out = export_checkpoint(f"{tmp_path}/run@sft", tmp_path / "out")
    assert (out / "chat_template.jinja").read_text() == Nemotron().jinja
    assert config_in(out)["eos_token_id"] == Codec.load(out, "nemotron").eos
    assert "| domain |" in (out / "README.md").read_text()

    # A plain folder is what it is, also with an @ in its name.
    plain = tmp_path / "run@sft"
    shutil.copytree(checkpoint, plain)
    direct = export_checkpoint(str(plain), tmp_path / "direct")
    assert (direct / "chat_template.jinja").read_text() == families.FAMILIES["qwen3"].template
