"""The photos to choose from: drawn samples, a data set's images, and what is uploaded (kept in memory only)."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import struct
import threading
from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ipvit.core.preprocessing import View
from ipvit.data.dataset import Dataset, UnreadableImageError
from ipvit.data.decode import apply_view, decode
from ipvit.data.synthetic.trifeature import SHAPE_NAMES, TEXTURE_NAMES, Trifeature
from ipvit.errors import InputError
from ipvit.models.label_mapping import as_booleans, right_answers
from ipvit.models.model import Model
from ipvit.play.names import readable

MAX_UPLOAD = 10 * 1024 * 1024
"""Bytes of an uploaded file, at most."""

MAX_PIXELS = 50_000_000
"""Pixels of an uploaded photo, at most: three times what a phone takes, and 150 MB once decoded."""

MAX_SIDE = 20_000
"""Pixels of an uploaded photo's longer side, at most: what is a thousand times as long as wide takes long to resize."""

MAX_UPLOADS = 8
"""So many uploads are kept; the oldest goes first."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What may be uploaded, by Pillow's names."""

SAMPLE_SIZE = 256
"""Side of the drawn samples in pixels, so that networks of 224 pixels have something to look at."""

_ORIENTATION = 274  # the EXIF tag
_CACHED = 64  # input squares and masks


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photo.

    Attributes:
        id: what the page calls it.
        caption: what it shows, where that is known.
        names: what its class may be called among a network's outputs.
        has_mask: whether it is known where the object is.
    """

    id: str
    caption: str
    names: tuple[str, ...] = ()
    has_mask: bool = False


class Shelf:
    """All photos of a session.

    Args:
        data: whose images are offered; drawn samples by default.
    """

    def __init__(self, data: Dataset | None = None) -> None:
        self._data = data
        self._samples = [Trifeature(split, n=500, size=SAMPLE_SIZE) for split in ("natural", "cue-conflict")]
        self._uploads: OrderedDict[str, bytes] = OrderedDict()
        self._uploaded = 0
        self._adding = threading.Lock()
        self.square = functools.lru_cache(_CACHED)(self._square)
        self.mask = functools.lru_cache(_CACHED)(self._mask)
        self._right_of_classes = functools.lru_cache(_CACHED)(self._of_classes)

    def __len__(self) -> int:
        """Return the number of photos without the uploads."""
        return sum(map(len, self._samples)) if self._data is None else len(self._data)

    def photo(self, photo_id: str) -> Photo:
        """Return what is known of a photo.

        Raises:
            InputError: there is none of that name.
        """
        if photo_id in self._uploads:
            return Photo(photo_id, "your photo")
        data, index = self._place(photo_id)
        label = int(data.labels[index])
        if data.classes is None or label < 0:
            return Photo(photo_id, data.ids[index].rsplit("/", 1)[-1], (), data.has_masks)
        sets = getattr(data, "label_sets", None)
        labels = [label] if sets is None else sets[index]
        lists = [classes for classes in (data.classes, data.aliases) if classes is not None]
        names = dict.fromkeys(classes[one] for one in labels for classes in lists)
        caption = _drawn(data, index) if isinstance(data, Trifeature) else readable(data.classes[label])
        return Photo(photo_id, caption, tuple(names), data.has_masks)

    def right(self, photo_id: str, model: Model) -> frozenset[int]:
        """Return the answers of a network that are right for a photo; none where nobody knows."""
        photo = self.photo(photo_id)
        if not photo.names:
            return frozenset()
        of_class = self._right_of_classes(model)
        if of_class is None:
            known = enumerate(model.classes or ())
            return frozenset(place for place, name in known if name in photo.names)
        data, index = self._place(photo_id)
        sets = getattr(data, "label_sets", None)
        labels = [int(data.labels[index])] if sets is None else sets[index]
        return frozenset(np.flatnonzero(of_class[list(labels)].any(axis=0)).tolist())

    def _of_classes(self, model: Model) -> NDArray[np.bool_] | None:
        """Return which answers are right for each class of the data; None where they are no answers of the network."""
        try:
            return None if self._data is None else as_booleans(right_answers(self._data, model), model.n_outputs)
        except InputError:
            return None

    def page(self, first: int, count: int) -> list[tuple[Photo, Tensor]]:
        """Return the readable ones of some photos in the shelf's own order, with their pixels ``(3, H, W)`` uint8."""
        found = []
        for number in range(first, min(first + count, len(self))):
            try:
                pixels = self._pixels(str(number))
            except UnreadableImageError:
                continue
            found.append((self.photo(str(number)), pixels))  # a stream knows the label once it has read the image
        return found

    def add(self, data: bytes) -> tuple[Photo, Tensor]:
        """Take an uploaded file, if it is a photo, and return it with its pixels ``(3, H, W)`` uint8.

        Raises:
            InputError: too large, or not an image of one of :data:`FORMATS`.
        """
        if len(data) > MAX_UPLOAD:
            raise InputError(f"the file is larger than {MAX_UPLOAD // 2**20} MB")
        pixels = decode_upload(data)
        with self._adding:
            return self._keep(data), pixels

    def _keep(self, data: bytes) -> Photo:
        self._uploaded += 1
        name = f"upload-{self._uploaded}"
        self._uploads[name] = data
        while len(self._uploads) > MAX_UPLOADS:
            self._uploads.popitem(last=False)
        return self.photo(name)

    def is_upload(self, photo_id: str) -> bool:
        """Tell whether a photo was uploaded, and is still kept."""
        return photo_id in self._uploads

    def _square(self, photo_id: str, view: View) -> Tensor:
        """Return a photo as a network's input square, ``(3, H, W)`` uint8."""
        try:
            return apply_view(self._pixels(photo_id), view)
        except UnreadableImageError as error:
            raise InputError(f"this photo cannot be read: {error}") from None

    def _mask(self, photo_id: str, view: View) -> tuple[Tensor, Tensor] | None:
        """Return where the objects are and which pixels count for nothing, bool ``(H, W)``; None where nobody knows."""
        if not self.photo(photo_id).has_mask:
            return None
        data, index = self._place(photo_id)
        try:
            numbers = data.read_mask(index).to(torch.uint8)
        except UnreadableImageError:
            return None
        plane = numbers if numbers.dim() == 2 else numbers[0]  # of two, the first numbers classes
        plane = apply_view(plane.unsqueeze(0), dataclasses.replace(view, interpolation="nearest"))[0]
        void = torch.zeros_like(plane, dtype=torch.bool) if data.void is None else plane == data.void
        return (plane > 0) & ~void, void

    def _pixels(self, photo_id: str) -> Tensor:
        if (upload := self._uploads.get(photo_id)) is not None:
            return decode_upload(upload)
        data, index = self._place(photo_id)
        return data.read(index)

    def _place(self, photo_id: str) -> tuple[Dataset, int]:
        """Return data set and position of a photo that was not uploaded."""
        if photo_id.startswith("upload-"):
            raise InputError(f"this photo is no longer there (the last {MAX_UPLOADS} are kept): choose it again")
        number = int(photo_id) if photo_id.isascii() and photo_id.isdecimal() and len(photo_id) < 12 else -1
        if not 0 <= number < len(self):
            raise InputError(f"there is no photo {photo_id!r}")
        if self._data is None:  # by turns one with its own texture, one with another's
            return self._samples[number % 2], number // 2
        if self._data.sequential:
            return self._data, number
        return self._data, number * _stride(len(self)) % len(self)


