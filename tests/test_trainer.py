"""The optimiser step: its gradient, its refusals, its metrics, and resuming bit for bit."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import toy_lm
from support.toy_lm import ToyLM

from linn.engine.sampling.live_batch import BatchSampler
from linn.engine.training.adamw import AdamW
from linn.engine.training.gradient_norm import gradient_norm
from linn.engine.training.token_weights import StepFailed, token_weights
from linn.engine.training.trainer import Trainer
from linn.errors import UserError
from linn.types import Loss, Optim, Sample, Sampling


def rollouts(model: ToyLM, n: int = 12) -> list[Sample]:
    """Two prompts with siblings of unequal lengths and advantages of both signs.

    One tool token stands in the middle of each.
    """
    requests = [((i % 2, 4, 2), Sampling(4 + 3 * (i % 3)), i) for i in range(n)]
    completions = BatchSampler(model).generate(requests)
    samples = []
    for (ids, _, seed), completion in zip(requests, completions, strict=True):
        mask = [False] * len(ids) + [True] * len(completion.ids)
        mask[5] = False
        behaviour = [0.0] * len(ids) + list(completion.logprobs)
        sample = Sample(
            tokens=[*ids, *completion.ids],
            mask=mask,
            advantage=[(-1.0) ** seed * on for on in mask],
            behaviour=behaviour,
            teacher=[logp - 0.1 * on for logp, on in zip(behaviour, mask, strict=True)],
            domain="ab"[seed % 2],
            source=f"p/{seed}",
            group=seed % 2,
        )
        samples.append(sample)
    return samples


def with_advantage(sample: Sample, value: float) -> Sample:
    """The sample with one advantage for all of its tokens."""
    return replace(sample, advantage=[value] * len(sample.tokens))


def trainer(width: int = 32, tokens: int = 64, **optim: object) -> Trainer:
    constants = Optim(**optim)  # type: ignore[arg-type]
    return Trainer(ToyLM(), constants, width, tokens, load=toy_lm.load)


def test_adamw_takes_the_steps_of_torchs_own_class() -> None:
    """The same bits: decay on matrices alone, another rate at every step.

    Rows of whole vectors go through the one kernel, all others operator by operator.
    """
    optim = Optim(betas=(0.9, 0.98), eps=1e-7, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,), (2, 3, 2), (3, 32), (2, 4, 8)]
    start = [torch.randn(*shape, generator=generator) for shape in shapes]
    own = [torch.nn.Parameter(value.clone()) for value in start]
    torchs = [torch.nn.Parameter(value.clone()) for value in start]

    adamw = AdamW(own, optim)
    constants: dict[str, Any] = {"lr": 0.0, "betas": optim.betas, "eps": optim.eps}
    plain = [
        {"params": [torchs[0], torchs[2]], "weight_decay": 0.1},
        {"params": [torchs[1]], "weight_decay": 0.0},
    ]
    references = [
        torch.optim.AdamW(plain, foreach=True, **constants),
        torch.optim.AdamW(torchs[3:], weight_decay=0.1, fused=True, **constants),
    ]
    for step in range(1, 6):
        for one, other in zip(own, torchs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        states: dict[torch.Tensor, Any] = {}
        for reference in references:
            for group in reference.param_groups:
                group["lr"] = 0.01 / step
            reference.step()
            states |= reference.state
        adamw.step(0.01 / step)
        for one, other in zip(own, torchs, strict=True):
            assert torch.equal(one, other)
            for key, value in states[other].items():
                assert torch.equal(adamw.state[one][key], value), key


@pytest.mark.parametrize("shape", [(9, 48), (9, 3, 16), (9, 5), (9,)])
def test_adamw_takes_the_same_step_over_shards_of_rows(shape: tuple[int, ...]) -> None:
    """No bit depends on where a tensor is cut, and a rank may have no row at all."""
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(shape, generator=generator)
    cuts = (4, 0, 3, 2)
    whole = torch.nn.Parameter(start.clone())
    shards = [torch.nn.Parameter(part.clone()) for part in start.split(cuts)]
    one, other = (AdamW(parameters, Optim(weight_decay=0.1)) for parameters in ([whole], shards))
    for _ in range(5):
        whole.grad = torch.randn(shape, generator=generator)
        for shard, grad in zip(shards, whole.grad.split(cuts), strict=True):
            shard.grad = grad.clone()
        one.step(0.01)
        other.step(0.01)
    assert torch.equal(whole, torch.cat(shards))
    for name in ("exp_avg", "exp_avg_sq"):
        parts = [other.state[shard][name] for shard in shards]
        assert torch.equal(one.state[whole][name], torch.cat(parts)), name


def parameters(t: Trainer) -> dict[str, torch.Tensor]:
    """The model's parameters by name; their `grad` is the last step's, clipped."""
    assert isinstance(t.model, ToyLM)
    return dict(t.model.named_parameters())


def gradient(t: Trainer) -> torch.Tensor:
    """The last step's gradient, flat."""
    grads = [p.grad for p in parameters(t).values()]
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


