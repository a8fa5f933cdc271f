"""Images in class folders, ``ROOT/CLASS/.../image.jpg``, on disk or in an uncompressed tar file."""

from __future__ import annotations

import os
import tarfile
import zlib
from pathlib import Path

import numpy as np
from torch import Tensor

from ipvit.core.files import user_path
from ipvit.data.dataset import BaseDataset, Decoder, UnreadableImageError, fingerprint
from ipvit.data.decode import decode
from ipvit.data.formats.image_files import (
    CLASS_LIST,
    IMAGE_SUFFIXES,
    SAMPLE,
    checksum,
    class_names,
    image_files,
    readable,
)
from ipvit.errors import InputError


class FolderDataset(BaseDataset):
    """A folder of class folders, in sorted order.

    The class of an image is the first folder of its path below the root; images that lie in the root itself have no
    label. ``classes.txt`` in the root, where there is one, states the classes: line ``i`` names the folder of class
    ``i`` and, after a tab, optionally a second name (the model's own name of that class). See
    :class:`ipvit.data.dataset.Dataset` for the attributes.

    Args:
        root: the folder.
        decoder: ``fast`` or ``pil``, see :mod:`ipvit.data.decode`.

    Raises:
        InputError: there is no such folder, it holds no image, or ``classes.txt`` does not fit it.
    """

    def __init__(self, root: str | Path, decoder: Decoder = "fast") -> None:
        self.root = user_path(root)
        self.decoder = decoder
        self.name = str(root)
        files = self._files()
        if not files:
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"{str(root)!r} holds no image files ({known})")
        self._paths = [path for path, _ in files]
        self.ids = [readable(path) for path in self._paths]
        folders = [path.split("/", 1)[0] if "/" in path else None for path in self.ids]
        self.classes, self.aliases = class_names(self._listing(), {name for name in folders if name is not None})
        position = {name: i for i, name in enumerate(self.classes or ())}
        self.labels = np.array([-1 if name is None else position[name] for name in folders], dtype=np.int64)
        sizes = np.array([size for _, size in files], dtype=np.int64)
        samples = [self._sample(index, int(size)) for index, size in enumerate(sizes)]
        self.fingerprint = fingerprint(
            "folder", self.ids, sizes, samples, self.labels, list(self.classes or ()), decoder
        )

    def read(self, index: int) -> Tensor:
        """Decode image ``index``: ``(3, H, W)`` uint8."""
        try:
            data = self._bytes(index)
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from None
        return decode(data, self.decoder)

    def _files(self) -> list[tuple[str, int]]:
        if not self.root.is_dir():
            raise InputError(f"there is no folder {self.name!r}")
        return sorted(image_files(self.root))

    def _sample(self, index: int, size: int) -> int:
        return checksum(self.root / self._paths[index], size)

    def _listing(self) -> Path:
        return self.root / CLASS_LIST

    def _bytes(self, index: int) -> bytes:
        return (self.root / self._paths[index]).read_bytes()


class TarDataset(FolderDataset):
    """The same from an uncompressed tar file, with ``classes.txt`` beside it.

    Members are read by their offset, so that worker processes share one open file.
    """

    def _files(self) -> list[tuple[str, int]]:
        try:
            with tarfile.open(self.root, "r:") as archive:
                members = [member for member in archive if member.isfile()]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise InputError(f"{self.name!r} is not an uncompressed tar file: {error}") from None
        found = {
            member.name.removeprefix("./"): (member.offset_data, member.size)
            for member in members
            if Path(member.name).suffix.lower() in IMAGE_SUFFIXES
        }
        self._places = [found[path] for path in sorted(found)]
        self._handle = -1
        return [(path, found[path][1]) for path in sorted(found)]

    def _sample(self, index: int, size: int) -> int:
        return zlib.crc32(os.pread(self._open(), min(SAMPLE, size - size // 2), self._places[index][0] + size // 2))

    def _listing(self) -> Path:
        return self.root.parent / CLASS_LIST

    def _open(self) -> int:
        if self._handle < 0:
            self._handle = os.open(self.root, os.O_RDONLY)
        return self._handle

    def _bytes(self, index: int) -> bytes:
        offset, size = self._places[index]
        return os.pread(self._open(), size, offset)

    def __del__(self) -> None:
        if getattr(self, "_handle", -1) >= 0:
            os.close(self._handle)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_handle": -1}  # an open file does not travel to a spawned worker
