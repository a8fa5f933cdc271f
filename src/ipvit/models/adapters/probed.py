"""A backbone whose classifier is a head of ours on the tokens of some of its blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ipvit.errors import InputError
from ipvit.models.adapters.base import BlockTokens, FeatureState
from ipvit.models.adapters.delegating import Delegating
from ipvit.models.adapters.transformer import check_block


@dataclasses.dataclass(frozen=True)
class ProbedState(FeatureState):
    """What enters a block, and what the head reads from the blocks before it."""

    earlier: Mapping[int, BlockTokens] = dataclasses.field(default_factory=dict)


class Probed(Delegating):
    """What the backbone's own adapter does, with the head's answers.

    Features that are lost before a block are missing from that block on; what the head reads from earlier blocks is
    what it was.
    """

    handles = ("ipvit.models.io.probe_head.HeadedNetwork",)

    def __init__(self, network: Any) -> None:
        super().__init__(network, network.adapter)

    @property
    def head_kinds(self) -> tuple[str, ...]:
        """See :class:`Adapter`: the token that the head reads, where it is a normalised one of the last block alone."""
        specs = self.network.specs
        alone = len(specs) == 1 and specs[0].block == self.n_blocks - 1
        return (specs[0].token,) if alone and self.network.norm else ()

    def reads_before(self, block: int) -> bool:
        """See :class:`Adapter`: the head may read several blocks."""
        return any(read < block for read in self.network.blocks)

    def run_to_block(self, images: Tensor, block: int) -> ProbedState:
        """See :class:`Adapter`."""
        state = self.inner.run_to_block(images, block)
        before = [read for read in self.network.blocks if read < block]
        earlier = self.inner.tokens(images, before, self.network.norm) if before else {}
        return ProbedState(state.block, state.block_input, state.grid, state.images, earlier)

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

    def classify(self, vector: Tensor, kind: str = "class") -> Tensor:
        """See :class:`Adapter`."""
        if kind not in self.head_kinds:
            names = ", ".join(map(str, self.network.specs)) + ("" if self.network.norm else " without normalisation")
            raise InputError(f"the head of this probed network reads {names}, not a {kind!r} alone")
        return self.network.head(vector)
