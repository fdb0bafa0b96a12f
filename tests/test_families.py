"""Families of transformers behind the one interface: packed = alone, sampled = trained, states that select and join."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from linn.engine.models.load import load
from linn.engine.models.transformers_lm import TransformersLM
from linn.errors import UserError

VOCAB = 64


def qwen3(**changes: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2}
    return Qwen3ForCausalLM(Qwen3Config(**sizes | changes))


def gemma2() -> Any:
    """Sliding-window layers and capped logits."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    sizes |= {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.2,
        "sliding_window": 6,
        "final_logit_softcapping": 5.0,
    }
    return Gemma2ForCausalLM(Gemma2Config(**sizes))


def granite_hybrid() -> Any:
    """Mamba-2 and attention layers, scaled logits."""
    from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "shared_intermediate_size": 48,
        "num_hidden_layers": 2,
    }
    sizes |= {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 0,
    }
    sizes |= {
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 8,
    }
    return GraniteMoeHybridForCausalLM(
        GraniteMoeHybridConfig(**sizes, initializer_range=0.2, logits_scaling=2.0)
    )


MAKERS = [qwen3, gemma2, granite_hybrid]


def tokens(count: int, seed: int = 0) -> list[int]:
    return torch.randint(VOCAB, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def alone(inner: Any, ids: list[int]) -> Tensor:
    """Log-probs [T, V] of one sequence by the stock forward."""
    with torch.inference_mode():
        logits: Tensor = inner(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        return logits.float().log_softmax(-1)


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def model(request: pytest.FixtureRequest) -> TransformersLM:
    torch.manual_seed(0)
    model = TransformersLM(request.param())
    model.check(Path("in memory"))
    return model


def test_packed_is_alone(model: TransformersLM) -> None:
    lengths = [[3, 1, 11], [14]]
    ids, segments = torch.zeros(2, 16, dtype=torch.int64), torch.full((2, 16), -1)
    for r, row in enumerate(lengths):
        at = 0
        for s, length in enumerate(row):
            ids[r, at : at + length] = torch.tensor(tokens(length, 10 * r + s))
            segments[r, at : at + length] = s
            at += length
    found = model.head(model.hidden(ids, segments)).log_softmax(-1)
    for r, row in enumerate(lengths):
        for s in range(len(row)):
            inside = segments[r] == s
            torch.testing.assert_close(
                found[r, inside], alone(model.inner, ids[r, inside].tolist()), atol=1e-5, rtol=0
            )
    torch.autograd.backward(found.sum())
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads and all(bool(g.isfinite().all()) for g in grads)


def test_decoding_select_and_join_follow_the_stock_forward(model: TransformersLM) -> None:
    """Rows of different lengths, siblings, a finished row, newcomers that are longer and shorter: each as if alone."""
    texts = [tokens(30, seed) for seed in range(5)]
    want = [alone(model.inner, text) for text in texts]
    fed = [2, 9, 5]
    logits, state = model.prefill([texts[i][:n] for i, n in enumerate(fed)])
    live = [0, 1, 2]

    def check(logits: Tensor) -> None:
        assert logits.shape == (len(live), VOCAB) and logits.dtype == torch.float32
        for row, (i, n) in enumerate(zip(live, fed, strict=True)):
            torch.testing.assert_close(
                logits[row].log_softmax(-1), want[i][n - 1], atol=1e-5, rtol=0
            )

    def feed() -> None:
        nonlocal state
        logits, state = model.decode(
            torch.tensor([texts[i][n] for i, n in zip(live, fed, strict=True)]), state
        )
        fed[:] = [n + 1 for n in fed]
        check(logits)

    check(logits)
    for _ in range(3):
        feed()
    state, live, fed = state.select(torch.tensor([2, 0, 2])), [2, 0, 2], [fed[2], fed[0], fed[2]]
    feed()
    _, long = model.prefill([texts[3][:17], texts[4][:1]])
    state, live, fed = state.join(long), [*live, 3, 4], [*fed, 17, 1]
    for _ in range(3):
        feed()
    _, short = model.prefill([texts[1][:2]])
    state, live, fed = state.join(short), [*live, 1], [*fed, 2]
    feed()
    state, live, fed = state.select(torch.tensor([5])), [1], [fed[5]]
    feed()


def test_saved_folder_loads_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TransformersLM(qwen3())
    model.save(tmp_path / "full")
    again = load(tmp_path / "full")
    ids, segments = torch.tensor([tokens(9)]), torch.zeros(1, 9, dtype=torch.int64)
    assert again.vocab == VOCAB
    assert torch.equal(
        again.head(again.hidden(ids, segments)), model.head(model.hidden(ids, segments))
    )
    again.save(tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (
        tmp_path / "full/model.safetensors"
    ).read_bytes()
    model.save(tmp_path / "half", torch.bfloat16)
    half = load(tmp_path / "half")
    assert isinstance(half, TransformersLM)
    assert {p.dtype for p in half.inner.parameters()} == {torch.float32}
    assert (tmp_path / "half/model.safetensors").stat().st_size < 0.6 * (
        tmp_path / "full/model.safetensors"
    ).stat().st_size


def test_dropout_stays_off() -> None:
    torch.manual_seed(0)
    model = TransformersLM(qwen3(attention_dropout=0.5))
    model.train()
    ids, segments = torch.tensor([tokens(9)]), torch.zeros(1, 9, dtype=torch.int64)
    assert torch.equal(model.hidden(ids, segments), model.hidden(ids, segments))


def test_errors_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no config\.json"):
        load(tmp_path)
    config = tmp_path / "config.json"
    for text, message in (
        ("{", "not JSON"),
        ("[]", "no model_type"),
        ('{"model_type": "no_such"}', "no_such"),
    ):
        config.write_text(text)
        with pytest.raises(UserError, match=message):
            load(tmp_path)
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
