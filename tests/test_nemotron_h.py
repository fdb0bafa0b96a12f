"""Our Nemotron-H equals the stock class, packs exactly, decodes what it trains, saves the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.decoding import RunningBatch, packed_rows
from torch import Tensor
from torch.nn.functional import cross_entropy

from linn.bases.make import new_model, tiny_config
from linn.engine.models.load import load
from linn.engine.models.nemotron_h.model import HybridState, NemotronH
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
        "time_step_limit": (1e-4, 0.5),
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
            if name.endswith("dt_bias"):
                # Time steps of 1e-5 to 1, as trained heads have.
                value.copy_(torch.linspace(-11.5, 0.5, len(value)))
    return without_floor(model)


def without_floor(model: Any) -> Any:
    """The stock class floors dt at `time_step_min`; Mamba-2 bounds it by `time_step_limit`."""
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = tuple(model.config.time_step_limit)
    return model


def tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (count,), generator=torch.Generator().manual_seed(seed))


def alone(model: Any, ids: Tensor) -> Tensor:
    """Log-probs [T, V] of one sequence."""
    logits: Tensor = model.head(model.hidden(ids[None], torch.zeros_like(ids)[None]))[0]
    return logits.log_softmax(-1)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def stock_logprobs(model: Any, ids: Tensor) -> Tensor:
    """Log-probs [T, V] of one sequence by the stock class."""
    logits: Tensor = model(ids[None]).logits[0]
    return logits.log_softmax(-1)


@pytest.fixture(scope="module", params=VARIANTS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder saved by the stock class."""
    out = tmp_path_factory.mktemp(request.param)
    stock(VARIANTS[request.param]).save_pretrained(out)
    return out


def reopened(folder: Path) -> Any:
    from transformers import NemotronHForCausalLM

    model = NemotronHForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return without_floor(model.eval())


@pytest.mark.slow
def test_equals_the_stock_class_in_both_directions(folder: Path, tmp_path: Path) -> None:
    ids = tokens(77)
    expected = stock_logprobs(reopened(folder), ids)
    assert expected.std() > 0.3
    ours = load(folder)
    close(alone(ours, ids), expected)
    ours.save(tmp_path)
    close(stock_logprobs(reopened(tmp_path), ids), expected)


def test_gradients_equal_the_stock_class(folder: Path) -> None:
    ids = tokens(50)[None]
    theirs, ours = reopened(folder), load(folder)
    assert isinstance(ours, NemotronH)
    for logits in (theirs(ids).logits, ours.head(ours.hidden(ids, torch.zeros_like(ids)))):
        torch.autograd.backward(cross_entropy(logits[0, :-1], ids[0, 1:]))

    expected = {
        name.replace("model.", "backbone.", 1): p.grad for name, p in theirs.named_parameters()
    }
    grads = {name: p.grad for name, p in ours.named_parameters()}
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        assert grad is not None and grad.abs().max() > 0, name
        about = f"gradient of {name}"
        torch.testing.assert_close(grad, expected[name], atol=1e-5, rtol=1e-3, msg=about)


def test_packed_is_alone_with_its_gradients(folder: Path) -> None:
    """Segments shorter than the kernel, as long as a chunk, longer than several.

    Rows are padded at their end, and segment numbers start anew in every row.
    """
    model = load(folder)
    assert isinstance(model, NemotronH)
    rows = []
    for r, lengths in enumerate([[1, 2, 3, 32, 1, 60], [99], [5, 5, 31]]):
        rows.append([tokens(length, 10 * r + s) for s, length in enumerate(lengths)])

    expected = torch.cat([alone(model, segment) for row in rows for segment in row])
    torch.autograd.backward(expected[:, 7].sum())
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    ids, segments = packed_rows(rows, width=100)
    logprobs = model.head(model.hidden(ids, segments)).log_softmax(-1)[segments >= 0]
    close(logprobs, expected)
    torch.autograd.backward(logprobs[:, 7].sum())
    for name, p in model.named_parameters():
        about = f"gradient of {name}"
        torch.testing.assert_close(p.grad, grads[name], atol=2e-4, rtol=1e-3, msg=about)


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


@pytest.mark.slow
def test_decoding_select_and_join_follow_training(folder: Path) -> None:
    """Rows of different lengths, siblings, finished rows, newcomers, caches that grow."""
    model = load(folder)
    texts = [tokens(110, seed) for seed in range(6)]
    with torch.no_grad():
        expected = [alone(model, text) for text in texts]

    batch = RunningBatch(model, texts, expected)
    batch.start((0, 1), (1, 2), (2, 40), (3, 64))
    batch.feed(40)
    batch.select(2, 0, 2)
    batch.feed(2)
    batch.join((4, 100), (5, 3))
    batch.feed(3)
    batch.select(4)
    batch.feed(1)
    batch.join((1, 2))
    batch.feed(30)


