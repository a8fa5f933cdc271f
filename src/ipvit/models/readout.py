"""Where one vector per image is read out of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ipvit.models.adapters.base import BlockTokens
    from ipvit.models.model import Model


@dataclasses.dataclass(frozen=True, order=True)
class FeatureSpec:
    """A block (from 0) and a kind of token.

    ``token`` is ``class``, ``distillation`` or ``shape``, ``register0``, ``mean_patch``, or ``pooled``: what the
    network's own pooling makes of the block (the mean over the positions of a stage of a CNN). Of the last block of a
    CNN, ``pooled`` is what enters its classifier.
    """

    block: int
    token: str

    def __str__(self) -> str:
        return f"block-{self.block:02d}-{self.token}"


def own_token(model: Model) -> str:
    """Return the kind of token that a network is read by: ``class`` where all its blocks have one, else ``pooled``."""
    return "class" if "class" in model.adapter.prefix_tokens_of(0) else "pooled"


def last_blocks(model: Model, n: int, token: str | None = None) -> tuple[FeatureSpec, ...]:
    """Return where the last ``n`` blocks (all, if there are fewer) are read: the network's own token by default."""
    count = model.adapter.n_blocks
    return tuple(FeatureSpec(block, token or own_token(model)) for block in range(max(count - n, 0), count))


def read_batch(
    model: Model, images: Tensor, specs: Sequence[FeatureSpec], *, norm: bool = True
) -> dict[FeatureSpec, Tensor]:
    """Return ``(B, D)`` float32 per read from one forward pass over images ``(B, 3, H, W)`` in [0, 1]."""
    found = model.tokens(images, blocks_of(specs), norm=norm)
    return {read: found[read.block].vector(read.token) for read in specs}


def blocks_of(specs: Iterable[FeatureSpec]) -> list[int]:
    """Return the blocks that are read, in their order."""
    return sorted({read.block for read in specs})


def side_by_side(tokens: Mapping[int, BlockTokens], specs: Sequence[FeatureSpec]) -> Tensor:
    """Return the vectors of several reads as one, ``(B, D)``, in float32."""
    import torch

    return torch.cat([tokens[read.block].vector(read.token).float() for read in specs], dim=1)
