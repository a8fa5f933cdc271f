"""Data sets of the Hugging Face hub, or in its layout: ``hfds/owner/name?image=img&label=fine_label``."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
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
            not the only columns of their kinds.
        root: the folder of the cache.
        split: one of its splits.
        classes: names of the labels, or None for the data set's own.

    Raises:
        InputError: it cannot be opened, has no such split or column, or its labels are no classes.
    """
    place, _, query = name.removeprefix(SCHEME).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if strange := sorted(options.keys() - {"image", "label"}):
        raise InputError(f"{name!r}: unknown option {strange[0]!r}; known: image, label")
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
        label: the column of labels; empty for none.
        classes: names of the labels, or None for the data set's own.
    """

    decoder = "pil"

    def __init__(self, name: str, table: Any, image: str, label: str, classes: tuple[str, ...] | None) -> None:
        self.name = name
        self._table, self._image = table, image
        count = len(table)
        self.labels = np.full(count, -1, np.int64)
        own = getattr(table.features[label], "names", None) if label else None
        if label:
            try:
                self.labels = whole_numbers([-1 if value is None else value for value in table[label]])
            except InputError:
                some = shown(next(iter(table[label]), None))
                raise InputError(
                    f"{name!r}: the column {label!r} holds {some}, which is no number of a class"
                ) from None
        numbers = tuple(str(number) for number in range(int(self.labels.max(initial=-1)) + 1))
        self.classes = (classes or (tuple(map(str, own)) if own else numbers)) if label else None
        check_labels(name, self.labels, self.classes)
        self.ids = [f"{row:08d}" for row in range(count)]
        self.fingerprint = fingerprint("hub", self.labels, list(self.classes or ()), self._sums())

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