def decode_upload(data: bytes) -> Tensor:
    """Decode an uploaded file to ``(3, H, W)`` uint8, turned as its orientation tag says.

    Raises:
        InputError: it is not an image of one of :data:`FORMATS`, is damaged, or has too many pixels.
    """
    Image.init()  # otherwise Pillow does not know all of them yet
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            orientation = picture.getexif().get(_ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, TypeError, EOFError, struct.error, Image.DecompressionBombError):
        raise InputError(
            f"this is not a photo that can be read here ({', '.join(FORMATS)}), whatever its name says"
        ) from None
    if width * height > MAX_PIXELS:
        raise InputError(f"{width} x {height} pixels are too many; {MAX_PIXELS // 10**6} million are the most")
    if max(width, height) > MAX_SIDE:
        raise InputError(f"{width} x {height} pixels are too long a photo; {MAX_SIDE:,} on a side are the most")
    try:
        return upright(decode(data), orientation)
    except UnreadableImageError as error:
        raise InputError(f"this photo is damaged: {error}") from None


def upright(pixels: Tensor, orientation: int) -> Tensor:
    """Turn ``(3, H, W)`` as the EXIF orientation, 1 to 8, says; other numbers change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(-2, -1)
    flips = {2: [-1], 3: [-2, -1], 4: [-2], 6: [-1], 7: [-2, -1], 8: [-2]}.get(orientation, [])
    return pixels.flip(flips).contiguous() if flips else pixels.contiguous()


def _drawn(data: Trifeature, index: int) -> str:
    """Say what a drawn sample shows; in the natural split shape ``k`` carries texture ``k``."""
    shape, texture = int(data.fields["shape"][index]), int(data.fields["texture"][index])
    caption = f"{SHAPE_NAMES[shape]} in {TEXTURE_NAMES[texture]}"
    return caption if shape == texture else f"{caption}, the {SHAPE_NAMES[texture]}'s texture"


def _stride(n: int) -> int:
    """Return a step that visits all of ``n`` positions and has covered them evenly at any time."""
    step = max(1, round(n * 0.618))
    while math.gcd(step, n) > 1:
        step += 1
    return step
