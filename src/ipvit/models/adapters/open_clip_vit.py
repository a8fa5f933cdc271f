"""open_clip's own ``VisionTransformer``, the image tower of most CLIP models there."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ipvit.models.adapters.multihead import MultiheadAttentionAdapter


class _Projected(nn.Module):
    """What the tower makes of its pooled vector; it shares the tower's weight."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self._tower = (tower,)  # in a tuple: its weights are no parameters of this one

    def forward(self, vector: Tensor) -> Tensor:
        """Return the embedding ``(B, D)``."""
        (tower,) = self._tower
        return vector if tower.proj is None else vector @ tower.proj


class OpenClipVisionTransformer(MultiheadAttentionAdapter):
    """open_clip's ``VisionTransformer``, whose blocks attend by ``nn.MultiheadAttention``; what it returns is an
    embedding.
    """

    handles = ("open_clip.transformer.VisionTransformer",)
    attention_name = "attn"

    def __init__(self, network: Any) -> None:
        projected = _Projected(network)
        plain = all(isinstance(block.attn, nn.MultiheadAttention) for block in network.transformer.resblocks)
        by_class = network.attn_pool is None and network.pool_type == "tok" and not network.final_ln_after_pool
        super().__init__(
            network,
            blocks=list(network.transformer.resblocks),
            prefix_tokens=("class",),
            # a tower that normalises what it has pooled has nothing for single tokens
            final_norm=nn.Identity() if network.final_ln_after_pool or network.attn_pool else network.ln_post,
            heads={"class": projected, "pooled": projected} if by_class else {"pooled": projected},
            can=("attention", "token_removal") if plain else ("token_removal",),
        )

    @classmethod
    def supports(cls, network: Any) -> bool:
        """See :class:`~ipvit.models.adapters.base.Adapter`; blocks that want their batch second are left alone."""
        return network.transformer.batch_first

    def patch_grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        rows, columns = self.network.patch_size
        return image_size[0] // rows, image_size[1] // columns

    def _pooled(self, tokens: Tensor, norm: bool) -> Tensor:
        if norm:
            return self.network._pool(tokens)[0]  # noqa: SLF001 - the tower's own pooling
        return tokens[:, 1:].mean(dim=1) if self.network.pool_type == "avg" else tokens[:, 0]
