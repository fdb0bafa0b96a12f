"""States at fixed places decode what states that are selected and joined do."""

from __future__ import annotations

import contextlib
import copy
import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.slot_toy import small_hybrid
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from linn.engine.models.kernels.experts import all_of_them
from linn.engine.models.nemotron_h.expert_step import grouped, moe_step
from linn.engine.models.nemotron_h.experts import MoE
from linn.engine.models.nemotron_h.state import HybridState
from linn.engine.models.rounded_products import RoundedProducts
from linn.engine.sampling.draw import Asked
from linn.engine.sampling.slot_step import Kind, SlotStep


class Both:
    """The same sequences in a state and in slots."""

    def __init__(self, model: Any, rows: int, columns: int) -> None:
        self.model, self.vocab = model, model.vocab
        _, like = model.prefill([[0]])
        self.slots = model.new_slots(like, rows, columns)
        self.is_open = torch.zeros(64, dtype=torch.bool)
        self.state: HybridState | None = None
        self.places: list[int] = []
        """The slot of each of the state's rows."""

    def free(self) -> list[int]:
        return [slot for slot in range(self.slots.rows) if slot not in self.places]

    def join(self, prompts: list[list[int]], slots: list[int]) -> None:
        _, state = self.model.prefill(prompts)
        # Every prompt has a sibling where there is room: rows of a state may repeat.
        owners = torch.tensor([place % len(prompts) for place in range(len(slots))])
        self.slots.put(torch.tensor(slots), state, owners)
        new = state.select(owners)
        self.state = self.state.join(new) if self.state is not None else new
        self.places += slots
        self.is_open[slots] = True

    def drop(self, row: int) -> None:
        self.is_open[self.places.pop(row)] = False
        rows = [other for other in range(len(self.places) + 1) if other != row]
        assert self.state is not None
        self.state = self.state.select(torch.tensor(rows)) if rows else None

    def move(self, row: int, slot: int) -> None:
        self.slots.move(torch.tensor([self.places[row]]), torch.tensor([slot]))
        self.is_open[[self.places[row], slot]] = torch.tensor([False, True])
        self.places[row] = slot

    def decode(self, rng: random.Random) -> float:
        """Feed each row a token; the largest difference of a logit, relative above 1."""
        tokens = torch.tensor([rng.randrange(self.vocab) for _ in self.places])
        right, self.state = self.model.decode(tokens, self.state)
        rows = self.slots.rows
        ids = torch.full((rows,), rng.randrange(self.vocab))
        ids[self.places] = tokens
        columns = rng.randint(int(self.state.lengths.max()), self.slots.columns)
        logits = self.model.decode_slots(ids, self.slots, self.is_open[:rows], columns)
        gap = (logits[self.places] - right).abs() / right.abs().clamp(min=1)
        return float(gap.max())


@pytest.mark.slow
def test_two_hundred_operations_on_slots_are_those_on_a_state() -> None:
    rng = random.Random(1)
    both = Both(small_hybrid(), rows=6, columns=32)
    done, worst = set(), 0.0
    for _ in range(200):
        free = both.free()
        ways = ["decode"] * 3
        if free:
            ways += ["join"] * 2
        if both.places:
            ways += ["drop", "move", "resize"] if free else ["drop", "resize"]
        way = rng.choice(ways)
        if way == "join":
            count = rng.randint(1, min(3, len(free)))
            prompts = [
                [rng.randrange(both.vocab) for _ in range(rng.randint(1, 12))]
                for _ in range(rng.randint(1, count))
            ]
            both.join(prompts, rng.sample(free, count))
        elif way == "drop":
            both.drop(rng.randrange(len(both.places)))
        elif way == "move":
            both.move(rng.randrange(len(both.places)), rng.choice(free))
        elif way == "resize":
            longest = int(both.state.lengths.max()) if both.state else 1
            rows = rng.randint(max(both.places) + 1, 9)
            both.slots.resize(rows, rng.randint(max(24, longest + 8), longest + 40))
        if both.places and int(both.slots.lengths.max()) + 1 < both.slots.columns:
            worst = max(worst, both.decode(rng))
        done.add(way)
    assert done == {"decode", "join", "drop", "move", "resize"} and 0 < worst < 3e-6


