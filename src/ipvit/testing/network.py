"""A network, its adapter and the images that it is tried on."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ipvit.models.adapters import Adapter, logits_of
from ipvit.testing.contract import close, require


@dataclasses.dataclass(frozen=True)
class Network:
    """What is tried.

    Attributes:
        adapter: the plug-in.
        images: ``(B, 3, H, W)``, normalised.
        plain: ``(B, classes)``, what the network makes of them by itself.
        name: what messages call the adapter.
    """

    adapter: Adapter
    images: Tensor
    plain: Tensor
    name: str

    @property
    def last(self) -> int:
        """Number of the last block."""
        return self.adapter.n_blocks - 1

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches, as the adapter states them."""
        rows, columns = self.adapter.patch_grid((self.images.shape[-2], self.images.shape[-1]))
        return rows, columns

    def forward(self) -> Tensor:
        """Return the network's own logits."""
        return logits_of(self.adapter.network(self.images))

    def same(self, logits: Tensor) -> bool:
        """Tell whether logits are the network's own, up to rounding."""
        return close(logits, self.plain)

    def everything(self) -> Tensor:
        """Return a mask ``(B, rows, columns)`` that keeps every patch."""
        return torch.ones(len(self.images), *self.grid, dtype=torch.bool)

    def require(self, kept: object, sentence: str) -> None:
        """Require a promise of the adapter; see :func:`ipvit.testing.contract.require`.

        Raises:
            ContractError: it is not kept.
        """
        require(kept, f"{self.name}: {sentence}")
