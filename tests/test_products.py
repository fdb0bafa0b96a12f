"""oneDNN's products are torch's own, whatever their operands look like; and who is left alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.slot_toy import small_hybrid
from torch import Tensor, nn

from linn.engine.models.kernels import products
from linn.engine.training.head import LOGITS, chunk_size, gradient_in_place

if not products._is_right():  # pragma: no cover
    pytest.skip("this torch has no oneDNN", allow_module_level=True)


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every product is oneDNN's, on any processor."""
    monkeypatch.setattr(products, "by_onednn", lambda: True)
    monkeypatch.setattr(products, "_LEAST", 1)
    yield


def laid(rows: int, columns: int, draw: random.Random) -> Tensor:
    """A random matrix, in memory as views and transposed matrices are."""
    kind = draw.choice(["plain", "turned", "cut", "turned and cut", "every other", "repeated"])
    if kind == "turned":
        return torch.randn(columns, rows).t()
    if kind == "cut":
        return torch.randn(rows + 2, columns + 5)[1:-1, 2 : 2 + columns]
    if kind == "turned and cut":
        return torch.randn(columns + 1, rows + 3)[1:, :rows].t()
    if kind == "every other":
        return torch.randn(2 * rows, 2 * columns)[::2, ::2]
    if kind == "repeated":
        return torch.randn(1, columns).expand(rows, -1)
    return torch.randn(rows, columns)


@pytest.mark.usefixtures("everything")
def test_products_and_gradients_are_right_in_any_layout() -> None:
    for seed in range(300):
        draw = random.Random(seed)
        torch.manual_seed(seed)
        rows, inputs, outputs = (draw.choice([1, 2, 3, 16, 33, 64]) for _ in range(3))
        x, weight = laid(rows, inputs, draw), laid(outputs, inputs, draw)
        bias = torch.randn(3 * outputs)[::3] if draw.random() < 0.5 else None
        if draw.random() < 0.3:
            x = x.reshape(1, rows, inputs).expand(2, -1, -1)
        upstream = torch.randn(outputs).expand(*x.shape[:-1], outputs)
        wanted = [draw.random() < 0.8 for _ in range(2)]

        sides = []
        for dtype, linear in ((torch.float32, products.linear), (torch.float64, F.linear)):
            own = [
                value.detach().to(dtype).requires_grad_(needs)
                for value, needs in zip((x, weight), wanted, strict=True)
            ]
            offset = None if bias is None else bias.detach().to(dtype).requires_grad_()
            out = linear(*own, offset)
            if out.requires_grad:
                out.backward(upstream.to(dtype))
            sides.append([out.detach(), *(value.grad for value in own)])
            sides[-1].append(None if offset is None else offset.grad)
        for got, right in zip(*sides, strict=True):
            assert (got is None) == (right is None)
            if got is not None:
                torch.testing.assert_close(got.double(), right, atol=2e-4, rtol=2e-4)


