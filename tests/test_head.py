"""The loss from the head's logits to its gradient, chunk by chunk, against all logits at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.shared import hybrid, siblings
from test_families import gemma2, qwen3
from torch import Tensor

from linn.engine.models.transformers_lm import TransformersLM
from linn.engine.training.head import chunk_size, drawn
from linn.engine.training.losses import OBJECTIVES, Signal, backward, score, trained_states
from linn.engine.training.pack import Packed, micro_batches
from linn.types import Loss, Sample

LOSSES = {
    "sft": Loss("sft"),
    "grpo": Loss("grpo", temperature=0.7),
    "kl": Loss("grpo", kl=0.03),
    "mopd": Loss("mopd", temperature=1.3),
}


def family(kind: str) -> Any:
    """Heads of every make: by itself, tied, capped, with a bias, with ids that are never drawn."""
    torch.manual_seed(0)
    if kind == "hybrid":
        return hybrid("moe")
    if kind == "capped":
        return TransformersLM(gemma2())
    model = TransformersLM(qwen3(tie_word_embeddings=kind == "tied"))
    if kind == "bias":
        head = model.lm_head
        head.bias = torch.nn.Parameter(torch.randn(model.vocab) / 10)  # type: ignore[assignment]
    if kind == "absent":
        model.absent = torch.tensor([3, 5, model.vocab - 1])
    return model


def batch() -> Packed:
    """One micro-batch of siblings whose tokens every family has, also where some are absent."""
    samples = []
    for sample in siblings([(9, [4, 7, 3]), (4, [11, 2])]):
        tokens = [6 + token % 30 for token in sample.tokens]
        samples.append(
            Sample(tokens, sample.mask, sample.advantage, sample.behaviour, sample.teacher)
        )
    (packed,) = micro_batches(samples, [0.1, 0.2, 0.1, 0.05, 0.3], width=128)
    return packed


def by_definition(
    model: Any, packed: Packed, loss: Loss, autocast: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and metrics by autograd, over the log-softmax of all logits at once."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        hidden, targets = trained_states(model, packed)
        logits = model.head(hidden).float()
    logp = torch.log_softmax(logits / loss.temperature, dim=-1)
    chosen = logp.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    value, metrics = OBJECTIVES[loss.kind](chosen, Signal.of(packed), loss)
    torch.autograd.backward(value)
    entropy = -(logp.exp() * logp).sum(-1).detach()
    return value.detach(), metrics | {"entropy": entropy}


def gradients(model: Any) -> dict[str, Tensor]:
    """Of all parameters, which have none afterwards."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def check(model: Any, loss: Loss, tolerance: float, autocast: bool = False) -> None:
    """Chunks of 5 positions, without and with a gradient that is there before, and all at once."""
    packed = batch()
    right, right_metrics = by_definition(model, packed, loss, autocast)
    expected = gradients(model)
    for chunk, times in ((5, 1), (5, 2), (None, 1)):
        for _ in range(times):
            value, metrics = backward(model, packed, loss, autocast, chunk)
        found = gradients(model)
        assert found.keys() == expected.keys()
        largest = max(float(grad.abs().max()) for grad in expected.values())
        for name, grad in expected.items():
            gap = float((found[name] / times - grad).abs().max())
            assert gap <= tolerance * largest, (name, chunk, gap / largest)
        assert torch.allclose(value, right, atol=tolerance, rtol=tolerance)
        assert metrics.keys() == right_metrics.keys()
        for name, values in right_metrics.items():
            close = torch.allclose(metrics[name].to(values), values, atol=10 * tolerance, rtol=1e-4)
            assert close, name


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("name", ["hybrid", "tied", "capped", "bias", "absent"])
def test_a_chunked_loss_has_the_gradient_of_all_logits_at_once(name: str, kind: str) -> None:
    check(family(name), LOSSES[kind], tolerance=2e-6)


