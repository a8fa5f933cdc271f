"""Images in class folders: ``ROOT/CLASS/.../image.jpg``, or all in one folder without labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ipvit.data.dataset import UnreadableImage, fingerprint
from ipvit.data.decode import Decoder, decode
from ipvit.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"})
CLASS_LIST = "classes.txt"


class FolderDataset:
    """A folder of class folders, in sorted order.

    The class of an image is the first folder of its path below the root. ``classes.txt`` in the root, where there is
    one, states the classes: line ``i`` names the folder of class ``i`` and, after a tab, optionally a second name (the
    model's own name of that class). See :class:`ipvit.data.dataset.Dataset` for the attributes.

    Args:
        root: the folder.
        decoder: ``fast`` or ``pil``, see :mod:`ipvit.data.decode`.

    Raises:
        InputError: there is no such folder, it holds no image, or ``classes.txt`` does not fit it.
    """

    has_masks = False

    def __init__(self, root: str | Path, decoder: Decoder = "fast") -> None:
        self.root = Path(root).expanduser()
        self.decoder: Decoder = decoder
        self.name = str(root)
        if not self.root.is_dir():
            raise InputError(f"there is no folder {str(root)!r}")
        files = sorted(_image_files(self.root))
        if not files:
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"the folder {str(root)!r} holds no image files ({known})")
        self.ids: Sequence[str] = [path for path, _ in files]
        folders = [path.split("/", 1)[0] if "/" in path else None for path in self.ids]
        self.classes, self.aliases = self._class_names({name for name in folders if name is not None})
        position = {name: i for i, name in enumerate(self.classes or ())}
        self.labels = np.array([-1 if name is None else position[name] for name in folders], dtype=np.int64)
        self.fields: Mapping[str, np.ndarray] = {}
        sizes = np.array([size for _, size in files], dtype=np.int64)
        self.fingerprint = fingerprint("folder", self.ids, sizes, self.labels, list(self.classes or ()), decoder)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Tensor:
        """Decode image ``index``: ``(3, H, W)`` uint8."""
        try:
            data = (self.root / self.ids[index]).read_bytes()
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from None
        return decode(data, self.decoder)

    def read_mask(self, index: int) -> Tensor:
        """Raise: a class folder has no masks."""
        raise InputError(f"{self.name} has no foreground masks")

    def _class_names(self, folders: set[str]) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        listing = self.root / CLASS_LIST
        if not listing.is_file():
            return (tuple(sorted(folders)) if folders else None), None
        lines = [line.split("\t") for line in listing.read_text("utf-8").splitlines() if line.strip()]
        names = tuple(line[0].strip() for line in lines)
        missing = sorted(folders - set(names))
        if missing:
            raise InputError(f"{listing}: the folder {missing[0]!r} is not listed ({len(missing)} such folders)")
        if len(set(names)) != len(names):
            raise InputError(f"{listing}: a folder is listed twice")
        aliases = tuple(line[1].strip() if len(line) > 1 else name for line, name in zip(lines, names, strict=True))
        return names, aliases


def _image_files(root: Path) -> list[tuple[str, int]]:
    found = []
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        base = Path(folder).relative_to(root).as_posix()
        for name in files:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                path = name if base == "." else f"{base}/{name}"
                found.append((path, (Path(folder) / name).stat().st_size))
    return found
