"""A backbone whose classifier is a linear head on the tokens of some of its blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ipvit.errors import InputError
from ipvit.models.adapters.base import Adapter, BlockTokens, FeatureState
from ipvit.models.adapters.transformer import check_block


@dataclasses.dataclass(frozen=True)
class ProbedState(FeatureState):
    """What enters a block, and what the head reads from the blocks before it."""

    earlier: Mapping[int, BlockTokens] = dataclasses.field(default_factory=dict)


class Probed(Adapter):
    """What the backbone's own adapter does, with the head's answers.

    Features that are lost before a block are missing from that block on; what the head reads from earlier blocks is
    what it was.
    """

    handles = ("ipvit.models.io.probe_head.ProbedNetwork",)

    def __init__(self, network: Any) -> None:
        self.inner: Adapter = network.adapter
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

    @property
    def head_kinds(self) -> tuple[str, ...]:
        """See :class:`Adapter`: the token that the head reads, where it is a normalised one of the last block alone."""
        specs = self.network.specs
        alone = len(specs) == 1 and specs[0].block == self.n_blocks - 1
        return (specs[0].token,) if alone and self.network.norm else ()

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`Adapter`."""
        return self.inner.patch_grid(image_size)

    def tokens(self, images: Tensor, blocks: Sequence[int], norm: bool) -> dict[int, BlockTokens]:
        """See :class:`Adapter`."""
        return self.inner.tokens(images, blocks, norm)

    def attention(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """See :class:`Adapter`."""
        return self.inner.attention(images, blocks)

    def prefix_attention(self, images: Tensor, block: int) -> Tensor:
        """See :class:`Adapter`."""
        return self.inner.prefix_attention(images, block)

    def n_heads(self, block: int) -> int | None:
        """See :class:`Adapter`."""
        return self.inner.n_heads(block)

    def run_to_block(self, images: Tensor, block: int) -> ProbedState:
        """See :class:`Adapter`."""
        state = self.inner.run_to_block(images, block)
        before = [read for read in self.network.blocks if read < block]
        earlier = self.inner.tokens(images, before, self.network.norm) if before else {}
        return ProbedState(state.block, state.block_input, state.grid, state.images, earlier)

    def drop(self, state: FeatureState, keep: Tensor) -> FeatureState:
        """See :class:`Adapter`."""
        return self.inner.drop(state, keep)

    def run_from_block(self, state: FeatureState, block: int | None = None) -> Tensor:
        """See :class:`Adapter`."""
        check_block(state, block)
        if not isinstance(state, ProbedState):
            raise InputError("a probed network goes on from its own states only, not from its backbone's")
        after = [read for read in self.network.blocks if read >= state.block]
        later = {}
        if after:
            with self.inner.resumed(state) as images:
                later = self.inner.tokens(images, after, self.network.norm)
        return self.network.answer({**state.earlier, **later})

    def token_removal(self, images: Tensor, keep: Tensor) -> Tensor:
        """See :class:`Adapter`."""
        with self.inner.removed(images, keep):
            return self.network(images)

    def classify(self, vector: Tensor, kind: str = "class") -> Tensor:
        """See :class:`Adapter`."""
        if kind not in self.head_kinds:
            names = ", ".join(map(str, self.network.specs)) + ("" if self.network.norm else " without normalisation")
            raise InputError(f"the head of this probed network reads {names}, not a {kind!r} alone")
        return self.network.head(vector)
