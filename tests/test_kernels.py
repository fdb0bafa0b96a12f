"""The operators for GPUs, as far as they run on a CPU, equal the reference's."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kernels import LENGTHS, by, differences, passes, scan_inputs, step_by_step
from support.shared import Group, hybrid, siblings, trained, worst
from test_families import gemma2
from torch import Tensor

from linn.engine.models.kernels import attention, choice, convolution, experts, scan
from linn.engine.models.kernels.carry import entering
from linn.engine.models.nemotron_h import scan as plain_scan
from linn.engine.models.nemotron_h.experts import Experts
from linn.engine.models.nemotron_h.segments import lay_out
from linn.engine.models.transformers_lm import TransformersLM
from linn.types import Loss

GROUPS: list[Group] = [(1, [1, 1, 40]), (200, [1, 130, 128]), (128, [3]), (126, [2, 33, 7])]
"""Prompts that end inside of a chunk of 128 tokens and at its border."""
CPU = torch.device("cpu")


@pytest.mark.parametrize("pattern", ["dense", "moe"])
def test_a_model_and_its_gradients(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = hybrid(pattern)
    plain, expected = by("plain", monkeypatch, lambda: passes(model))
    logprobs, gradients = by("gpu", monkeypatch, lambda: passes(model))
    assert 0 < (logprobs - plain).abs().max() < 1e-5, "another way, the same numbers"
    assert max(differences(expected, gradients).values()) < 1e-4


@pytest.mark.slow
def test_packed_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.VARIABLE, "gpu")
    model = hybrid("moe")
    ids = torch.randint(model.vocab, (1, 460))
    segments = torch.tensor([[0] * 128 + [1] * 2 + [2] * 300 + [3] * 30])
    together = model.hidden(ids, segments)
    for number in range(4):
        own = segments[0] == number
        single = model.hidden(ids[:, own], torch.zeros_like(ids[:, own]))
        torch.testing.assert_close(together[0, own], single[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pattern", ["dense", "moe"])
def test_shared_prompts(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = hybrid(pattern), siblings(GROUPS, tools=True)

    def run() -> Any:
        return trained(model, samples, Loss("grpo", kl=0.05), share=True, tokens=2048)

    metrics, expected, _ = by("plain", monkeypatch, run)
    found, gradients, _ = by("gpu", monkeypatch, run)
    torch.testing.assert_close(found, metrics, atol=1e-5, rtol=1e-5)
    assert worst(gradients, expected) < 1e-4


def test_decoding_goes_on_from_a_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    model = hybrid("moe")
    prompts = [list(range(1, 1 + n % 40)) * (1 + n // 40) for n in (1, 3, 128, 140)]

    def run() -> tuple[Tensor, Tensor]:
        first, state = model.prefill(prompts)
        return first, model.decode(torch.tensor([1, 2, 3, 4]), state)[0]

    for one, other in zip(*(by(way, monkeypatch, run) for way in ("plain", "gpu")), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


# ---------------------------------------------------------------- recurrence


@settings(max_examples=25)
@given(st.integers(2, 150), st.integers(0, 3))
def test_states_between_chunks(chunks: int, kind: int) -> None:
    draw = torch.Generator().manual_seed(chunks)
    local = torch.randn(chunks, 2, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    decay = torch.rand(chunks, 2, 1, generator=draw, dtype=torch.float64)
    # Nothing passes through a chunk in which a segment ends; none at all; everything.
    decay = [decay, decay * (decay > 0.4), decay * 0, decay * 0 + 1][kind].requires_grad_()

    expected = [torch.zeros(2, 3, dtype=torch.float64)]
    for chunk in range(chunks - 1):
        expected.append(decay[chunk] * expected[-1] + local[chunk])
    found = entering(local, decay)
    torch.testing.assert_close(found, torch.stack(expected))

    weights = torch.randn(found.shape, generator=draw, dtype=torch.float64)
    arguments = (local, decay)
    ours = torch.autograd.grad((found * weights).sum(), arguments)
    theirs = torch.autograd.grad((torch.stack(expected) * weights).sum(), arguments)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("chunk", "bytes_at_once"), [(1, 2**20), (16, 1), (16, 2**20), (128, 1)])
def test_the_scan_is_its_definition(
    chunk: int, bytes_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its gradients, also where no weights within chunks are kept for them."""
    monkeypatch.setattr(scan, "_BYTES", bytes_at_once)
    lengths = (1, 3, 12, 16, 33, 95)
    _, values = scan_inputs(lengths)
    # At 0, where a softplus has underflowed and has no gradient either, it is not computed.
    values["dt"].clamp_min_(1e-9)
    segments = lay_out(lengths, chunk, 4, CPU)
    weights = [torch.randn_like(each) for each in step_by_step(values, lengths)]

    def run(ours: bool) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        given = {name: value.detach().requires_grad_() for name, value in values.items()}
        if ours:
            y, decay, carry = scan.scan(**given, segments=segments)
            x, dt, b = (given[name] for name in ("x", "dt", "b"))
            outs = [y, scan.last_states(x, dt, b, decay, carry, segments)]
        else:
            outs = list(step_by_step(given, lengths))
        total = sum((out * weight).sum() for out, weight in zip(outs, weights, strict=True))
        return outs, torch.autograd.grad(total, list(given.values()))

    (outs, gradients), (expected, expected_gradients) = run(True), run(False)
    for one, other in zip([*outs, *gradients], [*expected, *expected_gradients], strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("strong", [0.1, 30.0])
def test_long_chunks_round_as_short_ones(strong: float) -> None:
    """Log-decays of up to 10,000 within a chunk, where a float32 holds no thousandths."""
    segments, values = scan_inputs(strong=strong)
    expected, _ = step_by_step(values, LENGTHS)
    narrow = {name: value.float() for name, value in values.items()}
    long = lay_out(LENGTHS, 128, 4, CPU)
    errors = [
        float((way.scan(**narrow, segments=cut)[0] - expected).abs().max() / expected.abs().max())
        for way, cut in ((plain_scan, segments), (scan, long))
    ]
    assert errors[1] < max(errors[0], 2e-6), errors


def test_the_convolution() -> None:
    segments = lay_out(LENGTHS, 32, 4, CPU)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(sum(LENGTHS), 6, generator=draw, requires_grad=True)
    taps = torch.randn(4, 6, generator=draw, requires_grad=True)
    bias = torch.randn(6, generator=draw, requires_grad=True)
    weights = torch.randn(x.shape, generator=draw)
    outs, gradients = [], []
    for way in (plain_scan.convolve, convolution.convolve):
        outs.append(way(x, taps, bias, segments))
        gradients.append(torch.autograd.grad((outs[-1] * weights).sum(), (x, taps, bias)))
    torch.testing.assert_close(outs[1], outs[0], atol=1e-5, rtol=0)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


# ---------------------------------------------------------------- experts, attention, the host


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("way", [experts.grouped, experts.all_of_them, experts.side_by_side])
def test_experts(way: Any, autocast: bool) -> None:
    """Of 8 experts some get no row, one gets most; every row chooses 3."""
    model = hybrid("moe")
    layer = next(m for m in model.modules() if isinstance(m, Experts))
    count, _, width = layer.up_proj.shape
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, width, generator=draw, requires_grad=True)
    scores = torch.randn(50, count, generator=draw)
    scores[:, 0] += 9
    scores[:, 2] -= 99
    chosen = scores.topk(3).indices
    weights = torch.rand(50, 3, generator=draw, requires_grad=True)
    inputs = (hidden, weights, layer.up_proj, layer.down_proj)

    results = []
    for compute in (
        lambda: layer._one_by_one(hidden, weights, chosen),
        lambda: way(hidden, weights, chosen, layer.up_proj, layer.down_proj),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = compute()
        results.append([out, *torch.autograd.grad(out.float().square().sum(), inputs)])
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
        bound = 2e-2 if autocast else 1e-5
        assert (one - other).abs().max() <= bound * one.abs().max()
    assert not results[1][3][2].any(), "nobody chose it"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("top", [1, 2, 6])
def test_the_sum_of_a_tokens_experts_and_its_gradients(top: int, dtype: torch.dtype) -> None:
    """As by definition in float64; in inference mode, where it is another sum, as elsewhere."""
    torch.manual_seed(0)
    outs = torch.randn(9, top, 16).to(dtype).requires_grad_()
    weights = torch.rand(9, top).requires_grad_()
    exact_outs, exact_weights = (one.detach().double().requires_grad_() for one in (outs, weights))
    exact = (exact_outs * exact_weights[..., None]).sum(1)
    seed = torch.randn(9, 16)
    exact.backward(seed.double())
    found = experts.weighted(outs, weights)
    found.backward(seed.to(dtype))
    with torch.inference_mode():
        inferred = experts.weighted(outs, weights)

    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    pairs = [(found, exact), (inferred, exact)]
    pairs += [(outs.grad, exact_outs.grad), (weights.grad, exact_weights.grad)]
    for one, right in pairs:
        assert one is not None and right is not None
        torch.testing.assert_close(one.double(), right, atol=tolerance, rtol=tolerance)


def test_gradients_of_experts_add_up_over_micro_batches() -> None:
    """Under autocast they are added where the weights' own stand."""
    layer = next(m for m in hybrid("moe").modules() if isinstance(m, Experts))
    weights = (layer.up_proj, layer.down_proj)
    draw = torch.Generator().manual_seed(0)
    chosen = torch.rand(50, len(layer.up_proj), generator=draw).topk(3).indices
    share = torch.rand(50, 3, generator=draw)

    def backward(hidden: Tensor) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = experts.grouped(hidden, share, chosen, *weights)
        out.float().square().sum().backward()

    batches = [torch.randn(50, layer.up_proj.shape[2], generator=draw) for _ in range(2)]
    alone = []
    for batch in batches:
        backward(batch)
        alone.append([weight.grad for weight in weights])
        layer.zero_grad()
    for batch in batches:
        backward(batch)
    for weight, one, two in zip(weights, *alone, strict=True):
        assert weight.grad is not None and one is not None and two is not None
        assert one.any() and torch.equal(weight.grad, one + two)


@pytest.mark.parametrize("scale", [1e25, 1e38])
def test_an_expert_that_overflows_concerns_those_alone_that_chose_it(scale: float) -> None:
    """As in the loop that more rows take: a sampler would end where a trainer goes on."""
    model = hybrid("moe")
    layer = next(m for m in model.modules() if isinstance(m, Experts))
    with torch.no_grad():
        layer.up_proj[0] *= scale
    hidden = torch.randn(6, layer.up_proj.shape[2], requires_grad=True)
    chosen = torch.tensor([[1, 2], [3, 1], [2, 0], [4, 5], [7, 6], [5, 1]])
    weights = torch.full((6, 2), 0.5)
    inputs = hidden, layer.up_proj, layer.down_proj
    rows = [0, 1, 3, 4, 5]

    results = []
    for way in (layer._one_by_one, layer):
        out = way(hidden, weights, chosen)[rows]
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    assert not way(hidden, weights, chosen)[2].isfinite().all(), "it does overflow"
    with torch.inference_mode():
        sampled = layer(hidden, weights, chosen)
    assert not sampled[2].isfinite().all()
    torch.testing.assert_close(sampled[rows], results[0][0], atol=1e-5, rtol=1e-4)
    for one, other in zip(results[0], results[1], strict=True):
        at = rows if len(one) == len(hidden) else range(1, len(one))
        torch.testing.assert_close(other[at], one[at], atol=1e-5, rtol=1e-4)


def each_alone(query: Tensor, key: Tensor, value: Tensor, *where: Any, **options: Any) -> Tensor:
    """What `varlen_attn` is said to do: causal attention, the last query beside the last key."""
    assert options == {"window_size": (-1, 0), "enable_gqa": True}
    query_ends, key_ends, longest_query, longest_key = where
    assert longest_query == query_ends.diff().max() and longest_key == key_ends.diff().max()
    outs = []
    for q0, q1, k0, k1 in zip(
        *map(Tensor.tolist, (query_ends[:-1], query_ends[1:], key_ends[:-1], key_ends[1:])),
        strict=True,
    ):
        mask = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril(k1 - k0 - (q1 - q0))
        parts = (part.transpose(0, 1) for part in (query[q0:q1], key[k0:k1], value[k0:k1]))
        outs.append(F.scaled_dot_product_attention(*parts, attn_mask=mask, enable_gqa=True))
    return torch.cat([out.transpose(0, 1) for out in outs])


@pytest.mark.parametrize("share", [False, True])
def test_attention_without_rectangles(share: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = hybrid("dense"), siblings(GROUPS)

    def run() -> Any:
        return trained(model, samples, Loss("grpo"), share=share, tokens=2048)

    metrics, expected, _ = run()
    options = {"window_size": (-1, 0), "enable_gqa": True}
    monkeypatch.setattr(choice, "varlen_attention", lambda: each_alone)
    monkeypatch.setattr(attention, "_causal", lambda: options)
    monkeypatch.setattr(
        "linn.engine.models.nemotron_h.layers.attends_joined", lambda projected: True
    )
    found, gradients, _ = run()
    torch.testing.assert_close(found, metrics, atol=1e-5, rtol=1e-5)
    assert worst(gradients, expected) < 1e-5


def test_torch_has_the_attention_that_is_asked_for() -> None:
    assert choice.varlen_attention() is not None
    assert attention._causal()["window_size"] == (-1, 0)


@pytest.mark.parametrize("prompts", [None, [-1, 0, 0, -1, -1]])
def test_no_layer_asks_the_host(prompts: list[int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A meta tensor has no values: whatever looked at one would fail."""
    monkeypatch.setenv(choice.VARIABLE, "gpu")
    monkeypatch.setattr(torch, "autocast", lambda *how, **options: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    meta = torch.device("meta")
    model = hybrid("moe").to(torch.bfloat16).to(meta)
    lengths = [130, 5, 3, 200, 1]
    layout = lay_out(lengths, choice.chunk_for(meta), 4, meta, prompts)
    ids = torch.zeros(sum(lengths), dtype=torch.int64, device=meta)
    hidden, _ = model.backbone(ids, layout, with_cache=prompts is None)
    torch.autograd.backward(hidden.sum())
    assert hidden.shape == (sum(lengths), model.config.hidden_size)


@pytest.mark.slow
def test_a_family_of_transformers_is_called_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TransformersLM(gemma2())
    lengths = [3, 4, 5, 6, 7, 9, 11, 14]
    row = [number for number, length in enumerate(lengths) for _ in range(length)]
    segments = torch.tensor([row])
    ids = torch.arange(len(row))[None] % 8
    results = {}
    for way in ("plain", "gpu"):
        monkeypatch.setenv(choice.VARIABLE, way)
        results[way] = model.forwards(segments), model.hidden(ids, segments)
    assert results["gpu"][0] == 2 < results["plain"][0]
    torch.testing.assert_close(results["gpu"][1], results["plain"][1], atol=1e-5, rtol=0)


def test_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    up, odd = torch.zeros(4, 16, 8), torch.zeros(4, 6, 8)
    few, many = torch.zeros(7, 8), torch.zeros(1000, 8)
    assert choice.experts_by(many, up, 2) == "loop" and choice.chunk_for(CPU) == 32
    # On a CPU a few rows go through all experts, if most of that is not in vain.
    assert choice.experts_by(few, up, 2) == "loop", "what trains and scores has one way"
    with torch.inference_mode():
        assert choice.experts_by(few, up, 2) == "side by side"
        assert choice.experts_by(many, up, 2) == "loop"
        assert choice.experts_by(few, torch.zeros(9, 16, 8), 2) == "loop"
        # Nor are large matrices copied.
        assert choice.experts_by(few, torch.zeros(4, 2**15, 9), 2) == "loop"
    monkeypatch.setenv(choice.VARIABLE, "gpu")
    assert choice.chunk_for(CPU) == choice.GPU_CHUNK
    assert choice.experts_by(few, up, 2) == choice.experts_by(many, up, 2) == "grouped"
    assert choice.experts_by(few, odd, 2) == "all" and choice.experts_by(many, odd, 2) == "loop"
    # A card whose groups have to be asked for (float32, or an older one) does without for few rows.
    monkeypatch.setattr(choice, "_groups_alone", lambda device, dtype: False)
    assert choice.experts_by(few, up, 2) == "all" and choice.experts_by(many, up, 2) == "grouped"
    monkeypatch.setenv(choice.VARIABLE, "plain")
    assert choice.experts_by(few, up, 2) == "loop" and not choice.on_gpu(torch.device("cuda"))
