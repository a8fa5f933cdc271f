"""What all transformers on a sequence of patch tokens have in common."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ipvit.errors import InputError
from ipvit.models.adapters.base import (
    Adapter,
    BlockTokens,
    FeatureState,
    checked_attention,
    checked_mask,
)
from ipvit.models.adapters.hooks import BlockInput, HookPoint, changed, copied, read, replaced, skipped, watched
from ipvit.models.adapters.lacking import OF_TRANSFORMERS, reason_for
from ipvit.models.capabilities import DISTILLATION_NAMES

_T = TypeVar("_T")


class TransformerAdapter(Adapter):
    """Blocks that each take and return ``(B, T, D)`` tokens, prefix tokens first.

    A family states its parts in ``__init__`` and says how attention is read.

    Args:
        network: the network.
        blocks: its blocks in their order.
        prefix_tokens: names of its prefix tokens; the second one of a distilled network as ``distillation``.
        final_norm: what every token goes through before the head.
        heads: by kind of vector, the head that reads it.
        can: further capabilities than tokens and feature drop.
    """

    token_argument = 0
    """Which argument of a block holds the tokens."""

    _queries: int | None = None
    """So many first rows of one block's map are wanted, nothing after it is read, and a family need compute no others;
    None: every row."""

    def __init__(
        self,
        network: nn.Module,
        *,
        blocks: Sequence[nn.Module],
        prefix_tokens: Sequence[str],
        final_norm: nn.Module,
        heads: Mapping[str, nn.Module],
        can: Sequence[str] = (),
    ) -> None:
        super().__init__(network)
        self.blocks = tuple(blocks)
        self.block_names = tuple(f"block {number + 1}" for number in range(len(blocks)))
        self.final_norm = final_norm
        self._prefix = tuple(prefix_tokens)
        self._heads = dict(heads)
        self._can = frozenset(can)

    @property
    def capabilities(self) -> frozenset[str]:
        """See :class:`Adapter`."""
        distilled = {"token_heads"} if "distillation" in self._heads and "logits" in super().capabilities else set()
        return super().capabilities | {"tokens", "feature_drop"} | self._can | distilled

    def lacking(self, capability: str) -> str:
        """See :class:`Adapter`."""
        known = capability in self.capabilities
        return "" if known else reason_for(type(self.network).__mro__, capability, OF_TRANSFORMERS)

    @property
    def prefix_tokens(self) -> tuple[str, ...]:
        """See :class:`Adapter`."""
        return tuple(self.distillation_token if name == "distillation" else name for name in self._prefix)

    @property
    def head_kinds(self) -> tuple[str, ...]:
        """See :class:`Adapter`."""
        return tuple(self._heads)

    def tokens(self, images: Tensor, blocks: Sequence[int], norm: bool) -> dict[int, BlockTokens]:
        """See :class:`Adapter`."""
        wanted = self._checked(blocks)
        outputs = self._outputs(images, wanted)
        return {block: self._split(output, images, norm) for block, output in zip(wanted, outputs, strict=True)}

    def attention(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """See :class:`Adapter`."""
        return checked_attention(self._maps(images, blocks))

    def prefix_attention(self, images: Tensor, block: int) -> Tensor:
        """See :class:`Adapter`."""
        count = len(self.prefix_tokens_of(block))
        with changed(self, "_queries", count):
            ((number, rows),) = self._maps(images, [block]).items()
        return checked_attention({number: rows[:, :, :count]}, count)[number]

    def with_attention(self, block: int, run: Callable[[], _T]) -> tuple[_T, Tensor]:
        """See :class:`Adapter`."""
        owner = self.blocks[self._checked_maps([block])[0]]
        points = self._attention_points(owner)
        passed: list[list[BlockInput]] = [[] for _ in points]
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._readable(owner))
            for point, found in zip(points, passed, strict=True):
                stack.enter_context(watched(point, found.append))
            returned = run()
        return returned, self._attention_map(owner, [block_input for (block_input,) in passed])

    def _maps(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        wanted = self._checked_maps(blocks)
        places = [self._attention_points(self.blocks[block]) for block in wanted]
        with contextlib.ExitStack() as stack:
            for block in wanted:
                stack.enter_context(self._readable(self.blocks[block]))
            block_inputs = iter(read(self.network, images, [point for points in places for point in points]))
        return {
            block: self._attention_map(self.blocks[block], [next(block_inputs) for _ in points])
            for block, points in zip(wanted, places, strict=True)
        }

    def run_to_block(self, images: Tensor, block: int) -> FeatureState:
        """See :class:`Adapter`."""
        return self.run_to_blocks(images, [block])[block]

    def run_to_blocks(self, images: Tensor, blocks: Sequence[int]) -> dict[int, FeatureState]:
        """See :class:`Adapter`."""
        wanted = self._checked(blocks)
        block_inputs = read(
            self.network, images, [HookPoint(self.blocks[block]) for block in wanted], copy=len(wanted) > 1
        )
        grid = self.patch_grid(_size(images))
        return {
            block: FeatureState(block, block_input, grid, images)
            for block, block_input in zip(wanted, block_inputs, strict=True)
        }

    def drop(self, state: FeatureState, keep: Tensor) -> FeatureState:
        """See :class:`Adapter`."""
        batch = state.block_input.args[self.token_argument].shape[0]
        args = self._masked(state.block_input.args, checked_mask(keep, batch, state.grid))
        return dataclasses.replace(state, block_input=BlockInput(args, state.block_input.kwargs))

    def run_from_block(self, state: FeatureState, block: int | None = None) -> Tensor:
        """See :class:`Adapter`."""
        check_block(state, block)
        with self.resumed(state) as images:
            return self.answer_in(self.network(images))

    @contextlib.contextmanager
    def resumed(self, state: FeatureState) -> Iterator[Tensor]:
        """See :class:`Adapter`."""
        with (
            self._without(state.block),
            replaced(HookPoint(self.blocks[state.block]), lambda _: copied(state.block_input)),
        ):
            yield state.images

    def token_removal(self, images: Tensor, keep: Tensor) -> Tensor:
        """See :class:`Adapter`."""
        with self.removed(images, keep):
            return self.answer_in(self.network(images))

    @contextlib.contextmanager
    def removed(self, images: Tensor, keep: Tensor) -> Iterator[None]:
        """See :class:`Adapter`."""
        if "token_removal" not in self.capabilities:
            raise self._cannot("token_removal")
        kept = checked_mask(keep, images.shape[0], self.patch_grid(_size(images)))
        index = kept.nonzero()[:, 1].reshape(images.shape[0], counted_patches(kept))  # a GPU is waited for
        with self._left_with(index.to(images.device, non_blocking=True)):
            yield

    def logits_by_token(self, images: Tensor) -> dict[str, Tensor]:
        """See :class:`Adapter`."""
        if "token_heads" not in self.capabilities:
            raise self._cannot("token_heads")
        heads = {name: self._heads[name] for name in ("class", "distillation")}
        block_inputs = read(self.network, images, [HookPoint(head, "output") for head in heads.values()])
        of_class, of_distillation = (block_input.args[0] for block_input in block_inputs)
        return {
            "class": of_class,
            self.distillation_token: of_distillation,
            "mean": (of_class + of_distillation) / 2,
        }

    def classify(self, vector: Tensor, kind: str = "class") -> Tensor:
        """See :class:`Adapter`."""
        name = "distillation" if kind in DISTILLATION_NAMES else kind
        if name not in self._heads:
            raise InputError(
                f"no head of {type(self.network).__name__} reads the vector {kind!r}; "
                f"there are heads for {', '.join(self._heads)}"
            )
        return self._heads[name](vector)

    # What a family may have to say for itself.

    def _outputs(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return what leaves the blocks, ``(B, T, D)`` each."""
        block_inputs = read(self.network, images, [HookPoint(self.blocks[block], "output") for block in blocks])
        return [
            output[0] if isinstance(output := block_input.args[0], tuple) else output for block_input in block_inputs
        ]

    def _pooled(self, tokens: Tensor, norm: bool) -> Tensor:
        """Return what the network's pooling makes of ``(B, T, D)`` tokens that did not go through ``final_norm``."""
        return self.final_norm(tokens[:, 0]) if norm else tokens[:, 0]

    def _attention_points(self, block: Any) -> list[HookPoint]:
        """Return where to read so that :meth:`_attention_map` can tell the map."""
        raise NotImplementedError

    def _attention_map(self, block: Any, block_inputs: list[BlockInput]) -> Tensor:
        raise NotImplementedError

    @contextlib.contextmanager
    def _readable(self, block: Any) -> Iterator[None]:
        """Make a block compute its attention map where it otherwise would not."""
        yield

    @contextlib.contextmanager
    def _without(self, block: int) -> Iterator[None]:
        """Leave out the blocks before this one."""
        with skipped(self.blocks[:block]):
            yield

    @contextlib.contextmanager
    def _left_with(self, index: Tensor) -> Iterator[None]:
        """Let only some patches enter the first block, ``(B, kept)``, and what knows of places know of these only."""
        with replaced(
            HookPoint(self.blocks[0]),
            lambda block_input: BlockInput(self._gathered(block_input.args, index), block_input.kwargs),
        ):
            yield

    def _masked(self, args: tuple[Any, ...], keep: Tensor) -> tuple[Any, ...]:
        tokens = args[self.token_argument]
        extra = tokens.shape[1] - keep.shape[1]
        if extra not in (0, len(self._prefix)):  # prefix tokens may join later
            raise InputError(f"{tokens.shape[1]} tokens enter a block, for {keep.shape[1]} patches")
        spared = keep.new_ones(keep.shape[0], extra)
        kept = torch.cat([spared, keep], dim=1).to(tokens.device).unsqueeze(-1)
        return self._with_tokens(args, tokens.where(kept, tokens.new_zeros(())))

    def _gathered(self, args: tuple[Any, ...], index: Tensor) -> tuple[Any, ...]:
        tokens = args[self.token_argument]
        count = len(self.prefix_tokens_of(0))
        at = index.to(tokens.device).unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        return self._with_tokens(args, torch.cat([tokens[:, :count], tokens[:, count:].gather(1, at)], dim=1))

    def _with_tokens(self, args: tuple[Any, ...], tokens: Tensor) -> tuple[Any, ...]:
        place = self.token_argument
        return (*args[:place], tokens, *args[place + 1 :])

    def _split(self, output: Tensor, images: Tensor, norm: bool) -> BlockTokens:
        tokens = self.final_norm(output) if norm else output
        count = len(self._prefix)
        return BlockTokens(
            prefix_tokens={name: tokens[:, place] for place, name in enumerate(self.prefix_tokens)},
            patches=tokens[:, count:],
            grid=self.patch_grid(_size(images)),
            pooled=self._pooled(output, norm),
        )


