"""T2T-ViT (Yuan et al., "Tokens-to-Token ViT", 2021), with the names and shapes of the published checkpoints.

Overlapping windows are unfolded three times (kernels 7, 3, 3; strides 4, 2, 2), with a small attention layer between
them, so that 224 x 224 pixels become 14 x 14 tokens. A plain transformer without biases on queries, keys and values
follows. The small layers are either performers (attention in linear time from random features) or plain transformers.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Mlp, resample_abs_pos_embed, trunc_normal_  # pyright: ignore[reportPrivateImportUsage]
from timm.models.vision_transformer import Block
from torch import Tensor, nn

TOKEN_DIM = 64
"""Width of the tokens between two unfoldings."""

STRIDE = 16
"""Pixels from one final token to the next: the product of the three strides."""

EPSILON = 1e-8
"""Added to the performer's denominator."""


def positive_random_features(x: Tensor, directions: Tensor) -> Tensor:
    """Return features whose scalar products estimate ``exp(x . y)`` (Choromanski et al., 2020).

    Args:
        x: ``(B, N, D)``.
        directions: ``(M, D)``, rows of a standard normal distribution.

    Returns:
        ``exp(w . x - |x|^2 / 2) / sqrt(M)``, ``(B, N, M)``, positive, in float32.
    """
    x = x.float()
    half_square = x.square().sum(dim=-1, keepdim=True) / 2
    return torch.exp(x @ directions.float().T - half_square) / math.sqrt(len(directions))


def performer_attention(query: Tensor, key: Tensor, value: Tensor, directions: Tensor) -> Tensor:
    """Estimate ``softmax(query key^T) value`` without ever forming the N x N attention.

    Args:
        query: ``(B, N, D)``; not divided by ``sqrt(D)``.
        key: ``(B, N, D)``.
        value: ``(B, N, D)``.
        directions: ``(M, D)`` random directions; the estimate converges as M grows.

    Returns:
        ``(B, N, D)`` in float32.
    """
    phi_query = positive_random_features(query, directions)
    phi_key = positive_random_features(key, directions)
    weighted = phi_query @ (phi_key.transpose(1, 2) @ value.float())
    total = phi_query @ phi_key.sum(dim=1).unsqueeze(-1)
    return weighted / (total + EPSILON)