@pytest.mark.usefixtures("everything")
def test_a_model_computes_and_learns_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.randint(32, (1, 80))
    segments = torch.zeros(1, 80, dtype=torch.int64)
    calls = 0
    product = products._product

    def counted(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return product(*arguments)

    monkeypatch.setattr(products, "_product", counted)

    def learnt(taken: bool) -> dict[str, Tensor]:
        model: Any = small_hybrid(seed=2)
        if taken:
            products.take_products(model)
        with gradient_in_place(model):
            logits = model.head(model.hidden(ids, segments)[0])
            logits.log_softmax(-1)[..., 3].sum().backward()
        return {"logits": logits.detach()} | {
            name: value.grad for name, value in model.named_parameters() if value.grad is not None
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "by_onednn", lambda: False)
        right = learnt(taken=False)
        assert not calls
    got = learnt(taken=True)
    assert calls > 30
    assert got.keys() == right.keys()
    for name, value in right.items():
        torch.testing.assert_close(got[name], value, atol=1e-4, rtol=1e-3, msg=name)


def test_who_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "by_onednn", lambda: True)
    big, weight = torch.randn(1024, 64), torch.randn(64, 64)
    assert products.suits(big, weight)
    assert not products.suits(big[:8], weight)
    assert not products.suits(big.double(), weight.double())
    assert not products.suits(big.bfloat16(), weight.bfloat16())
    assert not products.suits(big.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not products.suits(big, weight)
        assert products.linear(big, weight).dtype == torch.bfloat16

    class Own(nn.Linear):
        """Somebody's layer that is more than a product."""

    model = nn.Sequential(nn.Linear(4, 4), Own(4, 4))
    products.take_products(model)
    assert [type(layer) for layer in model] == [products.Linear, Own]
    monkeypatch.setattr(products, "by_onednn", lambda: False)
    model = nn.Sequential(nn.Linear(4, 4))
    products.take_products(model)
    assert type(model[0]) is nn.Linear
    assert not products.suits(big, weight)


@pytest.mark.parametrize(
    ("vendor", "taken"), [("AuthenticAMD", True), ("GenuineIntel", False), (None, False)]
)
def test_the_processor_decides(
    vendor: str | None, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    if vendor is not None:
        file.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n", encoding="utf-8")
    monkeypatch.setattr(products, "_CPUINFO", file)
    assert products._is_faster.__wrapped__() is taken


def test_plain_products_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_is_faster", lambda: True)
    monkeypatch.delenv("LINN_KERNELS", raising=False)
    assert products.by_onednn()
    monkeypatch.setenv("LINN_KERNELS", "plain")
    assert not products.by_onednn()
    monkeypatch.delenv("LINN_KERNELS")
    monkeypatch.setattr(products, "_forgone", False)
    products.forgo()
    assert not products.by_onednn()


@pytest.mark.usefixtures("everything")
def test_products_come_in_a_few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN keeps up to megabytes for each size: of a layer, and of the head in training."""
    sizes = set()
    product = products._product

    def noted(x: Tensor, *others: Any) -> Tensor:
        sizes.add(x.shape)
        return product(x, *others)

    monkeypatch.setattr(products, "_product", noted)
    model = nn.Module()
    model.lm_head = products.Linear(8, 40)
    with gradient_in_place(model):  # type: ignore[arg-type]
        for rows in range(1, 600):
            for layer in (products.Linear(8, 40), model.lm_head):
                out = layer(torch.randn(rows, 8, requires_grad=True))
                out.backward(torch.ones_like(out))
    # 21 sizes of inputs and of gradients, and as many of the weights' gradients.
    assert len(sizes) <= 3 * 21


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("of_weight", [True, False])
def test_what_no_gradient_needs_may_change(of_weight: bool) -> None:
    x, weight = torch.randn(5, 4), torch.randn(3, 4)
    (weight if of_weight else x).requires_grad_()
    out = products.linear(x, weight)
    changed = weight if of_weight else x
    with torch.no_grad():
        changed += 1
    out.sum().backward()
    other = x if of_weight else weight.detach()
    right = other.sum(0).expand_as(changed)
    torch.testing.assert_close(changed.grad, right)


@pytest.mark.usefixtures("everything")
def test_a_layer_takes_its_input_by_name() -> None:
    layer = products.Linear(4, 3)
    assert torch.equal(layer(input=torch.ones(2, 4)), layer(torch.ones(2, 4)))


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_number_may_be_the_bias_of_all_outputs(shape: tuple[int, ...]) -> None:
    x, weight = torch.randn(5, 4), torch.randn(3, 4)
    grads = []
    for linear in (products.linear, F.linear):
        bias = torch.full(shape, 2.0, requires_grad=True)
        out = linear(x, weight, bias)
        torch.testing.assert_close(out, F.linear(x, weight) + 2)
        out.sum().backward()
        grads.append(bias.grad)
    assert torch.equal(*grads)


def test_a_whole_chunk_of_logits_is_not_filled() -> None:
    for vocab in (300, 4095, 32000, 50257, 151936, 400000):
        rows = chunk_size(vocab)
        assert 0.75 * LOGITS["cpu"] // vocab <= rows <= LOGITS["cpu"] // vocab
        x = torch.empty(rows, 1)
        assert products._filled(x) is x
    assert chunk_size(10**6) == 8 and chunk_size(10**8) == 1
