"""ImageNet-C as published: photos that are corrupted already, in ``CORRUPTION/SEVERITY/SYNSET/NAME.JPEG``.

The folders may lie in those of the published archives (``noise/gaussian_noise/1/...``). The same layout holds sets made
after it (ImageNet-100-C, Tiny-ImageNet-C) and what ``ipvit corrupt`` writes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ipvit.core.files import user_path
from ipvit.core.preprocessing import View
from ipvit.data.dataset import BaseDataset, Decoder, UnreadableImageError, fingerprint
from ipvit.data.decode import apply_view, decode
from ipvit.data.fingerprints import BYTES, SAMPLES, Sums, sums_of_files
from ipvit.data.formats.image_files import CLASS_LIST, LeftOut, class_names, is_hidden, readable
from ipvit.data.formats.listing import list_images
from ipvit.data.subset import select
from ipvit.errors import InputError, did_you_mean
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA, SEVERITIES

PREFIX = "imagenet-c:"
MANIFEST = "corrupt.json"
"""What ``ipvit corrupt`` leaves in its folder."""
CLEAN = "clean"

KNOWN = (*CORRUPTIONS, *EXTRA)
_MOST_OPENED = 20_000
"""Files whose content counts for the fingerprint; of all others the size does. (The published set has 4.75 million.)"""


class ImageNetC(BaseDataset):
    """Corrupted photos in folders; see :class:`ipvit.data.dataset.Dataset` for the attributes.

    Args:
        place: the folder of the corruptions' folders, or ``FOLDER,CLEAN`` with the folder of the photos they were made
            of, in the same class folders. Those are resized and cropped as the corrupted ones were and become a
            corruption ``clean`` of severity 0.
        decoder: ``fast`` or ``pil``, see :mod:`ipvit.data.decode`.

    Attributes:
        corruptions: names of the corruptions in the folder, in the order of their paper.
        cells: the corruptions and severities that have files.
        published: False where the folder was made by ``ipvit corrupt``.
        fields: ``corruption`` and ``severity``, ``(N,)`` int8; a corruption is its position in ``corruptions``, -1 is
            clean.

    Raises:
        InputError: the folder holds no corruption, or the clean photos are not those of the corrupted ones.
    """

    def __init__(self, place: str | Path, decoder: Decoder = "fast") -> None:
        self.name = f"{PREFIX}{place}"
        self.decoder = decoder
        self.root, clean = _folders(str(place))
        found = _corruption_folders(self.root)
        if not found:
            raise InputError(_not_found(self.root))
        self.corruptions = tuple(found)
        self.view = _view(self.root / MANIFEST)
        self.published = self.view is _PUBLISHED
        self._places = [(name, severity, found[name] / str(severity)) for name in found for severity in SEVERITIES]
        left_out = LeftOut()
        listed = [list_images(folder, left_out).files() if folder.is_dir() else [] for _, _, folder in self._places]
        self.notes = left_out.notes(self.name)
        if not any(listed):
            raise InputError(f"{str(self.root)!r} has folders of corruptions, but no image files in them")
        self.cells = {place[:2] for place, files in zip(self._places, listed, strict=True) if files}
        self._photos = sorted({readable(path) for files in listed for path, _ in files})
        number = {photo: i for i, photo in enumerate(self._photos)}
        photo = [number[readable(path)] for files in listed for path, _ in files]
        if clean is not None:
            self._places.append((CLEAN, 0, clean))
            listed.append(_counterparts(self._photos, clean))
            photo += range(len(self._photos))
        self._photo = np.array(photo, dtype=np.int32)
        self._index(listed)

    def _index(self, listed: Sequence[Sequence[tuple[str, int]]]) -> None:
        paths = [path for files in listed for path, _ in files]
        self._paths: Sequence[str] = paths
        self._cell = np.repeat(np.arange(len(listed), dtype=np.int16), [len(files) for files in listed])
        self.ids = _Ids(self._places, self._cell, self._photo, self._photos)
        folders = [photo.split("/", 1)[0] if "/" in photo else "" for photo in self._photos]
        self.classes, self.aliases = class_names(self.root / CLASS_LIST, set(folders) - {""})
        position = {name: i for i, name in enumerate(self.classes or ())}
        self.labels = np.array([position.get(name, -1) for name in folders], dtype=np.int64)[self._photo]
        codes = {name: i for i, name in enumerate(self.corruptions)}
        corruption = np.array([codes.get(name, -1) for name, _, _ in self._places], dtype=np.int8)
        severity = np.array([severity for _, severity, _ in self._places], dtype=np.int8)
        self.fields = {
            "corruption": corruption[self._cell],
            "severity": severity[self._cell],
        }
        self._sizes = np.array([size for files in listed for _, size in files], dtype=np.int64)
        sums = self._sums(range(0, len(paths), max(1, len(paths) // _MOST_OPENED)))
        self.fingerprint = f"{SAMPLES}:{self._digest(sums.now)}"
        self.earlier_fingerprint = "" if sums.decoded_anew else self._digest(sums.before.tolist())

    def fingerprint_of_all_bytes(self) -> str:
        """Return the fingerprint under the scheme that reads every byte of every file."""
        return f"{BYTES}:{self._digest(self._sums(range(len(self)), all_bytes=True).now)}"

    def _sums(self, opened: range, *, all_bytes: bool = False) -> Sums:
        return sums_of_files([self._path(i) for i in opened], self._sizes[opened], all_bytes=all_bytes)

    def _digest(self, sums: np.ndarray | list[int]) -> str:
        """Return the digest of what determines the images, given what was read of the files."""
        return fingerprint(
            "imagenet-c",
            [place[:2] for place in self._places],
            self._photos,
            self._cell,
            self._photo,
            self._sizes,
            sums,
            list(self.classes or ()),
            self.decoder,
        )

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> Tensor:
        """Decode image ``index``: ``(3, H, W)`` uint8; a clean photo is resized and cropped."""
        try:
            data = self._path(index).read_bytes()
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from None
        picture = decode(data, self.decoder)
        clean = self._places[self._cell[index]][0] == CLEAN
        return apply_view(picture, self.view, self.decoder) if clean else picture

    def choose(self, limit: int) -> np.ndarray:
        """Return the positions of all files of ``limit`` photos; see :func:`ipvit.data.subset.select`."""
        return np.flatnonzero(np.isin(self._photo, select(self._photos, limit)))

    def _path(self, index: int) -> Path:
        return self._places[self._cell[index]][2] / self._paths[index]


class _Ids(Sequence[str]):
    """``CORRUPTION/SEVERITY/SYNSET/NAME`` by position, made when asked for: written out they take half a gigabyte."""

    def __init__(self, places: Sequence[tuple[str, int, Path]], cell: np.ndarray, photo: np.ndarray, photos: list[str]):
        self._prefixes = [f"{name}/{severity}" for name, severity, _ in places]
        self._cell, self._photo, self._photos = cell, photo, photos

    def __len__(self) -> int:
        return len(self._cell)

    def __getitem__(self, index):  # pyright: ignore[reportIncompatibleMethodOverride] - a position or a slice
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return f"{self._prefixes[self._cell[index]]}/{self._photos[self._photo[index]]}"


_PUBLISHED = View((224, 224), 0.875, "bilinear")
"""What ImageNet-C's photos were before they were corrupted: the shortest side 256 pixels, the central 224."""


