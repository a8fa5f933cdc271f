"""Making models: recipes, the training loop and its objectives."""

from ipvit.training.recipe import load_recipe
from ipvit.training.start import train

__all__ = ["load_recipe", "train"]
