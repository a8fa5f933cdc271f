"""Web data sets: images and labels in tar shards, ``KEY.jpg`` beside ``KEY.cls`` or ``KEY.json``, on this machine.

timm reads such shards from the front and passes over what it cannot decode, so that every id behind a broken picture
would be another picture's. Here the shards are listed once: an image's id is its key, its place is known, and what
cannot be read is named by it.
"""

from __future__ import annotations

import collections
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ipvit.data.checks import check_labels, whole_numbers
from ipvit.data.dataset import BaseDataset, UnreadableImageError
from ipvit.data.decode import decode
from ipvit.data.fingerprints import BYTES, SAMPLES, named, sums_of_members
from ipvit.data.formats.image_files import IMAGE_SUFFIXES, LeftOut, is_hidden, readable
from ipvit.data.formats.tar_members import members_of
from ipvit.errors import InputError, error_line, shown

_Place = tuple[int, int, int]
"""Number of the shard, offset and size."""


class ShardDataset(BaseDataset):
    """Images in tar shards; see :class:`ipvit.data.dataset.Dataset` for the attributes.

    An id is the key of the image in its shard, with the name of the shard before it where a key is in several.

    Args:
        name: as the user gave it.
        shards: the tar files, in their order.
        stated: how many images the user says they hold; 0 for no word of it.
        classes: names of the labels in their order, or None.
        label_key: the field of ``KEY.json`` that holds the label; ``KEY.cls`` holds it by default.

    Raises:
        InputError: a shard cannot be read, an image has no label, or the number of images is not the stated one.
    """

    decoder = "pil"

    def __init__(
        self, name: str, shards: Sequence[Path], stated: int, classes: tuple[str, ...] | None, label_key: str = ""
    ) -> None:
        self.name, self.classes = name, classes
        self._shards = list(shards)
        self._handles: dict[int, int] = {}
        left_out = LeftOut()
        found: list[tuple[int, str, Mapping[str, tarfile.TarInfo]]] = []
        for number, shard in enumerate(self._shards):
            found += [(number, key, members) for key, members in _samples(shard, left_out).items()]
        self.notes = left_out.notes(name)
        self._places: list[_Place] = []
        self._suffixes: list[str] = []
        labels: list[int] = []
        for number, key, members in found:
            suffix, *others = sorted(IMAGE_SUFFIXES & members.keys())
            if others:
                raise InputError(
                    f"{name!r}: {key!r} in {self._shards[number].name} is several images "
                    f"({', '.join([suffix, *others])}), and nothing says which of them counts; keep one"
                )
            picture = members[suffix]
            self._places.append((number, picture.offset_data, picture.size))
            self._suffixes.append(suffix)
            labels.append(self._label(number, key, members, label_key))
        if stated and stated != len(found):
            raise InputError(
                f"{name!r}: {stated:,} images are stated, and the {len(self._shards)} shards hold {len(found):,}; "
                "leave the number out or correct it"
            )
        if not found:
            raise InputError(f"{name!r}: the shards hold no images{'; '.join(['', *self.notes])}")
        self._stated = np.array(labels, dtype=np.int64)
        check_labels(name, self._stated, classes)
        self.labels = np.full(len(labels), -1, np.int64) if classes is None else self._stated  # numbers of what?
        self.ids = _ids([(self._shards[number].stem, key) for number, key, _ in found])
        self.fingerprint = self._identified(SAMPLES)

    def read(self, index: int) -> Tensor:
        """Decode image ``index``: ``(3, H, W)`` uint8."""
        try:
            return decode(self._bytes(self._places[index]), "pil")
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from None

    def fingerprint_of_all_bytes(self) -> str:
        """Return the fingerprint under the scheme that reads every byte of every image."""
        return self._identified(BYTES)

    def _identified(self, scheme: str) -> str:
        sums = []
        for number in range(len(self._shards)):
            rows = [row for row, place in enumerate(self._places) if place[0] == number]
            places, names = [self._places[row][1:] for row in rows], [self._suffixes[row] for row in rows]
            sums.append(sums_of_members(self._open(number), places, names, all_bytes=scheme == BYTES).now)
        sizes = np.array([size for _, _, size in self._places], dtype=np.int64)
        about = self.ids, sizes, np.concatenate(sums), self._stated, list(self.classes or ())
        return named(scheme, "shards", *about)

    def _label(self, number: int, key: str, members: Mapping[str, tarfile.TarInfo], field: str) -> int:
        suffix = ".json" if field else ".cls"
        member = members.get(suffix)
        where = f"{self.name!r}: {key!r} in {self._shards[number].name}"
        if member is None:
            raise InputError(f"{where} has no {suffix[1:]} with its label")
        data = self._bytes((number, member.offset_data, member.size))
        try:
            return int(whole_numbers([json.loads(data)[field]])[0]) if field else int(data)
        except (ValueError, TypeError, LookupError) as error:
            raise InputError(f"{where}: the label cannot be read: {error_line(error)}") from None

    def _bytes(self, place: _Place) -> bytes:
        number, offset, size = place
        return os.pread(self._open(number), size, offset)

    def _open(self, number: int) -> int:
        if number not in self._handles:
            self._handles[number] = os.open(self._shards[number], os.O_RDONLY)
        return self._handles[number]

    def __del__(self) -> None:
        for handle in getattr(self, "_handles", {}).values():
            os.close(handle)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_handles": {}}  # open files do not travel to a spawned worker


