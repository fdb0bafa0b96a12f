"""Losses against ten lines of NumPy each, gradients against formulas, and the normalisers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from linn.engine.training.losses import Signal, check_batch, grpo, mopd, sft
from linn.engine.training.pack import micro_batches
from linn.engine.training.token_weights import StepFailed, token_weights, trained_tokens
from linn.errors import UserError
from linn.types import Loss, Sample

DRAW = np.random.default_rng(0)
N = 12


def signal(**fields: Tensor) -> Signal:
    drawn = {
        "weight": torch.tensor(DRAW.uniform(0.01, 0.2, N)),
        "advantage": torch.tensor(DRAW.normal(size=N)),
        "behaviour": torch.tensor(-DRAW.uniform(0.1, 3, N)),
        "teacher": torch.tensor(-DRAW.uniform(0.1, 3, N)),
    }
    return Signal(**(drawn | fields))


def logps() -> Tensor:
    return torch.tensor(-DRAW.uniform(0.1, 3, N), requires_grad=True)


def gradient(value: Tensor, logp: Tensor) -> np.ndarray:
    (grad,) = torch.autograd.grad(value, logp)
    return grad.numpy()


def close(actual: object, expected: object) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-12, atol=1e-14)


def test_sft_is_the_weighted_mean_of_minus_log_p() -> None:
    s, logp = signal(), logps()
    value, metrics = sft(logp, s, Loss("sft"))
    w, a, x = s.weight.numpy(), s.advantage.numpy(), logp.detach().numpy()
    close(value.detach(), -np.sum(w * a * x))
    close(gradient(value, logp), -w * a)
    close(metrics["nll"], -x)


def test_grpo_has_the_gradient_of_advantage_times_log_p() -> None:
    s, logp = signal(), logps()
    value, metrics = grpo(logp, s, Loss("grpo"))
    w, a, x, b = s.weight.numpy(), s.advantage.numpy(), logp.detach().numpy(), s.behaviour.numpy()
    close(value.detach(), -np.sum(w * a))  # ratio 1
    close(gradient(value, logp), -w * a)
    close(metrics["mismatch"], np.abs(x - b))
    close(metrics["ratio"], np.exp(x - b))


def test_grpo_with_kl_adds_k3_of_the_reference() -> None:
    s, logp = signal(), logps()
    value, metrics = grpo(logp, s, Loss("grpo", kl=0.03))
    w, a, x, ref = s.weight.numpy(), s.advantage.numpy(), logp.detach().numpy(), s.teacher.numpy()
    k3 = np.exp(ref - x) - (ref - x) - 1
    close(value.detach(), -np.sum(w * a) + 0.03 * np.sum(w * k3))
    close(gradient(value, logp), -w * a + 0.03 * w * (1 - np.exp(ref - x)))
    assert (k3 >= 0).all()
    close(metrics["kl"], k3)
    itself = signal(teacher=logp.detach(), advantage=torch.zeros(N, dtype=torch.float64))
    value, _ = grpo(logp, itself, Loss("grpo", kl=0.03))
    assert not gradient(value, logp).any()


def test_mopd_matches_equations_2_to_4() -> None:
    s, logp = signal(), logps()
    value, metrics = mopd(logp, s, Loss("mopd", normalise="sequence"))
    w, x, b, t = s.weight.numpy(), logp.detach().numpy(), s.behaviour.numpy(), s.teacher.numpy()
    r = np.exp(x - b)
    inside = (r >= 0.5) & (r <= 2.0)
    assert 0 < inside.sum() < N
    close(value.detach(), -np.sum(w * r * inside * (t - x) * x))
    close(gradient(value, logp), -w * r * inside * (t - x))  # the only path is log π
    close(metrics["teacher_gap"], t - x)
    close(metrics["out_of_band"], ~inside)


def test_the_band_zeroes_just_outside_and_keeps_its_ends() -> None:
    ratios = [0.5 * (1 - 1e-9), 0.5 * (1 + 1e-9), 2.0 * (1 - 1e-9), 2.0 * (1 + 1e-9), 1e30]
    logp = torch.full((5,), -1.0, dtype=torch.float64, requires_grad=True)
    one = torch.ones(5, dtype=torch.float64)
    s = Signal(one, one, -1.0 - torch.tensor(ratios, dtype=torch.float64).log(), one)
    value, _ = mopd(logp, s, Loss("mopd"))
    grad = gradient(value, logp)
    assert grad[0] == grad[3] == grad[4] == 0.0  # zeroed, not clamped
    np.testing.assert_allclose(grad[1:3], [-0.5 * 2, -2.0 * 2], rtol=1e-6)


def test_mopd_of_the_policy_itself_has_a_gradient_of_exactly_zero() -> None:
    logp = logps().detach().float().requires_grad_()
    s = signal(teacher=logp.detach().clone())
    value, metrics = mopd(logp, s, Loss("mopd"))
    assert value.item() == 0.0
    assert not gradient(value, logp).any()
    assert not metrics["teacher_gap"].any()


def test_equal_rewards_give_exactly_zero_gradient() -> None:
    logp = logps()
    value, _ = grpo(logp, signal(advantage=torch.zeros(N, dtype=torch.float64)), Loss("grpo"))
    assert not gradient(value, logp).any()


@pytest.mark.parametrize(
    ("kind", "kl", "field"),
    [
        ("grpo", 0, "behaviour"),
        ("mopd", 0, "behaviour"),
        ("mopd", 0, "teacher"),
        ("grpo", 1, "teacher"),
    ],
)
def test_a_missing_log_prob_is_an_error_and_never_0(kind: str, kl: float, field: str) -> None:
    loss = Loss(kind, kl=kl)  # type: ignore[arg-type]

    def sample(**changes: list[float] | None) -> Sample:
        signals = {"behaviour": [0.0, -1.0], "teacher": [0.0, -1.0]} | changes
        return Sample([1, 2], [False, True], [0.0, 1.0], **signals, source="p/0")

    assert token_weights([sample()], loss) == [1.0]
    with pytest.raises(ValueError, match=f"p/0.*{field}"):
        token_weights([sample(**{field: None})], loss)
    with pytest.raises(StepFailed, match=field) as caught:
        token_weights([sample(**{field: [0.0, math.nan]})], loss)
    assert len(caught.value.samples) == 1

    # And once more before a micro-batch goes to a device.
    (packed,) = micro_batches([sample(**{field: [0.0, math.nan]})], [1.0])
    with pytest.raises(ValueError, match=field):
        check_batch(packed, loss, vocab=3)
    (packed,) = micro_batches([sample()], [1.0])
    check_batch(packed, loss, vocab=3)
    with pytest.raises(UserError, match="token 2"):
        check_batch(packed, None, vocab=2)
    (packed,) = micro_batches([Sample([-1, 2], [False, True], [0.0, 1.0])], [1.0])
    with pytest.raises(UserError, match="token -1: ids begin at 0"):
        check_batch(packed, None, vocab=3)


def of(length: int, group: int = 0, weight: float = 1.0) -> Sample:
    """One prompt token, then `length` trained ones."""
    return Sample(
        [1] * (length + 1),
        [False] + [True] * length,
        [weight] * (length + 1),
        [0.0] * (length + 1),
        [0.0] * (length + 1),
        group=group,
    )


def test_normalisers_under_unequal_lengths() -> None:
    samples = [of(2, group=0), of(6, group=0), of(4, group=1), of(0, group=2)]
    lengths = [trained_tokens(sample) for sample in samples]
    assert lengths == [2, 6, 4, 0]
    assert trained_tokens(Sample([1, 2], [True, True], [1.0, 1.0])) == 1  # entry 0 never counts

    for loss, expected in (
        (Loss("grpo", "token"), [1 / 12, 1 / 12, 1 / 12, 0]),
        (Loss("mopd", "sequence"), [1 / 6, 1 / 18, 1 / 12, 0]),
        (Loss("grpo", "prompt"), [1 / 16, 1 / 16, 1 / 8, 0]),
    ):
        weights = token_weights(samples, loss)
        assert weights == pytest.approx(expected)
        total = sum(weight * length for weight, length in zip(weights, lengths, strict=True))
        assert total == pytest.approx(1)


def test_sft_length_power_goes_from_token_mean_to_sequence_mean() -> None:
    samples = [of(2), of(8)]
    assert token_weights(samples, Loss("sft")) == pytest.approx([1 / 10, 1 / 10])
    assert token_weights(samples, Loss("sft", length_power=1.0)) == pytest.approx([1 / 4, 1 / 16])
    half = token_weights(samples, Loss("sft", length_power=0.5))
    assert half[0] / half[1] == pytest.approx(2) and 2 * half[0] + 8 * half[1] == pytest.approx(1)
    weighted = token_weights([of(2, weight=3.0), of(2, weight=1.0)], Loss("sft"))  # a weighted mean
    assert weighted == pytest.approx([1 / 8, 1 / 8])


@pytest.mark.parametrize(
    ("samples", "loss", "words"),
    [
        ([of(0)], Loss("grpo"), "nothing to train"),
        ([], Loss("grpo"), "nothing to train"),
        ([of(2, weight=0.0)], Loss("sft"), "nothing to train"),
        ([of(2)], Loss("sft", kl=0.1), "only grpo"),
        ([of(2)], Loss("grpo", temperature=0.0), "temperature"),
        (
            [Sample([1, 2], [False], [0.0, 0.0], [0.0, 0.0])],
            Loss("grpo"),
            "1 entries in `mask` for 2 tokens",
        ),
        ([Sample([], [], [], [])], Loss("grpo"), "no tokens"),
    ],
)
def test_a_batch_that_cannot_be_trained_is_refused(
    samples: list[Sample], loss: Loss, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        token_weights(samples, loss)
