"""PASCAL VOC 2012, the segmentation part: classes and instances per pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ipvit.core.files import user_path
from ipvit.core.text.text_files import read_text
from ipvit.data.dataset import BaseDataset, Decoder, UnreadableImageError, fingerprint
from ipvit.data.decode import decode
from ipvit.data.fingerprints import BYTES, SAMPLES, named, sums_of_files
from ipvit.data.loader import VOID
from ipvit.errors import InputError

PREFIX = "voc2012:"

_BELOW = ("", "VOC2012", "VOCdevkit/VOC2012")
_SPLITS = {"validation": "val", "val": "val", "train": "train", "trainval": "trainval"}


class VOCSegmentation(BaseDataset):
    """The images of VOC 2012 that are segmented; see :class:`ipvit.data.dataset.Dataset` for the attributes.

    Args:
        root: ``VOCdevkit/VOC2012``, or a folder above it.
        split: ``val`` (or ``validation``; 1,449 images), ``train`` or ``trainval``.
        decoder: ``fast`` or ``pil``, see :mod:`ipvit.data.decode`.

    Attributes:
        void: number of the pixels that count for nothing.

    Raises:
        InputError: the folder is not VOC 2012, has no such split, or lacks one of its files.
    """

    has_masks = True
    void = VOID  # of the pixels around objects, and on difficult ones

    def __init__(self, root: str | Path, split: str = "val", decoder: Decoder = "fast") -> None:
        given = user_path(root)
        found = [given / below for below in _BELOW if (given / below / "ImageSets" / "Segmentation").is_dir()]
        if not found:
            raise InputError(
                f"{str(root)!r} is not VOC 2012: neither it nor VOC2012 or VOCdevkit/VOC2012 below it has the folder "
                "ImageSets/Segmentation"
            )
        if split not in _SPLITS:
            raise InputError(f"VOC 2012 has no split {split!r}; it has {', '.join(dict.fromkeys(_SPLITS.values()))}")
        self.root = found[0]
        self.decoder = decoder
        self.name = f"{PREFIX}{root}" if _SPLITS[split] == "val" else f"{PREFIX}{root} ({split})"
        listing = self.root / "ImageSets" / "Segmentation" / f"{_SPLITS[split]}.txt"
        if not listing.is_file():
            raise InputError(f"there is no list of images {str(listing)!r}")
        self.ids = read_text(listing).split()
        self.labels = np.full(len(self.ids), -1, np.int64)
        self._files = [path for name in self.ids for path in (self._image(name), *self._maps(name))]
        self._sizes = self._stated_sizes()
        self.fingerprint = self._identified(SAMPLES)
        self.earlier_fingerprint = fingerprint("voc2012", list(self.ids), self._sizes, decoder)

    def read(self, index: int) -> Tensor:
        """Decode image ``index``: ``(3, H, W)`` uint8."""
        try:
            data = self._image(self.ids[index]).read_bytes()
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from None
        return decode(data, self.decoder)

    def read_mask(self, index: int) -> Tensor:
        """Decode classes and instances of image ``index``: ``(2, H, W)`` uint8; 0 is background, 255 void."""
        planes = [_numbers(path) for path in self._maps(self.ids[index])]
        if planes[0].shape != planes[1].shape:
            raise UnreadableImageError("the maps of classes and of instances differ in size")
        return torch.from_numpy(np.stack(planes))

    def _image(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def _maps(self, name: str) -> tuple[Path, Path]:
        return self.root / "SegmentationClass" / f"{name}.png", self.root / "SegmentationObject" / f"{name}.png"

    def fingerprint_of_all_bytes(self) -> str:
        """Return the fingerprint under the scheme that reads every byte of every file."""
        return self._identified(BYTES)

    def _identified(self, scheme: str) -> str:
        sums = sums_of_files(self._files, self._sizes, all_bytes=scheme == BYTES)
        return named(scheme, "voc2012", list(self.ids), self._sizes, sums.now, self.decoder)

    def _stated_sizes(self) -> np.ndarray:
        missing = next((path for path in self._files if not path.is_file()), None)
        if missing is not None:
            raise InputError(f"VOC 2012 is not complete: there is no {str(missing)!r}")
        return np.array([path.stat().st_size for path in self._files], dtype=np.int64)


def _numbers(path: Path) -> np.ndarray:
    """Return the numbers in a palette picture; its colours stand for them and are nothing to convert."""
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("P", "L"):
                raise UnreadableImageError(f"{path.name} holds colours ({picture.mode}), not numbers of classes")
            return np.array(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImageError(f"{path.name}: {error}") from None
