"""Our Nemotron-H equals the stock class on its own folders, packs exactly, decodes what it trains, and saves the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from linn.bases.make import new_model, tiny_config
from linn.engine.models.load import load
from linn.engine.models.nemotron_h.model import NemotronH
from linn.errors import UserError

VOCAB = 64
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "ssm_state_size": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "chunk_size": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 24,
    "routed_scaling_factor": 2.5,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "hybrid": {"hybrid_override_pattern": "MEM*EME*"},
    "dense": {
        "hybrid_override_pattern": "M-M*-",
        "use_bias": True,
        "mlp_bias": True,
        "use_conv_bias": False,
    },
    "grouped": {
        "hybrid_override_pattern": "M*E",
        "n_group": 4,
        "topk_group": 2,
        "norm_topk_prob": False,
        "moe_latent_size": 20,
    },
}


def stock(changes: dict[str, Any]) -> Any:
    """A random model of the stock class, with every parameter away from its neutral start."""
    from transformers import NemotronHConfig, NemotronHForCausalLM

    torch.manual_seed(0)
    model = NemotronHForCausalLM(NemotronHConfig(**SIZES | changes)).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.dim() == 1:
                value += 0.3 * torch.rand(value.shape)
            elif "conv1d" not in name:
                value *= 6
    return model


def tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (count,), generator=torch.Generator().manual_seed(seed))


def alone(model: Any, ids: Tensor) -> Tensor:
    """Log-probs [T, V] of one sequence."""
    logits: Tensor = model.head(model.hidden(ids[None], torch.zeros_like(ids)[None]))[0]
    return logits.log_softmax(-1)


def close(found: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(found, want, atol=1e-5, rtol=0)


@pytest.fixture(scope="module", params=VARIANTS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder saved by the stock class."""
    out = tmp_path_factory.mktemp(request.param)
    stock(VARIANTS[request.param]).save_pretrained(out)
    return out


def reopened(folder: Path) -> Any:
    from transformers import NemotronHForCausalLM

    return NemotronHForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_equals_the_stock_class_in_both_directions(folder: Path, tmp_path: Path) -> None:
    ids, theirs, ours = tokens(77), reopened(folder), load(folder)
    want = theirs(ids[None]).logits[0].log_softmax(-1)
    assert want.std() > 0.3
    close(alone(ours, ids), want)
    ours.save(tmp_path)
    close(reopened(tmp_path)(ids[None]).logits[0].log_softmax(-1), want)


def test_gradients_equal_the_stock_class(folder: Path) -> None:
    ids, theirs, ours = tokens(50)[None], reopened(folder), load(folder)
    assert isinstance(ours, NemotronH)
    torch.autograd.backward(
        torch.nn.functional.cross_entropy(theirs(ids).logits[0, :-1], ids[0, 1:])
    )
    torch.autograd.backward(
        torch.nn.functional.cross_entropy(
            ours.head(ours.hidden(ids, torch.zeros_like(ids)))[0, :-1], ids[0, 1:]
        )
    )
    want = {name.replace("model.", "backbone.", 1): p.grad for name, p in theirs.named_parameters()}
    found = {name: p.grad for name, p in ours.named_parameters()}
    assert found.keys() == want.keys()
    for name, grad in found.items():
        assert grad is not None and grad.abs().max() > 0, name
        torch.testing.assert_close(
            grad, want[name], atol=1e-5, rtol=1e-3, msg=f"gradient of {name}"
        )


