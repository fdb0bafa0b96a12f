"""What a model folder is refused for, in one line, and what of it is never sampled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from linn.bases.make import new_model
from linn.engine.models import transformers_lm
from linn.engine.models.check import check_model
from linn.engine.models.load import load
from linn.engine.models.transformers_lm import TransformersLM
from linn.engine.sampling.live_batch import BatchSampler
from linn.engine.training.losses import backward, score
from linn.engine.training.pack import micro_batches
from linn.errors import UserError
from linn.types import Loss, Sample, Sampling

pytestmark = pytest.mark.slow

VOCAB = 64
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": None,
}
GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 24}
LONG_ROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 32,
    "rope_theta": 10000.0,
}
DYNAMIC_ROPE = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}


def make(folder: Path, family: str, **special: Any) -> Path:
    """A random model of a family of transformers in a folder."""
    import transformers

    auto: Any = transformers
    torch.manual_seed(0)
    sizes = {} if family == "gpt2" else SIZES
    config = auto.AutoConfig.for_model(family, **sizes | special)
    auto.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def give_tokenizer(folder: Path, tokens: int) -> None:
    """A tokenizer of so many tokens."""
    from tokenizers import Tokenizer, models

    vocabulary = {f"t{number}": number for number in range(tokens)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="t0")).save(str(folder / "tokenizer.json"))


def change(folder: Path, name: str, place: tuple[int, ...], value: float) -> None:
    """Set one number of the weights."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[name][place] = value
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("llama"), "llama", max_position_embeddings=128)


def failing(folder: Path) -> str:
    """The findings that do not hold, in one text."""
    wrong = [finding for finding in check_model(folder).findings if not finding.ok]
    return "; ".join(f"{finding.what}: {finding.detail}" for finding in wrong)


# ---------------------------------------------------------------- computed as its own code does


def test_a_family_that_is_computed_rightly_passes(llama: Path) -> None:
    checked = check_model(llama)
    assert checked.ok and checked.vocab == VOCAB
    assert checked.positions is None and checked.trained_length == 128
    names = [finding.what for finding in checked.findings]
    assert "decoding with the cache" in names and "packed rows" in names


def test_nemotron_h_is_compared_with_the_stock_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_model(tmp_path, VOCAB, seed=1)
    change(tmp_path, "backbone.layers.0.mixer.dt_bias", (0,), -11.0)
    assert not failing(tmp_path)
    monkeypatch.setattr("linn.engine.models.agreement.TOLERANCE", 0.0)
    assert "packed rows" in failing(tmp_path)


def test_zamba_2_is_computed_without_the_floor_that_transformers_has(tmp_path: Path) -> None:
    """Its decoding has none, so the floor would also part the sampler from the trainer."""
    special = {
        "layers_block_type": ["mamba", "hybrid"],
        "num_mem_blocks": 1,
        "mamba_d_state": 8,
        "n_mamba_heads": 4,
        "mamba_headdim": 16,
        "mamba_ngroups": 1,
        "adapter_rank": 4,
        "attention_head_dim": 16,
        "chunk_size": 8,
    }
    make(tmp_path, "zamba2", **special)
    for number in range(4):
        change(tmp_path, "model.layers.0.mamba.dt_bias", (number,), -9.0 - number)
        change(tmp_path, "model.layers.0.mamba.A_log", (number,), 4.0)
    assert not failing(tmp_path)
    model: Any = load(tmp_path)
    limits = [m.time_step_limit for m in model.inner.modules() if hasattr(m, "time_step_limit")]
    assert limits and set(limits) == {(0.0, float("inf"))}


def test_a_family_with_a_state_of_its_own_is_refused_in_one_line(tmp_path: Path) -> None:
    make(tmp_path, "rwkv", attention_hidden_size=32)
    with pytest.raises(UserError, match=r"rwkv.*nats from its own forward") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    assert "rwkv" in failing(tmp_path)


