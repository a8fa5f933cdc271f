"""Images in class folders, ``ROOT/CLASS/.../image.jpg``, on disk or in an uncompressed tar file."""

from __future__ import annotations

import os
import stat
import tarfile
import zlib
from pathlib import Path

import numpy as np
from torch import Tensor

from ipvit.data.dataset import BaseDataset, UnreadableImage, fingerprint
from ipvit.data.decode import Decoder, decode
from ipvit.errors import InputError
from ipvit.files import user_path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"})
CLASS_LIST = "classes.txt"

_SAMPLE = 1024  # bytes of a file that count for the fingerprint of the data


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
            raise UnreadableImage(error.strerror or str(error)) from None
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
        return zlib.crc32(os.pread(self._open(), min(_SAMPLE, size - size // 2), self._places[index][0] + size // 2))

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


def class_names(listing: Path, folders: set[str]) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return names and second names of the classes that have folders: those of a ``classes.txt``, else the folders."""
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


def checksum(path: Path, size: int) -> int:
    """Return a checksum of a few bytes from the middle of a file: files can be rewritten at the same size."""
    try:
        with path.open("rb") as file:
            file.seek(size // 2)
            return zlib.crc32(file.read(_SAMPLE))
    except OSError:
        return 0


def image_files(root: Path) -> list[tuple[str, int]]:
    """Return path below the root and size of every image file in a folder, in no order; links are followed.

    Raises:
        InputError: a folder in it cannot be read.
    """
    found = []
    top = os.path.realpath(root)
    above = {os.fspath(root): frozenset({top})}  # the folders that lie around one, links followed
    for folder, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
        around = above.pop(folder)
        inside = {name: os.path.realpath(Path(folder) / name) for name in subfolders if not name.startswith(".")}
        # a link to a folder around it leads into it again and again
        subfolders[:] = [
            n for n, place in inside.items() if place not in around and not Path(top).is_relative_to(place)
        ]
        above |= {os.path.join(folder, name): around | {inside[name]} for name in subfolders}  # noqa: PTH118 - as os.walk
        base = Path(folder).relative_to(root).as_posix()
        for name in files:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                path = name if base == "." else f"{base}/{name}"
                try:
                    state = (Path(folder) / name).stat()
                except OSError:  # a link to nowhere is told of where it is read
                    found.append((path, 0))
                else:
                    if stat.S_ISREG(state.st_mode):
                        found.append((path, state.st_size))
    return found


def _refuse(error: OSError) -> None:
    """A folder that cannot be read would be missing without a word."""
    raise InputError(f"cannot read the folder {readable(str(error.filename))!r}: {error.strerror}")


def readable(path: str) -> str:
    """Return a path as text that can be written anywhere: bytes of a name that are no UTF-8 become ``\\xff``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
