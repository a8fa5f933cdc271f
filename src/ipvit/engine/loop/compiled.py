"""Networks that are compiled for batches of one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree  # pyright: ignore[reportPrivateUsage]

from ipvit.core.memory import is_out_of_memory

_mapped: Callable[[Callable[[Any], Any], Any], Any] = _pytree.tree_map


class Compiled(nn.Module):
    """A network compiled by torch, that gets batches of one size: smaller ones are filled up with their last image.

    Otherwise the last batch of the images would be compiled for anew, which takes minutes. Where gradients are asked
    for batches stay as they are: an attack goes on with the images that stand, and they are fewer at every step.

    Args:
        network: to be compiled.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._orig_mod = network  # torch's own name, by which it is found again
        self._compiled = cast("Callable[[Tensor], Any]", torch.compile(network))
        self._size = 0

    def forward(self, images: Tensor) -> Any:
        """Return what the network returns of images ``(B, 3, H, W)``, of them alone."""
        n = len(images)
        if torch.is_grad_enabled() or n == 0 or n >= self._size:
            answers = self._compiled(images)
            if not torch.is_grad_enabled():
                self._size = max(self._size, n)
            return answers
        size = self._size
        filled = torch.cat([images, images[-1:].expand(size - n, -1, -1, -1)])
        try:
            answers = self._compiled(filled)
        except Exception as error:
            if is_out_of_memory(error):
                self._size = 0  # what is halved must not be filled up again
            raise
        return _mapped(lambda value: _first(value, n, size), answers)


def _first(value: Any, n: int, size: int) -> Any:
    of_images = isinstance(value, Tensor) and value.ndim > 0 and len(value) == size
    return value[:n] if of_images else value