def test_a_cache_that_is_not_handed_on_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was with Mamba 2: its cache has another name."""
    special = {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}
    make(tmp_path, "mamba2", **special)
    assert not failing(tmp_path)
    monkeypatch.setattr(transformers_lm, "_CACHE_ARGUMENTS", ("past_key_values",))
    assert "decoding with the cache" in failing(tmp_path)


def test_a_window_longer_than_the_texts_is_tried_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "mistral", sliding_window=4096)
    assert not failing(tmp_path)
    findings = check_model(tmp_path).findings
    assert any("window of 4,096" in finding.what for finding in findings)

    # A batch whose mask forgets the window.
    plain = transformers_lm.TransformersLM._run

    def without_window(self: Any, *arguments: Any) -> Any:
        before = self.inner.config.sliding_window
        self.inner.config.sliding_window = None
        try:
            return plain(self, *arguments)
        finally:
            self.inner.config.sliding_window = before

    monkeypatch.setattr(TransformersLM, "_run", without_window)
    assert "tried at 6" in failing(tmp_path)


@pytest.mark.parametrize(
    ("family", "special", "positions"),
    [
        ("gpt2", GPT2, 24),
        (
            "phi3",
            {"rope_parameters": LONG_ROPE, "original_max_position_embeddings": 32},
            32,
        ),
        ("llama", {"rope_parameters": DYNAMIC_ROPE, "max_position_embeddings": 16}, 16),
    ],
)
def test_no_sequence_goes_beyond_the_positions(
    tmp_path: Path, family: str, special: dict[str, Any], positions: int
) -> None:
    """A table ends there; beyond, frequencies would depend on the longest row of the batch."""
    make(tmp_path, family, **special)
    assert not failing(tmp_path)
    model = load(tmp_path)
    assert model.positions == positions

    whole = list(range(positions))
    ids = torch.tensor([whole])
    model.hidden(ids, torch.zeros_like(ids))
    _, state = model.prefill([whole, [1]])
    with pytest.raises(UserError, match=f"takes {positions}"):
        model.decode(torch.tensor([1, 2]), state)
    with pytest.raises(UserError, match="max_sequence"):
        model.prefill([[*whole, 0]])
    longer = torch.tensor([[*whole, 0]])
    with pytest.raises(UserError, match="max_length"):
        model.hidden(longer, torch.zeros_like(longer))
    # Two short ones in a long row are no long sequence.
    model.hidden(torch.cat([ids, ids], dim=1), torch.tensor([[0] * positions + [1] * positions]))


# ---------------------------------------------------------------- vocabulary


def test_padded_ids_are_never_sampled_and_share_no_probability(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "padded"
    shutil.copytree(llama, folder)
    give_tokenizer(folder, 50)
    model: Any = load(folder)
    assert model.absent.tolist() == list(range(50, VOCAB))

    requests = [((1, 2, 3), Sampling(12, 5.0), seed) for seed in range(40)]
    requests += [((1, 2, 3), Sampling(12, 0.0), 0), ((4,), Sampling(12, 2.0, top_p=0.9), 1)]
    completions = BatchSampler(model).generate(requests)
    assert max(max(done.ids) for done in completions) < 50

    # Sampler and trainer speak of one distribution, that of a stock model cut to 50 ids.
    for (prompt, how, _), done in zip(requests[:3], completions, strict=False):
        ids = [*prompt, *done.ids]
        scored = score(model, [ids], how.temperature)[0]
        assert scored[3:] == pytest.approx(done.logprobs, abs=1e-5)
        with torch.no_grad():
            logits = model.inner(input_ids=torch.tensor([ids])).logits[0, :-1, :50]
        expected = (logits / how.temperature).log_softmax(-1)
        for place, token in enumerate(ids[1:]):
            assert scored[place + 1] == pytest.approx(float(expected[place, token]), abs=1e-5)

    sample = Sample(tokens=[1, 2, 3, 4], mask=[True] * 4, advantage=[1.0] * 4)
    (packed,) = micro_batches([sample], [1.0])
    _, watched = backward(model, packed, Loss("sft"))
    assert watched["entropy"].isfinite().all()
    grad = model.inner.get_output_embeddings().weight.grad
    assert grad.isfinite().all() and not grad[50:].any() and grad[:50].any()


def test_a_whole_vocabulary_hides_nothing(llama: Path) -> None:
    assert load(llama).absent is None  # no tokenizer at all
    give_tokenizer(llama, VOCAB)
    assert load(llama).absent is None
    (llama / "tokenizer.json").unlink()


def test_a_token_beyond_the_embedding_is_a_sentence(llama: Path) -> None:
    model = load(llama)
    with pytest.raises(UserError, match="token 70.*embeddings for 64"):
        score(model, [[1, 2, 70]])


# ---------------------------------------------------------------- broken weights


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(llama: Path, tmp_path: Path, value: float) -> None:
    shutil.copytree(llama, tmp_path / "llama")
    change(tmp_path / "llama", "model.layers.1.mlp.up_proj.weight", (3, 3), value)
    (tmp_path / "ours").mkdir()
    new_model(tmp_path / "ours", VOCAB, seed=1)
    change(tmp_path / "ours", "lm_head.weight", (3, 3), value)
    for name, tensor in (("llama", "up_proj"), ("ours", "lm_head")):
        with pytest.raises(UserError, match=f"{tensor}.*NaN or infinity"):
            load(tmp_path / name)
        assert "NaN" in failing(tmp_path / name)


def test_a_truncated_file_is_a_sentence(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "llama")
    (tmp_path / "ours").mkdir()
    new_model(tmp_path / "ours", VOCAB, seed=1)
    for name in ("llama", "ours"):
        file = tmp_path / name / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(UserError, match="copy") as caught:
            load(tmp_path / name)
        assert caught.value.exit_code == 2


# ---------------------------------------------------------------- ties


def test_a_head_of_its_own_is_kept_whatever_the_config_says(tmp_path: Path) -> None:
    """transformers' NemotronH never ties: its folders hold a head beside `tie_word_embeddings`."""
    new_model(tmp_path, VOCAB, seed=1)
    file = tmp_path / "config.json"
    head = load_file(tmp_path / "model.safetensors")["lm_head.weight"]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
    model: Any = load(tmp_path)
    assert torch.equal(model.lm_head.weight, head)
    assert not failing(tmp_path)
    model.save(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["tie_word_embeddings"] is False


def test_a_missing_head_is_tied(tmp_path: Path) -> None:
    new_model(tmp_path, VOCAB, seed=1)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lm_head"):
        load(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
    model: Any = load(tmp_path)
    assert model.lm_head.weight is model.backbone.embeddings.weight
