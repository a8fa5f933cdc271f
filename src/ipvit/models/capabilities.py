"""What can be asked of a network, and what its tokens are called."""

from __future__ import annotations

CAPABILITIES = frozenset({"logits", "gradients", "tokens", "attention", "feature_drop", "token_removal", "token_heads"})
"""Everything an adapter may be able to do."""

DISTILLATION_NAMES = ("distillation", "shape")
"""The second token of a distilled network goes by either name: what it was taught depends on the training."""
