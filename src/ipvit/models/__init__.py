"""Networks: loading, preprocessing, weights, and what each can do."""

from ipvit.models.loading import load_checkpoint, load_model
from ipvit.models.model import Model, wrap

__all__ = ["Model", "load_checkpoint", "load_model", "wrap"]
