"""What reads a network that answers by a head of ours on a backbone: all but the answers is the backbone's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from ipvit.models.adapters.base import Adapter, BlockTokens, FeatureState

_T = TypeVar("_T")


class Delegating(Adapter):
    """What the backbone's own adapter does, with the head's answers; a subclass says how these come about.

    Args:
        network: backbone and head.
        inner: what reads the backbone.
    """

    def __init__(self, network: Any, inner: Adapter) -> None:
        self.inner = inner
        super().__init__(network)
        self.block_names = self.inner.block_names

    @property
    def distillation_token(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] - the backbone's
        """See :class:`Adapter`."""
        return self.inner.distillation_token

    @distillation_token.setter
    def distillation_token(self, name: str) -> None:
        self.inner.distillation_token = name

    @property
    def capabilities(self) -> frozenset[str]:
        """See :class:`Adapter`; the heads of the single tokens are gone."""
        return (self.inner.capabilities - {"token_heads"}) | {"logits"}

    @property
    def prefix_tokens(self) -> tuple[str, ...]:
        """See :class:`Adapter`."""
        return self.inner.prefix_tokens

    def prefix_tokens_of(self, block: int) -> tuple[str, ...]:
        """See :class:`Adapter`."""
        return self.inner.prefix_tokens_of(block)

    @property
    def attention_blocks(self) -> tuple[int, ...]:
        """See :class:`Adapter`."""
        return self.inner.attention_blocks

    def lacking(self, capability: str) -> str:
        """See :class:`Adapter`."""
        return "" if capability in self.capabilities else self.inner.lacking(capability) or super().lacking(capability)

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`Adapter`."""
        return self.inner.patch_grid(image_size)

    def tokens(self, images: Tensor, blocks: Sequence[int], norm: bool) -> dict[int, BlockTokens]:
        """See :class:`Adapter`."""
        return self.inner.tokens(images, blocks, norm)

    def attention(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """See :class:`Adapter`."""
        return self.inner.attention(images, blocks)

    def attention_received(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """See :class:`Adapter`."""
        return self.inner.attention_received(images, blocks)

    def prefix_attention(self, images: Tensor, block: int) -> Tensor:
        """See :class:`Adapter`."""
        return self.inner.prefix_attention(images, block)

    def with_attention(self, block: int, run: Callable[[], _T]) -> tuple[_T, Tensor]:
        """See :class:`Adapter`."""
        return self.inner.with_attention(block, run)

    def n_heads(self, block: int) -> int | None:
        """See :class:`Adapter`."""
        return self.inner.n_heads(block)

    def run_to_block(self, images: Tensor, block: int) -> FeatureState:
        """See :class:`Adapter`."""
        return self.inner.run_to_block(images, block)

    def drop(self, state: FeatureState, keep: Tensor) -> FeatureState:
        """See :class:`Adapter`."""
        return self.inner.drop(state, keep)

    def token_removal(self, images: Tensor, keep: Tensor) -> Tensor:
        """See :class:`Adapter`."""
        with self.inner.removed(images, keep):
            return self.network(images)
