"""Data sets of the Hugging Face hub, or in its layout: ``hfds/owner/name?image=img&label=fine_label&split=test``."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from torch import Tensor

from ipvit.data.checks import check_labels, whole_numbers
from ipvit.data.dataset import BaseDataset, UnreadableImageError, fingerprint
from ipvit.data.decode import decode
from ipvit.errors import InputError, did_you_mean, error_line, shown

SCHEME = "hfds/"

_AT_ONCE = 256
"""Rows that are read together."""


def open_hub(name: str, root: str | None, split: str, classes: tuple[str, ...] | None) -> HubDataset:
    """Open a data set by name.

    Args:
        name: ``hfds/`` and what ``datasets.load_dataset`` takes, with ``?image=COLUMN&label=COLUMN`` where these are
            not the only columns of their kinds, and ``?split=SPLIT`` in place of the argument.
        root: the folder of the cache.
        split: one of its splits.
        classes: names of the labels, or None for the data set's own.

    Raises:
        InputError: it cannot be opened, has no such split or column, or its labels are no classes.
    """
    place, _, query = name.removeprefix(SCHEME).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if strange := sorted(options.keys() - {"image", "label", "split"}):
        raise InputError(f"{name!r}: unknown option {strange[0]!r}; known: image, label, split")
    split = options.get("split") or split
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError:
        raise InputError(f"{name!r} needs the package datasets: pip install datasets") from None
    try:
        table: Any = datasets.load_dataset(place, split=split, cache_dir=root)
    except Exception as error:  # noqa: BLE001 - its errors have many types
        raise InputError(f"cannot open the data set {name!r} (split {split!r}): {error_line(error, 300)}") from None
    image = options.get("image") or _column(name, table.features, "image", "Image", needed=True)
    label = options.get("label") or _column(name, table.features, "label", "ClassLabel", needed=False)
    for column in filter(None, (image, label)):
        if column not in table.features:
            listed = ", ".join(table.features)
            raise InputError(
                f"{name!r} has no column {column!r}; it has {listed}.{did_you_mean(column, table.features)}"
            )
    kind = table.features[image]
    if type(kind).__name__ != "Image":
        raise InputError(f"{name!r}: the column {image!r} holds {type(kind).__name__}, not images")
    undecoded = table.cast_column(image, datasets.Image(decode=False))
    return HubDataset(name, undecoded, image, label, classes)


def _column(name: str, features: Mapping[str, Any], usual: str, kind: str, *, needed: bool) -> str:
    """Return the column of a kind: the usual one, else the only one."""
    fitting = [column for column, feature in features.items() if type(feature).__name__ == kind]
    if usual in features and (usual in fitting or not fitting):
        return usual
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and not needed:
        return ""
    listed = ", ".join(fitting or features)
    what = f"several columns of {kind}" if fitting else f"no column of {kind}"
    raise InputError(f"{name!r} has {what} ({listed}); say which: {name}{'&' if '?' in name else '?'}{usual}=COLUMN")


class HubDataset(BaseDataset):
    """Images and labels in two columns of a table; see :class:`ipvit.data.dataset.Dataset` for the attributes.

    Args:
        name: as the user gave it.
        table: the data set, its images not decoded.
        image: the column of images.
        label: the column of labels, which are numbers or names of classes, or lists of numbers: several or none an
            image; empty for none.
        classes: names of the labels, or None for the data set's own.
    """

    decoder = "pil"

    def __init__(self, name: str, table: Any, image: str, label: str, classes: tuple[str, ...] | None) -> None:
        self.name = name
        self._table, self._image = table, image
        count = len(table)
        self.labels, found = np.full(count, -1, np.int64), ()
        if label:
            found = self._read_labels(label, list(table[label]), classes)
        own = getattr(table.features[label], "names", None) if label else None
        own = own or getattr(getattr(table.features[label], "feature", None), "names", None) if label else None
        self.classes = (classes or (tuple(map(str, own)) if own else found)) if label else None
        check_labels(name, self.labels, self.classes)
        sets = self.label_sets
        if sets is not None:
            check_labels(name, np.array([one for some in sets for one in some], dtype=np.int64), self.classes)
        self.ids = [f"{row:08d}" for row in range(count)]
        several = () if sets is None else (list(sets),)
        self.fingerprint = fingerprint("hub", self.labels, list(self.classes or ()), self._sums(), *several)

    def _read_labels(self, column: str, values: list[Any], classes: Sequence[str] | None) -> tuple[str, ...]:
        """Take in the labels: numbers, names, or lists of numbers; return names of them where nothing else has any."""
        kinds = {type(value) for value in values if value is not None}
        if kinds == {str}:
            names = tuple(classes or sorted({value for value in values if value is not None}))
            place = {name: number for number, name in enumerate(names)} | {None: -1}
            if strange := next((value for value in values if value not in place), None):
                raise InputError(f"{self.name!r}: the label {strange!r} is none of the {len(names)} names in --classes")
            self.labels = np.array([place[value] for value in values], dtype=np.int64)
            return names
        try:
            if kinds and all(issubclass(kind, list | tuple | np.ndarray) for kind in kinds):
                sets = [whole_numbers([] if value is None else list(value)).tolist() for value in values]
                self.label_sets = [tuple(dict.fromkeys(some)) for some in sets]
                if min((one for some in sets for one in some), default=0) < 0:
                    raise InputError("a negative number")
                self.labels = np.array([some[0] if some else -1 for some in self.label_sets], dtype=np.int64)
            else:
                self.labels = whole_numbers([-1 if value is None else value for value in values])
        except InputError:
            some = shown(next(iter(values), None))
            raise InputError(
                f"{self.name!r}: the column {column!r} holds {some}, which is no number of a class"
            ) from None
        most = max((one for some in self.label_sets or () for one in some), default=int(self.labels.max(initial=-1)))
        return tuple(str(number) for number in range(most + 1))

    def read(self, index: int) -> Tensor:
        """Decode image ``index``: ``(3, H, W)`` uint8."""
        try:
            return decode(_bytes(self._table[index][self._image]), "pil")
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from None

    def _sums(self) -> np.ndarray:
        """Return a digest of the bytes of every image, ``(N,)`` uint64."""
        sums = np.zeros(len(self), dtype=np.uint64)
        for start in range(0, len(self), _AT_ONCE):
            for row, value in enumerate(self._table[start : start + _AT_ONCE][self._image], start):
                try:
                    data = _bytes(value)
                except (OSError, UnreadableImageError):
                    continue  # told of where it is decoded
                sums[row] = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
        return sums


def _bytes(value: Any) -> bytes:
    """Return the file of an image: in the table, or beside it."""
    if not value:
        raise UnreadableImageError("there is no image in this row")
    return value.get("bytes") or Path(value["path"]).read_bytes()
