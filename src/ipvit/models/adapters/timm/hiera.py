"""timm's Hiera: a pyramid whose tokens are not in the order of the image; units of its patches can be left out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ipvit.errors import InputError
from ipvit.models.adapters.base import FeatureState, checked_mask
from ipvit.models.adapters.hooks import BlockInput
from ipvit.models.adapters.timm.features import TimmFeatures
from ipvit.models.adapters.transformer import counted_patches


class TimmHiera(TimmFeatures):
    """timm's ``Hiera``. Blocks are its stages, as other pyramids have them.

    What can be left out is a mask unit (32 x 32 pixels in the published networks), as in its pre-training: its pixels
    are zero for the convolution that makes the patches, and its tokens never enter the blocks.
    """

    handles = ("timm.models.hiera.Hiera",)

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self._ends = tuple(network.stage_ends)

    @property
    def capabilities(self) -> frozenset[str]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        return super().capabilities | {"token_removal"}

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`~ipvit.models.adapters.base.Adapter`; the mask units."""
        rows, columns = self.network.mask_spatial_shape
        return int(rows), int(columns)

    def drop(self, state: FeatureState, keep: Tensor) -> FeatureState:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        if state.block == 0:
            return super().drop(state, keep)
        features = state.block_input.args[0]
        mask = checked_mask(keep, features.shape[0], state.grid).to(features.device)
        kept = torch.zeros_like(mask).scatter(1, self._order(state.block, features).expand_as(mask), mask)
        dropped = features.where(kept.unsqueeze(-1), features.new_zeros(()))
        return dataclasses.replace(state, block_input=BlockInput((dropped,)))

    def token_removal(self, images: Tensor, keep: Tensor) -> Tensor:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        kept = checked_mask(keep, images.shape[0], self.patch_grid((images.shape[-2], images.shape[-1])))
        counted_patches(kept)
        features = self.network.forward_features(images, mask=kept.to(images.device))
        return self.network.forward_head(features)

    @contextlib.contextmanager
    def removed(self, images: Tensor, keep: Tensor) -> Iterator[None]:
        """Refuse: what a head was fitted on are whole maps.

        Raises:
            InputError: always.
        """
        raise InputError("the maps of Hiera's stages are whole; only its own classifier reads fewer tokens")
        yield

    def _grid(self, features: Any, block: int, images: Tensor) -> tuple[int, int]:
        if block == 0:
            return super()._grid(features, block, images)
        _, (rows, columns) = self.network.reroll.schedule[self._ends[block - 1]]
        return rows, columns

    def _order(self, block: int, features: Tensor) -> Tensor:
        """Return where each place of the image, row by row, is among the tokens that enter a block, ``(1, places)``."""
        count = features.shape[1]
        tokens = torch.arange(count, device=features.device).view(1, count, 1)
        return self.network.reroll(tokens, self._ends[block - 1]).reshape(1, count)
