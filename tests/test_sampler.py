"""Sampling: the distribution, its log-probs, and that batching never changes what a seed gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from support.toy_lm import ToyLM

from linn.engine.models.interface import CausalLM
from linn.engine.sampling.draw import Draws, _nucleus, draw, uniform
from linn.engine.sampling.live_batch import BatchSampler, Request
from linn.engine.training.losses import score
from linn.errors import RunFailed
from linn.types import Completion, Sampling

PROMPT = (1, 5, 2)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    from linn.bases.make import new_model
    from linn.engine.models.load import load

    folder: Path = tmp_path_factory.mktemp("tiny")
    new_model(folder, 64, 3)
    return load(folder)


def first_token_counts(model: ToyLM, how: Sampling, n: int) -> torch.Tensor:
    requests: list[Request] = [(PROMPT, how, seed) for seed in range(n)]
    done = BatchSampler(model, capacity=4096).generate(requests)
    firsts = torch.tensor([c.ids[0] for c in done])
    return torch.bincount(firsts, minlength=model.vocab)


def chi_square(counts: torch.Tensor, probs: torch.Tensor) -> float:
    """Pearson's statistic over the cells that expect more than 5, in its own deviations."""
    expected = probs.double() * counts.sum()
    cells = expected > 5
    statistic = ((counts - expected) ** 2 / expected)[cells].sum()
    return float(statistic) / math.sqrt(2 * int(cells.sum()))


def chi_square_bound(cells: int) -> float:
    """The statistic's mean plus 4.5 of its deviations, in deviations."""
    return cells / math.sqrt(2 * cells) + 4.5


# 17 tokens lie within one block of the inverse CDF, 70 in several.
@pytest.mark.slow
@pytest.mark.parametrize("vocab", [17, 70])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
def test_samples_follow_the_tempered_distribution(vocab: int, temperature: float) -> None:
    model = ToyLM(vocab)
    logits, _ = model.prefill([PROMPT])
    probs = (logits[0] / temperature).softmax(-1)
    counts = first_token_counts(model, Sampling(1, temperature), 20000)
    cells = int((probs * 20000 > 5).sum())
    assert chi_square(counts, probs) < chi_square_bound(cells)


@pytest.mark.slow
def test_top_p_keeps_the_smallest_set_and_leaves_log_probs_untruncated() -> None:
    model, how = ToyLM(70), Sampling(1, 1.0, 0.8)
    logits, _ = model.prefill([PROMPT])
    probs = logits[0].softmax(-1)
    order = probs.argsort(descending=True)
    size = int((probs[order].cumsum(0) < 0.8).sum()) + 1
    nucleus = order[:size]

    counts = first_token_counts(model, how, 20000)
    assert set(counts.nonzero().flatten().tolist()) == set(nucleus.tolist())
    inside = torch.zeros(70).index_fill(0, nucleus, 1.0) * probs
    assert chi_square(counts, inside / inside.sum()) < chi_square_bound(size)

    (one,) = BatchSampler(model).generate([(PROMPT, how, 3)])
    assert one.logprobs[0] == pytest.approx(float(probs[one.ids[0]].log()), abs=1e-5)


def test_a_nucleus_has_the_share_and_none_too_many_whether_few_or_all_tokens_are_in_it() -> None:
    spread = torch.tensor([0.1, 1.0, 3.0, 9.0, 1.0])
    scores = torch.randn(5, 900, generator=torch.Generator().manual_seed(0)) * spread[:, None]
    mass = scores.softmax(-1)
    top_p = torch.tensor([0.9, 0.5, 0.95, 0.95, 1.0], dtype=torch.float64)
    kept = _nucleus(mass, top_p)
    sizes = (kept > 0).sum(-1).tolist()
    for row, size in enumerate(sizes):
        ordered = mass[row].double().sort(descending=True).values
        assert torch.equal(kept[row].sort(descending=True).values[:size].double(), ordered[:size])
        wanted = top_p[row] * ordered.sum()
        assert size == 900 or ordered[: size - 1].sum() < wanted <= ordered[:size].sum()
    assert sizes[3] < 64 < sizes[0] < sizes[4] == 900