def _samples(shard: Path, left_out: LeftOut) -> dict[str, dict[str, tarfile.TarInfo]]:
    """Return the members of each image in a shard by their endings, in the order of the shard."""
    members = members_of(shard, str(shard), left_out)
    grouped: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in members:
        path = member.name.removeprefix("./")
        folder, slash, file = path.rpartition("/")
        stem, dot, suffix = file.partition(".")  # as web data sets name them: all behind the first dot is the ending
        if is_hidden(path) or not dot:
            left_out.add(path)
            continue
        sample, ending = grouped.setdefault(folder + slash + stem, {}), f".{suffix.lower()}"
        if ending in sample:
            raise InputError(f"{str(shard)!r} holds {path!r} twice: two images of one shard have one key")
        sample[ending] = member
    pictures = {key: found for key, found in grouped.items() if not IMAGE_SUFFIXES.isdisjoint(found)}
    for key in grouped.keys() - pictures.keys():
        for suffix in grouped[key]:
            left_out.add(key + suffix)
    return pictures


def _ids(keys: Sequence[tuple[str, str]]) -> list[str]:
    counts = collections.Counter(key for _, key in keys)
    ids = [readable(key if counts[key] == 1 else f"{shard}/{key}") for shard, key in keys]
    if len(set(ids)) != len(ids):
        twice = next(name for name, count in collections.Counter(ids).items() if count > 1)
        raise InputError(f"two shards of one name hold the key {twice!r}")
    return ids


def local_shards(reader: Any) -> tuple[list[Path], int, str] | None:
    """Return the shards that timm's reader would read, the stated number of images and the key of the label.

    None where it is no such reader.

    Raises:
        InputError: a shard is not there or no plain tar file, or each image has several labels. As a stream, in which
            a broken image is left out and moves the place of all behind it, they are not read.
    """
    info: Any = getattr(reader, "split_info", None)
    names = getattr(info, "filenames", None)
    if names is None or not hasattr(reader, "root"):
        return None
    if keys := getattr(reader, "target_keys", None):
        raise InputError(f"the shards' labels are several fields ({', '.join(map(str, keys))}); images need one label")
    shards = [Path(reader.root) / str(name) for name in names]
    for name in map(str, names):
        if "::" in name or "://" in name or name.startswith("pipe:"):
            raise InputError(
                f"the shard {shown(name)} is not on this machine; copy the shards here and name the folder"
            )
        if not name.endswith(".tar"):
            raise InputError(f"the shard {shown(name)} is no plain tar file; unpack it to one ending in .tar")
    if missing := [shard for shard in shards if not shard.is_file()]:
        raise InputError(f"there is no shard {str(missing[0])!r} ({len(missing)} of {len(shards)} are missing)")
    stated = getattr(reader, "target_key", None)
    stated = "" if stated in (None, "cls") else stated  # timm calls the member KEY.cls so
    key = stated or getattr(info, "alt_label", "") or ""
    return shards, int(getattr(info, "num_samples", 0) or 0), str(key)
