"""Hugging Face transformers: ViT, DeiT, DINOv2."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ipvit.models.adapters.hooks import BlockInput, HookPoint
from ipvit.models.adapters.transformer import TransformerAdapter, softmax_map

_MODULES = "transformers.models"


class HuggingFaceTransformer(TransformerAdapter):
    """The image classifiers of the families above.

    Attention is the softmax of the queries and keys that the block computes, so any attention implementation
    (``sdpa``, ``eager``, ...) may be in use.
    """

    handles = (
        f"{_MODULES}.vit.modeling_vit.ViTForImageClassification",
        f"{_MODULES}.deit.modeling_deit.DeiTForImageClassification",
        f"{_MODULES}.deit.modeling_deit.DeiTForImageClassificationWithTeacher",
        f"{_MODULES}.dinov2.modeling_dinov2.Dinov2ForImageClassification",
        f"{_MODULES}.dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersForImageClassification",
    )

    def __init__(self, network: Any) -> None:
        body = network.base_model
        embeddings = body.embeddings
        prefix_tokens = ["class"]
        if hasattr(embeddings, "distillation_token"):
            prefix_tokens.append("distillation")
        registers = getattr(embeddings, "register_tokens", None)
        prefix_tokens += [f"register{place}" for place in range(0 if registers is None else registers.shape[1])]
        self._reads_patches = "dinov2" in type(network).__module__
        if hasattr(network, "distillation_classifier"):
            heads = {"class": network.cls_classifier, "distillation": network.distillation_classifier}
        elif self._reads_patches:
            heads = {"pooled": network.classifier}
        else:
            heads = {"class": network.classifier, "pooled": network.classifier}
        # Older releases keep the blocks in an encoder.
        self._owner = getattr(body, "encoder", body)
        self._list_name = "layer" if hasattr(self._owner, "layer") else "layers"
        super().__init__(
            network,
            blocks=list(getattr(self._owner, self._list_name)),
            prefix_tokens=prefix_tokens,
            final_norm=body.layernorm,
            heads=heads,
            can=("attention", "token_removal"),
        )

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        kernel = self.network.base_model.embeddings.patch_embeddings.projection.kernel_size
        return image_size[0] // kernel[0], image_size[1] // kernel[1]

    def _pooled(self, tokens: Tensor, norm: bool) -> Tensor:
        tokens = self.final_norm(tokens) if norm else tokens
        if self._reads_patches:
            return torch.cat([tokens[:, 0], tokens[:, len(self._prefix) :].mean(dim=1)], dim=1)
        return tokens[:, :2].mean(dim=1) if "distillation" in self._heads else tokens[:, 0]

    def _attention_points(self, block: Any) -> list[HookPoint]:
        queries, keys = _projection(block, ("q_proj", "query")), _projection(block, ("k_proj", "key"))
        return [HookPoint(queries, "output"), HookPoint(keys, "output")]

    def _attention_map(self, block: Any, block_inputs: list[BlockInput]) -> Tensor:
        queries, keys = block_inputs[0].args[0][:, : self._queries], block_inputs[1].args[0]
        heads = self.network.config.num_attention_heads
        return softmax_map(queries, keys, heads, (queries.shape[-1] // heads) ** -0.5)

    def n_heads(self, block: int) -> int | None:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        return self.network.config.num_attention_heads

    @contextlib.contextmanager
    def _without(self, block: int) -> Iterator[None]:
        # What a block returns differs between releases, so the earlier ones are left out of the list altogether.
        whole = getattr(self._owner, self._list_name)
        setattr(self._owner, self._list_name, nn.ModuleList(whole[block:]))
        try:
            yield
        finally:
            setattr(self._owner, self._list_name, whole)


def _projection(block: nn.Module, names: tuple[str, ...]) -> nn.Module:
    return next(module for name, module in block.named_modules() if name.rpartition(".")[2] in names)
