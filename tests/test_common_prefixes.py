"""What prompts begin with in common is computed once, and each is as if it had been alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from support.slot_toy import small_hybrid

from linn.engine.models.nemotron_h import common_prefixes as prefixes
from linn.engine.models.nemotron_h import model as model_file
from linn.engine.models.nemotron_h.common_prefixes import Tree, common_prefixes, passes

VOCAB = 32
Prompts = list[list[int]]


def drawn(draw: random.Random, beginnings: int, count: int) -> Prompts:
    """Prompts that begin with one of some beginnings of all lengths, in any order; no two alike."""
    heads = [[draw.randrange(VOCAB) for _ in range(draw.randint(1, 30))] for _ in range(beginnings)]
    found = {
        (*draw.choice(heads), *(draw.randrange(VOCAB) for _ in range(draw.randint(1, 9))))
        for _ in range(count)
    }
    return [list(prompt) for prompt in sorted(found, key=lambda _: draw.random())]


@pytest.mark.parametrize("least", [1, 4, 16])
def test_every_prompt_is_in_one_tree(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "_LEAST_PREFIX", least)
    for seed in range(60):
        draw = random.Random(seed)
        prompts = drawn(draw, draw.randint(1, 4), draw.randint(1, 20))
        trees = common_prefixes(prompts)
        assert sorted(i for tree in trees for i in tree.members) == list(range(len(prompts)))
        for tree in trees:
            beginnings = {tuple(prompts[i][: tree.prefix]) for i in tree.members}
            assert len(beginnings) == 1 and all(len(prompts[i]) > tree.prefix for i in tree.members)
            assert tree.prefix == 0 or (tree.prefix >= least and len(tree.members) > 1)

        most = draw.randint(5, 80)
        parts = list(passes(trees, prompts, most))
        assert [i for part in parts for tree in part for i in tree.members] == [
            i for tree in trees for i in tree.members
        ]
        for part in parts:
            size = sum(tree.tokens(prompts) for tree in part)
            alone = len(part) == 1 and len(part[0].members) == 1
            behind = len(part) == 1 and size <= part[0].prefix + most // 2
            assert size <= most or alone or behind


def test_beginnings_are_worth_it() -> None:
    tools = list(range(40))
    prompts = [[*tools, 50 + place] for place in range(5)]
    assert common_prefixes(prompts) == [Tree((0, 1, 2, 3, 4), 40)]
    assert common_prefixes([[1, 2, 3], [1, 2, 4]]) == [Tree((0,), 0), Tree((1,), 0)]
    # Much that is unlike: one short beginning of two prompts is left alone, and so is the order.
    others = [[60 - place] * 100 for place in range(9)]
    assert common_prefixes([*others, *prompts[:2]]) == [Tree((i,), 0) for i in range(11)]
    assert common_prefixes([[7], [7], [7]]) == [Tree((i,), 0) for i in range(3)]


@pytest.mark.parametrize("beginning", [90, 99, 100, 5000])
def test_a_beginning_that_fills_a_pass_is_not_computed_for_each_prompt(beginning: int) -> None:
    tools = [place % VOCAB for place in range(beginning)]
    prompts = [[*tools, *[place] * 10] for place in range(20)]
    parts = list(passes(common_prefixes(prompts), prompts, 100))
    assert len(parts) <= 5 and sum(len(tree.members) for part in parts for tree in part) == 20


@pytest.mark.parametrize("least", [1, 16])
@pytest.mark.parametrize("most", [35, 3072])
@pytest.mark.parametrize("changes", [{}, {"moe_latent_size": 16, "n_groups": 1}])
def test_a_prefill_is_that_of_each_prompt(
    changes: dict[str, Any], most: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for beginnings shorter than the convolution, and for what goes on from the states."""
    monkeypatch.setattr(prefixes, "_LEAST_PREFIX", least)
    monkeypatch.setattr(model_file, "CPU_PREFILL_TOKENS", most)
    model = small_hybrid(**changes)
    for seed in range(3):
        draw = random.Random(seed)
        prompts = drawn(draw, 3, 10)
        shares = any(tree.prefix for tree in common_prefixes(prompts))
        assert shares or least > 1
        logits, state = model.prefill(prompts)
        rows = [model.prefill([prompt]) for prompt in prompts]
        for _ in range(5):
            alone = torch.cat([own for own, _ in rows])
            gap = logits.log_softmax(-1) - alone.log_softmax(-1)
            assert gap.abs().max() < 1e-5
            ids = alone.argmax(-1)
            logits, state = model.decode(ids, state)
            pairs = zip(ids, rows, strict=True)
            rows = [model.decode(token[None], own) for token, (_, own) in pairs]
