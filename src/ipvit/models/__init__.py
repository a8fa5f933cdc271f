"""Networks: loading, preprocessing, weights, and what each can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvit.lazy import lazy_names

if TYPE_CHECKING:
    from ipvit.models.loading import load_checkpoint, load_model
    from ipvit.models.model import Model, wrap

__all__ = ["Model", "load_checkpoint", "load_model", "wrap"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Model": "ipvit.models.model",
        "wrap": "ipvit.models.model",
        "load_checkpoint": "ipvit.models.loading",
        "load_model": "ipvit.models.loading",
    },
)