def test_packed_is_alone_with_its_gradients(folder: Path) -> None:
    """Segments shorter than the kernel, as long as a chunk, longer than several; rows padded at their end; segment numbers anew in every row."""
    model = load(folder)
    assert isinstance(model, NemotronH)
    rows = [[1, 2, 3, 32, 1, 60], [99], [5, 5, 31]]
    ids, segments = torch.zeros(3, 100, dtype=torch.int64), torch.full((3, 100), -1)
    loss = torch.zeros(())
    wants = []
    for r, lengths in enumerate(rows):
        at = 0
        for s, length in enumerate(lengths):
            ids[r, at : at + length], segments[r, at : at + length] = tokens(length, 10 * r + s), s
            wants.append(alone(model, ids[r, at : at + length]))
            loss = loss + wants[-1][:, 7].sum()
            at += length
    torch.autograd.backward(loss)
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    found = model.head(model.hidden(ids, segments)).log_softmax(-1)
    close(found[segments >= 0], torch.cat(wants))
    torch.autograd.backward(found[segments >= 0][:, 7].sum())
    for name, p in model.named_parameters():
        torch.testing.assert_close(
            p.grad, grads[name], atol=2e-4, rtol=1e-3, msg=f"gradient of {name}"
        )


def test_a_segment_never_sees_its_neighbours(folder: Path) -> None:
    model = load(folder)
    ids, segments = tokens(70)[None], torch.tensor([[0] * 20 + [1] * 45 + [-1] * 5])
    before = model.hidden(ids, segments)
    other = ids.clone()
    other[0, :20], other[0, 65:] = tokens(20, 5), tokens(5, 6)
    after = model.hidden(other, segments)
    close(before[0, 20:], after[0, 20:])
    assert not before[0, 65:].any()
    assert not torch.allclose(before[0, :20], after[0, :20])


def test_decoding_select_and_join_follow_training(folder: Path) -> None:
    """Rows of different lengths, siblings, finished rows, newcomers longer and shorter, caches that grow: each as if alone."""
    model = load(folder)
    texts = [tokens(110, seed) for seed in range(6)]
    with torch.no_grad():
        want = [alone(model, text) for text in texts]
    live, fed = [0, 1, 2, 3], [1, 2, 40, 64]
    logits, state = model.prefill([texts[i][:n].tolist() for i, n in zip(live, fed, strict=True)])

    def check() -> None:
        assert logits.shape == (len(live), VOCAB) and logits.dtype == torch.float32
        close(
            logits.log_softmax(-1),
            torch.stack([want[i][n - 1] for i, n in zip(live, fed, strict=True)]),
        )

    def feed(times: int) -> None:
        nonlocal logits, state, fed
        for _ in range(times):
            logits, state = model.decode(
                torch.stack([texts[i][n] for i, n in zip(live, fed, strict=True)]), state
            )
            fed = [n + 1 for n in fed]
            check()

    check()
    feed(40)
    state, live, fed = state.select(torch.tensor([2, 0, 2])), [2, 0, 2], [fed[2], fed[0], fed[2]]
    feed(2)
    state, live, fed = (
        state.join(model.prefill([texts[4][:100].tolist(), texts[5][:3].tolist()])[1]),
        [*live, 4, 5],
        [*fed, 100, 3],
    )
    feed(3)
    state, live, fed = state.select(torch.tensor([4])), [5], fed[4:]
    feed(1)
    state, live, fed = state.join(model.prefill([texts[1][:2].tolist()])[1]), [5, 1], [*fed, 2]
    feed(30)


def test_siblings_do_not_share_memory(folder: Path) -> None:
    model = load(folder)
    _, state = model.prefill([tokens(9).tolist()])
    pair = state.select(torch.tensor([0, 0]))
    first, _ = model.decode(torch.tensor([1, 2]), pair)
    kept, _ = model.decode(torch.tensor([1]), state)
    close(first[:1].log_softmax(-1), kept.log_softmax(-1))
    assert not torch.allclose(first[0], first[1], atol=1e-3)


def test_long_prompts_are_prefilled_in_groups(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folder)
    prompts = [tokens(n, n).tolist() for n in (30, 5, 60, 7)]
    want, _ = model.prefill(prompts)
    monkeypatch.setattr("linn.engine.models.nemotron_h.model.PREFILL_TOKENS", 40)
    found, state = model.prefill(prompts)
    close(found.log_softmax(-1), want.log_softmax(-1))
    found, _ = model.decode(torch.tensor([1, 2, 3, 4]), state)
    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            close(found[row].log_softmax(-1), alone(model, torch.tensor([*prompt, row + 1]))[-1])


