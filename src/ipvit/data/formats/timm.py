"""Whatever ``timm.data.create_dataset`` takes by name: ``torch/...``, ``hfds/...``, ``tfds/...``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ipvit.core.files import user_path
from ipvit.data.dataset import BaseDataset, Dataset, UnreadableImageError, fingerprint
from ipvit.data.formats.stream import StreamDataset
from ipvit.errors import FOREIGN_ERRORS, InputError, error_line

SCHEMES = ("hfds/", "hfids/", "tfds/", "torch/", "wds/")


def open_timm(name: str, root: str | None, split: str, classes: str | None) -> Dataset:
    """Open a data set of timm's by name.

    Args:
        name: ``hfds/owner/name``, ``torch/cifar10``, ``wds/...``.
        root: the folder with the data.
        split: for example ``train`` or ``validation``; for ``wds/`` also ``SHARDS|NUMBER``.
        classes: what the integer labels are, where the data does not say: a label space that timm knows
            (``imagenet-1k``) or a file with one class name per line.

    Raises:
        InputError: timm cannot open it, or its labels cannot be listed.
    """
    from timm.data.dataset_factory import create_dataset

    names = _class_names(classes) if classes else None
    try:
        source: Any = create_dataset(name, root=root, split=split, download=False)
    except (ImportError, OSError, *FOREIGN_ERRORS) as error:
        raise InputError(
            f"timm cannot open the data set {name!r} (split {split!r}): {error_line(error, 300)}"
        ) from None
    source.transform = None
    if hasattr(source, "__iter__"):
        return StreamDataset(name, source, f"{Path(root or '').resolve()} {split}", names)
    return TimmDataset(name, source, f"{Path(root or '').resolve()} {split}", names)


def _class_names(classes: str) -> tuple[str, ...]:
    from timm.data.imagenet_info import ImageNetInfo

    path = user_path(classes)
    if path.is_file():
        return tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    try:
        return tuple(ImageNetInfo(classes).label_names())
    except AssertionError:
        raise InputError(f"{classes!r} is neither a file of class names nor a label space of timm's") from None


class TimmDataset(BaseDataset):
    """A map-style data set of timm's; see :class:`ipvit.data.dataset.Dataset` for the attributes.

    Args:
        name: as the user gave it.
        source: timm's data set, without transforms.
        split: root and split, for the fingerprint.
        names: class names in the order of the labels, or None for the data set's own.

    Raises:
        InputError: its labels cannot be listed.
    """

    def __init__(self, name: str, source: Any, split: str, names: tuple[str, ...] | None) -> None:
        self.name = name
        self._source = source
        self.labels, own = _labels(source, name)
        self.classes = names or own or tuple(str(i) for i in range(int(self.labels.max(initial=-1)) + 1))
        self.ids = [f"{i:08d}" for i in range(len(self.labels))]
        self.fingerprint = fingerprint("timm", name, split, list(self.ids), self.labels, list(self.classes or ()))

    def read(self, index: int) -> Tensor:
        """Decode image ``index``: ``(3, H, W)`` uint8."""
        try:
            picture, _ = self._source[index]
            return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableImageError(str(error) or type(error).__name__) from None


def _labels(source: Any, name: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    reader = getattr(source, "reader", None)
    if reader is not None and hasattr(reader, "dataset") and hasattr(reader, "label_key"):
        features = reader.dataset.features.get(reader.label_key)
        names = getattr(features, "names", None)
        return np.array(reader.dataset[reader.label_key], dtype=np.int64), None if names is None else tuple(names)
    for attribute in ("targets", "labels", "_labels", "_targets"):
        values = getattr(source, attribute, None)
        if values is not None:
            classes = getattr(source, "classes", None)
            return np.asarray(values, dtype=np.int64), None if classes is None else tuple(map(str, classes))
    raise InputError(f"the labels of {name!r} cannot be listed without reading every image")
