"""Experiment trackers, TensorBoard and Weights & Biases: which packages each needs."""

from __future__ import annotations

import importlib.util

from ipvit.errors import InputError

_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}
"""Packages that will do, the one to install first."""


def check_tracker(tracker: str | None) -> None:
    """Check that a tracker's package is installed; nothing is imported.

    Args:
        tracker: ``tensorboard``, ``wandb`` or None.

    Raises:
        InputError: it is not; names the package.
    """
    if tracker and not any(importlib.util.find_spec(name) for name in _PACKAGES[tracker]):
        raise InputError(
            f"tracker: {tracker} needs a package that is not installed: pip install {_PACKAGES[tracker][0]}"
        )
