"""timm's plain transformers: ViT and DeiT, distilled, with registers, without class token.

DINO, DINOv2, DeiT III and CLIP's towers are ``VisionTransformer`` there. EVA, DINOv3, BEiT and NaFlexViT are in
``placed``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ipvit.models.adapters.attention_calls import received_calls
from ipvit.models.adapters.hooks import BlockInput, HookPoint, changed, replaced, skipped
from ipvit.models.adapters.transformer import TransformerAdapter, patches_stay_apart


class TimmVisionTransformer(TransformerAdapter):
    """timm's ``VisionTransformer``, also distilled.

    Tokens come from timm's own ``forward_intermediates``. The last normalisation is ``norm``, or ``fc_norm`` in
    networks that normalise after pooling.
    """

    handles = ("timm.models.vision_transformer.VisionTransformer",)

    def __init__(self, network: Any) -> None:
        prefix_tokens = prefix_of(self._embedded(network))
        normalises_later = isinstance(network.norm, nn.Identity)
        heads = {"pooled": network.head}
        if getattr(network, "global_pool", "") == "token" and "class" in prefix_tokens:
            heads["class"] = network.head
        if "distillation" in prefix_tokens:
            heads = {"class": network.head, "distillation": network.head_dist}
        can = []
        if all(_applies_softmax(getattr(block, "attn", None)) for block in network.blocks):
            can.append("attention")
        if self._patches_stay_apart(network):
            can.append("token_removal")
        super().__init__(
            network,
            blocks=list(network.blocks),
            prefix_tokens=prefix_tokens,
            final_norm=getattr(network, "fc_norm", network.norm) if normalises_later else network.norm,
            heads=heads,
            can=can,
        )

    @classmethod
    def supports(cls, network: Any) -> bool:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        prefix_tokens = prefix_of(cls._embedded(network))
        return hasattr(network, "forward_intermediates") and len(prefix_tokens) == network.num_prefix_tokens

    @staticmethod
    def _embedded(network: Any) -> Any:
        """Return what owns the prefix tokens."""
        return network

    @staticmethod
    def _embedding(network: Any) -> Any:
        """Return what makes patches of an image."""
        return network.patch_embed

    @classmethod
    def _patches_stay_apart(cls, network: Any) -> bool:
        return patches_stay_apart(cls._embedding(network))

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        rows, columns = self._embedding(self.network).dynamic_feat_size(image_size)
        return int(rows), int(columns)

    def _outputs(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        return intermediate_tokens(self.network, images, blocks)

    def _pooled(self, tokens: Tensor, norm: bool) -> Tensor:
        if norm:
            return self.network.forward_head(self.network.norm(tokens), pre_logits=True)
        with skipped([self.network.fc_norm]):
            return self.network.forward_head(tokens, pre_logits=True)

    def attention_received(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """See :class:`~ipvit.models.adapters.base.Adapter`; attention that is not one call keeps its maps itself."""
        wanted = self._checked_maps(blocks)
        owners: list[Any] = [self.blocks[block] for block in wanted]
        if all(getattr(owner.attn, "fused_attn", False) for owner in owners):
            return received_calls(self.network, images, self.blocks, wanted)
        return super().attention_received(images, blocks)

    def _attention_points(self, block: Any) -> list[HookPoint]:
        return [HookPoint(block.attn.attn_drop)]

    def _attention_map(self, block: Any, block_inputs: list[BlockInput]) -> Tensor:
        return block_inputs[0].args[0]

    @contextlib.contextmanager
    def _readable(self, block: Any) -> Iterator[None]:
        queries = self._queries
        with contextlib.ExitStack() as stack:
            stack.enter_context(changed(block.attn, "fused_attn", False))
            # other kinds of attention add something to every pair of query and key
            if queries is not None and type(block.attn).__name__ == "Attention" and hasattr(block.attn, "q_norm"):
                place = HookPoint(block.attn.q_norm, "output")
                stack.enter_context(
                    replaced(place, lambda block_input: BlockInput((block_input.args[0][:, :, :queries],)))
                )
            yield

    def n_heads(self, block: int) -> int | None:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        owner: Any = self.blocks[block]
        return getattr(owner.attn, "num_heads", None)


def _applies_softmax(attention: Any) -> bool:
    """Tell whether what passes ``attn_drop`` is what the values are weighted by.

    Differential attention takes the difference of two softmaxes behind it, whose weights may be negative.
    """
    return hasattr(attention, "attn_drop") and type(attention).__name__ != "DiffAttention"


def intermediate_tokens(network: Any, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
    """Return ``(B, T, D)`` tokens after some blocks through timm's own ``forward_intermediates``."""
    found = network.forward_intermediates(
        images,
        indices=list(blocks),
        return_prefix_tokens=True,
        stop_early=True,
        output_fmt="NLC",
        intermediates_only=True,
    )
    return [_joined(part) for part in found]


def _joined(part: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    if isinstance(part, Tensor):
        return part
    patches, prefix_tokens = part
    return torch.cat([prefix_tokens, patches], dim=1)


def prefix_of(network: Any) -> tuple[str, ...]:
    """Return the names of the prefix tokens that a module owns, as timm orders them."""
    names = []
    if getattr(network, "cls_token", None) is not None:
        names.append("class")
    if getattr(network, "dist_token", None) is not None:
        names.append("distillation")
    if (registers := getattr(network, "reg_token", None)) is not None:
        names += [f"register{place}" for place in range(registers.shape[1])]
    return tuple(names)
