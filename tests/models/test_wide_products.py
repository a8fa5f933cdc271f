"""Products of 16-bit numbers on a processor without instructions for them: the same values in far less time."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ipvit.models import wide_products
from ipvit.models.wide_products import WideProducts, short_products

ULP = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
"""Relative distance of neighbours, at most."""


def numbers(dtype: torch.dtype, *size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(len(size))).to(dtype)


def into(product: Callable[..., Tensor], first: Tensor, *others: Tensor, **scales: float) -> Tensor:
    made = torch.empty_like(first)
    product(first, *others, out=made, **scales)
    return made


PRODUCTS: dict[str, Callable[[Callable[..., Tensor]], Tensor]] = {
    "mm": lambda n: n(30, 40) @ n(40, 20),
    "addmm": lambda n: torch.addmm(n(20), n(30, 40), n(40, 20), beta=0.5, alpha=2.0),
    "addmm into": lambda n: into(torch.addmm, n(30, 20), n(30, 40), n(40, 20), beta=3.4),
    "bmm": lambda n: n(3, 30, 40) @ n(3, 40, 20),
    "baddbmm": lambda n: torch.baddbmm(n(3, 30, 20), n(3, 30, 40), n(3, 40, 20), beta=0.5),
    "convolution": lambda n: nn.functional.conv2d(n(2, 3, 9, 9), n(5, 3, 3, 3), n(5), padding=1),
    "linear": lambda n: nn.functional.linear(n(4, 7, 12), n(9, 12), n(9)),
}


@pytest.mark.parametrize("dtype", ULP)
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_that_of_torch_but_for_the_order_of_its_sums(name, dtype):
    given = functools.partial(numbers, dtype)
    plain = PRODUCTS[name](given)
    with WideProducts():
        wide = PRODUCTS[name](given)
    assert wide.dtype == dtype and wide.shape == plain.shape
    torch.testing.assert_close(wide.float(), plain.float(), rtol=ULP[dtype], atol=4 * ULP[dtype])


def test_a_product_is_the_exact_one_rounded_once():
    first, second = numbers(torch.bfloat16, 30, 40), numbers(torch.bfloat16, 40, 20)
    exact = first.double() @ second.double()
    with WideProducts():
        wide = first @ second
    assert (wide != exact.bfloat16()).float().mean() < 0.01  # where a sum lies in the middle of two numbers


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
    monkeypatch.setattr(wide_products, "_without_instructions", set)
    both = {torch.bfloat16, torch.float16}
    assert isinstance(short_products(cpu, both), contextlib.nullcontext)
    monkeypatch.setattr(wide_products, "_without_instructions", lambda: {torch.float16})
    assert isinstance(short_products(torch.device("cuda"), both), contextlib.nullcontext)
    assert isinstance(short_products(cpu, {torch.bfloat16}), contextlib.nullcontext)
    half, brain = numbers(torch.float16, 8, 8), numbers(torch.bfloat16, 8, 8)
    seen: list[torch.dtype] = []
    monkeypatch.setattr(wide_products, "tree_map", lambda f, value: seen.append(value) or tree_map(f, value))
    with short_products(cpu, both):
        brain @ brain
        assert not seen
        half @ half
        assert seen