def test_temperature_0_and_tiny_top_p_are_greedy() -> None:
    model = ToyLM(70)
    greedy, nucleus = BatchSampler(model).generate(
        [(PROMPT, Sampling(20, 0.0), 1), (PROMPT, Sampling(20, 1.0, 1e-6), 2)]
    )
    assert greedy.ids == nucleus.ids
    logits, _ = model.prefill([PROMPT])
    assert greedy.ids[0] == int(logits.argmax())
    best = float(logits.log_softmax(-1).max())
    assert greedy.logprobs[0] == pytest.approx(best, abs=1e-5)


def mixed_requests() -> list[Request]:
    """Several prompts, siblings apart from each other, every kind of limit."""
    out: list[Request] = []
    for i in range(60):
        prompt = [(i % 7) + j for j in range(1 + i % 7)]
        how = Sampling(
            max_tokens=1 + (i * 13) % 40,
            temperature=[1.0, 0.7, 0.0][i % 3],
            top_p=[1.0, 0.9][i % 2],
            stop=(3, 9) if i % 4 else (),
        )
        out.append((prompt, how, i * 1000 - 7))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [1, 2, 16, 17, 256])
def test_batching_never_changes_what_a_request_gets(capacity: int) -> None:
    model, requests = ToyLM(), mixed_requests()
    together = BatchSampler(model, capacity, prefill_tokens=20).generate(requests)
    for request, got in zip(requests, together, strict=True):
        (alone,) = BatchSampler(model).generate([request])
        assert got.ids == alone.ids and got.finish == alone.finish
        assert got.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_siblings_share_one_prefill_and_a_repeat_gives_the_same_bits() -> None:
    class Counting(ToyLM):
        prefilled = 0

        def prefill(self, prompts):  # type: ignore[no-untyped-def]
            Counting.prefilled += len(prompts)
            return super().prefill(prompts)

    sampler = BatchSampler(Counting())
    requests: list[Request] = [((1 + i // 8, 2), Sampling(12), i) for i in range(32)]
    first = sampler.generate(requests)
    assert Counting.prefilled == 4
    assert sampler.generate(requests) == first
    assert len({c.ids for c in first[:8]}) > 1, "siblings differ by their seeds"
    assert sampler.generate([]) == []


def test_rows_without_a_cut_are_not_touched_by_those_with_one() -> None:
    """Only rows with a top-p below 1 are sorted; the whole batch is what a GPU sorts."""
    logits = 3 * torch.randn(24, 100, generator=torch.Generator().manual_seed(0))
    how = [Sampling(5, top_p=(1.0, 0.6, 0.95)[row % 3]) for row in range(24)]
    draws = Draws.begin(how, list(range(24)), torch.device("cpu"))
    for some, whole in zip(draw(logits, draws), draw(logits, draws, draws.asked), strict=True):
        assert torch.equal(some, whole)


def test_what_one_row_asks_of_a_draw_changes_no_other() -> None:
    """Rows that ask for nothing are spared the work of those that do, in any company."""
    hows = [
        Sampling(5),
        Sampling(5, temperature=0.7),
        Sampling(5, temperature=0.0),
        Sampling(5, top_p=0.5),
    ]
    logits = 3 * torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
    alone = [Draws.begin([how], [7], torch.device("cpu")) for how in hows]
    together = alone[0].join(alone[1]).join(alone[2]).join(alone[3])
    expected = draw(logits, together)
    for row, own in enumerate(alone):
        for few in (own, together.select(torch.tensor([row]))):
            for one, whole in zip(draw(logits[[row]], few), expected, strict=True):
                assert torch.equal(one[0], whole[row])
    tokens, logprobs = expected
    assert tokens[2] == logits[2].argmax()
    tempered = (logits[1] / 0.7).log_softmax(-1)
    torch.testing.assert_close(logprobs[1], tempered[tokens[1]], atol=1e-5, rtol=0)


def test_stop_and_length_ends() -> None:
    how = Sampling(30, stop=(3, 9))
    done = BatchSampler(ToyLM()).generate([(PROMPT, how, seed) for seed in range(50)])
    for completion in done:
        *body, last = completion.ids
        assert not {3, 9} & set(body)
        assert completion.finish == ("stop" if last in (3, 9) else "length")
        assert len(completion.ids) == len(completion.logprobs) <= 30
        assert completion.finish == "stop" or len(completion.ids) == 30
    assert {c.finish for c in done} == {"stop", "length"}


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sampler_and_trainer_agree_on_every_log_prob(temperature: float) -> None:
    model, how = ToyLM(), Sampling(20, temperature)
    requests: list[Request] = [((i % 5, 2, 3), how, i) for i in range(40)]
    done = BatchSampler(model).generate(requests)

    sequences = [(*ids, *c.ids) for (ids, _, _), c in zip(requests, done, strict=True)]
    scored = score(model, sequences, temperature, width=64)
    gaps = []
    for completion, row in zip(done, scored, strict=True):
        pairs = zip(completion.logprobs, row[3:], strict=True)
        gaps += [abs(sampled - trained) for sampled, trained in pairs]
    assert max(gaps) <= 1e-4 and sum(gaps) / len(gaps) <= 1e-5


def test_uniforms_are_uniform_and_a_function_of_seed_and_position() -> None:
    seeds = range(-200, 200)
    draws = Draws.begin([Sampling(1)] * len(seeds), seeds, torch.device("cpu"))
    keys = draws.key.repeat_interleave(500)
    positions = torch.arange(500).repeat(400)
    u = uniform(keys, positions)
    assert torch.equal(u, uniform(keys.clone(), positions))
    assert float(u.min()) >= 0 and float(u.max()) < 1

    n = len(u)
    assert abs(float(u.mean()) - 0.5) < 5 / math.sqrt(12 * n)
    expected = n / 100
    counts = torch.histc(u, 100, 0, 1)
    assert float(((counts - expected) ** 2 / expected).sum()) < 99 + 5 * math.sqrt(198)

    # Neighbours in seed and in position are unrelated.
    grid = u.view(400, 500) - 0.5
    for a, b in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        correlation = float((a * b).mean()) * 12
        assert abs(correlation) < 5 / math.sqrt(a.numel())


def test_broken_weights_and_impossible_requests_are_refused() -> None:
    model = ToyLM()
    sampler, whole = BatchSampler(model), model.out.detach().clone()
    with torch.no_grad():
        model.out[4] = torch.nan
    with pytest.raises(RunFailed, match="not finite"):
        sampler.generate([(PROMPT, Sampling(3), 0)])
    with torch.no_grad():
        model.out.copy_(whole)
    assert len(sampler.generate([(PROMPT, Sampling(3), 0)])) == 1, "nothing is left of the failure"

    for bad in (
        ((), Sampling(3)),
        (PROMPT, Sampling(0)),
        (PROMPT, Sampling(3, -1.0)),
        (PROMPT, Sampling(3, 1.0, 0.0)),
    ):
        with pytest.raises(ValueError, match="cannot sample"):
            BatchSampler(ToyLM()).generate([(*bad, 0)])


def second_turns(first: Sequence[Request], done: Sequence[Completion]) -> list[Request]:
    """The next turn of each conversation: everything so far and a few more tokens."""
    out: list[Request] = []
    for i, ((ids, _, _), completion) in enumerate(zip(first, done, strict=True)):
        prompt = (*ids, *completion.ids, 5 + i % 3, 7, *[9] * (i % 4))
        out.append((prompt, Sampling(6), 100 + i))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [4, 64])
def test_a_conversation_goes_on_from_its_kept_state(tiny_model: CausalLM, capacity: int) -> None:
    first: list[Request] = []
    for i in range(11):
        prompt = (1, 2 + i % 3, 3, *range(4, 4 + i % 5))
        first.append((prompt, Sampling(3 + i % 4, more=True), i))
    sampler = BatchSampler(tiny_model, capacity)
    done = sampler.generate(first)

    second = second_turns(first, done)
    known = [len(ids) + len(c.ids) for (ids, _, _), c in zip(first, done, strict=True)]
    known[3] = 0  # one of them is read anew
    went_on = sampler.generate(second, known)
    fresh = BatchSampler(tiny_model, capacity).generate(second)
    assert [c.ids for c in went_on] == [c.ids for c in fresh]
    for a, b in zip(went_on, fresh, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)

    sampler.generate(first)
    sampler.forget()
    with pytest.raises(KeyError):
        sampler.generate(second, known)
