"""The optimiser step: its gradient, its refusals, its metrics, and resuming bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import toy_lm
from support.toy_lm import ToyLM

from linn.engine.sampling.live_batch import BatchSampler
from linn.engine.training.token_weights import StepFailed, token_weights
from linn.engine.training.trainer import Trainer
from linn.errors import UserError
from linn.types import Loss, Optim, Sample, Sampling


def rollouts(model: ToyLM, n: int = 12) -> list[Sample]:
    """Two prompts, siblings of unequal lengths, one tool token in the middle of each, advantages of both signs."""
    requests = [((i % 2, 4, 2), Sampling(4 + 3 * (i % 3)), i) for i in range(n)]
    out = []
    for (ids, _, seed), done in zip(requests, BatchSampler(model).generate(requests), strict=True):
        tokens = [*ids, *done.ids]
        mask = [False] * len(ids) + [True] * len(done.ids)
        mask[5] = False
        behaviour = [0.0] * len(ids) + list(done.logprobs)
        advantage = [(-1.0) ** seed * m for m in mask]
        out.append(
            Sample(
                tokens,
                mask,
                advantage,
                behaviour,
                [b - 0.1 * m for b, m in zip(behaviour, mask, strict=True)],
                "ab"[seed % 2],
                f"p/{seed}",
                seed % 2,
            )
        )
    return out


def trainer(width: int = 32, tokens: int = 64, **optim: object) -> Trainer:
    return Trainer(ToyLM(), Optim(**optim), width, tokens, load=toy_lm.load)  # type: ignore[arg-type]


def state(t: Trainer) -> list[torch.Tensor]:
    return [v.clone() for p in t._names.values() for v in (p.detach(), *t._adamw.state[p].values())]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


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
    samples, grads = rollouts(ToyLM()), []
    samples = (
        [replace(s, advantage=[abs(a) for a in s.advantage]) for s in samples]
        if loss.kind == "sft"
        else samples
    )
    for width, tokens in ((1, 1), (32, 32), (64, 4096)):
        t = trainer(width, tokens, clip=1e9)
        metrics = t.step(samples, loss, lr=0.0)
        grads.append(t._flat[:-2].clone())
        assert metrics["grad_norm"] == pytest.approx(float(grads[-1].norm()), rel=1e-5)
    assert torch.allclose(grads[0], grads[1], atol=1e-6) and torch.allclose(
        grads[0], grads[2], atol=1e-6
    )
    assert grads[0].abs().max() > 1e-4


def test_the_gradient_is_that_of_the_loss_by_finite_differences() -> None:
    samples = rollouts(ToyLM())
    weights = token_weights(samples, Loss("grpo"))
    t = trainer(clip=1e9)
    t.step(samples, Loss("grpo"), lr=0.0)
    module = t._module.double()

    def objective() -> float:  # -Σ weight·Â·log p
        total = 0.0
        for s, w in zip(samples, weights, strict=True):
            logits = t.model.head(
                t.model.hidden(
                    torch.tensor([s.tokens]), torch.zeros(1, len(s.tokens), dtype=torch.int64)
                )
            )[0]
            logp = logits.double().log_softmax(-1)
            total -= sum(
                w * s.advantage[i] * float(logp[i - 1, s.tokens[i]])
                for i in range(1, len(s.tokens))
                if s.mask[i]
            )
        return total

    start = 0
    for p in module.parameters():
        for flat in (0, p.numel() // 2, p.numel() - 1):
            with torch.no_grad():
                view, step = p.view(-1), 1e-3
                view[flat] += step
                up = objective()
                view[flat] -= 2 * step
                slope = (up - objective()) / (2 * step)
                view[flat] += step
            assert float(t._flat[start + flat]) == pytest.approx(slope, abs=2e-4)
        start += p.numel()


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
    noisy = [
        replace(s, advantage=[a if m else 50.0 for a, m in zip(s.advantage, s.mask, strict=True)])
        for s in samples
    ]
    noisy = [
        replace(
            s, behaviour=[b if m else -99.0 for b, m in zip(s.behaviour or (), s.mask, strict=True)]
        )
        for s in noisy
    ]
    a, b = trainer(), trainer()
    assert a.step(samples, Loss("grpo"), 1e-2) == b.step(noisy, Loss("grpo"), 1e-2)
    assert same(state(a), state(b))


def test_autocast_trains_float32_weights_with_bf16_products() -> None:
    samples, exact = rollouts(ToyLM()), trainer(clip=1e9)
    rough = Trainer(ToyLM(), Optim(clip=1e9), 32, 64, autocast=True, load=toy_lm.load)
    a, b = exact.step(samples, Loss("grpo"), 1e-2), rough.step(samples, Loss("grpo"), 1e-2)
    assert 0 < abs(a["grad_norm"] - b["grad_norm"]) < 0.05 * a["grad_norm"]
    assert 1e-6 < b["mismatch_mean"] < 0.1
    assert all(p.dtype == torch.float32 for p in rough._names.values())


def test_zero_variance_groups_give_exactly_zero_gradient() -> None:
    t = trainer()
    flat = [replace(s, advantage=[0.0] * len(s.tokens)) for s in rollouts(ToyLM())]
    assert t.step(flat, Loss("grpo"), 1e-2)["grad_norm"] == 0.0


@pytest.mark.parametrize("poison", ["advantage", "weights"])
def test_a_step_that_is_not_finite_changes_nothing_and_hands_the_batch_back(poison: str) -> None:
    t, samples = trainer(), rollouts(ToyLM())
    t.step(samples, Loss("grpo"), 1e-2)
    before, weights = state(t), token_weights(samples, Loss("grpo"))
    if poison == "weights":
        weights[0] = math.inf
    else:
        samples[3] = replace(
            samples[3], advantage=[1e38 * 1e38 if m else 0.0 for m in samples[3].mask]
        )
    with pytest.raises(StepFailed, match="not finite|gradient norm") as caught:
        t.step(samples, Loss("grpo"), 1e-2, weights)
    assert caught.value.samples == samples and t.version == 1
    assert same(before, state(t))
    t.step(rollouts(ToyLM()), Loss("grpo"), 1e-2)  # and the trainer is usable afterwards
    assert t.version == 2


def test_metrics_name_what_a_person_watches() -> None:
    metrics = trainer().step(rollouts(ToyLM()), Loss("mopd", "sequence"), 1e-3)
    assert metrics["mismatch_max"] <= 1e-4 and metrics["mismatch_mean"] <= 1e-5
    assert metrics["ratio"] == pytest.approx(1, abs=1e-4) and metrics["out_of_band"] == 0
    assert metrics["teacher_gap/a"] == pytest.approx(-0.1, abs=1e-4) and metrics[
        "teacher_gap/b"
    ] == pytest.approx(-0.1, abs=1e-4)
    assert (
        metrics["tokens"] == 72
        and metrics["sequences"] == 12
        and 0 < metrics["entropy"] < math.log(17)
    )
    stale = [
        replace(s, behaviour=[b - m for b, m in zip(s.behaviour or (), s.mask, strict=True)])
        for s in rollouts(ToyLM())
    ]
    metrics = trainer().step(stale, Loss("mopd", "sequence"), 1e-3)
    assert (
        metrics["mismatch_max"] == pytest.approx(1, abs=1e-4)
        and metrics["out_of_band"] == 1
        and metrics["grad_norm"] == 0
    )


def test_clip_scales_to_the_norm_and_decay_spares_vectors() -> None:
    samples = rollouts(ToyLM())
    t = trainer(clip=1e-3)
    assert t.step(samples, Loss("grpo"), 0.0)["grad_norm"] > 1e-3
    assert float(t._flat[:-2].norm()) == pytest.approx(1e-3, rel=1e-4)
    still = [replace(s, advantage=[0.0] * len(s.tokens)) for s in samples]
    t, start = trainer(weight_decay=0.5), ToyLM()
    t.step(still, Loss("grpo"), 0.1)
    assert torch.allclose(t._names["embed"], start.embed * 0.95) and torch.equal(
        t._names["decay"], start.decay
    )


def test_saved_and_restored_continues_bit_for_bit(tmp_path: Path) -> None:
    assets = tmp_path / "base"
    assets.mkdir()
    (assets / "tokenizer.json").write_text("{}")
    (assets / "old.safetensors").write_text("not copied")
    a = Trainer(ToyLM(), Optim(), load=toy_lm.load, assets=assets)
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
        "tokenizer.json",
        "trainer.json",
    ]
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (
            tmp_path / "c" / "two" / name
        ).read_bytes()
    b = Trainer(ToyLM(seed=9), Optim(), load=toy_lm.load)
    b.restore(tmp_path / "c" / "two")
    assert b.version == 2
    for batch in batches[2:]:
        assert a.step(batch, Loss("grpo"), 1e-2) == b.step(batch, Loss("grpo"), 1e-2)
    assert same(state(a), state(b))
    a.save(tmp_path / "again")  # over an older one
    b.restore(tmp_path / "again")
    assert b.version == 4 and sorted(p.name for p in tmp_path.iterdir()) == ["again", "base", "c"]


def test_a_save_cut_short_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = trainer()
    t.save(tmp_path / "ck")
    old = (tmp_path / "ck" / "model.safetensors").read_bytes()
    t.step(rollouts(ToyLM()), Loss("grpo"), 1e-2)
    with monkeypatch.context() as broken:
        broken.setattr("linn.engine.training.trainer.json.dumps", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            t.save(tmp_path / "ck")
    assert (tmp_path / "ck" / "model.safetensors").read_bytes() == old
    t.save(tmp_path / "ck")
    assert (tmp_path / "ck" / "model.safetensors").read_bytes() != old


def test_restoring_the_wrong_folder_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="not a checkpoint of a training run: it has no trainer.json"
    ):
        trainer().restore(tmp_path)
    small = Trainer(ToyLM(), Optim(), load=toy_lm.load)
    small.save(tmp_path / "ck")
    small._names["other"] = small._names.pop("out")
    with pytest.raises(UserError, match="another model"):
        small.restore(tmp_path / "ck")


def test_training_raises_what_is_rewarded() -> None:
    t, loss = trainer(), Loss("grpo")
    for step in range(30):
        requests = [((1, 2), Sampling(6), step * 64 + i) for i in range(64)]
        done = BatchSampler(t.model).generate(requests)
        rewards = [c.ids.count(7) / 6 for c in done]
        mean = sum(rewards) / 64
        samples = [
            Sample(
                (1, 2, *c.ids),
                [False] * 2 + [True] * 6,
                [0.0] * 2 + [r - mean] * 6,
                [0.0, 0.0, *c.logprobs],
            )
            for c, r in zip(done, rewards, strict=True)
        ]
        metrics = t.step(samples, loss, 5e-2)
        assert metrics["mismatch_max"] <= 1e-4
    assert mean > 0.8


def test_samples_without_advantage_are_counted_and_not_computed() -> None:
    """Equal rewards: the step is what it would be if every sample were computed, and their tokens stay in the normaliser."""
    samples = rollouts(ToyLM())
    idle = [replace(s, advantage=[0.0] * len(s.tokens)) for s in rollouts(ToyLM(), 6)]
    alone, beside, all_of_them = trainer(), trainer(), trainer()
    weights = token_weights([*samples, *idle], Loss("grpo"))
    beside.step([*samples, *idle], Loss("grpo"), 1e-2)
    all_of_them.step(samples, Loss("grpo"), 1e-2, weights[: len(samples)])
    alone.step(samples, Loss("grpo"), 1e-2)
    assert same(state(beside), state(all_of_them)) and not same(state(beside), state(alone))
