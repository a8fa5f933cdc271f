"""Whatever ``timm.data.create_dataset`` takes by name: ``torch/...``, ``hfds/...``, ``tfds/...``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ipvit.data.dataset import UnreadableImage, fingerprint
from ipvit.errors import InputError

SCHEMES = ("hfds/", "hfids/", "tfds/", "torch/", "wds/")


class TimmDataset:
    """A map-style data set made by ``timm.data.create_dataset``.

    Args:
        name: ``hfds/owner/name``, ``torch/cifar10``, ...
        root: the folder with the data.
        split: for example ``train`` or ``validation``.

    Raises:
        InputError: timm cannot make it, its labels cannot be listed, or it can only be streamed.
    """

    has_masks = False
    aliases: tuple[str, ...] | None = None

    def __init__(self, name: str, root: str | None = None, split: str = "validation") -> None:
        from timm.data.dataset_factory import create_dataset

        self.name = name
        try:
            self._source: Any = create_dataset(name, root=root, split=split, download=False)
        except (ImportError, OSError, RuntimeError, ValueError, AssertionError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"timm cannot open the data set {self.name!r} (split {split!r}): {reason}") from None
        if not hasattr(self._source, "__getitem__") or hasattr(self._source, "__iter__"):
            raise InputError(f"{self.name!r} can only be streamed; give a data set with random access")
        self._source.transform = None
        self.labels, classes = _labels(self._source, self.name)
        self.classes: tuple[str, ...] | None = classes or tuple(
            str(i) for i in range(int(self.labels.max(initial=-1)) + 1)
        )
        self.ids: Sequence[str] = [f"{i:08d}" for i in range(len(self.labels))]
        self.fields: Mapping[str, np.ndarray] = {}
        self.fingerprint = fingerprint("timm", name, split, list(self.ids), self.labels, list(self.classes or ()))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Tensor:
        """Decode image ``index``: ``(3, H, W)`` uint8."""
        try:
            picture, _ = self._source[index]
            return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableImage(str(error) or type(error).__name__) from None

    def read_mask(self, index: int) -> Tensor:
        """Raise: these data sets have no masks."""
        raise InputError(f"{self.name} has no foreground masks")


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
