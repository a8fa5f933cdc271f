"""Data sets: pictures with ids and labels, decoded once, in worker processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvit.lazy import lazy_names

if TYPE_CHECKING:
    from ipvit.data.dataset import BaseDataset, Dataset, MemoryDataset, UnreadableImageError
    from ipvit.data.loading import load_dataset

__all__ = ["BaseDataset", "Dataset", "MemoryDataset", "UnreadableImageError", "load_dataset"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BaseDataset": "ipvit.data.dataset",
        "Dataset": "ipvit.data.dataset",
        "MemoryDataset": "ipvit.data.dataset",
        "UnreadableImageError": "ipvit.data.dataset",
        "load_dataset": "ipvit.data.loading",
    },
)