def _folders(place: str) -> tuple[Path, Path | None]:
    whole = user_path(place)
    first, comma, second = place.rpartition(",")
    pair = (whole, None) if whole.is_dir() or not comma else (user_path(first), user_path(second))
    for folder in pair:
        if folder is not None and not folder.is_dir():
            raise InputError(f"there is no folder {str(folder)!r}")
    return pair


def _corruption_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each corruption, in the order of the paper: here, or in those of the archives."""
    groups = [root, *sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))]
    found = {name: next((group / name for group in groups if (group / name).is_dir()), None) for name in KNOWN}
    return {name: folder for name, folder in found.items() if folder is not None}


def _not_found(root: Path) -> str:
    entries = sorted(path.name for path in root.iterdir() if path.is_dir())
    near = next((hint for name in entries if (hint := did_you_mean(name, KNOWN, 1))), "")
    if root.name in KNOWN:
        near = f" Give the folder above it: {PREFIX}{root.parent}"
    return f"{str(root)!r} is not laid out as ImageNet-C: it has no folder such as gaussian_noise/1/SYNSET.{near}"


def _view(manifest: Path) -> View:
    """Return how photos become what is corrupted: as published, or as ``ipvit corrupt`` was told."""
    if not manifest.is_file():
        return _PUBLISHED
    try:
        settings = json.loads(manifest.read_text("utf-8"))["settings"]
        return View((settings["size"],) * 2, settings["size"] / (settings["resize"] + 0.5), "bilinear")
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{str(manifest)!r} is damaged; delete it, or make the folder again") from None


def _counterparts(photos: Sequence[str], clean: Path) -> list[tuple[str, int]]:
    """Return the clean photo of each corrupted one; copies that ``ipvit corrupt`` made have another suffix."""
    there = {readable(path): (path, size) for path, size in list_images(clean).files()}
    stems = {path.rpartition(".")[0]: file for path, file in there.items()}
    found = [there.get(photo) or stems.get(photo.rpartition(".")[0]) for photo in photos]
    missing = [photo for photo, file in zip(photos, found, strict=True) if file is None]
    if missing:
        raise InputError(f"{str(clean)!r} lacks {len(missing)} of the {len(photos)} photos, for example {missing[0]!r}")
    return [file for file in found if file is not None]
