"""Products of bfloat16 numbers on a processor without instructions for them: the same values in far less time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from ipvit.training import wide_products
from ipvit.training.wide_products import WideProducts, bf16_products

ULP = 2.0**-7
"""Relative distance of neighbours in bfloat16, at most."""


def numbers(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(len(size))).bfloat16()


def into(product: Callable[..., Tensor], first: Tensor, *others: Tensor, **scales: float) -> Tensor:
    made = torch.empty_like(first)
    product(first, *others, out=made, **scales)
    return made


PRODUCTS: dict[str, Callable[[], Tensor]] = {
    "mm": lambda: numbers(30, 40) @ numbers(40, 20),
    "addmm": lambda: torch.addmm(numbers(20), numbers(30, 40), numbers(40, 20), beta=0.5, alpha=2.0),
    "addmm into": lambda: into(torch.addmm, numbers(30, 20), numbers(30, 40), numbers(40, 20), beta=3.4),
    "bmm": lambda: numbers(3, 30, 40) @ numbers(3, 40, 20),
    "baddbmm": lambda: torch.baddbmm(numbers(3, 30, 20), numbers(3, 30, 40), numbers(3, 40, 20), beta=0.5),
    "convolution": lambda: nn.functional.conv2d(numbers(2, 3, 9, 9), numbers(5, 3, 3, 3), numbers(5), padding=1),
    "linear": lambda: nn.functional.linear(numbers(4, 7, 12), numbers(9, 12), numbers(9)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_that_of_torch_but_for_the_order_of_its_sums(name):
    plain = PRODUCTS[name]()
    with WideProducts():
        wide = PRODUCTS[name]()
    assert wide.dtype == torch.bfloat16 and wide.shape == plain.shape
    torch.testing.assert_close(wide.float(), plain.float(), rtol=ULP, atol=0.02)


def test_products_of_other_numbers_are_left_as_they_are():
    first, second = torch.randn(30, 40), torch.randn(40, 20)
    plain = first @ second
    with WideProducts():
        assert torch.equal(first @ second, plain)
        assert (first.double() @ second.double()).dtype == torch.float64


def trained(products: Callable[[], contextlib.AbstractContextManager[Any]], optimizer: str) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 16), nn.GELU(), nn.Linear(16, 4)
    )
    rule = create_optimizer_v2(network, opt=optimizer, lr=0.01)
    images = torch.randn(16, 3, 8, 8)
    for _ in range(3):
        rule.zero_grad()
        with products():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(network(images), torch.arange(16) % 4)
            loss.backward()
            rule.step()
    return network


@pytest.mark.parametrize("optimizer", ["nmuon", "adamw"])
def test_a_network_is_trained_as_with_torchs_own_products(optimizer):
    plain, wide = trained(contextlib.nullcontext, optimizer), trained(WideProducts, optimizer)
    for first, second in zip(plain.parameters(), wide.parameters(), strict=True):
        assert first.grad is not None and second.grad is not None
        torch.testing.assert_close(first, second, rtol=0.02, atol=0.003)


def test_they_are_for_processors_without_instructions(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(wide_products, "_has_instructions", lambda: True)
    assert isinstance(bf16_products(cpu), contextlib.nullcontext)
    monkeypatch.setattr(wide_products, "_has_instructions", lambda: False)
    assert isinstance(bf16_products(cpu), WideProducts)
    assert isinstance(bf16_products(torch.device("cuda")), contextlib.nullcontext)
