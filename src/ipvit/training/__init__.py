"""Making models: recipes, the training loop and its objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvit.lazy import lazy_names

if TYPE_CHECKING:
    from ipvit.training.recipe import load_recipe
    from ipvit.training.start import train

__all__ = ["load_recipe", "train"]

__getattr__, __dir__ = lazy_names(__name__, {"load_recipe": "ipvit.training.recipe", "train": "ipvit.training.start"})
