"""Packing: nothing lost, nothing shared, predictions beside their tokens; packed equals alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.toy_lm import ToyLM

from linn.engine.training.losses import backward, score
from linn.engine.training.pack import micro_batches
from linn.engine.training.trees import first_fit
from linn.types import Loss, Sample


def sample(tokens: list[int], prompt: int = 1, **fields: object) -> Sample:
    count = len(tokens)
    signals = {
        "mask": [i >= prompt for i in range(count)],
        "advantage": [float(i) for i in range(count)],
        **fields,
    }
    return Sample(tokens=tokens, **signals)  # type: ignore[arg-type]


@given(lengths=st.lists(st.integers(1, 50), max_size=40), width=st.integers(1, 40))
def test_first_fit_places_every_sample_once_within_the_width(
    lengths: list[int], width: int
) -> None:
    rows = first_fit(lengths, width)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        assert len(row) == 1 or sum(lengths[i] for i in row) <= width

    # First-fit: when a row was opened, its first sample had no room in any earlier row.
    def turn(index: int) -> tuple[int, int]:
        return -lengths[index], index

    for number, row in enumerate(rows):
        opener = row[0]
        for earlier in rows[:number]:
            filled = sum(lengths[i] for i in earlier if turn(i) < turn(opener))
            assert filled + lengths[opener] > width
    assert rows == first_fit(lengths, width)


def test_a_position_speaks_of_the_next_token_of_its_own_segment_only() -> None:
    samples = [sample([3, 4, 5], behaviour=[0.0, -1.0, -2.0]), sample([6, 7], teacher=[0.0, -3.0])]
    (packed,) = micro_batches(samples, [0.5, 0.25], width=8)
    assert packed.ids.tolist() == [[3, 4, 5, 6, 7]]
    assert packed.segments.tolist() == [[0, 0, 0, 1, 1]]
    assert packed.continues is None
    assert packed.place.tolist() == [0, 1, 3]  # 5 does not predict 6
    assert packed.targets.tolist() == [4, 5, 7]
    assert packed.weight.tolist() == [0.5, 0.5, 0.25]
    assert packed.advantage.tolist() == [1.0, 2.0, 1.0]
    assert packed.sample.tolist() == [0, 0, 1]
    assert packed.token.tolist() == [1, 2, 1]

    # A signal that a sample lacks is NaN, never 0.
    assert packed.behaviour[:2].tolist() == [-1.0, -2.0]
    assert packed.behaviour[2].isnan()
    assert packed.teacher[2] == -3.0
    assert packed.teacher[:2].isnan().all()


def test_overlong_samples_get_their_own_row_and_padding_is_marked() -> None:
    samples = [sample([1] * 5), sample([2] * 12), sample([3] * 3)]
    batches = list(micro_batches(samples, [1.0] * 3, width=8, tokens=8))
    assert [tuple(b.ids.shape) for b in batches] == [(1, 12), (1, 8)]
    (both,) = micro_batches(samples, [1.0] * 3, width=8, tokens=24)
    assert both.segments[1].tolist() == [0] * 5 + [1] * 3 + [-1] * 4
    assert not (both.place >= 12 + 8).any()


def test_a_family_that_cannot_pack_gets_one_sample_a_row() -> None:
    samples = [sample([i] * n) for i, n in enumerate([2, 5, 3])]
    batches = list(micro_batches(samples, [1.0] * 3, width=16, tokens=8, packs=False))
    assert all(int(b.segments.max()) == 0 for b in batches)
    assert sum(b.ids.shape[0] for b in batches) == 3
    assert all(b.ids.numel() <= 8 for b in batches)


@pytest.mark.parametrize("width", [1, 7, 64])
def test_packed_equals_alone_on_a_model_with_a_state(width: int) -> None:
    model = ToyLM()
    sequences = []
    for i, length in enumerate([1, 9, 4, 6, 2]):
        sequences.append([(5 * i + j) % model.vocab for j in range(length)])

    empty, *packed = score(model, [[], *sequences], width=width, tokens=16)
    assert empty == []
    for ids, logprobs in zip(sequences, packed, strict=True):
        (alone,) = score(model, [ids], width=1000)
        assert logprobs[0] == 0.0
        assert logprobs == pytest.approx(alone, abs=1e-6)

        # And equal to the recurrence, step by step.
        logits, state = model.prefill([ids[:1]])
        for t in range(1, len(ids)):
            expected = float(logits.log_softmax(-1)[0, ids[t]])
            assert logprobs[t] == pytest.approx(expected, abs=1e-5)
            logits, state = model.decode(torch.tensor(ids[t : t + 1]), state)


def test_the_chunked_head_gives_the_same_values_and_gradients_at_any_chunk() -> None:
    model = ToyLM()
    (packed,) = micro_batches([sample(list(range(12))), sample([3, 1, 2])], [1.0, 1.0], width=16)
    results = []
    for chunk in (1, 5, 1000):
        model.zero_grad()
        value, watched = backward(model, packed, Loss("sft", temperature=0.7), chunk=chunk)
        assert not value.requires_grad and (watched["entropy"] > 0).all()
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        results.append(torch.cat([value[None], watched["nll"], watched["entropy"], *grads]))
    assert torch.allclose(results[0], results[2], atol=1e-5)
    assert torch.allclose(results[1], results[2], atol=1e-5)
