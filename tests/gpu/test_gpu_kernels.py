"""On a GPU: its operators against the CPU's path, and no layer waits for the host.

Each test prints its largest differences (`make gpu-test`). In float32 they are rounding. In
bfloat16 the bound is what the reference's own operators lose on the same card.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.decoding import packed_rows
from support.kernels import LENGTHS, by, differences, passes, scan_inputs
from torch import Tensor

from linn.engine.models.kernels import attention, choice, convolution, experts, scan
from linn.engine.models.kernels.carry import entering
from linn.engine.models.nemotron_h import scan as plain_scan
from linn.engine.models.nemotron_h.experts import Experts
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.models.nemotron_h.segments import lay_out
from linn.engine.models.vocabulary import NEVER
from linn.engine.training.head import add_product, drawn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
]
CUDA = torch.device("cuda")
RAW: dict[str, Any] = {
    "model_type": "nemotron_h",
    "vocab_size": 512,
    "hidden_size": 256,
    "hybrid_override_pattern": "MEM*EM-*",
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 512,
    "mamba_num_heads": 8,
    "mamba_head_dim": 64,
    "ssm_state_size": 64,
    "n_groups": 4,
    "n_routed_experts": 16,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 128,
    "moe_shared_expert_intermediate_size": 256,
    "initializer_range": 0.1,
}


@pytest.fixture(scope="module", autouse=True)
def exact() -> Iterator[None]:
    """Float32 products are float32's."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    assert not torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def on_cpu() -> NemotronH:
    model = NemotronH(RAW, Path("config.json"))
    model.initialise(0)
    return model


@pytest.fixture(scope="module")
def model(on_cpu: NemotronH) -> NemotronH:
    return deepcopy(on_cpu).to(CUDA)


def gap(one: Tensor, other: Tensor) -> float:
    """The largest difference."""
    return float((one.detach().double().cpu() - other.detach().double().cpu()).abs().max())


def apart(one: Tensor, other: Tensor, autocast: bool) -> float:
    """The largest difference of log-probs; in bfloat16 the mean one.

    There rounding now and then lets a token choose another expert, which is no error of a few bits.
    """
    if not autocast:
        return gap(one, other)
    return float((one - other).detach().abs().mean())


def test_float32_is_the_cpus(on_cpu: NemotronH, model: NemotronH) -> None:
    expected, expected_gradients = passes(on_cpu)
    found, gradients = passes(model, device="cuda")
    worst = differences(expected_gradients, gradients)
    name = max(worst, key=lambda each: worst[each])
    print(f"\nfloat32: log-probs {gap(found, expected):.1e}, gradients {worst[name]:.1e} ({name})")
    assert gap(found, expected) < 1e-4
    assert worst[name] < 1e-3


