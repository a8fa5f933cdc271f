"""Data that can only be read from the front: ``wds/...`` and other streams of timm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ipvit.data.dataset import BaseDataset, UnreadableImageError, fingerprint
from ipvit.errors import InputError


class StreamDataset(BaseDataset):
    """A stream of images and integer labels, read once from front to back by one process.

    An image's id is its place in the stream. Its label is known once it has been read. See
    :class:`ipvit.data.dataset.Dataset` for the attributes.

    Args:
        name: as the user gave it.
        source: timm's iterable data set, without transforms.
        split: for the fingerprint.
        classes: names of the labels in their order, or None.

    Raises:
        InputError: the stream does not say how many images it has.
    """

    sequential = True

    def __init__(self, name: str, source: Any, split: str, classes: tuple[str, ...] | None) -> None:
        reader: Any = getattr(source, "reader", None)
        if hasattr(reader, "dist_num_replicas"):  # timm would split it by process, as for training
            reader.dist_rank, reader.dist_num_replicas = 0, 1
        n = len(source)
        if not n:
            raise InputError(f"{name!r} does not say how many images it has; give the split as 'SHARDS|NUMBER'")
        self.name = name
        self._source = source
        self._items: Iterator[tuple[Image.Image, int]] = iter(())
        self._next = n + 1  # before the first read there is nothing to go on from
        self.ids = [f"{i:08d}" for i in range(n)]
        self.labels = np.full(n, -1, dtype=np.int64)
        self.classes = classes
        self.notes = (f"{name}: a stream is known by its name and number of images only: a change of it is not seen",)
        self.fingerprint = fingerprint("stream", name, split, n, list(classes or ()))

    def read(self, index: int) -> Tensor:
        """Decode image ``index``, ``(3, H, W)`` uint8, and learn its label; going back starts the stream again."""
        if index < self._next:
            self._items, self._next = iter(self._source), 0
        for picture, label in self._items:
            self._next += 1
            if self._next > index:
                self.labels[index] = int(label)
                if self._next == len(self) and next(self._items, None) is not None:
                    raise InputError(f"{self.name!r} has more images than the {len(self):,} that are stated")
                return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
        self._next = len(self) + 1
        raise UnreadableImageError("the stream ended before its stated number of images")
