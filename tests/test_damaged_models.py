"""A model folder whose config.json is damaged is refused in one line, whatever the damage."""

import json
import shutil
from pathlib import Path

import pytest

from linn.assets import write_chat
from linn.chat.codec import Codec
from linn.chat.folder import chat_template
from linn.checkpoints import BASES
from linn.engine.models.check import check_model
from linn.engine.models.load import load
from linn.errors import UserError
from linn.pricing import model_check

DAMAGED = [
    ("moe_intermediate_size", [64], "expected a whole number"),
    ("hidden_size", True, "expected a whole number"),
    ("head_dim", -32, "expected a whole number"),
    ("n_groups", 0, "not a multiple"),
    ("num_key_value_heads", 0, "not a multiple"),
    ("layer_norm_epsilon", "small", "expected a number"),
    ("routed_scaling_factor", float("nan"), "expected a number"),
    ("norm_topk_prob", "yes", "true or false"),
    ("conv_kernel", 2**40, "expected a whole number"),
    ("hybrid_override_pattern", {"M": 1, "*": None}, "for every layer"),
    ("hybrid_override_pattern", [["M"], "M"], "for every layer"),
]


def damaged(folder: Path, **changes) -> Path:
    shutil.copytree(BASES / "tiny-0", folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(("key", "value", "said"), DAMAGED)
def test_a_config_of_our_own_family_with_an_impossible_value(tmp_path, key, value, said):
    folder = damaged(tmp_path / "model", **{key: value})
    with pytest.raises(UserError, match=said) as refused:
        load(folder)
    assert key in str(refused.value) and str(folder) in str(refused.value)


def test_a_size_that_no_machine_has_and_json_without_an_end(tmp_path):
    with pytest.raises(UserError, match="model"):
        load(damaged(tmp_path / "model", conv_kernel=2**31 - 1, mamba_num_heads=2**31 - 1))
    deep = damaged(tmp_path / "deep")
    (deep / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="not JSON"):
        load(deep)


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_ids_that_no_token_can_have_and_files_that_are_no_objects(tmp_path, file):
    folder = damaged(tmp_path / "model")
    for eos in (10**30, -1, [2, 2**32], True, "2"):
        (folder / file).write_text(json.dumps({"eos_token_id": eos}))
        assert Codec.load(folder).described()
        assert model_check._generation_stops(folder) in ([], [2])
    for content, said in (("[1]", "holds no keys"), ("[" * 100_000, "not JSON")):
        (folder / file).write_text(content)
        with pytest.raises(UserError, match=said):
            write_chat(folder, Codec.load(BASES / "tiny-0"))


def test_a_template_that_is_no_text_or_no_template(tmp_path):
    folder = damaged(tmp_path / "model")
    (folder / "chat_template.jinja").write_bytes(b"{{ messages }}\x98")
    with pytest.raises(UserError, match="chat_template.jinja: not UTF-8"):
        Codec.load(folder)
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = [1, None, {"name": "default", "template": ["x"]}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert chat_template(folder) is None


@pytest.mark.slow
def test_what_its_own_code_cannot_take_is_a_finding(tmp_path):
    """`layers_block_type` of the right length for us, and a field that only transformers reads."""
    folder = damaged(tmp_path / "model", chunk_size="many", num_hidden_layers="many")
    wrong = [finding for finding in check_model(folder).findings if not finding.ok]
    assert wrong and "\n" not in wrong[0].detail
