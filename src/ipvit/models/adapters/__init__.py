"""What is inside a network: one adapter per architecture family.

A new family is one new file here with a subclass of :class:`Adapter` that names the classes it handles; other packages
register theirs under the entry point ``ipvit.models``, and go before ours.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pkgutil

from torch import nn

from ipvit.errors import InputError
from ipvit.models.adapters.base import Adapter, BlockTokens, FeatureState, logits_of
from ipvit.models.capabilities import CAPABILITIES

__all__ = ["CAPABILITIES", "Adapter", "BlockTokens", "FeatureState", "adapters", "find_adapter", "logits_of", "unwrap"]

ENTRY_POINTS = "ipvit.models"


def find_adapter(backbone: nn.Module) -> Adapter:
    """Return the adapter for a network: the one that names its class or else the nearest base class.

    No library is imported for it: classes are recognised by their names. A network of no known family gets the plain
    :class:`Adapter`, which offers logits and gradients.

    Raises:
        InputError: an installed package registers something that is not an adapter.
    """
    network = unwrap(backbone)
    for kind in type(network).__mro__:
        name = f"{kind.__module__}.{kind.__qualname__}"
        for adapter in (*_registered(), *adapters()):
            if name in adapter.handles and adapter.supports(network):
                return adapter(network)
    return Adapter(network)


def unwrap(backbone: nn.Module) -> nn.Module:
    """Return the network inside ``torch.compile``'s wrapper; hooks are not called on a compiled one."""
    while isinstance(original := getattr(backbone, "_orig_mod", None), nn.Module):
        backbone = original
    return backbone


@functools.cache
def adapters() -> tuple[type[Adapter], ...]:
    """Return our own adapters."""
    found: list[type[Adapter]] = []
    for info in pkgutil.walk_packages(__path__, f"{__name__}."):
        module = importlib.import_module(info.name)
        found += [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, Adapter)
            and value.__module__ == module.__name__
            and value.handles
        ]
    return tuple(found)


@functools.cache  # to look through what is installed takes longer than all else when a network is wrapped
def _registered() -> tuple[type[Adapter], ...]:
    found: list[type[Adapter]] = []
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        value = entry.load()
        if not (isinstance(value, type) and issubclass(value, Adapter)):
            raise InputError(f"{entry.value}, registered under {ENTRY_POINTS!r}, is no subclass of ipvit's Adapter")
        found.append(value)
    return tuple(found)
