"""What can be asked of a network, and what its tokens are called."""

from __future__ import annotations

CAPABILITIES = frozenset({"logits", "gradients", "tokens", "attention", "feature_drop", "token_removal", "token_heads"})
"""Everything an adapter may be able to do."""

OFFERED_BY = {
    "attention": "vision transformers whose patches all attend to each other, such as deit_small_patch16_224",
    "tokens": "networks of a known family, see `ipvit models`, or one with an adapter of yours",
    "feature_drop": "networks of a known family, see `ipvit models`, or one with an adapter of yours",
    "token_removal": "vision transformers without windows, such as deit_small_patch16_224",
    "token_heads": "distilled transformers, such as deit_small_distilled_patch16_224",
    "gradients": "networks that PyTorch itself computes, without --backend",
}
"""Which networks are able to do what others are not, for messages."""

DISTILLATION_NAMES = ("distillation", "shape")
"""The second token of a distilled network goes by either name: what it was taught depends on the training."""