@pytest.mark.parametrize("name", ["hybrid", "tied", "bias"])
def test_under_autocast_it_has_what_autograd_makes_of_bf16_products(name: str) -> None:
    check(family(name), LOSSES["kl"], tolerance=1e-2, autocast=True)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_entropy_and_gradient_are_those_of_64_bits(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 6 * torch.randn(40, 9_000, generator=generator)
    logits[:, 17] = -1e30  # an id that is never drawn
    logits[3] += 300.0
    targets = torch.randint(20, 9_000, (40,), generator=generator)
    slope = torch.randn(40, generator=generator)

    exact = logits.double().requires_grad_()
    logp = torch.log_softmax(exact / temperature, dim=-1)
    chosen = logp.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    (expected,) = torch.autograd.grad((chosen * slope).sum(), exact)

    found = drawn(logits.clone(), targets, temperature)
    # A logit of 300 has a last bit of 3e-5.
    assert torch.allclose(found.logp.double(), chosen.detach(), atol=3e-5, rtol=2e-6)
    entropy = -(logp.exp() * logp).sum(-1).detach()
    assert torch.allclose(found.entropy.double(), entropy, atol=1e-5, rtol=2e-6)
    gradient = found.gradient(slope).double()
    assert torch.allclose(gradient, expected, atol=1e-6, rtol=1e-4)
    assert not gradient[:, 17].any()


@pytest.mark.parametrize("name", ["hybrid", "absent"])
def test_scores_are_the_log_probs_that_are_trained(name: str) -> None:
    """The very bits: a teacher that is the policy itself has nothing to teach."""
    model = family(name)
    samples = siblings([(9, [4, 7, 3])])
    sequences = [[6 + token % 30 for token in sample.tokens] for sample in samples]
    for temperature in (1.0, 0.7):
        rows = score(model, sequences, temperature)
        teachers = [
            Sample(ids, [True] * len(ids), [1.0] * len(ids), row, row)
            for ids, row in zip(sequences, rows, strict=True)
        ]
        (packed,) = micro_batches(teachers, [1.0] * len(teachers))
        value, metrics = backward(model, packed, Loss("mopd", temperature=temperature))
        assert float(value) == 0.0 and not metrics["teacher_gap"].any()
        assert not any(grad.any() for grad in gradients(model).values())


def test_a_frozen_head_gets_no_gradient() -> None:
    model = family("untied")
    model.lm_head.weight.requires_grad_(False)
    backward(model, batch(), LOSSES["sft"])
    assert model.lm_head.weight.grad is None
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert "forward" not in vars(model.lm_head)


def test_a_chunk_has_as_many_positions_as_fit_into_its_bytes() -> None:
    assert chunk_size(1_024) == 8_192
    assert chunk_size(49_152) == 160
    assert chunk_size(131_072, "cuda") == 1024
    assert chunk_size(10**9) == 1


class _Wide(torch.nn.Module):
    """Nothing but embeddings and a head over a real vocabulary."""

    vocab, absent = 131_072, None

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(8, 16)
        self.lm_head = torch.nn.Linear(16, self.vocab, bias=False)

    def hidden(self, ids: Tensor, segments: Tensor) -> Tensor:
        out: Tensor = self.embed(ids)
        return out

    def head(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.lm_head(hidden)
        return out


def _peak(run: Any) -> int:
    """Bytes that tensors take at once, at most, while it runs: by torch's own account."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        run()
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def test_the_loss_of_a_real_vocabulary_takes_an_eighth_of_its_logits() -> None:
    places = 384
    model: Any = _Wide()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    ids = [place % 8 for place in range(places + 1)]
    ones = [1.0] * len(ids)
    (packed,) = micro_batches([Sample(ids, [True] * len(ids), ones)], [0.1])

    logits = 4 * places * model.vocab
    assert _peak(lambda: by_definition(model, packed, Loss("sft"))) > 2 * logits
    assert _peak(lambda: backward(model, packed, Loss("sft"))) <= 2 * logits / 8