def test_siblings_do_not_share_memory(folder: Path) -> None:
    model = load(folder)
    _, state = model.prefill([tokens(9).tolist()])
    pair = state.select(torch.tensor([0, 0]))
    siblings, _ = model.decode(torch.tensor([1, 2]), pair)
    single, _ = model.decode(torch.tensor([1]), state)
    close(siblings[:1].log_softmax(-1), single.log_softmax(-1))
    assert not torch.allclose(siblings[0], siblings[1], atol=1e-3)


def test_long_prompts_are_prefilled_in_groups(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folder)
    prompts = [tokens(n, n).tolist() for n in (30, 5, 60, 7)]
    together, _ = model.prefill(prompts)
    monkeypatch.setattr("linn.engine.models.nemotron_h.model.CPU_PREFILL_TOKENS", 40)
    in_groups, state = model.prefill(prompts)
    close(in_groups.log_softmax(-1), together.log_softmax(-1))
    logits, _ = model.decode(torch.tensor([1, 2, 3, 4]), state)
    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            expected = alone(model, torch.tensor([*prompt, row + 1]))[-1]
        close(logits[row].log_softmax(-1), expected)


def test_saving_is_deterministic(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        new_model(tmp_path / name, 256, seed)
    model = load(tmp_path / "a")
    assert isinstance(model, NemotronH)
    model.save(tmp_path / "again")

    a, b, again, c = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b", "again", "c")
    )
    assert a == b == again != c
    config, later = (
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("a", "again")
    )
    assert later == config | {"linn": {"dtype": "float32", "float32": []}}


def test_bfloat16_weights_compute(folder: Path) -> None:
    model, ids = load(folder, torch.bfloat16), tokens(40)
    with torch.no_grad():
        probs = alone(model, ids).exp()
        exact = alone(load(folder), ids).exp()
    assert (probs - exact).abs().mean() < 2e-2
    _, state = model.prefill([ids[:30].tolist()])
    logits, _ = model.decode(ids[30:31], state)
    assert (logits[0].softmax(-1) - probs[30]).abs().max() < 5e-2


def test_shards_load(tmp_path: Path) -> None:
    theirs = stock(VARIANTS["hybrid"])
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert (tmp_path / "model.safetensors.index.json").is_file() and len(shards) > 1
    ids = tokens(20)
    close(alone(load(tmp_path), ids), stock_logprobs(theirs, ids))
    shards[0].unlink()
    with pytest.raises(UserError, match="no model-00001"):
        load(tmp_path)


def test_tied_embeddings(tmp_path: Path) -> None:
    raw = SIZES | VARIANTS["hybrid"]
    raw |= {"model_type": "nemotron_h", "tie_word_embeddings": True}
    model = NemotronH(raw, Path("config.json"))
    model.initialise(0)
    model.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, NemotronH)
    assert again.lm_head.weight is again.backbone.embeddings.weight
    ids = tokens(20)
    close(alone(again, ids), stock_logprobs(reopened(tmp_path), ids))


def test_broken_folders_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    new_model(tmp_path, 64, seed=0)
    file = tmp_path / "model.safetensors"
    good = load_file(file)
    gone = "backbone.layers.1.mixer.experts.3.up_proj.weight"
    for state, message in (
        ({name: value for name, value in good.items() if name != gone}, gone),
        (good | {"backbone.layers.99.norm.weight": torch.zeros(1)}, "layers.99"),
        (good | {"lm_head.weight": torch.zeros(3, 3)}, "lm_head"),
    ):
        save_file(state, file)
        with pytest.raises(UserError, match=message):
            load(tmp_path)

    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"hybrid_override_pattern": "MXE"}, "MXE"),
        ({"mlp_hidden_act": "silu"}, "relu2"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"vocab_size": None}, "vocab_size"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=message):
            load(tmp_path)


def test_a_rows_bytes_are_those_of_its_state(tmp_path: Path) -> None:
    new_model(tmp_path, 64, 1)
    model = load(tmp_path)
    for columns in (1, 5, 70):
        _, state = model.prefill([[1] * columns] * 3)
        _, state = model.decode(torch.ones(3, dtype=torch.int64), state)
        assert isinstance(state, HybridState)
        cut = state.select(torch.arange(3))  # a running batch has spare columns
        held = 0
        for cache in cut.layers:
            for value in () if cache is None else vars(cache).values():
                held += value.nbytes if isinstance(value, torch.Tensor) else 0
        assert held == 3 * model.row_bytes(columns + 1)


def test_the_tiny_model_is_tiny() -> None:
    for vocab in (1024, 1300):
        model = NemotronH(tiny_config(vocab), Path("config.json"))
        count = sum(p.numel() for p in model.parameters())
        assert 1_000_000 <= count <= 1_300_000
        pattern = model.config.pattern
        assert pattern.count("M") >= 3 and pattern.count("*") >= 2 and pattern.count("E") >= 2