def test_what_stands_in_a_closed_slot_stays() -> None:
    """To the bit: it is kept for a conversation that may go on, whenever the host takes it."""
    model = small_hybrid()
    _, state = model.prefill([[1, 2, 3], [4, 5]])
    slots = model.new_slots(state, 2, 16)
    every = torch.arange(2)
    slots.put(every, state, every)
    is_open = torch.tensor([False, True])
    for token in range(5):
        model.decode_slots(torch.tensor([token, token]), slots, is_open, 12)

    assert slots.lengths.tolist() == [3, 7]
    kept = slots.take(torch.tensor([0]), longest=3)
    for layer, before in zip(kept.layers, state.select(torch.tensor([0])).layers, strict=True):
        if layer is not None and before is not None:
            for name, value in vars(layer).items():
                if isinstance(value, torch.Tensor):
                    assert torch.equal(value, getattr(before, name)), name


def moe() -> MoE:
    torch.manual_seed(0)
    layer = copy.deepcopy(small_hybrid(moe_latent_size=16).backbone.layers[1].mixer)
    layer.gate.e_score_correction_bias.normal_()
    return layer


def test_experts_in_decoding_are_those_of_training() -> None:
    layer, hidden = moe(), torch.randn(11, 32)
    with torch.no_grad():
        torch.testing.assert_close(moe_step(layer, hidden), layer(hidden), atol=1e-6, rtol=1e-5)


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this torch has no grouped_mm")
def test_the_grouped_product_is_the_dense_one() -> None:
    """Also for experts that nobody chose, and for one that everybody did."""
    layer = moe().to(torch.bfloat16)
    hidden = torch.randn(11, 16).bfloat16()
    weights = torch.rand(11, 2)
    chosen = torch.randint(1, 4, (11, 1)).expand(-1, 2).clone()
    chosen[:, 1] = 6
    with torch.no_grad():
        one = grouped(layer.experts, hidden, weights, chosen)
        up, down = layer.experts.up_proj, layer.experts.down_proj
        two = all_of_them(hidden, weights, chosen, up, down)
    assert one.dtype == two.dtype == torch.bfloat16
    torch.testing.assert_close(one, two, atol=2e-2, rtol=2e-2)


class Devices(TorchDispatchMode):
    """Notes every operation that reads or makes a tensor which is not on the one device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.strangers, self.count = device, [], 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.count += 1
        for value in tree_leaves((args, kwargs, out)):
            if isinstance(value, Tensor) and value.device.type != self.device:
                self.strangers.append(str(func))
        return out


def test_a_step_asks_nothing_of_the_device_and_brings_nothing_to_it(monkeypatch) -> None:
    """On the meta device no value can be read, and a tensor of the host shows as a stranger."""
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: contextlib.nullcontext())
    model = small_hybrid()
    model.absent = torch.tensor([3])
    _, state = model.prefill([[1]])
    model.to("meta")
    step = SlotStep(model, 16, 4, record=False)
    step.slots = model.new_slots(state, 8, 128)
    step.slots.lengths = step.slots.lengths.to("meta")
    for layer in step.slots.layers:
        for name, value in vars(layer).items() if layer else ():
            if isinstance(value, torch.Tensor):
                setattr(layer, name, value.to("meta"))
    none, all_ = Asked(True, False, False), Asked(True, True, True)
    for kind in (Kind(8, 64, none, 0), Kind(4, 128, all_, 8)):
        with Devices("meta") as seen, torch.inference_mode():
            step._advance(kind)
        assert seen.count > 100 and seen.strangers == []


def test_rounded_products_are_those_of_autocast_and_follow_the_weights() -> None:
    model = small_hybrid()
    rounded = RoundedProducts(model)
    prompts = [[1, 2, 3, 4], [5, 6]]

    def logits(one: Any) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            first, state = one.prefill(prompts)
            second, _ = one.decode(torch.tensor([7, 8]), state)
        return [first, second]

    for _ in range(2):
        for own, right in zip(logits(rounded.model), logits(model), strict=True):
            assert torch.equal(own, right)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight), alpha=0.05)
        rounded.refresh()
    head = rounded.model.lm_head.weight  # type: ignore[attr-defined]
    assert head.dtype == torch.bfloat16, "a tied head is rounded, its embedding is not"
    assert rounded.model.backbone.embeddings.weight is model.backbone.embeddings.weight
