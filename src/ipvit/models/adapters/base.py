"""What an adapter offers, and the one for networks of which nothing is known."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ipvit.core.queued.deferred import check
from ipvit.errors import InputError, did_you_mean
from ipvit.models.adapters.attention_calls import shares
from ipvit.models.adapters.hooks import BlockInput
from ipvit.models.adapters.lacking import reason_for
from ipvit.models.capabilities import DISTILLATION_NAMES

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class BlockTokens:
    """What leaves one block.

    Attributes:
        prefix_tokens: the tokens that stand for no place in the image, by name, ``(B, D)`` each.
        patches: one vector per place, ``(B, rows * cols, D)``, row by row.
        grid: rows and columns of the places.
        pooled: ``(B, D)``, what the network's own pooling makes of the block. After the last block and with ``norm``
            it is what enters the classifier.
    """

    prefix_tokens: Mapping[str, Tensor]
    patches: Tensor
    grid: tuple[int, int]
    pooled: Tensor

    def vector(self, kind: str) -> Tensor:
        """Return one vector per image, ``(B, D)``.

        Args:
            kind: ``class``, ``distillation`` (or ``shape``: the same token), ``register0``..., ``mean_patch`` or
                ``pooled``.

        Raises:
            InputError: the network has no such token.
        """
        if kind == "mean_patch":
            return self.patches.mean(dim=1)
        if kind == "pooled":
            return self.pooled
        names = DISTILLATION_NAMES if kind in DISTILLATION_NAMES else (kind,)
        for name in names:
            if name in self.prefix_tokens:
                return self.prefix_tokens[name]
        known = [*self.prefix_tokens, "mean_patch", "pooled"]
        raise InputError(f"the network has no token {kind!r}; it has {', '.join(known)}.{did_you_mean(kind, known)}")

    def float(self) -> BlockTokens:
        """Return the same in float32."""
        prefix_tokens = {name: token.float() for name, token in self.prefix_tokens.items()}
        return BlockTokens(prefix_tokens, self.patches.float(), self.grid, self.pooled.float())


@dataclasses.dataclass(frozen=True)
class FeatureState:
    """What enters a block: all that the rest of the network needs.

    Attributes:
        block: the block's number.
        block_input: the block's arguments.
        grid: rows and columns of its places.
        images: the input it came from; later stages of the network look at its shape only.
    """

    block: int
    block_input: BlockInput
    grid: tuple[int, int]
    images: Tensor


class Adapter:
    """What can be read from and done to the inside of a network; one subclass per architecture family.

    Every method takes images as the network does, that is normalised. Blocks count from 0: transformer blocks, or the
    stages of a convolutional network with the input of its pooling as the last one. This base class knows nothing of
    the inside: it offers logits and gradients for any module.

    Attributes:
        handles: full names (``package.module.Class``) of the network classes that a subclass is for; their subclasses
            are included, unless another adapter names them.
        network: the network itself.
        block_names: what the blocks are called.
        distillation_token: what the second token of a distilled network is called: ``distillation`` or ``shape``.
    """

    handles: ClassVar[tuple[str, ...]] = ()

    def __init__(self, network: nn.Module) -> None:
        self.network: Any = network  # a class of another library, of which only the name is known
        self.block_names: tuple[str, ...] = ()
        self.distillation_token = "distillation"

    @classmethod
    def supports(cls, network: nn.Module) -> bool:  # noqa: ARG003
        """Say whether this adapter can do anything with a network of a class it handles."""
        return True

    @property
    def capabilities(self) -> frozenset[str]:
        """What of :data:`CAPABILITIES` this network offers; a network without classifier has no logits."""
        headless = getattr(self.network, "num_classes", None) == 0
        return frozenset({"gradients"} if headless else {"gradients", "logits"})

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self.block_names)

    @property
    def prefix_tokens(self) -> tuple[str, ...]:
        """Names of the tokens that stand for no place in the image, in their order."""
        return ()

    def prefix_tokens_of(self, block: int) -> tuple[str, ...]:
        """Return which of :attr:`prefix_tokens` leave a block; a class token may join the patches late."""
        return self.prefix_tokens

    def reads_before(self, block: int) -> bool:
        """Return whether the classifier also reads blocks before this one, which a drop of features leaves alone."""
        return False

    @property
    def attention_blocks(self) -> tuple[int, ...]:
        """Numbers of the blocks whose attention can be read; none without the capability."""
        return tuple(range(self.n_blocks)) if "attention" in self.capabilities else ()

    @property
    def head_kinds(self) -> tuple[str, ...]:
        """Kinds of vector that :meth:`classify` takes."""
        return ()

    def lacking(self, capability: str) -> str:
        """Return in one sentence why the network does not offer a capability; empty where it does."""
        return "" if capability in self.capabilities else reason_for(type(self.network).__mro__, capability)

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return rows and columns of the patches that an image of this height and width is cut into."""
        raise self._cannot("token_removal")

    def tokens(self, images: Tensor, blocks: Sequence[int], norm: bool) -> dict[int, BlockTokens]:
        """Return what leaves some blocks, from one forward pass.

        Args:
            images: ``(B, 3, H, W)``, normalised.
            blocks: numbers of the blocks.
            norm: put every token through the network's last normalisation, where it fits (transformers: all blocks,
                Swin: the last stage, convolutional networks: none).
        """
        raise self._cannot("tokens")

    def attention(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Return attention maps ``(B, heads, T, T)``: a row per query that sums to one, prefix tokens first.

        Raises:
            InputError: the network's attention, or that of a block which is not one of :attr:`attention_blocks`, is not
                a softmax over its tokens.
        """
        raise self._cannot("attention")

    def attention_received(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Return the share of a map that each token receives ``(B, T)``, the mean over heads and queries.

        It sums to one and has its gradients. A family keeps no maps for them where it can: a map is far larger than
        what it is made of.
        """
        return {block: shares(maps) for block, maps in self.attention(images, blocks).items()}

    def prefix_attention(self, images: Tensor, block: int) -> Tensor:
        """Return the rows ``(B, heads, P, T)`` of a block's maps whose queries are the ``P`` prefix tokens.

        A family computes no others where it can: they are a thousandth of a map of 32 x 32 patches.
        """
        return self.attention(images, [block])[block][:, :, : len(self.prefix_tokens_of(block))]

    def with_attention(self, block: int, run: Callable[[], _T]) -> tuple[_T, Tensor]:
        """Return what ``run`` returns, and a block's map ``(B, heads, T, T)`` in the one pass that it makes.

        The map has its gradients, so a network can be taught where to look.
        """
        raise self._cannot("attention")

    def n_heads(self, block: int) -> int | None:
        """Return how many attention maps a block has; None where only :meth:`attention` tells."""
        return None

    def run_to_block(self, images: Tensor, block: int) -> FeatureState:
        """Run the network up to a block and return what enters it (appendix C)."""
        raise self._cannot("feature_drop")

    def run_to_blocks(self, images: Tensor, blocks: Sequence[int]) -> dict[int, FeatureState]:
        """Return what enters each of some blocks; a family that can reads all of them in one pass."""
        return {block: self.run_to_block(images, block) for block in blocks}

    def drop(self, state: FeatureState, keep: Tensor) -> FeatureState:
        """Zero all features of some places; prefix tokens are spared.

        Args:
            state: from :meth:`run_to_block`.
            keep: bool ``(B, rows, cols)`` or ``(B, rows * cols)``; B may be 1 for one mask for all.
        """
        raise self._cannot("feature_drop")

    def run_from_block(self, state: FeatureState, block: int | None = None) -> Tensor:
        """Run the rest of the network and return the logits ``(B, num_classes)``; the state stays as it is.

        Args:
            state: from :meth:`run_to_block` or :meth:`drop`.
            block: the state's own block, to be checked.
        """
        raise self._cannot("feature_drop")

    def resumed(self, state: FeatureState) -> AbstractContextManager[Tensor]:
        """Let a forward pass go on from a state: inside, pass on the images that are given.

        What leaves the state's block and the blocks after it is then what follows from the state.
        """
        raise self._cannot("feature_drop")

    def removed(self, images: Tensor, keep: Tensor) -> AbstractContextManager[None]:
        """Keep some patches of these images from entering the blocks; see :meth:`token_removal`."""
        raise self._cannot("token_removal")

    def token_removal(self, images: Tensor, keep: Tensor) -> Tensor:
        """Return the logits when some patches never enter the blocks; positions are added before they leave.

        Args:
            images: ``(B, 3, H, W)``, normalised.
            keep: bool ``(B, rows, cols)``, the same number of patches in every image. It may lie on the processor,
                which then need not wait for a GPU to know how many stay.
        """
        raise self._cannot("token_removal")

    def logits_by_token(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits of each token's own head, and ``mean``: their average, the network's own answer."""
        raise self._cannot("token_heads")

    def classify(self, vector: Tensor, kind: str = "class") -> Tensor:
        """Put a vector of :meth:`BlockTokens.vector` (of the same kind, with ``norm``) through the network's own head.

        Raises:
            InputError: the network has no head that reads this kind of vector.
        """
        raise self._cannot("tokens")

    def answer_in(self, output: Any) -> Tensor:
        """Return the logits in what the network returns; of one without classifier, the vector for a classifier."""
        return logits_of(output)

    def _cannot(self, capability: str) -> InputError:
        able, reason = ", ".join(sorted(self.capabilities)), self.lacking(capability)
        said = f": {reason}" if reason else ""
        return InputError(f"{type(self.network).__name__} does not offer {capability!r}{said}; it offers {able}")

    def _checked(self, blocks: Sequence[int]) -> list[int]:
        wrong = [block for block in blocks if not 0 <= block < self.n_blocks]
        if wrong or not blocks:
            name, last = type(self.network).__name__, self.n_blocks - 1
            raise InputError(f"{name} has blocks 0 to {last}; asked for {wrong or 'none'}")
        return sorted(set(blocks))

    def _checked_maps(self, blocks: Sequence[int]) -> list[int]:
        """Return the blocks in their order; raise InputError where one of them has no map."""
        if "attention" not in self.capabilities:
            raise self._cannot("attention")
        wanted, able = self._checked(blocks), self.attention_blocks
        if without := [block for block in wanted if block not in able]:
            first, name = without[0], type(self.network).__name__
            raise InputError(
                f"{name} has no attention map in block {first}, {self.without_map(first)}; "
                f"it has maps in {counted_blocks(able)}"
            )
        return wanted

    def without_map(self, block: int) -> str:
        """Return why a block has no attention map, where others have one."""
        return "which attends in another way"


def logits_of(output: Any) -> Tensor:
    """Return the logits in what a network returns: a tensor, a mapping or an object with ``logits``, a tuple of one.

    Raises:
        InputError: there are none, or several tensors among which nobody says which is meant.
    """
    if isinstance(output, Mapping):
        output = output.get("logits", output)
    if isinstance(output, tuple | list) and len(output) == 1:
        (output,) = output
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    raise InputError(f"the network returned {type(output).__name__}; it must return logits (B, classes)")


def counted_blocks(blocks: Sequence[int]) -> str:
    """Name blocks in a few words.

    >>> counted_blocks((3, 4, 5)), counted_blocks((2,)), counted_blocks((0, 2))
    ('blocks 3 to 5', 'block 2', 'blocks 0, 2')
    """
    if len(blocks) == 1:
        return f"block {blocks[0]}"
    if list(blocks) == list(range(blocks[0], blocks[-1] + 1)):
        return f"blocks {blocks[0]} to {blocks[-1]}"
    return f"blocks {', '.join(map(str, blocks))}"


def checked_mask(keep: Tensor, batch: int, grid: tuple[int, int]) -> Tensor:
    """Return a mask as ``(batch, rows * cols)``.

    Raises:
        InputError: it is not bool, or does not fit batch or grid.
    """
    places = grid[0] * grid[1]
    fits = keep.shape[1:] in ((places,), grid) and keep.shape[0] in (1, batch)
    if keep.dtype != torch.bool or not fits:
        raise InputError(
            f"a mask here must be bool of shape ({batch}, {grid[0]}, {grid[1]}), got {keep.dtype} {tuple(keep.shape)}"
        )
    return keep.reshape(keep.shape[0], places).expand(batch, places)


def checked_attention(maps: Mapping[int, Tensor], queries: int | None = None) -> dict[int, Tensor]:
    """Return the maps, all of them ``(B, heads, T, T)`` with rows that sum to one.

    Rows that are not finite pass: they come of single images, whose results say so.

    Args:
        maps: by block.
        queries: how many rows there should be; None for as many as columns.

    Raises:
        InputError: a map is empty, or is no such thing.
    """
    for block, attention in maps.items():
        shape = attention.shape
        if len(shape) != 4 or attention.numel() == 0 or shape[-2] != (shape[-1] if queries is None else queries):
            raise InputError(f"block {block}: {tuple(shape)} is not an attention map (B, heads, T, T)")
        rounding = 1e-4 if attention.dtype == torch.float32 else 1e-2
        errors = (attention.detach().float().sum(dim=-1) - 1).abs()
        check(torch.where(errors.isfinite(), errors, 0).max(), functools.partial(_check_sums, block, rounding))
    return dict(maps)


def _check_sums(block: int, rounding: float, error: float) -> None:
    if error > rounding:
        raise InputError(f"block {block}: the rows of the attention map do not sum to one (off by {error:.3g})")
