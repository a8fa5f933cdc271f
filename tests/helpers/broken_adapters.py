"""Adapters of tiny networks that are broken in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from helpers.adapter_networks import make
from ipvit.testing import ContractError, check_adapter

VIT, DISTILLED, RESNET, PLAIN = "timm vit", "timm vit, distilled", "timm resnet", "any module"


def with_methods(name: str, **methods: Any) -> tuple[Any, torch.Tensor]:
    """Return the adapter of a tiny network with other methods or properties, and images."""
    adapter, images = make(name)
    adapter.__class__ = type("Broken", (type(adapter),), methods)
    return adapter, images


def broken(name: str, words: str, **methods: Any) -> None:
    """Check that an adapter with other methods is caught."""
    with pytest.raises(ContractError, match=words):
        check_adapter(*with_methods(name, **methods))


def own(self: Any, method: str) -> Callable[..., Any]:
    """Return the family's own method."""
    return getattr(super(type(self), self), method)


def changed(method: str, change: Callable[..., Any]) -> dict[str, Any]:
    """Return a method that changes what the family's own returns: ``change(self, found, *arguments)``."""
    return {method: lambda self, *given, **more: change(self, own(self, method)(*given, **more), *given)}


Change = Callable[[Any], Any]


def always(_: Any) -> bool:
    """Whatever blocks are asked for."""
    return True


def of_blocks(method: str, change: Change, only: Callable[[Any], bool] = always) -> dict[str, Any]:
    """Return a method that changes what the family's own returns for every block, where some blocks are asked for."""
    return changed(
        method,
        lambda self, found, images, blocks, *_: (
            {block: change(one) for block, one in found.items()} if only(blocks) else found
        ),
    )


def answering(method: str, answer: Any) -> dict[str, Any]:
    """Return a method that has an answer where the family's own refuses."""

    def call(self, *given, **more):
        try:
            return own(self, method)(*given, **more)
        except ValueError:
            return answer

    return {method: call}
