"""Hugging Face transformers' plain vision transformers: ViT, DeiT, DINOv2, DINOv3, CLIP, SigLIP, BEiT and others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ipvit.errors import InputError
from ipvit.models.adapters.attention_calls import attention_calls, reading, received_calls
from ipvit.models.adapters.hooks import BlockInput, HookPoint, replaced
from ipvit.models.adapters.timm.placed import biases_of, rotations_of
from ipvit.models.adapters.transformer import TransformerAdapter, patches_stay_apart

_T = TypeVar("_T")

_MODULES = "transformers.models"
_NORMS = ("layernorm", "norm", "post_layernorm")


class HuggingFaceTransformer(TransformerAdapter):
    """Classifiers that read the class token, or its mean with the distillation token's answer: ViT, DeiT, ViT-MSN.

    Attention is read where PyTorch computes it, so any attention implementation that calls it (``sdpa``, ``eager``) may
    be in use.
    """

    handles = (
        f"{_MODULES}.vit.modeling_vit.ViTForImageClassification",
        f"{_MODULES}.vit_msn.modeling_vit_msn.ViTMSNForImageClassification",
        f"{_MODULES}.deit.modeling_deit.DeiTForImageClassification",
        f"{_MODULES}.deit.modeling_deit.DeiTForImageClassificationWithTeacher",
    )

    def __init__(self, network: Any) -> None:
        self.network, self.body = network, body_of(network)
        # Older releases keep the blocks in an encoder, DINOv3 in a model.
        found = _list_of_blocks(self.body)
        assert found is not None  # see `supports`
        self._owner, self._list_name = found
        prefix_tokens = _prefix_of(self.body.embeddings)
        norms = (getattr(self.body, name, None) for name in _NORMS)
        self._norm = next((norm for norm in norms if norm is not None), nn.Identity())
        super().__init__(
            network,
            blocks=list(getattr(self._owner, self._list_name)),
            prefix_tokens=prefix_tokens,
            final_norm=self._final_norm(),
            heads=self._readers(),
            can=("attention", "token_removal") if patches_stay_apart(self.body.embeddings) else ("attention",),
        )

    @classmethod
    def supports(cls, network: Any) -> bool:
        """See :class:`~ipvit.models.adapters.base.Adapter`; a release that keeps its parts elsewhere is not read."""
        body = body_of(network)
        return hasattr(body, "embeddings") and _list_of_blocks(body) is not None

    @property
    def capabilities(self) -> frozenset[str]:
        """See :class:`~ipvit.models.adapters.base.Adapter`; ``?num_labels=0`` makes a backbone without classifier."""
        headless = isinstance(getattr(self.network, "classifier", nn.Identity()), nn.Identity)
        return super().capabilities - {"logits"} if headless and not self._is_distilled else super().capabilities

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        convolution = next(module for module in self.body.embeddings.modules() if isinstance(module, nn.Conv2d))
        return image_size[0] // convolution.stride[0], image_size[1] // convolution.stride[1]

    def n_heads(self, block: int) -> int | None:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        return self.body.config.num_attention_heads

    @property
    def _is_distilled(self) -> bool:
        return hasattr(self.network, "distillation_classifier")

    def _final_norm(self) -> nn.Module:
        """Return what every token goes through at the end."""
        return self._norm

    def _readers(self) -> dict[str, nn.Module]:
        """Return, by kind of vector, the head that reads it."""
        network = self.network
        if self._is_distilled:
            return {"class": network.cls_classifier, "distillation": network.distillation_classifier}
        return {"class": network.classifier, "pooled": network.classifier}

    def _pooled(self, tokens: Tensor, norm: bool) -> Tensor:
        tokens = self.final_norm(tokens) if norm else tokens
        return tokens[:, :2].mean(dim=1) if "distillation" in self._heads else tokens[:, 0]

    def _maps(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        return attention_calls(self.network, images, self.blocks, self._checked_maps(blocks), self._queries)

    def attention_received(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        return received_calls(self.network, images, self.blocks, self._checked_maps(blocks))

    def with_attention(self, block: int, run: Callable[[], _T]) -> tuple[_T, Tensor]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        (number,) = self._checked_maps([block])
        with reading(self.network, self.blocks, [number]) as maps:
            returned = run()
        return returned, maps[number]

    @contextlib.contextmanager
    def _without(self, block: int) -> Iterator[None]:
        # What a block returns differs between releases, so the earlier ones are left out of the list altogether.
        whole = getattr(self._owner, self._list_name)
        setattr(self._owner, self._list_name, nn.ModuleList(whole[block:]))
        try:
            yield
        finally:
            setattr(self._owner, self._list_name, whole)


class HuggingFacePatchReader(HuggingFaceTransformer):
    """Classifiers that read the mean of the patches: CLIP, SigLIP, I-JEPA.

    CLIP's classifier reads patches that are not normalised.
    """

    handles = (
        f"{_MODULES}.clip.modeling_clip.CLIPForImageClassification",
        f"{_MODULES}.metaclip_2.modeling_metaclip_2.MetaClip2ForImageClassification",
        f"{_MODULES}.siglip.modeling_siglip.SiglipForImageClassification",
        f"{_MODULES}.ijepa.modeling_ijepa.IJepaForImageClassification",
    )

    def _final_norm(self) -> nn.Module:
        return nn.Identity() if "clip" in type(self.network).__module__ else self._norm

    def _readers(self) -> dict[str, nn.Module]:
        return {"pooled": self.network.classifier}

    def _pooled(self, tokens: Tensor, norm: bool) -> Tensor:
        patches = tokens[:, len(self._prefix) :]
        return (self.final_norm(patches) if norm else patches).mean(dim=1)


class HuggingFaceDinov2(HuggingFaceTransformer):
    """DINOv2 with and without registers, whose classifier reads the class token beside the mean of the patches."""

    handles = (
        f"{_MODULES}.dinov2.modeling_dinov2.Dinov2ForImageClassification",
        f"{_MODULES}.dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersForImageClassification",
    )

    def _readers(self) -> dict[str, nn.Module]:
        return {"pooled": self.network.classifier}

    def _pooled(self, tokens: Tensor, norm: bool) -> Tensor:
        tokens = self.final_norm(tokens) if norm else tokens
        return torch.cat([tokens[:, 0], tokens[:, len(self._prefix) :].mean(dim=1)], dim=1)


class HuggingFaceBeit(HuggingFaceTransformer):
    """BEiT and data2vec: a bias between every two places; the class token or the mean of the patches is read."""

    handles = (
        f"{_MODULES}.beit.modeling_beit.BeitForImageClassification",
        f"{_MODULES}.data2vec.modeling_data2vec_vision.Data2VecVisionForImageClassification",
    )

    def _final_norm(self) -> nn.Module:
        return self.body.pooler.layernorm if self._reads_patches else self._norm

    def _readers(self) -> dict[str, nn.Module]:
        kinds = ("pooled",) if self._reads_patches else ("class", "pooled")
        return dict.fromkeys(kinds, self.network.classifier)

    @property
    def _reads_patches(self) -> bool:
        return self.body.pooler.layernorm is not None

    def _pooled(self, tokens: Tensor, norm: bool) -> Tensor:
        vector = tokens[:, len(self._prefix) :].mean(dim=1) if self._reads_patches else tokens[:, 0]
        return self.final_norm(vector) if norm else vector

    @contextlib.contextmanager
    def _left_with(self, index: Tensor) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(super()._left_with(index))
            for module in self.body.modules():
                if type(module).__name__.endswith("RelativePositionBias"):
                    stack.enter_context(
                        replaced(
                            HookPoint(module, "output"),
                            lambda block_input: BlockInput((biases_of(block_input.args[0], index, len(self._prefix)),)),
                        )
                    )
            yield


class HuggingFaceDinov3(HuggingFaceTransformer):
    """DINOv3, which has no classifier; each block is told the rotation of every patch."""

    handles = (f"{_MODULES}.dinov3_vit.modeling_dinov3_vit.DINOv3ViTModel",)

    def answer_in(self, output: Any) -> Tensor:
        """See :class:`~ipvit.models.adapters.base.Adapter`: the normalised class token."""
        return output.pooler_output

    def _readers(self) -> dict[str, nn.Module]:
        return {}

    @contextlib.contextmanager
    def _left_with(self, index: Tensor) -> Iterator[None]:
        def rotated(block_input: BlockInput) -> BlockInput:
            told = block_input.kwargs.get("position_embeddings")
            if told is None:
                raise InputError("this release of transformers tells DINOv3's blocks their rotations in another way")
            kept = tuple(rotations_of(part, index) for part in told)
            return BlockInput(block_input.args, block_input.kwargs | {"position_embeddings": kept})

        with contextlib.ExitStack() as stack:
            stack.enter_context(super()._left_with(index))
            for block in self.blocks:
                stack.enter_context(replaced(HookPoint(block), rotated))
            yield


def body_of(network: Any) -> Any:
    """Return the part of a network of transformers that has embeddings and blocks."""
    parts = (getattr(network, name, None) for name in ("body", "vision_model", "base_model"))
    for owner in (network, *parts):
        if hasattr(owner, "embeddings"):
            return owner
    return network


def _list_of_blocks(body: Any) -> tuple[Any, str] | None:
    for owner in (body, getattr(body, "encoder", None), getattr(body, "model", None)):
        for name in ("layers", "layer"):
            if isinstance(getattr(owner, name, None), nn.ModuleList):
                return owner, name
    return None


def _prefix_of(embeddings: Any) -> list[str]:
    names = ["class"] if hasattr(embeddings, "cls_token") or hasattr(embeddings, "class_embedding") else []
    if hasattr(embeddings, "distillation_token"):
        names.append("distillation")
    registers = getattr(embeddings, "register_tokens", None)
    return names + [f"register{place}" for place in range(0 if registers is None else registers.shape[1])]