class TokenPerformer(nn.Module):
    """Performer layer that also changes the width of the tokens.

    Since the width changes, the value and not the input is what the attention's result is added to.

    Args:
        dim: width of the incoming tokens.
        out_dim: width of the outgoing tokens.
    """

    def __init__(self, dim: int, out_dim: int = TOKEN_DIM) -> None:
        super().__init__()
        features = out_dim // 2
        self.kqv = nn.Linear(dim, 3 * out_dim)
        self.proj = nn.Linear(out_dim, out_dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(out_dim)
        self.drop = nn.Dropout(0.1)
        self.mlp = nn.Sequential(nn.Linear(out_dim, out_dim), nn.GELU(), nn.Linear(out_dim, out_dim), nn.Dropout(0.1))
        directions = nn.init.orthogonal_(torch.empty(features, out_dim)) * math.sqrt(features)
        self.w = nn.Parameter(directions, requires_grad=False)  # drawn once, never trained, part of the checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, N, out_dim)`` for ``(B, N, dim)``."""
        key, query, value = self.kqv(self.norm1(x)).chunk(3, dim=-1)  # in this order in the checkpoints
        attended = performer_attention(query, key, value, self.w).to(value.dtype)
        x = value + self.drop(self.proj(attended))
        return x + self.mlp(self.norm2(x))


class TokenAttention(nn.Module):
    """Softmax attention with one head that changes the width and adds its result to the value.

    Scores are divided by the square root of the *incoming* width, as in the published networks.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.qkv = nn.Linear(dim, 3 * out_dim, bias=False)
        self.proj = nn.Linear(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, N, out_dim)`` for ``(B, N, dim)``."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        return value + self.proj(F.scaled_dot_product_attention(query, key, value, scale=self.scale))


class TokenTransformer(nn.Module):
    """Transformer layer that also changes the width of the tokens.

    Args:
        dim: width of the incoming tokens.
        out_dim: width of the outgoing tokens.
    """

    def __init__(self, dim: int, out_dim: int = TOKEN_DIM) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = TokenAttention(dim, out_dim)
        self.norm2 = nn.LayerNorm(out_dim)
        self.mlp = Mlp(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, N, out_dim)`` for ``(B, N, dim)``."""
        x = self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


TOKEN_LAYERS = {"performer": TokenPerformer, "transformer": TokenTransformer}


class TokensToToken(nn.Module):
    """From an image to tokens one sixteenth of its size: unfold, attend, unfold, attend, unfold, project."""

    def __init__(self, layer: str, embed_dim: int, in_chans: int = 3) -> None:
        super().__init__()
        self.attention1 = TOKEN_LAYERS[layer](in_chans * 7 * 7)
        self.attention2 = TOKEN_LAYERS[layer](TOKEN_DIM * 3 * 3)
        self.project = nn.Linear(TOKEN_DIM * 3 * 3, embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens ``(B, H/16 * W/16, embed_dim)``, row by row, for ``(B, C, H, W)``."""
        height, width = images.shape[-2:]
        x = F.unfold(images, kernel_size=7, stride=4, padding=2).transpose(1, 2)
        x = self.attention1(x).transpose(1, 2).unflatten(2, (height // 4, width // 4))
        x = F.unfold(x, kernel_size=3, stride=2, padding=1).transpose(1, 2)
        x = self.attention2(x).transpose(1, 2).unflatten(2, (height // 8, width // 8))
        x = F.unfold(x, kernel_size=3, stride=2, padding=1).transpose(1, 2)
        return self.project(x)


def sinusoid_positions(count: int, dim: int) -> Tensor:
    """Return fixed positions ``(1, count, dim)``: sines at even channels, cosines at odd ones."""
    channel = torch.arange(dim, dtype=torch.float64)
    wavelength = 10000 ** (2 * (channel // 2) / dim)
    angle = torch.arange(count, dtype=torch.float64).unsqueeze(1) / wavelength
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float().unsqueeze(0)


class T2TViT(nn.Module):
    """Tokens-to-Token vision transformer.

    Args:
        img_size: height and width of the input in pixels, multiples of 16.
        token_layer: ``performer`` or ``transformer``: the layers between the unfoldings.
        embed_dim: width of the tokens.
        depth: number of blocks.
        num_heads: attention heads in each block.
        mlp_ratio: width of a block's hidden layer over ``embed_dim``.
        num_classes: outputs; 0 for none (the class token is returned).
    """

    num_prefix_tokens = 1

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        token_layer: str = "performer",
        embed_dim: int = 384,
        depth: int = 14,
        num_heads: int = 6,
        mlp_ratio: float = 3.0,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height % STRIDE or width % STRIDE:
            raise ValueError(f"img_size {height} x {width} is not a multiple of {STRIDE} pixels")
        self.img_size = (height, width)
        self.grid_size = (height // STRIDE, width // STRIDE)
        self.embed_dim = self.num_features = embed_dim
        self.num_classes = num_classes
        self.tokens_to_token = TokensToToken(token_layer, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        positions = sinusoid_positions(math.prod(self.grid_size) + 1, embed_dim)
        self.pos_embed = nn.Parameter(positions, requires_grad=False)
        norm: Any = functools.partial(nn.LayerNorm, eps=1e-5)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio=mlp_ratio, qkv_bias=False, norm_layer=norm) for _ in range(depth)
        )
        self.norm = norm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes else nn.Identity()
        trunc_normal_(self.cls_token, std=0.02)
        self.apply(_initialise)

    def forward_features(self, images: Tensor) -> Tensor:
        """Return all tokens after the last norm, the class token first: ``(B, 1 + N, embed_dim)``."""
        x = self.tokens_to_token(images)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)`` for normalised images ``(B, 3, H, W)``."""
        return self.head(self.forward_features(images)[:, 0])


def checkpoint_filter_fn(state: dict[str, Tensor], network: T2TViT) -> dict[str, Tensor]:
    """Resample the positions of a checkpoint to the network's grid, where its input has another size."""
    positions = state["pos_embed"]
    if positions.shape == network.pos_embed.shape:
        return state
    return state | {"pos_embed": resample_abs_pos_embed(positions, list(network.grid_size), num_prefix_tokens=1)}


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


VARIANTS: dict[str, dict[str, Any]] = {
    "t2t_vit_7": {"embed_dim": 256, "depth": 7, "num_heads": 4, "mlp_ratio": 2.0},
    "t2t_vit_14": {"embed_dim": 384, "depth": 14, "num_heads": 6, "mlp_ratio": 3.0},
    "t2t_vit_24": {"embed_dim": 512, "depth": 24, "num_heads": 8, "mlp_ratio": 3.0},
    "t2t_vit_t_14": {"embed_dim": 384, "depth": 14, "num_heads": 6, "mlp_ratio": 3.0, "token_layer": "transformer"},
    "t2t_vit_t_19": {"embed_dim": 448, "depth": 19, "num_heads": 7, "mlp_ratio": 3.0, "token_layer": "transformer"},
    "t2t_vit_t_24": {"embed_dim": 512, "depth": 24, "num_heads": 8, "mlp_ratio": 3.0, "token_layer": "transformer"},
}
"""The paper's variants: width, depth, heads, hidden width over width, kind of token layer."""