def test_saving_is_deterministic_and_takes_a_dtype(tmp_path: Path) -> None:
    new_model(tmp_path / "a", 256, seed=1)
    new_model(tmp_path / "b", 256, seed=1)
    new_model(tmp_path / "c", 256, seed=2)
    model = load(tmp_path / "a")
    model.save(tmp_path / "again")
    read = [
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b", "again", "c")
    ]
    assert read[0] == read[1] == read[2] != read[3]
    assert (tmp_path / "a/config.json").read_bytes() == (
        tmp_path / "again/config.json"
    ).read_bytes()
    assert isinstance(model, NemotronH)
    model.save(tmp_path / "half", torch.bfloat16)
    assert json.loads((tmp_path / "half/config.json").read_text())["dtype"] == "bfloat16"
    half = load(tmp_path / "half")
    assert isinstance(half, NemotronH)
    for name, value in half.state_dict().items():
        assert value.dtype == torch.float32
        rounded = model.state_dict()[name]
        assert torch.equal(
            value, rounded if name.endswith("correction_bias") else rounded.bfloat16().float()
        ), name


def test_bfloat16_weights_compute(folder: Path) -> None:
    model, ids = load(folder, torch.bfloat16), tokens(40)
    with torch.no_grad():
        want = alone(model, ids)
        assert (want.exp() - alone(load(folder), ids).exp()).abs().mean() < 2e-2
    logits, state = model.prefill([ids[:30].tolist()])
    logits, _ = model.decode(ids[30:31], state)
    assert (logits[0].log_softmax(-1).exp() - want[30].exp()).abs().max() < 5e-2


def test_shards_load(tmp_path: Path) -> None:
    theirs = stock(VARIANTS["hybrid"])
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / "model.safetensors.index.json").is_file() and len(
        list(tmp_path.glob("*.safetensors"))
    ) > 1
    ids = tokens(20)
    close(alone(load(tmp_path), ids), theirs(ids[None]).logits[0].log_softmax(-1))
    next(iter(sorted(tmp_path.glob("*.safetensors")))).unlink()
    with pytest.raises(UserError, match="no model-00001"):
        load(tmp_path)


def test_tied_embeddings(tmp_path: Path) -> None:
    model = NemotronH(
        SIZES | VARIANTS["hybrid"] | {"model_type": "nemotron_h", "tie_word_embeddings": True},
        Path("config.json"),
    )
    model.initialise(0)
    model.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, NemotronH) and again.lm_head.weight is again.backbone.embeddings.weight
    close(alone(again, tokens(20)), reopened(tmp_path)(tokens(20)[None]).logits[0].log_softmax(-1))


def test_broken_folders_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    new_model(tmp_path, 64, seed=0)
    file, config = (
        tmp_path / "model.safetensors",
        json.loads((tmp_path / "config.json").read_text()),
    )
    good = load_file(file)
    gone = "backbone.layers.1.mixer.experts.3.up_proj.weight"
    for state, message in (
        ({k: v for k, v in good.items() if k != gone}, gone),
        (good | {"backbone.layers.99.norm.weight": torch.zeros(1)}, "layers.99"),
        (good | {"lm_head.weight": torch.zeros(3, 3)}, "lm_head"),
    ):
        save_file(state, file)
        with pytest.raises(UserError, match=message):
            load(tmp_path)
    for change, message in (
        ({"hybrid_override_pattern": "MXE"}, "MXE"),
        ({"mlp_hidden_act": "silu"}, "relu2"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"vocab_size": None}, "vocab_size"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=message):
            load(tmp_path)


def test_the_tiny_model_is_tiny() -> None:
    for vocab in (1024, 1300):
        model = NemotronH(tiny_config(vocab), Path("config.json"))
        count = sum(p.numel() for p in model.parameters())
        assert 1_000_000 <= count <= 1_300_000
        pattern = model.config.pattern
        assert pattern.count("M") >= 3 and pattern.count("*") >= 2 and pattern.count("E") >= 2
