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
class Read:
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
    """Return the kind of token that a network itself classifies by: ``class`` where it has one, else ``pooled``."""
    return "class" if "class" in model.adapter.prefix else "pooled"


def last_blocks(model: Model, n: int, token: str | None = None) -> tuple[Read, ...]:
    """Return where the last ``n`` blocks (all, if there are fewer) are read: the network's own token by default."""
    count = model.adapter.n_blocks
    return tuple(Read(block, token or own_token(model)) for block in range(max(count - n, 0), count))


def read_batch(model: Model, images: Tensor, reads: Sequence[Read], *, norm: bool = True) -> dict[Read, Tensor]:
    """Return ``(B, D)`` float32 per read from one forward pass over images ``(B, 3, H, W)`` in [0, 1]."""
    found = model.tokens(images, blocks_of(reads), norm=norm)
    return {read: found[read.block].vector(read.token) for read in reads}


def blocks_of(reads: Iterable[Read]) -> list[int]:
    """Return the blocks that are read, in their order."""
    return sorted({read.block for read in reads})


def side_by_side(tokens: Mapping[int, BlockTokens], reads: Sequence[Read]) -> Tensor:
    """Return the vectors of several reads as one, ``(B, D)``, in float32."""
    import torch

    return torch.cat([tokens[read.block].vector(read.token).float() for read in reads], dim=1)
