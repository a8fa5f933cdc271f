"""Data sets whose labels come from a list instead of from folders, and of small images held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ipvit.data.dataset import BaseDataset, Decoder, UnreadableImageError, fingerprint
from ipvit.data.decode import decode
from ipvit.data.fingerprints import BYTES, SAMPLES, Sums, sums_of_files
from ipvit.data.formats.image_files import readable
from ipvit.data.published.parts import Box
from ipvit.errors import InputError


class FileDataset(BaseDataset):
    """Image files with stated labels; see :class:`ipvit.data.dataset.Dataset` for the attributes.

    Args:
        name: for tables and messages.
        root: the folder that the paths start from.
        paths: of the images, with ``/``.
        labels: ``(N,)`` positions in ``classes``.
        classes: names of the classes.
        ids: one unique name per image where the paths are not unique.
        boxes: what to use of each image; all of it by default.
        decoder: ``fast`` or ``pil``, see :mod:`ipvit.data.decode`.

    Raises:
        InputError: a file is missing, or a path leads out of the folder.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        paths: Sequence[str],
        labels: np.ndarray,
        classes: Sequence[str],
        *,
        ids: Sequence[str] | None = None,
        boxes: Sequence[Box] | None = None,
        decoder: Decoder = "fast",
    ) -> None:
        self.name = name
        self.root = root
        self.decoder = decoder
        self.ids = [readable(name) for name in (paths if ids is None else ids)]
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = tuple(classes)
        self._paths = list(paths)
        self._boxes = None if boxes is None else list(boxes)
        outside = next((path for path in self._paths if path.startswith("/") or ".." in path.split("/")), None)
        if outside is not None:
            raise InputError(f"{name}: the file name {outside!r} leads out of the folder {str(root)!r}")
        self._files = list(dict.fromkeys(self._paths))  # several images may be crops of one
        self._sizes = self._stated_sizes()
        sums = self._sums()
        self.fingerprint = f"{SAMPLES}:{self._digest(sums.now)}"
        before = np.array(sums.before, dtype=np.int64)
        self.earlier_fingerprint = "" if sums.decoded_anew else self._digest(before)

    def read(self, index: int) -> Tensor:
        """Decode image ``index``: ``(3, H, W)`` uint8."""
        try:
            data = (self.root / self._paths[index]).read_bytes()
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from None
        pixels = decode(data, self.decoder)
        if self._boxes is None:
            return pixels
        left, top, right, bottom = self._boxes[index]
        crop = pixels[:, max(top, 0) : bottom, max(left, 0) : right]
        if crop.numel() == 0:
            raise UnreadableImageError(f"the box {self._boxes[index]} lies outside the image")
        return crop

    def fingerprint_of_all_bytes(self) -> str:
        """Return the fingerprint under the scheme that reads every byte of every file."""
        return f"{BYTES}:{self._digest(self._sums(all_bytes=True).now)}"

    def _sums(self, *, all_bytes: bool = False) -> Sums:
        return sums_of_files([self.root / path for path in self._files], self._sizes, all_bytes=all_bytes)

    def _digest(self, sums: np.ndarray) -> str:
        """Return the digest of what determines images and labels, given what was read of the files."""
        about = self.ids, self._sizes, sums, self.labels, list(self.classes or ()), self._boxes
        return fingerprint("files", *about, self.decoder)

    def _stated_sizes(self) -> np.ndarray:
        """Return the size of every distinct file."""
        sizes = []
        for path in self._files:
            try:
                sizes.append((self.root / path).stat().st_size)
            except OSError:
                raise InputError(f"{self.name} is not complete: there is no {str(self.root / path)!r}") from None
        return np.array(sizes, dtype=np.int64)


class ArrayDataset(BaseDataset):
    """Small images in memory; see :class:`ipvit.data.dataset.Dataset` for the attributes.

    Args:
        name: for tables and messages.
        images: ``(N, C, H, W)`` uint8, C is 1 or 3; grey images are read as colour images.
        labels: ``(N,)`` positions in ``classes``.
        classes: names of the classes.
        ids: one unique name per image.
    """

    def __init__(
        self, name: str, images: np.ndarray, labels: np.ndarray, classes: Sequence[str], ids: Sequence[str]
    ) -> None:
        self.name = name
        self.ids = list(ids)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = tuple(classes)
        self._images = images
        self.fingerprint = fingerprint("arrays", self.ids, images, self.labels, list(classes))

    def read(self, index: int) -> Tensor:
        """Return image ``index``: ``(3, H, W)`` uint8."""
        return torch.from_numpy(self._images[index].copy()).expand(3, -1, -1)