def softmax_map(queries: Tensor, keys: Tensor, heads: int, scale: float) -> Tensor:
    """Return ``softmax(q k^T scale)``, ``(B, heads, T, T)``, for queries and keys ``(B, T, D)``."""
    split = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (queries, keys)]
    return ((split[0] * scale) @ split[1].transpose(-2, -1)).softmax(dim=-1)


def patches_stay_apart(embedding: nn.Module) -> bool:
    """Say whether a patch embedding sees each patch by itself: one convolution whose windows do not overlap."""
    convolutions = [module for module in embedding.modules() if isinstance(module, nn.Conv2d)]
    return len(convolutions) == 1 and convolutions[0].kernel_size == convolutions[0].stride


def counted_patches(kept: Tensor) -> int:
    """Return how many patches every image keeps, of a mask ``(B, patches)``; raise where they are not as many."""
    counts = kept.sum(dim=1)
    if (counts != counts[0]).any() or counts[0] == 0:
        raise InputError(
            f"every image must keep the same number of patches, at least one; got {counts.min()} to {counts.max()}"
        )
    return int(counts[0])


def check_block(state: FeatureState, block: int | None) -> None:
    """Raise :class:`InputError` when a state is resumed at another block than its own."""
    if block is not None and block != state.block:
        raise InputError(f"the state was taken before block {state.block}; it cannot be resumed at block {block}")


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