def state(t: Trainer) -> dict[str, bytes]:
    """Weights and optimiser as a checkpoint holds them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "checkpoint"
        t.save(folder)
        return {
            file: (folder / file).read_bytes()
            for file in ("model.safetensors", "optimizer.safetensors")
        }


@pytest.mark.parametrize(
    "loss",
    [
        Loss("grpo"),
        Loss("grpo", "prompt", kl=0.03),
        Loss("mopd", "sequence"),
        Loss("sft", length_power=0.5),
    ],
    ids=str,
)
def test_packing_and_micro_batches_do_not_change_the_gradient(loss: Loss) -> None:
    samples = rollouts(ToyLM())
    if loss.kind == "sft":
        samples = [replace(s, advantage=[abs(a) for a in s.advantage]) for s in samples]
    grads = []
    for width, tokens in ((1, 1), (32, 32), (64, 4096)):
        t = trainer(width, tokens, clip=1e9)
        metrics = t.step(samples, loss, lr=0.0)
        grads.append(gradient(t))
        assert metrics["grad_norm"] == pytest.approx(float(grads[-1].norm()), rel=1e-5)
    assert torch.allclose(grads[0], grads[1], atol=1e-6)
    assert torch.allclose(grads[0], grads[2], atol=1e-6)
    assert grads[0].abs().max() > 1e-4


def test_the_gradient_is_that_of_the_loss_by_finite_differences() -> None:
    samples = rollouts(ToyLM())
    weights = token_weights(samples, Loss("grpo"))
    t = trainer(clip=1e9)
    t.step(samples, Loss("grpo"), lr=0.0)
    model = ToyLM().double()

    def objective() -> float:  # -Σ weight·Â·log p
        total = 0.0
        for sample, weight in zip(samples, weights, strict=True):
            ids = torch.tensor([sample.tokens])
            logits = model.head(model.hidden(ids, torch.zeros_like(ids)))[0]
            logp = logits.double().log_softmax(-1)
            for i in range(1, len(sample.tokens)):
                if sample.mask[i]:
                    token_logp = float(logp[i - 1, sample.tokens[i]])
                    total -= weight * sample.advantage[i] * token_logp
        return total

    grads = {name: p.grad for name, p in parameters(t).items()}
    step = 1e-3
    for name, p in model.named_parameters():
        grad = grads[name]
        assert grad is not None
        for place in (0, p.numel() // 2, p.numel() - 1):
            with torch.no_grad():
                flat = p.view(-1)
                flat[place] += step
                up = objective()
                flat[place] -= 2 * step
                slope = (up - objective()) / (2 * step)
                flat[place] += step
            assert float(grad.flatten()[place]) == pytest.approx(slope, abs=2e-4)


def test_a_teacher_with_the_policys_own_log_probs_gives_no_gradient() -> None:
    t = trainer()
    samples = rollouts(ToyLM())
    scored = t.score([s.tokens for s in samples])
    metrics = t.step(
        [replace(s, teacher=row) for s, row in zip(samples, scored, strict=True)],
        Loss("mopd", "sequence"),
        lr=1e-2,
    )
    assert metrics["grad_norm"] < 1e-6 and metrics["teacher_gap"] == pytest.approx(0, abs=1e-6)


def test_tool_tokens_carry_nothing() -> None:
    samples = rollouts(ToyLM())
    noisy = []
    for sample in samples:
        advantage = [a if on else 50.0 for a, on in zip(sample.advantage, sample.mask, strict=True)]
        behaviour = [
            b if on else -99.0 for b, on in zip(sample.behaviour or (), sample.mask, strict=True)
        ]
        noisy.append(replace(sample, advantage=advantage, behaviour=behaviour))
    a, b = trainer(), trainer()
    assert a.step(samples, Loss("grpo"), 1e-2) == b.step(noisy, Loss("grpo"), 1e-2)
    assert state(a) == state(b)


def test_autocast_trains_float32_weights_with_bf16_products() -> None:
    samples, exact = rollouts(ToyLM()), trainer(clip=1e9)
    rough = Trainer(ToyLM(), Optim(clip=1e9), 32, 64, autocast=True, load=toy_lm.load)
    a = exact.step(samples, Loss("grpo"), 1e-2)
    b = rough.step(samples, Loss("grpo"), 1e-2)
    assert 0 < abs(a["grad_norm"] - b["grad_norm"]) < 0.05 * a["grad_norm"]
    assert 1e-6 < b["mismatch_mean"] < 0.1
    assert all(p.dtype == torch.float32 for p in parameters(rough).values())


def test_zero_variance_groups_give_exactly_zero_gradient() -> None:
    t = trainer()
    equal = [with_advantage(sample, 0.0) for sample in rollouts(ToyLM())]
    assert t.step(equal, Loss("grpo"), 1e-2)["grad_norm"] == 0.0


@pytest.mark.parametrize("poison", ["advantage", "weights"])
def test_a_step_that_is_not_finite_changes_nothing_and_hands_the_batch_back(poison: str) -> None:
    t, samples = trainer(), rollouts(ToyLM())
    t.step(samples, Loss("grpo"), 1e-2)
    before, weights = state(t), token_weights(samples, Loss("grpo"))
    if poison == "weights":
        weights[0] = math.inf
    else:
        huge = [1e38 * 1e38 if on else 0.0 for on in samples[3].mask]
        samples[3] = replace(samples[3], advantage=huge)
    with pytest.raises(StepFailed, match="not finite|gradient norm") as caught:
        t.step(samples, Loss("grpo"), 1e-2, weights)
    assert caught.value.samples == samples and t.version == 1
    assert before == state(t)
    t.step(rollouts(ToyLM()), Loss("grpo"), 1e-2)  # and the trainer is usable afterwards
    assert t.version == 2


def test_metrics_name_what_a_person_watches() -> None:
    metrics = trainer().step(rollouts(ToyLM()), Loss("mopd", "sequence"), 1e-3)
    assert metrics["mismatch_max"] <= 1e-4 and metrics["mismatch_mean"] <= 1e-5
    assert metrics["ratio"] == pytest.approx(1, abs=1e-4)
    assert metrics["out_of_band"] == 0
    assert metrics["teacher_gap/a"] == pytest.approx(-0.1, abs=1e-4)
    assert metrics["teacher_gap/b"] == pytest.approx(-0.1, abs=1e-4)
    assert metrics["tokens"] == 72 and metrics["sequences"] == 12
    assert 0 < metrics["entropy"] < math.log(17)

    stale = []
    for sample in rollouts(ToyLM()):
        behaviour = [b - on for b, on in zip(sample.behaviour or (), sample.mask, strict=True)]
        stale.append(replace(sample, behaviour=behaviour))
    metrics = trainer().step(stale, Loss("mopd", "sequence"), 1e-3)
    assert metrics["mismatch_max"] == pytest.approx(1, abs=1e-4)
    assert metrics["out_of_band"] == 1
    assert metrics["grad_norm"] == 0


def test_clip_scales_to_the_norm_and_decay_spares_vectors() -> None:
    samples = rollouts(ToyLM())
    t = trainer(clip=1e-3)
    assert t.step(samples, Loss("grpo"), 0.0)["grad_norm"] > 1e-3
    assert float(gradient(t).norm()) == pytest.approx(1e-3, rel=1e-4)

    still = [with_advantage(sample, 0.0) for sample in samples]
    t, start = trainer(weight_decay=0.5), ToyLM()
    t.step(still, Loss("grpo"), 0.1)
    after = parameters(t)
    assert torch.allclose(after["embed"], start.embed * 0.95)
    assert torch.equal(after["decay"], start.decay)


def test_the_norm_of_a_large_gradient_is_that_of_float64() -> None:
    """Over one float32 buffer of this size it came out 0.04 % too small, at 10^8 1 %."""
    draw = torch.Generator().manual_seed(0)
    gradients = [torch.randn(size, generator=draw) for size in (7_000_000, 3_000_001, 5)]
    whole = torch.cat(gradients)
    exact = float(whole.double().norm())
    assert gradient_norm(gradients) == pytest.approx(exact, rel=1e-6)
    assert gradient_norm([whole.view(-1, 2)]) == pytest.approx(exact, rel=1e-6)
    assert gradient_norm([]) == 0.0
    for broken in (math.nan, math.inf):
        norm = gradient_norm([gradients[2], torch.tensor([broken])])
        assert not math.isfinite(norm)


def test_saved_and_restored_continues_bit_for_bit(tmp_path: Path) -> None:
    a = Trainer(ToyLM(), Optim(), load=toy_lm.load)
    batches = [rollouts(ToyLM(seed=i)) for i in range(4)]
    for batch in batches[:2]:
        a.step(batch, Loss("grpo"), 1e-2)
    a.save(tmp_path / "c" / "two")
    a.save(tmp_path / "again")
    files = sorted(p.name for p in (tmp_path / "again").iterdir())
    assert files == [
        "config.json",
        "model.safetensors",
        "optimizer.safetensors",
        "trainer.json",
    ]
    for name in files:
        one, two = tmp_path / "again" / name, tmp_path / "c" / "two" / name
        assert one.read_bytes() == two.read_bytes()
    b = Trainer(ToyLM(seed=9), Optim(), load=toy_lm.load)
    b.restore(tmp_path / "c" / "two")
    assert b.version == 2
    for batch in batches[2:]:
        assert a.step(batch, Loss("grpo"), 1e-2) == b.step(batch, Loss("grpo"), 1e-2)
    assert state(a) == state(b)
    a.save(tmp_path / "again")  # over an older one
    b.restore(tmp_path / "again")
    assert b.version == 4 and sorted(p.name for p in tmp_path.iterdir()) == ["again", "c"]


class Breaking(ToyLM):
    """A model whose `save` fails after it has written its weights, if `breaks`."""

    breaks = False

    def save(self, folder: Path, shard_bytes: int = 0) -> None:
        super().save(folder)
        if self.breaks:
            raise OSError("no space left on device")


def test_a_save_cut_short_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    model = Breaking()
    t = Trainer(model, Optim(), load=toy_lm.load)
    t.save(tmp_path / "ck")
    old = (tmp_path / "ck" / "model.safetensors").read_bytes()
    t.step(rollouts(ToyLM()), Loss("grpo"), 1e-2)
    model.breaks = True
    with pytest.raises(OSError, match="no space"):
        t.save(tmp_path / "ck")
    assert (tmp_path / "ck" / "model.safetensors").read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["ck"]
    model.breaks = False
    t.save(tmp_path / "ck")
    assert (tmp_path / "ck" / "model.safetensors").read_bytes() != old


class Wider(ToyLM):
    """A model with a parameter more."""

    def __init__(self) -> None:
        super().__init__()
        self.other = torch.nn.Parameter(torch.zeros(3))


def test_restoring_the_wrong_folder_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="not a checkpoint of a training run: it has no trainer.json"
    ):
        trainer().restore(tmp_path)
    trainer().save(tmp_path / "ck")
    wider = Trainer(Wider(), Optim(), load=toy_lm.load)
    with pytest.raises(UserError, match="another model"):
        wider.restore(tmp_path / "ck")


def test_a_state_of_another_shape_leaves_the_policy_whole(tmp_path: Path) -> None:
    trainer().save(tmp_path / "ck")
    longer = Trainer(ToyLM(vocab=19), Optim(), load=toy_lm.load)
    before = {name: value.clone() for name, value in parameters(longer).items()}
    with pytest.raises(UserError, match="another model"):
        longer.restore(tmp_path / "ck")
    assert all(torch.equal(value, before[name]) for name, value in parameters(longer).items())


@pytest.mark.parametrize("name", ["trainer.json", "optimizer.safetensors"])
def test_a_broken_state_is_the_users_error(tmp_path: Path, name: str) -> None:
    trainer().save(tmp_path / "ck")
    (tmp_path / "ck" / name).write_text("broken")
    with pytest.raises(UserError, match="cannot be read"):
        trainer().restore(tmp_path / "ck")


@pytest.mark.slow
def test_training_raises_what_is_rewarded() -> None:
    t, loss = trainer(), Loss("grpo")
    for step in range(30):
        requests = [((1, 2), Sampling(6), step * 64 + i) for i in range(64)]
        completions = BatchSampler(t.model).generate(requests)
        rewards = [completion.ids.count(7) / 6 for completion in completions]
        mean = sum(rewards) / 64
        samples = [
            Sample(
                tokens=(1, 2, *completion.ids),
                mask=[False] * 2 + [True] * 6,
                advantage=[0.0] * 2 + [reward - mean] * 6,
                behaviour=[0.0, 0.0, *completion.logprobs],
            )
            for completion, reward in zip(completions, rewards, strict=True)
        ]
        metrics = t.step(samples, loss, 5e-2)
        assert metrics["mismatch_max"] <= 1e-4
    assert mean > 0.8


def test_samples_without_advantage_are_counted_and_not_computed() -> None:
    """Equal rewards: the step is as if every sample were computed.

    Their tokens stay in the normaliser.
    """
    samples = rollouts(ToyLM())
    idle = [with_advantage(sample, 0.0) for sample in rollouts(ToyLM(), 6)]
    weights = token_weights([*samples, *idle], Loss("grpo"))
    alone, beside, all_of_them = trainer(), trainer(), trainer()
    beside.step([*samples, *idle], Loss("grpo"), 1e-2)
    all_of_them.step(samples, Loss("grpo"), 1e-2, weights[: len(samples)])
    alone.step(samples, Loss("grpo"), 1e-2)
    assert state(beside) == state(all_of_them)
    assert state(beside) != state(alone)
