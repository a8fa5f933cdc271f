"""A part of a published set, before it becomes a data set: which images, which labels, and how to divide them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ipvit.data.dataset import Dataset, Decoder
from ipvit.errors import InputError
from ipvit.perturb.seeding import keys

T = TypeVar("T")

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are not part of it."""

HELD_OUT = 0.1
"""Share of the images of every class that we hold out where the publisher has no validation part."""


@dataclasses.dataclass(frozen=True, eq=False)
class FileListing:
    """Images in files.

    Attributes:
        root: the folder that ``paths`` start from.
        paths: of the images, with ``/``.
        labels: ``(N,)`` int64.
        classes: names of the classes.
        groups: what an image must not be parted from (the frames of one video), where there is such a thing.
        ids: names of the images where a path is not one, because a file holds several.
        boxes: left, top, right and bottom of the crop to be used, in pixels, where it is not the whole image.
        notes: what a reader should know of the files, in sentences.
    """

    root: Path
    paths: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    boxes: tuple[Box, ...] | None = None
    notes: tuple[str, ...] = ()

    def units(self) -> Sequence[str]:
        """Return one name per image that is the same wherever the set lies; images of one name stay together."""
        names = self.groups or self.ids or [Path(path).stem for path in self.paths]
        return [f"{self.classes[label]}/{name}" for label, name in zip(self.labels.tolist(), names, strict=True)]

    def take(self, rows: np.ndarray) -> FileListing:
        """Return the images at these positions."""
        return dataclasses.replace(
            self,
            paths=_chosen(self.paths, rows),
            labels=self.labels[rows],
            groups=self.groups and _chosen(self.groups, rows),
            ids=self.ids and _chosen(self.ids, rows),
            boxes=self.boxes and _chosen(self.boxes, rows),
        )

    def joined(self, other: FileListing) -> FileListing:
        """Return these images and then the other's, which have the same root."""
        classes, mine, others = _one_numbering(self, other)
        return dataclasses.replace(
            self,
            paths=self.paths + other.paths,
            labels=np.concatenate([mine, others]),
            classes=classes,
            groups=None,
            ids=None if self.ids is None or other.ids is None else self.ids + other.ids,
            boxes=None if self.boxes is None or other.boxes is None else self.boxes + other.boxes,
            notes=tuple(dict.fromkeys(self.notes + other.notes)),
        )

    def dataset(self, name: str, decoder: Decoder) -> Dataset:
        """Return the images as a data set."""
        from ipvit.data.published.datasets import FileDataset

        made = FileDataset(
            name, self.root, self.paths, self.labels, self.classes, ids=self.ids, boxes=self.boxes, decoder=decoder
        )
        made.notes = self.notes
        return made


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayListing:
    """Small images in memory.

    Attributes:
        images: ``(N, C, H, W)`` uint8, C is 1 or 3.
        labels: ``(N,)`` int64.
        classes: names of the classes.
        ids: names of the images.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    ids: tuple[str, ...]

    def units(self) -> Sequence[str]:
        """Return the ids."""
        return self.ids

    def take(self, rows: np.ndarray) -> ArrayListing:
        """Return the images at these positions."""
        return ArrayListing(self.images[rows], self.labels[rows], self.classes, _chosen(self.ids, rows))

    def joined(self, other: ArrayListing) -> ArrayListing:
        """Return these images and then the other's."""
        classes, mine, others = _one_numbering(self, other)
        images = np.concatenate([self.images, other.images])
        return ArrayListing(images, np.concatenate([mine, others]), classes, self.ids + other.ids)

    def dataset(self, name: str, decoder: Decoder) -> Dataset:
        """Return the images as a data set."""
        from ipvit.data.published.datasets import ArrayDataset

        return ArrayDataset(name, self.images, self.labels, self.classes, self.ids)


Listing = FileListing | ArrayListing


def divide(part: Listing) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of most of the images and of those held out: a tenth of each class.

    The choice is random but fixed: it depends on the classes and the names of the images alone, not on where they lie
    or on a seed. Of a class with one group of images nothing is held out.
    """
    units = np.asarray(part.units())
    rank = keys(units.tolist(), "held out")
    held = np.zeros(len(units), dtype=bool)
    for label in np.unique(part.labels):
        rows = np.flatnonzero(part.labels == label)
        names, first = np.unique(units[rows], return_index=True)
        if len(names) > 1:
            order = np.argsort(rank[rows[first]], kind="stable")
            held[rows] = np.isin(units[rows], names[order[: max(1, round(HELD_OUT * len(names)))]])
    return np.flatnonzero(~held), np.flatnonzero(held)


def number(names: Sequence[str], classes: Sequence[str], where: Path) -> np.ndarray:
    """Return the positions of class names in the list of classes.

    Raises:
        InputError: one of them is not there.
    """
    position = {name: row for row, name in enumerate(classes)}
    try:
        return np.array([position[name] for name in names], dtype=np.int64)
    except KeyError as error:
        raise InputError(f"{str(where)!r} names the class {error.args[0]!r}, which the list of classes lacks") from None


def _chosen(values: tuple[T, ...], rows: np.ndarray) -> tuple[T, ...]:
    return tuple(values[row] for row in rows.tolist())


def _one_numbering(first: Listing, second: Listing) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Number the classes of both parts in one list; they mostly are the same."""
    classes = tuple(dict.fromkeys([*first.classes, *second.classes]))
    position = {name: row for row, name in enumerate(classes)}
    places = np.array([position[name] for name in second.classes], dtype=np.int64)
    return classes, first.labels, places[second.labels]
