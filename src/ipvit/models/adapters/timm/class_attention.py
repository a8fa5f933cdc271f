"""timm's CaiT and XCiT: the class token joins the patches in the last blocks only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ipvit.models.adapters.base import BlockTokens, FeatureState
from ipvit.models.adapters.hooks import BlockInput, HookPoint, changed, copied, read, replaced
from ipvit.models.adapters.transformer import TransformerAdapter, patches_stay_apart


class ClassAttention(TransformerAdapter):
    """Blocks of patches alone, then blocks in which the class token looks at the patches.

    A map of a class-attention block has the class token's attention in its first row. The patches of such a block look
    at nothing but themselves: their rows are those of the identity.

    Args:
        network: the network.
        class_blocks: its last blocks, those with the class token.
        can: further capabilities than tokens, feature drop and the attention of the class token.
    """

    def __init__(self, network: Any, class_blocks: Sequence[nn.Module], can: Sequence[str] = ()) -> None:
        heads = {"pooled": network.head}
        if network.global_pool == "token":
            heads["class"] = network.head
        super().__init__(
            network,
            blocks=[*network.blocks, *class_blocks],
            prefix_tokens=("class",),
            final_norm=network.norm,
            heads=heads,
            can=("attention", *can),
        )
        self.joins_at = len(network.blocks)
        self.block_names = (
            *self.block_names[: self.joins_at],
            *(f"class block {number + 1}" for number in range(len(class_blocks))),
        )

    def prefix_tokens_of(self, block: int) -> tuple[str, ...]:
        """See :class:`~ipvit.models.adapters.base.Adapter`: the class token joins late."""
        return self.prefix_tokens if block >= self.joins_at else ()

    @property
    def attention_blocks(self) -> tuple[int, ...]:
        """See :class:`~ipvit.models.adapters.base.Adapter`: those in which the class token looks at the patches."""
        return tuple(range(self.joins_at, self.n_blocks))

    def n_heads(self, block: int) -> int | None:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        owner: Any = self.blocks[block]
        return owner.attn.num_heads

    def tokens(self, images: Tensor, blocks: Sequence[int], norm: bool) -> dict[int, BlockTokens]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        wanted = self._checked(blocks)
        grid = self.patch_grid((images.shape[-2], images.shape[-1]))
        found = {}
        for block, output in zip(wanted, self._outputs(images, wanted), strict=True):
            tokens = self.final_norm(output) if norm else output
            names = self.prefix_tokens_of(block)
            patches = tokens[:, len(names) :]
            reads_class = bool(names) and self.network.global_pool == "token"
            found[block] = BlockTokens(
                prefix_tokens={name: tokens[:, place] for place, name in enumerate(names)},
                patches=patches,
                grid=grid,
                pooled=tokens[:, 0] if reads_class else patches.mean(dim=1),
            )
        return found

    def _attention_points(self, block: Any) -> list[HookPoint]:
        return [HookPoint(block.attn.attn_drop)]

    def _attention_map(self, block: Any, block_inputs: list[BlockInput]) -> Tensor:
        of_class = block_inputs[0].args[0]
        if self._queries is not None:
            return of_class
        batch, heads, _, count = of_class.shape
        of_patches = torch.eye(count, dtype=of_class.dtype, device=of_class.device)[1:]
        return torch.cat([of_class, of_patches.expand(batch, heads, -1, -1)], dim=2)

    @contextlib.contextmanager
    def _readable(self, block: Any) -> Iterator[None]:
        with changed(block.attn, "fused_attn", False):
            yield

    @contextlib.contextmanager
    def _without(self, block: int) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for earlier in self.blocks[:block]:
                stack.enter_context(changed(earlier, "forward", self._passed_on))
            yield

    @staticmethod
    def _passed_on(tokens: Tensor, *_: Any) -> Tensor:
        """Return what a block that is left out returns."""
        return tokens


class TimmCaiT(ClassAttention):
    """timm's ``Cait``: the patches stay what they are once the class token is there.

    The other blocks' heads are mixed with each other after their softmax, so they have no maps.
    """

    handles = ("timm.models.cait.Cait",)

    def __init__(self, network: Any) -> None:
        apart = patches_stay_apart(network.patch_embed)
        super().__init__(network, list(network.blocks_token_only), can=("token_removal",) if apart else ())

    @classmethod
    def supports(cls, network: Any) -> bool:
        """See :class:`~ipvit.models.adapters.base.Adapter`; a pruned network has no class token."""
        return getattr(network, "blocks_token_only", None) is not None

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        rows, columns = self.network.patch_embed.dynamic_feat_size(image_size)
        return int(rows), int(columns)

    def without_map(self, block: int) -> str:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        return "whose heads are mixed with each other after the softmax"

    def _outputs(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        points = []
        for block in blocks:
            points.append(HookPoint(self.blocks[block], "output"))
            if block >= self.joins_at:
                points.append(HookPoint(self.blocks[block]))
        found = iter(read(self.network, images, points))
        outputs = []
        for block in blocks:
            output = next(found).args[0]
            if block >= self.joins_at:
                output = torch.cat([output, next(found).args[0]], dim=1)
            outputs.append(output)
        return outputs

    @contextlib.contextmanager
    def resumed(self, state: FeatureState) -> Iterator[Tensor]:
        """See :class:`~ipvit.models.adapters.base.Adapter`: all class blocks see the same patches."""
        if state.block < self.joins_at:
            with super().resumed(state) as images:
                yield images
            return
        patches, of_class = state.block_input.args
        with contextlib.ExitStack() as stack:
            for earlier in self.blocks[: self.joins_at]:
                stack.enter_context(changed(earlier, "forward", self._passed_on))
            for earlier in self.blocks[self.joins_at : state.block]:
                stack.enter_context(changed(earlier, "forward", lambda _, class_token: class_token))
            first = HookPoint(self.blocks[state.block])
            stack.enter_context(replaced(first, lambda _: copied(BlockInput((patches, of_class)))))
            for later in self.blocks[state.block + 1 :]:
                stack.enter_context(
                    replaced(HookPoint(later), lambda block_input: BlockInput((patches, block_input.args[1])))
                )
            stack.enter_context(
                replaced(
                    HookPoint(self.network.norm),
                    lambda block_input: BlockInput((torch.cat([block_input.args[0][:, :1], patches], dim=1),)),
                )
            )
            yield state.images


class TimmXCiT(ClassAttention):
    """timm's ``Xcit``: attention of the other blocks is between channels, not between patches."""

    handles = ("timm.models.xcit.Xcit",)

    def __init__(self, network: Any) -> None:
        super().__init__(network, list(network.cls_attn_blocks))

    @classmethod
    def supports(cls, network: Any) -> bool:
        """See :class:`~ipvit.models.adapters.base.Adapter`; a pruned network has no class token."""
        return getattr(network, "cls_attn_blocks", None) is not None

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        side = self.network.patch_embed.patch_size
        return image_size[0] // side, image_size[1] // side

    def without_map(self, block: int) -> str:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        return "whose attention is between channels"
