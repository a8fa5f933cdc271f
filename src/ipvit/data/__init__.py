"""Data sets: pictures with ids and labels, decoded once, in worker processes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from ipvit.data.dataset import Dataset, MemoryDataset, UnreadableImage
from ipvit.data.decode import Decoder
from ipvit.errors import InputError, did_you_mean

__all__ = ["Dataset", "MemoryDataset", "UnreadableImage", "load_dataset"]

DEMO = "demo:"


def load_dataset(
    name: str | Path, *, root: str | Path | None = None, split: str = "validation", decoder: Decoder = "fast"
) -> Dataset:
    """Open a data set by name.

    Args:
        name: a folder of class folders, a tar file of class folders, ``demo:trifeature`` (the procedural set, see
            :mod:`ipvit.data.trifeature`), or anything ``timm.data.create_dataset`` takes (``torch/cifar10``,
            ``hfds/owner/name``).
        root: where timm's data sets lie on disk.
        split: for timm's data sets.
        decoder: ``fast`` (torchvision) or ``pil`` (Pillow, as timm reads), for class folders.

    Raises:
        InputError: there is no such data, or it cannot be used.
    """
    if decoder not in get_args(Decoder):
        raise InputError(f"unknown decoder {decoder!r}; known: {', '.join(get_args(Decoder))}")
    text = str(name)
    if text.startswith(DEMO):
        from ipvit.data import trifeature

        return trifeature.parse(text)
    from ipvit.data.folder import FolderDataset, TarDataset
    from ipvit.data.timm_source import SCHEMES, TimmDataset

    path = Path(text).expanduser()
    if path.is_dir():
        return FolderDataset(text, decoder)
    if path.is_file() and path.suffix == ".tar":
        return TarDataset(text, decoder)
    if text.startswith(SCHEMES):
        return TimmDataset(text, root=None if root is None else str(root), split=split)
    if path.exists():
        raise InputError(f"the data {text!r} is a file; give a folder of class folders or a .tar of them")
    raise InputError(
        f"there is no data {text!r}.{_close(path, text)} Known: a folder, a .tar, demo:trifeature, "
        f"{', '.join(scheme + '...' for scheme in SCHEMES)}"
    )


def _close(path: Path, text: str) -> str:
    parent = path.parent if path.parent.is_dir() else Path()
    siblings = [str(parent / entry.name) for entry in parent.iterdir() if entry.is_dir()]
    return did_you_mean(text, [*siblings, "demo:trifeature"])
