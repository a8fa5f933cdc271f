"""Images with foreground masks in a folder of their own, under the same names."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ipvit.core.files import user_path
from ipvit.data.dataset import Decoder, UnreadableImageError, fingerprint
from ipvit.data.decode import check_proportions
from ipvit.data.fingerprints import BYTES, SAMPLES, named, sums_of_files
from ipvit.data.formats.folder import FolderDataset
from ipvit.data.formats.image_files import is_hidden, readable
from ipvit.errors import InputError, did_you_mean

PREFIX = "masks:"

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pgm", ".jpg", ".jpeg")
"""What a mask may be stored as."""


class MaskedFolderDataset(FolderDataset):
    """A folder of images and a folder of masks with the same paths but for the suffix.

    Images may lie in class folders, which then are their labels. A mask may have any size of the image's proportions;
    it is scaled to its image (nearest).

    Args:
        images: the folder of images.
        masks: the folder of masks. In 8-bit grey what is brighter than half is foreground (in a mask with nothing that
            bright: what is not 0), also in colours that are grey and in JPEG; in every other kind of image what is not
            0. A mask whose object is only in its alpha channel, whose numbers may be grey levels or that is a map of
            very many values is not read, nor is its image.
        decoder: ``fast`` or ``pil``, see :mod:`ipvit.data.decode`.

    Raises:
        InputError: a folder is missing, or an image has no mask or several.
    """

    has_masks = True

    def __init__(self, images: str | Path, masks: str | Path, decoder: Decoder = "fast") -> None:
        super().__init__(images, decoder)
        self.name = f"{PREFIX}{images},{masks}"
        folder = user_path(masks)
        if not folder.is_dir():
            raise InputError(f"there is no folder of masks {str(masks)!r}")
        there = ((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
        known = {readable(name): path for name, path in there if not is_hidden(name)}
        self._masks = [_mask_of(image, known, folder) for image in self.ids]
        self._mask_sizes = np.array([path.stat().st_size for path in self._masks], dtype=np.int64)
        self._mask_names = [path.relative_to(folder).as_posix() for path in self._masks]
        sums = sums_of_files(self._masks, self._mask_sizes)
        earlier = self.earlier_fingerprint
        self.earlier_fingerprint = earlier and fingerprint("masks", earlier, self._mask_names, self._mask_sizes)
        self.fingerprint = self._with_masks(SAMPLES, self.fingerprint, sums.now)

    def fingerprint_of_all_bytes(self) -> str:
        """Return the fingerprint under the scheme that reads every byte of every file."""
        sums = sums_of_files(self._masks, self._mask_sizes, all_bytes=True)
        return self._with_masks(BYTES, super().fingerprint_of_all_bytes(), sums.now)

    def _with_masks(self, scheme: str, images: str, sums: np.ndarray) -> str:
        return named(scheme, "masks", images, self._mask_names, self._mask_sizes, sums)

    def read_mask(self, index: int) -> Tensor:
        """Decode the mask of image ``index``: ``(H, W)`` uint8, 1 is foreground, the size of the image."""
        mask = torch.from_numpy(_foreground(_opened(self._masks[index])).astype(np.uint8))
        with _opened(self.root / self._paths[index]) as image:
            size = [image.height, image.width]
        check_proportions(mask.shape, size)
        return F.resize(mask.unsqueeze(0), size, interpolation=F.InterpolationMode.NEAREST_EXACT)[0]


def parse(text: str, decoder: Decoder = "fast") -> MaskedFolderDataset:
    """Open ``IMAGES,MASKS``.

    Raises:
        InputError: these are not two folders.
    """
    commas = [place for place, letter in enumerate(text) if letter == ","]
    pairs = [(text[:place], text[place + 1 :]) for place in commas if text[:place] and text[place + 1 :]]
    there = [pair for pair in pairs if all(user_path(folder).is_dir() for folder in pair)]
    if len(there) > 1:
        raise InputError(f"the data {PREFIX + text!r}: several of its commas may divide the two folders; rename one")
    if not pairs:
        raise InputError(f"the data {PREFIX + text!r}: two folders are needed, written {PREFIX}IMAGES,MASKS")
    if not there and len(pairs) > 1:
        raise InputError(f"the data {PREFIX + text!r}: none of its commas divides two folders that there are")
    return MaskedFolderDataset(*(there or pairs)[0], decoder)


def _mask_of(image: str, known: dict[str, Path], folder: Path) -> Path:
    stem = image.rpartition(".")[0]
    names = [stem + suffix for ending in MASK_SUFFIXES for suffix in (ending, ending.upper())]
    found = [name for name in names if name in known]
    if len(found) > 1:
        raise InputError(f"the image {image!r} has several masks in {str(folder)!r}: {', '.join(found)}; keep one")
    if found:
        return known[found[0]]
    raise InputError(
        f"the image {image!r} has no mask {stem}.png in {str(folder)!r}.{did_you_mean(stem + '.png', known)}"
    )


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(io.BytesIO(path.read_bytes()))
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImageError(f"{path.name}: {error}") from None


def _foreground(mask: Image.Image) -> np.ndarray:
    """Return where a mask has its object; see :class:`MaskedFolderDataset`.

    Raises:
        UnreadableImageError: it cannot be read, or what it says is not one thing.
    """
    alpha, lossy = None, mask.format == "JPEG"
    try:
        if mask.mode not in _PLAIN:
            alpha = np.asarray(mask)[..., -1] if mask.mode in _WITH_ALPHA else None
            mask = _without_alpha(mask)
        values = np.asarray(mask)
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImageError(f"the mask cannot be read: {error}") from None
    grey = mask.mode == "L"
    if values.ndim == 3:
        grey = lossy or bool((values == values[..., :1]).all())
        values = values.max(axis=2)
    found = _bright(values, lossy) if grey else _numbered(values)
    varied = alpha is not None and len(np.unique(alpha)) > 1
    if alpha is not None and varied and (not found.any() or (found & (alpha == 0)).any()):
        where = "only in its alpha channel" if found.all() or not found.any() else "another one in its alpha channel"
        raise UnreadableImageError(f"the object of its mask is {where}: {_REMEDY}")
    return found


_PLAIN = ("1", "L", "P", "I", "F", "RGB", "I;16", "I;16L", "I;16B", "I;16N")
_WITH_ALPHA = ("LA", "PA", "RGBA", "La", "RGBa")
_REMEDY = "save it as white on black"

_LABELS, _MOST_LABELS, _AREA = 64, 256, 0.02
"""Numbers of classes below a mark for void: at most so many different values, one of them over so much of the mask."""


def _without_alpha(mask: Image.Image) -> Image.Image:
    """Return a mask's colours, or its numbers, alone."""
    if mask.mode == "PA":
        return Image.fromarray(np.asarray(mask)[..., 0])
    colours = Image.fromarray(np.asarray(mask)[..., 0]) if mask.mode in ("LA", "La") else None
    if colours is None and mask.mode == "RGBA":
        colours = Image.fromarray(np.ascontiguousarray(np.asarray(mask)[..., :3]))
    return mask.convert("RGB") if colours is None else colours


def _bright(values: np.ndarray, lossy: bool) -> np.ndarray:
    """Return what is brighter than half, in 8 bits; in a mask with nothing that bright what is not 0."""
    if values.max(initial=0) <= 127:
        return values > 0
    counts = np.bincount(values.reshape(-1), minlength=256)
    dark = counts[1:128]
    if not lossy and counts[0] and dark.max() > _AREA * values.size and (counts > 0).sum() <= _LABELS:
        number = 1 + int(dark.argmax())
        raise UnreadableImageError(
            f"its mask holds 0, {number} and {int(values.max())}, which may be numbers of classes or grey levels: "
            + _REMEDY
        )
    return values > 127


def _numbered(values: np.ndarray) -> np.ndarray:
    """Return what is not 0 among numbers."""
    if values.dtype != np.uint8 and len(np.unique(values)) > _MOST_LABELS:
        raise UnreadableImageError(
            f"its mask holds more than {_MOST_LABELS} different values, as a map of how salient each pixel is: "
            f"{_REMEDY}, beyond a threshold of yours"
        )
    return values > 0