def test_bfloat16_loses_no_more_than_the_reference(
    on_cpu: NemotronH, model: NemotronH, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact_numbers, exact_gradients = passes(on_cpu)
    lost, lost_gradients = {}, {}
    for way in ("plain", "gpu"):
        found, gradients = by(way, monkeypatch, lambda: passes(model, device="cuda", autocast=True))
        lost[way] = float((found - exact_numbers).abs().mean())
        lost_gradients[way] = torch.tensor([*differences(exact_gradients, gradients).values()])
        largest = f"{gap(found, exact_numbers):.3f}"
        mean = f"{lost_gradients[way].mean():.3f}"
        print(f"\nbfloat16 {way}: log-probs {lost[way]:.4f} mean, {largest} max; gradients {mean}")
    assert lost["gpu"] < 1.2 * lost["plain"]
    assert lost_gradients["gpu"].mean() < 1.3 * lost_gradients["plain"].mean()


@pytest.mark.parametrize(("autocast", "bound"), [(False, 1e-4), (True, 2e-2)])
def test_packed_is_alone(model: NemotronH, autocast: bool, bound: float) -> None:
    together, _ = passes(model, device="cuda", autocast=autocast)
    generator = torch.Generator().manual_seed(1)  # as in `passes`
    parts = [torch.randint(model.vocab, (n,), generator=generator) for n in LENGTHS]
    singles = []
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
        for part in parts:
            ids, segments = packed_rows([[part]], len(part))
            hidden = model.hidden(ids.to(CUDA), segments.to(CUDA))
            singles.append(model.head(hidden)[0].log_softmax(-1))
    found = apart(together, torch.cat(singles).cpu(), autocast)
    print(f"\npacked against alone, autocast {autocast}: {found:.1e}")
    assert found < bound


@pytest.mark.parametrize(("autocast", "bound"), [(False, 1e-4), (True, 2e-2)])
def test_shared_prompts_change_nothing(model: NemotronH, autocast: bool, bound: float) -> None:
    """Two prompts, of 200 and 130 tokens, with replies of 1, 128, 40 and of 3 tokens."""
    draw = torch.Generator().manual_seed(2)
    groups = [(200, [1, 128, 40]), (130, [3])]
    row, separate, continues = [], [], []
    for prompt_length, lengths in groups:
        prompt = torch.randint(model.vocab, (prompt_length,), generator=draw)
        start = len(row)
        row.append(prompt)
        continues += [-1] * prompt_length
        for length in lengths:
            row.append(torch.randint(model.vocab, (length,), generator=draw))
            continues += [start] * length
            separate.append(torch.cat([prompt, row[-1]]))

    def outs(rows: list[Tensor], goes_on: Tensor | None) -> list[Tensor]:
        ids, segments = packed_rows([rows], sum(map(len, rows)))
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            hidden = model.hidden(ids.to(CUDA), segments.to(CUDA), goes_on)
            return list(model.head(hidden)[0].log_softmax(-1).split([len(r) for r in rows]))

    def gradients() -> dict[str, Tensor]:
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        return found

    model.zero_grad()
    together = outs(row, torch.tensor([continues], device=CUDA))
    replies = [together[place] for place in (1, 2, 3, 5)]
    torch.autograd.backward(
        sum((reply[:, 7].sum() for reply in replies), torch.zeros((), device=CUDA))
    )
    shared = gradients()
    singles = [out[-len(reply) :] for out, reply in zip(outs(separate, None), replies, strict=True)]
    torch.autograd.backward(
        sum((reply[:, 7].sum() for reply in singles), torch.zeros((), device=CUDA))
    )
    worst = max(differences(gradients(), shared).values())
    found = apart(torch.cat(replies), torch.cat(singles), autocast)
    print(f"\nshared prompts, autocast {autocast}: log-probs {found:.1e}, gradients {worst:.1e}")
    assert found < bound
    assert autocast or worst < 1e-3


def test_decoding_goes_on_from_a_prefill(on_cpu: NemotronH, model: NemotronH) -> None:
    prompts = [[(7 * n) % 512 for n in range(length)] for length in (1, 3, 128, 300)]
    results = []
    for each in (on_cpu, model):
        first, state = each.prefill(prompts)
        token = torch.tensor([1, 2, 3, 4], device=first.device)
        results.append((first.log_softmax(-1), each.decode(token, state)[0].log_softmax(-1)))
    gaps = [gap(one, other) for one, other in zip(*results, strict=True)]
    print(f"\nprefill {gaps[0]:.1e}, decode {gaps[1]:.1e}")
    assert max(gaps) < 1e-4


def test_the_scan_against_64_bits() -> None:
    """The base's heads, and log-decays of thousands within a chunk."""
    for strong in (1.0, 30.0):
        _, values = scan_inputs(LENGTHS, groups=2, per_group=8, strong=strong)
        wide = {name: value.to(CUDA) for name, value in values.items()}
        cut = lay_out(LENGTHS, 32, 4, CUDA)
        expected = plain_scan.scan(**wide, segments=cut)[0]
        long = lay_out(LENGTHS, choice.GPU_CHUNK, 4, CUDA)
        found = scan.scan(**{n: v.float() for n, v in wide.items()}, segments=long)[0]
        error = gap(found, expected) / float(expected.abs().max())
        print(f"\nscan, decay x {strong:g}: {error:.1e} of the largest output")
        assert error < 1e-5


def test_the_scans_memory_is_bounded() -> None:
    """32,768 tokens of 64 heads: weights within all chunks together would take 4 times 1.07 GB."""
    tokens, heads, width, size = 32768, 64, 64, 128
    layout = lay_out([tokens // 2] * 2, choice.GPU_CHUNK, 4, CUDA)
    draw = torch.Generator(CUDA).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, device=CUDA).requires_grad_()

    x, b, c = normal(tokens, heads, width), normal(tokens, 8, size), normal(tokens, 8, size)
    dt = torch.full((tokens, heads), 0.05, device=CUDA)
    a, d = -torch.ones(heads, device=CUDA), torch.ones(heads, device=CUDA)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y, _, _ = scan.scan(x, dt, a, b, c, d, layout)
    kept = torch.cuda.memory_allocated() - before
    torch.autograd.backward(y.square().mean())
    peak = torch.cuda.max_memory_allocated() - before
    print(f"\nscan of {tokens:,} tokens: {kept / 1e9:.2f} GB kept, {peak / 1e9:.2f} GB at most")
    assert x.grad is not None and torch.isfinite(x.grad).all()
    # x, y and their gradients are 0.54 GB each, the states as much.
    assert peak < 9e9


def test_the_convolution() -> None:
    segments = lay_out(LENGTHS, 32, 4, CUDA)
    draw = torch.Generator(CUDA).manual_seed(0)
    x = torch.randn(sum(LENGTHS), 640, generator=draw, device=CUDA, requires_grad=True)
    taps = torch.randn(4, 640, generator=draw, device=CUDA, requires_grad=True)
    bias = torch.randn(640, generator=draw, device=CUDA, requires_grad=True)
    outs = [way(x, taps, bias, segments) for way in (plain_scan.convolve, convolution.convolve)]
    weights = torch.randn_like(outs[0])
    gradients = [torch.autograd.grad((out * weights).sum(), (x, taps, bias)) for out in outs]
    gaps = [gap(*outs), *(gap(one, other) for one, other in zip(*gradients, strict=True))]
    print(f"\nconvolution {gaps[0]:.1e}, gradients {max(gaps[1:]):.1e}")
    assert gaps[0] < 1e-5 and gaps[1] < 1e-5 and max(gaps) < 1e-3


@pytest.mark.parametrize("autocast", [False, True])
def test_experts(model: NemotronH, autocast: bool) -> None:
    """Of 16 experts some get no row, one gets most, and no group's size is round."""
    layer = next(each for each in model.modules() if isinstance(each, Experts))
    draw = torch.Generator(CUDA).manual_seed(0)
    hidden = torch.randn(1003, 256, generator=draw, device=CUDA, requires_grad=True)
    scores = torch.randn(1003, 16, generator=draw, device=CUDA)
    scores[:, 0] += 9
    scores[:, [2, 15]] -= 99
    chosen = scores.topk(3).indices
    weights = torch.rand(1003, 3, generator=draw, device=CUDA, requires_grad=True)
    inputs = (hidden, weights, layer.up_proj, layer.down_proj)

    # What is left unwritten would be NaN.
    poison = [torch.full((size,), torch.nan, device=CUDA) for size in (2**20, 2**22, 2**27)]
    del poison

    def results(way: Any) -> list[Tensor]:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            if way is None:
                out = layer._one_by_one(hidden, weights, chosen)
            else:
                out = way(hidden, weights, chosen, layer.up_proj, layer.down_proj)
        return [out, *torch.autograd.grad(out.float().square().sum(), inputs)]

    expected = results(None)
    for way in (experts.grouped, experts.all_of_them):
        found = results(way)
        shares = [
            gap(one, other) / float(one.abs().max())
            for one, other in zip(expected, found, strict=True)
        ]
        print(f"\nexperts {way.__name__}, autocast {autocast}: {max(shares):.1e}")
        assert max(shares) < (2e-2 if autocast else 1e-4)
        assert not found[3][2].any() and not found[4][15].any(), "nobody chose them"


@pytest.mark.parametrize("prompts", [None, [-1, 0, 0, -1, 3, -1]])
def test_attention_without_rectangles(prompts: list[int] | None) -> None:
    if choice.varlen_attention() is None:
        pytest.skip("this torch has no varlen_attn")
    lengths = [130, 1, 77, 64, 200, 3]
    draw = torch.Generator(CUDA).manual_seed(0)
    shape = (sum(lengths), 8 + 2 * 2, 64)
    projected = torch.randn(shape, generator=draw, device=CUDA).bfloat16().requires_grad_()
    assert choice.attends_joined(projected)
    found = attention.attend(projected, 8, attention.join(lengths, prompts).to(CUDA))

    wide = projected.detach().float().requires_grad_()
    parts = wide.split(lengths)
    outs = []
    for number, own in enumerate(parts):
        read = own
        if prompts is not None and prompts[number] >= 0:
            read = torch.cat([parts[prompts[number]], own])
        mask = torch.ones(len(own), len(read), dtype=torch.bool, device=CUDA)
        q, k, v = own[:, :8], read[:, 8:10], read[:, 10:]
        q, k, v = (each.transpose(0, 1)[None] for each in (q, k, v))
        mask = mask.tril(len(read) - len(own))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        outs.append(out[0].transpose(0, 1))
    expected = torch.cat(outs)

    weights = torch.randn(expected.shape, generator=draw, device=CUDA).bfloat16()
    (gradient,) = torch.autograd.grad((found * weights).sum(), projected)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), wide)
    share = gap(gradient, expected_gradient) / float(expected_gradient.abs().max())
    print(f"\nattention: {gap(found, expected):.1e}, gradient {share:.1e}")
    assert gap(found, expected) < 2e-2 and share < 2e-2


