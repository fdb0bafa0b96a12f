"""Families of transformers behind the one interface: packed is alone, sampled is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.decoding import RunningBatch, packed_rows
from torch import Tensor

from linn.engine.models.agreement import agreement, stock_forward
from linn.engine.models.load import load
from linn.engine.models.transformers_lm import TransformersLM
from linn.errors import UserError

VOCAB = 64


SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}


def qwen3(**changes: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**SIZES | {"head_dim": 8} | changes))


def gemma2() -> Any:
    """Sliding-window layers and capped logits."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    special = {"head_dim": 8, "sliding_window": 6, "final_logit_softcapping": 5.0}
    return Gemma2ForCausalLM(Gemma2Config(**SIZES | special))


def granite_hybrid() -> Any:
    """Mamba-2 and attention layers, scaled logits."""
    from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM

    special = {
        "shared_intermediate_size": 48,
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 0,
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 8,
        "logits_scaling": 2.0,
    }
    return GraniteMoeHybridForCausalLM(GraniteMoeHybridConfig(**SIZES | special))


def mamba2() -> Any:
    """Recurrent states alone, in a cache of another name."""
    from transformers import Mamba2Config, Mamba2ForCausalLM

    special = {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8}
    return Mamba2ForCausalLM(Mamba2Config(**SIZES | special))


MAKERS = [qwen3, gemma2, granite_hybrid, mamba2]


def tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (count,), generator=torch.Generator().manual_seed(seed))


def alone(inner: Any, ids: Tensor) -> Tensor:
    """Log-probs [T, V] of one sequence by the stock forward."""
    with torch.inference_mode():
        logits: Tensor = inner(input_ids=ids[None], use_cache=False).logits[0]
        return logits.float().log_softmax(-1)


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def model(request: pytest.FixtureRequest) -> TransformersLM:
    torch.manual_seed(0)
    model = TransformersLM(request.param())
    assert all(finding.ok for finding in agreement(model, stock_forward(model.inner)))
    return model


@pytest.mark.slow
def test_packed_is_alone(model: TransformersLM) -> None:
    rows = [[tokens(3, 0), tokens(1, 1), tokens(11, 2)], [tokens(14, 10)]]
    ids, segments = packed_rows(rows, width=16)
    logprobs = model.head(model.hidden(ids, segments)).log_softmax(-1)
    for r, row in enumerate(rows):
        for number, segment in enumerate(row):
            own = logprobs[r, segments[r] == number]
            torch.testing.assert_close(own, alone(model.inner, segment), atol=1e-5, rtol=0)
    torch.autograd.backward(logprobs.sum())
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads and all(bool(grad.isfinite().all()) for grad in grads)


@pytest.mark.slow
def test_decoding_select_and_join_follow_the_stock_forward(model: TransformersLM) -> None:
    """Rows of different lengths, siblings, a finished row, newcomers longer and shorter."""
    texts = [tokens(30, seed) for seed in range(5)]
    batch = RunningBatch(model, texts, [alone(model.inner, text) for text in texts])
    batch.start((0, 2), (1, 9), (2, 5))
    batch.feed(3)
    batch.select(2, 0, 2)
    batch.feed()
    batch.join((3, 17), (4, 1))
    batch.feed(3)
    batch.join((1, 2))
    batch.feed()
    batch.select(5)
    batch.feed()


def test_a_rows_bytes_are_those_of_its_state(model: TransformersLM) -> None:
    for columns in (1, 5, 17):
        _, state = model.prefill([[0] * columns] * 3)
        assert state.nbytes == 3 * model.row_bytes(columns)


def test_a_state_that_is_moved_leaves_nothing_behind(model: TransformersLM) -> None:
    prompts = [[1, 2, 3], [4, 5], [6]]
    rows = torch.tensor([2, 0])
    token = torch.tensor([7, 8])
    found = []
    for move in (False, True):
        _, state = model.prefill(prompts)
        _, other = model.prefill([[9, 9, 9, 9, 9]])
        joined = state.join(other, move=move)
        chosen = joined.select(rows, move=move)
        left = [any(old.cache.layers) for old in (state, other, joined)]
        assert left == [not move] * 3
        found.append(model.decode(token, chosen)[0])
    assert torch.equal(*found)


def test_saved_folder_loads_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TransformersLM(qwen3())
    model.save(tmp_path / "full")
    again = load(tmp_path / "full")
    assert again.vocab == VOCAB
    ids = tokens(9)[None]
    segments = torch.zeros_like(ids)
    logits, expected = (m.head(m.hidden(ids, segments)) for m in (again, model))
    assert torch.equal(logits, expected)

    again.save(tmp_path / "again")
    full, twice = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("full", "again")
    )
    assert full == twice


def test_the_embedding_of_a_token_that_pads_is_trained() -> None:
    """It may be the one that ends a turn: a gradient that stops there is not the loss's."""
    torch.manual_seed(0)
    model = TransformersLM(qwen3(pad_token_id=5))
    ids = torch.tensor([[3, 5, 7, 5, 9]])
    model.head(model.hidden(ids, torch.zeros_like(ids))).log_softmax(-1)[0, :, 1].sum().backward()
    gradient = model.inner.get_input_embeddings().weight.grad
    assert gradient[5].abs().sum() > 0 and gradient[4].abs().sum() == 0


def test_dropout_stays_off() -> None:
    torch.manual_seed(0)
    model = TransformersLM(qwen3(attention_dropout=0.5))
    model.train()
    ids = tokens(9)[None]
    segments = torch.zeros_like(ids)
    assert torch.equal(model.hidden(ids, segments), model.hidden(ids, segments))


def test_errors_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no config\.json"):
        load(tmp_path)
    config = tmp_path / "config.json"
    save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors")
    for text, message in (
        ("{", "not JSON"),
        ("[]", "no model_type"),
        ('{"model_type": "no_such"}', "no_such"),
    ):
        config.write_text(text)
        with pytest.raises(UserError, match=message):
            load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    qwen3().config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"safetensors"):
        load(tmp_path)


def test_missing_tensor_is_an_error_not_a_random_start(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = qwen3()
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="up_proj"):
        load(tmp_path)
