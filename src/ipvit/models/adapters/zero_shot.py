"""A zero-shot model: an image tower of any family, and a linear head made of texts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ipvit.models.adapters.base import FeatureState
from ipvit.models.adapters.delegating import Delegating
from ipvit.models.adapters.transformer import check_block


class ZeroShot(Delegating):
    """What the image tower's own adapter does, with answers by the cosine to the classes' texts."""

    handles = ("ipvit.models.zero_shot.network.ZeroShotNetwork",)

    def __init__(self, network: Any) -> None:
        from ipvit.models.adapters import find_adapter

        super().__init__(network, find_adapter(network.trunk))

    @property
    def capabilities(self) -> frozenset[str]:
        """See :class:`Adapter`; without texts there are no logits."""
        return super().capabilities - (set() if self.network.num_classes else {"logits"})

    @property
    def head_kinds(self) -> tuple[str, ...]:
        """See :class:`Adapter`."""
        return self.inner.head_kinds

    def run_to_blocks(self, images: Tensor, blocks: Sequence[int]) -> dict[int, FeatureState]:
        """See :class:`Adapter`."""
        return self.inner.run_to_blocks(images, blocks)

    def run_from_block(self, state: FeatureState, block: int | None = None) -> Tensor:
        """See :class:`Adapter`."""
        check_block(state, block)
        with self.inner.resumed(state) as images:
            return self.network(images)

    @contextlib.contextmanager
    def resumed(self, state: FeatureState) -> Iterator[Tensor]:
        """See :class:`Adapter`."""
        with self.inner.resumed(state) as images:
            yield images

    @contextlib.contextmanager
    def removed(self, images: Tensor, keep: Tensor) -> Iterator[None]:
        """See :class:`Adapter`."""
        with self.inner.removed(images, keep):
            yield

    def classify(self, vector: Tensor, kind: str = "class") -> Tensor:
        """See :class:`Adapter`."""
        return self.network.answer(self.inner.classify(vector, kind))
