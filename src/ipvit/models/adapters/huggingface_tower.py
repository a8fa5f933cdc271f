"""The image towers of CLIP and SigLIP in Hugging Face transformers, as parts of a zero-shot model."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ipvit.models.adapters.huggingface import HuggingFaceTransformer
from ipvit.models.adapters.transformer import TransformerAdapter, patches_stay_apart


class HuggingFaceTower(HuggingFaceTransformer):
    """CLIP's tower, which reads its class token, and SigLIP's, whose pooling attends to all patches."""

    handles = ("ipvit.models.sources.huggingface_zero_shot.Tower",)

    def __init__(self, network: Any) -> None:
        body = self.body = network.body
        self._owner, self._list_name = body.encoder, "layers"
        has_class = hasattr(body.embeddings, "class_embedding")
        own = nn.Identity()  # what the tower returns is its pooled vector; the projection is the zero-shot model's
        TransformerAdapter.__init__(
            self,
            network,
            blocks=list(body.encoder.layers),
            prefix_tokens=("class",) if has_class else (),
            final_norm=body.post_layernorm,
            heads={"class": own, "pooled": own} if has_class else {"pooled": own},
            can=("attention", "token_removal") if patches_stay_apart(body.embeddings) else ("attention",),
        )

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        side = self.body.embeddings.patch_size
        return image_size[0] // side, image_size[1] // side

    def _pooled(self, tokens: Tensor, norm: bool) -> Tensor:
        if "class" in self._prefix:
            return self.final_norm(tokens[:, 0]) if norm else tokens[:, 0]
        return self.body.head(self.final_norm(tokens) if norm else tokens)
