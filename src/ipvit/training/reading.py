"""Single pictures, read, prepared and changed, as worker processes do it for a whole batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from ipvit.data.dataset import Dataset, UnreadableImageError
from ipvit.data.workers import pinned
from ipvit.errors import FOREIGN_ERRORS, InputError, error_line
from ipvit.perturb import seeding
from ipvit.training.policies import OperationError


class Pipeline(Protocol):
    """How a picture becomes views."""

    def prepare(self, picture: Tensor) -> Tensor:
        """Return what the views of one picture, ``(3, H, W)`` uint8, are cut from: worth keeping in memory."""
        ...

    def __call__(self, picture: Tensor, styled: Tensor | None, key: np.uint64) -> tuple[Tensor, ...]:
        """Return the views, each ``(3, h, w)`` uint8, of a prepared picture and its styled copy where there is one."""
        ...


@dataclasses.dataclass(frozen=True)
class ImageBatch:
    """What one step sees.

    Attributes:
        views: one ``(B, 3, h, w)`` uint8 for each view.
        labels: ``(B,)`` int64.
        indices: ``(B,)`` positions in the data set.
        keys: ``(B,)`` uint64; what is random about each sighting follows from its key.
    """

    views: tuple[Tensor, ...]
    labels: Tensor
    indices: np.ndarray
    keys: np.ndarray

    def map_tensors(self, change: Callable[[Any], Any]) -> Self:
        """Return the batch with ``change`` applied to its views and labels."""
        return dataclasses.replace(self, views=tuple(map(change, self.views)), labels=change(self.labels))

    def pin_memory(self) -> Self:
        """Return the batch in memory that a GPU copies from by itself; torch's loader calls it."""
        return self.map_tensors(pinned)


Prepared = tuple[Tensor | None, Tensor | None]
"""A prepared picture and its prepared styled copy; None where it is never shown."""

Job = tuple[np.ndarray, int]
"""The sightings of a batch, ``(B, 2)`` (position, how often it came before in the epoch), and the epoch."""


@dataclasses.dataclass(frozen=True)
class Pack:
    """Prepared pictures in one block: alone, among much that is soon freed, they would hold on to far more memory.

    Attributes:
        pixels: all of them, one after the other, uint8.
        shapes: of picture and styled copy; None where there is none.
    """

    pixels: Tensor
    shapes: list[tuple[torch.Size | None, torch.Size | None]]

    @classmethod
    def of(cls, pairs: Sequence[Prepared]) -> Self:
        """Return the pairs, packed."""
        parts = [part.flatten() for pair in pairs for part in pair if part is not None]
        shapes = [tuple(None if part is None else part.shape for part in pair) for pair in pairs]
        return cls(torch.cat(parts), shapes)  # pyright: ignore[reportArgumentType] - pairs stay pairs

    def unpacked(self) -> list[Prepared]:
        """Return the pairs, which share the block."""
        lengths = [shape.numel() for pair in self.shapes for shape in pair if shape is not None]
        pieces = iter(self.pixels.clone().split(lengths))  # of its own: shared memory costs an open file

        def next_one(shape: torch.Size | None) -> Tensor | None:
            return None if shape is None else next(pieces).view(shape)

        return [(next_one(natural), next_one(styled)) for natural, styled in self.shapes]

    def map_tensors(self, change: Callable[[Any], Any]) -> Self:
        """Return the pack with ``change`` applied to its block."""
        return dataclasses.replace(self, pixels=change(self.pixels))

    def pin_memory(self) -> Self:
        """Return the pack itself: it is not for a GPU."""
        return self


class Reader:
    """Makes batches, in a worker process or in this one.

    Args:
        data: the pictures.
        pipeline: what becomes of each.
        styled: the same pictures in other textures, or None.
        share: probability that an image is seen in its styled copy; None shows both.
        seed: of the training.
    """

    def __init__(
        self, data: Dataset, pipeline: Pipeline, styled: Dataset | None, share: float | None, seed: int
    ) -> None:
        self._data, self._pipeline, self._styled, self._share, self._seed = data, pipeline, styled, share, seed
        self._labels = torch.as_tensor(np.asarray(data.labels), dtype=torch.int64)
        self.held: list[Prepared] | None = None

    def __call__(self, job: Job) -> ImageBatch:
        """Return the views of the sightings of one batch."""
        sightings, epoch = job
        keys = [self._key(index, epoch, time) for index, time in sightings.tolist()]
        views = [self._views(index, key) for index, key in zip(sightings[:, 0].tolist(), keys, strict=True)]
        stacked = tuple(torch.stack(view) for view in zip(*views, strict=True))
        return ImageBatch(stacked, self._labels[sightings[:, 0]], sightings[:, 0], np.array(keys, np.uint64))

    def pack(self, chunk: Sequence[int]) -> Pack:
        """Return prepared pictures, to be kept in memory."""
        return Pack.of([self.prepared(index) for index in chunk])

    def prepared(self, index: int) -> Prepared:
        """Return the picture and its copy, ready to be changed."""
        natural = None if self._styled is not None and self._share == 1 else self._read(self._data, index)
        return natural, None if self._styled is None else self._read(self._styled, index)

    def _key(self, index: int, epoch: int, time: int) -> np.uint64:
        words = (epoch,) if time == 0 else (epoch, time)
        return seeding.keys([str(index)], "augment", self._seed, *words)[0]

    def _views(self, index: int, key: np.uint64) -> tuple[Tensor, ...]:
        natural, styled = self._pair(index, key)
        shown = natural if natural is not None else styled
        assert shown is not None
        try:
            return self._pipeline(shown, styled, key)
        except (OperationError, OSError, *FOREIGN_ERRORS) as error:
            what = (
                str(error)
                if isinstance(error, OperationError)
                else f"a change failed ({error_line(error, named=True)})"
            )
            raise InputError(f"{self._data.name}: {what} on {self._data.ids[index]}, key {int(key)}") from error

    def _pair(self, index: int, key: np.uint64) -> Prepared:
        """Return what is shown of a picture and its copy: one of them where a share of the copies is, else both."""
        if self._styled is None or self._share is None:
            return self.prepared(index) if self.held is None else self.held[index]
        chosen = seeding.random_words(np.array([key ^ np.uint64(0x57)]), 1)[0, 0] / np.float64(2**64) < self._share
        if self.held is not None:
            natural, styled = self.held[index]
            return (None, styled) if chosen else (natural, None)
        picture = self._read(self._styled if chosen else self._data, index)
        return (None, picture) if chosen else (picture, None)

    def _read(self, data: Dataset, index: int) -> Tensor:
        try:
            return self._pipeline.prepare(data.read(index))
        except UnreadableImageError as error:
            raise InputError(f"{data.name}: cannot read {data.ids[index]}: {error}; remove it") from error
