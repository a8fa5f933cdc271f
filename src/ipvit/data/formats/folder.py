"""Images in class folders, ``ROOT/CLASS/.../image.jpg``, on disk or in an uncompressed tar file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from torch import Tensor

from ipvit.core.files import user_path
from ipvit.core.text.texts import Texts
from ipvit.data.dataset import BaseDataset, Decoder, Fingerprint, InPython, UnreadableImageError
from ipvit.data.decode import decode
from ipvit.data.fingerprints import BYTES, SAMPLES, Sums, sums_of_files, sums_of_listed, sums_of_members
from ipvit.data.formats.image_files import (
    CLASS_LIST,
    IMAGE_SUFFIXES,
    LeftOut,
    class_names,
    is_picture,
    readable,
)
from ipvit.data.formats.listing import Listing, list_images, runs
from ipvit.data.formats.tar_members import members_of
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
        left_out = LeftOut()
        files = self._files(left_out)
        self.notes = left_out.notes(self.name)
        if not len(files.paths):
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"{str(root)!r} holds no image files ({known}){'; '.join(['', *self.notes])}")
        self._paths, self._sizes, self._states = files.paths, files.sizes, files.states
        self.ids = self._paths if self._paths.are_unicode else Texts(map(readable, self._paths))
        found = [(readable(name), count, inside) for name, count, inside in runs(self._paths)]
        self.classes, self.aliases = class_names(self._listing(), {name for name, _, inside in found if inside})
        outside = [name for name, _, inside in found if not inside]
        if outside and self.classes is not None:
            self.notes += (
                f"{self.name}: {len(outside):,} images lie in no class folder and have no label ({outside[0]}"
                f"{', ...' * (len(outside) > 1)})",
            )
        position = {name: i for i, name in enumerate(self.classes or ())}
        self._sampled = self._sums()
        # the states were of use for what is kept of files; they are large, and the labels come in their place
        self._sizes, self._states = np.ascontiguousarray(self._sizes), None
        del files
        of_each = np.array([position[name] if inside else -1 for name, _, inside in found], dtype=np.int64)
        self.labels = np.repeat(of_each, [count for _, count, _ in found])
        self._by_folder = self.labels, list(self.classes or ())
        self._identify()

    def read(self, index: int) -> Tensor:
        """Decode image ``index``: ``(3, H, W)`` uint8."""
        try:
            data = self._bytes(index)
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from None
        return decode(data, self.decoder)

    def fingerprint_of_all_bytes(self) -> str:
        """Return the fingerprint under the scheme that reads every byte of every file."""
        return f"{BYTES}:{self._digest(self._sums(all_bytes=True).now, self._begun())}"

    def _identify(self) -> None:
        """Set the fingerprints; for a subclass once more when it knows what else determines the data."""
        sums, begun = self._sampled, self._begun()
        self.fingerprint = f"{SAMPLES}:{self._digest(sums.now, begun)}"
        self.earlier_fingerprint = "" if sums.decoded_anew else self._digest(InPython(sums.before), begun)

    def _begun(self) -> Fingerprint:
        return Fingerprint("folder", self.ids, self._sizes)

    def _digest(self, sums: np.ndarray | InPython, begun: Fingerprint) -> str:
        """Return the digest of what determines images and labels, given what was read of the files."""
        labels, classes = self._by_folder
        return begun.followed_by(sums, labels, classes, self.decoder)

    def _files(self, left_out: LeftOut) -> Listing:
        if not self.root.is_dir():
            raise InputError(f"there is no folder {self.name!r}")
        return list_images(self.root, left_out)

    def _sums(self, *, all_bytes: bool = False) -> Sums:
        if all_bytes or self._states is None:
            return sums_of_files((f"{self.root}/{path}" for path in self._paths), self._sizes, all_bytes=all_bytes)
        return sums_of_listed(self.root, self._paths, self._states)

    def _listing(self) -> Path:
        return self.root / CLASS_LIST

    def _bytes(self, index: int) -> bytes:
        return (self.root / self._paths[index]).read_bytes()


class TarDataset(FolderDataset):
    """The same from an uncompressed tar file, with ``classes.txt`` beside it.

    Members are read by their offset, so that worker processes share one open file.
    """

    def _files(self, left_out: LeftOut) -> Listing:
        found: dict[str, tuple[int, int]] = {}
        for member in members_of(self.root, self.name, left_out):
            path = member.name.removeprefix("./")
            if is_picture(path):
                if path in found:
                    left_out.add_replaced(path)
                found[path] = member.offset_data, member.size
            else:
                left_out.add(path)
        paths = sorted(found)
        self._places = [found[path] for path in paths]
        self._handle = -1
        return Listing(Texts(paths), np.array([size for _, size in self._places], dtype=np.int64))

    def _sums(self, *, all_bytes: bool = False) -> Sums:
        return sums_of_members(self._open(), self._places, self._paths, all_bytes=all_bytes)

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
