"""timm's transformers whose blocks are told where each patch is: EVA, EVA-02, DINOv3, BEiT, NaFlexViT.

A patch that is left out takes its place along: its rotation (rotary position embedding) or its rows and columns of the
bias between every two places.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ipvit.models.adapters.hooks import BlockInput, HookPoint, changed, replaced
from ipvit.models.adapters.timm.vit import TimmVisionTransformer


class TimmRotaryVisionTransformer(TimmVisionTransformer):
    """timm's ``Eva``: EVA, EVA-02, DINOv3, and ViTs with rotary position embeddings."""

    handles = ("timm.models.eva.Eva",)

    @contextlib.contextmanager
    def _left_with(self, index: Tensor) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(super()._left_with(index))
            for block in self.blocks:
                stack.enter_context(
                    replaced(
                        HookPoint(block),
                        lambda block_input: BlockInput(
                            block_input.args, _with(block_input.kwargs, "rope", rotations_of, index)
                        ),
                    )
                )
            yield


class TimmNaFlexVisionTransformer(TimmRotaryVisionTransformer):
    """timm's ``NaFlexVit`` on images of the model's own size, which it takes as any ViT does."""

    handles = ("timm.models.naflexvit.NaFlexVit",)

    @staticmethod
    def _embedded(network: Any) -> Any:
        return network.embeds

    @staticmethod
    def _embedding(network: Any) -> Any:
        return network.embeds

    @classmethod
    def _patches_stay_apart(cls, network: Any) -> bool:
        cut_first = isinstance(network.embeds.proj, nn.Linear)
        return cut_first or super()._patches_stay_apart(network)


class TimmBeit(TimmVisionTransformer):
    """timm's ``Beit`` and BEiT v2: each block adds a bias between every two places, or all blocks share one."""

    handles = ("timm.models.beit.Beit",)

    @contextlib.contextmanager
    def _left_with(self, index: Tensor) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(super()._left_with(index))
            for block in self.blocks:
                owner: Any = block
                if owner.attn.relative_position_bias_table is not None:
                    bias = biases_of(owner.attn._get_rel_pos_bias(), index, len(self._prefix))  # noqa: SLF001 - timm's own
                    stack.enter_context(changed(owner.attn, "_get_rel_pos_bias", lambda bias=bias: bias))
                stack.enter_context(
                    replaced(
                        HookPoint(block),
                        lambda block_input: BlockInput(
                            block_input.args,
                            _with(block_input.kwargs, "shared_rel_pos_bias", biases_of, index, len(self._prefix)),
                        ),
                    )
                )
            yield


def rotations_of(rotations: Tensor, index: Tensor) -> Tensor:
    """Return the rotations of some patches, ``(B, 1 or heads, kept, d)``.

    Args:
        rotations: of all patches, ``(patches, d)``, or ``(heads, patches, d)`` where each head has its own.
        index: which patches are kept, ``(B, kept)``.
    """
    at = index.to(rotations.device)
    return rotations[at].unsqueeze(1) if rotations.ndim == 2 else rotations[:, at].transpose(0, 1)


def biases_of(biases: Tensor, index: Tensor, prefix: int) -> Tensor:
    """Return the biases between the tokens that are left, ``(B, heads, T, T)``.

    Args:
        biases: between all tokens, ``(1, heads, tokens, tokens)`` or ``(heads, tokens, tokens)``.
        index: which patches are kept, ``(B, kept)``.
        prefix: so many tokens come before the patches; all of them are kept.
    """
    spared = torch.arange(prefix, device=biases.device).expand(len(index), -1)
    at = torch.cat([spared, index.to(biases.device) + prefix], dim=1)
    return biases.reshape(biases.shape[-3:])[:, at[:, :, None], at[:, None, :]].transpose(0, 1)


def _with(arguments: dict[str, Any], name: str, kept: Any, *more: Any) -> dict[str, Any]:
    """Return keyword arguments with one of them, where it is there, changed to what is left of it."""
    value = arguments.get(name)
    return arguments if value is None else arguments | {name: kept(value, *more)}