def test_no_layer_waits_for_the_host(model: NemotronH) -> None:
    """In bfloat16, forward and backward, with and without prompts that are shared."""
    if torch.cuda.get_device_capability()[0] not in (9, 10):
        pytest.skip("this card's grouped product asks the host for its borders")
    lengths = [130, 5, 3, 200, 1]
    for prompts in (None, [-1, 0, 0, -1, -1]):
        ids = torch.arange(sum(lengths), device=CUDA)
        layout = lay_out(lengths, choice.GPU_CHUNK, 4, CUDA, prompts)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                hidden, _ = model.backbone(ids, layout, with_cache=False)
            torch.autograd.backward(hidden.float().square().mean())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    model.zero_grad()


@pytest.mark.parametrize("vocab", [1000, 32768, 131_073])
@pytest.mark.parametrize("temperature", [1, 0.7])
def test_the_head_by_its_kernels(
    vocab: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probs, entropies and the gradient of the logits, beside torch's operators in float64."""
    from linn.engine.training import fused_head  # Triton is where a GPU is

    draw = torch.Generator(CUDA).manual_seed(vocab)
    logits = 5 * torch.randn(37, vocab, device=CUDA, generator=draw)
    logits[:, 11] = NEVER
    targets = torch.randint(12, vocab, (37,), device=CUDA, generator=draw)
    slope = torch.randn(37, device=CUDA, generator=draw)
    fused = fused_head.drawn(logits.clone(), targets, temperature)
    exact = by("plain", monkeypatch, lambda: drawn(logits.double(), targets, temperature))

    gaps = [gap(fused.logp, exact.logp), gap(fused.entropy, exact.entropy)]
    gradients = [one.gradient(slope.to(one.logp.dtype)) for one in (fused, exact)]
    gaps.append(gap(*gradients) / float(gradients[1].abs().max()))
    print(f"head of {vocab:,}, temperature {temperature}: {', '.join(f'{g:.1e}' for g in gaps)}")
    assert max(gaps) < 1e-5
    assert not gradients[0][:, 11].any()


def test_the_gradient_of_the_heads_weights_is_added_in_float32() -> None:
    draw = torch.Generator(CUDA).manual_seed(1)
    a = torch.randn(300, 500, device=CUDA, generator=draw).bfloat16()
    b = torch.randn(500, 64, device=CUDA, generator=draw).bfloat16()
    total = torch.randn(300, 64, device=CUDA, generator=draw)
    right = total.double() + a.double() @ b.double()
    add_product(total, a, b)
    print(f"added product: {gap(total, right):.1e}")
    assert gap(total, right) < 1e-3  # rounded to bfloat16 it would be 0.1


@pytest.mark.parametrize("shape", [(5, 2, 20, 3, 8), (130, 8, 128, 8, 64), (1, 1, 16, 2, 4)])
def test_the_recurrence_between_chunks_by_its_kernel(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.Generator(CUDA).manual_seed(2)
    local = torch.randn(shape, device=CUDA, generator=draw, requires_grad=True)
    decay = torch.rand(*shape[:2], 1, shape[3], 1, device=CUDA, generator=draw, requires_grad=True)
    upstream = torch.randn(shape, device=CUDA, generator=draw)
    results = []
    for kernels in ("plain", "gpu"):
        carry = by(kernels, monkeypatch, lambda: entering(local, decay))
        results.append([carry, *torch.autograd.grad((carry * upstream).sum(), (local, decay))])
    gaps = []
    for plain, fused in zip(*results, strict=True):
        gaps.append(gap(plain, fused) / float(plain.abs().max() + 1e-9))
    print(f"recurrence {shape}: {', '.join(f'{g:.1e}' for g in gaps)}")
    assert max(gaps) < 1e-5
