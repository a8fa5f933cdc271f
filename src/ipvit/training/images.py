"""Training images: in an order and with changes that follow from (seed, epoch, image) alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from ipvit.data.dataset import Dataset, UnreadableImageError
from ipvit.data.loading import load_dataset
from ipvit.data.synthetic import trifeature
from ipvit.errors import InputError
from ipvit.perturb import seeding


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
    """

    views: tuple[Tensor, ...]
    labels: Tensor
    indices: np.ndarray


def open_data(name: str, size: int) -> Dataset:
    """Return the labelled data set of that name; the procedural set is drawn at ``size``.

    Raises:
        InputError: if there is no such set or an image in it has no label.
    """
    if name.startswith("demo:trifeature"):
        return trifeature.parse(name, size)
    data = load_dataset(name)
    if data.classes is None or (np.asarray(data.labels) < 0).any():
        raise InputError(f"{name}: training needs a label for every image")
    return data


class TrainingImages:
    """Batches of a data set's views.

    Args:
        data: the pictures.
        pipeline: what becomes of each.
        styled: the same pictures in other textures, or None.
        share: probability that an image is seen in its styled copy where there is one; a pipeline that shows both
            says None.
        workers: loader processes.
        memory: in GB; prepared pictures are kept when all of them fit.
        seed: of the training.
    """

    def __init__(
        self,
        data: Dataset,
        pipeline: Pipeline,
        *,
        styled: Dataset | None = None,
        share: float | None = 1.0,
        workers: int = 0,
        memory: float = 2.0,
        seed: int = 0,
    ) -> None:
        self.data = data
        self._labels = torch.as_tensor(np.asarray(data.labels), dtype=torch.int64)
        self._reader = _Reader(data, pipeline, styled, share, seed)
        self._workers, self._memory = workers, memory * 1e9
        self._held: list[_Prepared] | None = None
        self._fits: bool | None = None

    def __len__(self) -> int:
        return len(self.data)

    def batches(self, chosen: Sequence[np.ndarray], epoch: int = 0) -> Iterator[ImageBatch]:
        """Yield the views of each array of sightings, ``(B, 2)``: position and how often it came before.

        Another ``epoch``, or another sighting in it, changes the same image in another way.
        """
        if self._hold():
            assert self._held is not None
            for sightings in chosen:
                views = [self._reader.views(self._held[i], i, epoch, time) for i, time in sightings.tolist()]
                yield self._collated(views, sightings)
            return
        jobs = [[(index, time, epoch) for index, time in sightings.tolist()] for sightings in chosen]
        for sightings, views in zip(chosen, self._loader(self._reader, jobs), strict=True):
            yield self._collated(views, sightings)

    def _collated(self, views: list[tuple[Tensor, ...]], sightings: np.ndarray) -> ImageBatch:
        stacked = tuple(torch.stack(view) for view in zip(*views, strict=True))
        return ImageBatch(stacked, self._labels[sightings[:, 0]], sightings[:, 0])

    def _hold(self) -> bool:
        """Read everything once if it fits into memory, judged by a sample, and say whether it is there."""
        if self._fits is None:
            sample = range(0, len(self), -(-len(self) // 32))
            largest = max(sum(part.nbytes for part in self._reader.prepared(i) if part is not None) for i in sample)
            self._fits = largest * len(self) <= self._memory
        if self._fits and self._held is None:
            chunks = [list(range(i, min(i + 256, len(self)))) for i in range(0, len(self), 256)]
            self._held = [pair for chunk in self._loader(_Preparer(self._reader), chunks) for pair in _packed(chunk)]
        return self._fits

    def _loader(self, source: torch.utils.data.Dataset, batches: list) -> Iterator[list]:
        # A generator of its own: the loader draws a seed, which must not come out of the training's numbers.
        loader = torch.utils.data.DataLoader(
            source,
            batch_sampler=batches,
            num_workers=self._workers,
            collate_fn=_as_list,
            generator=torch.Generator(),
        )
        return iter(loader)


_Prepared = tuple[Tensor | None, Tensor | None]
"""A prepared picture and its prepared styled copy; None where it is never shown."""


class _Reader(torch.utils.data.Dataset[tuple[Tensor, ...]]):
    """Reads, prepares and changes single pictures, in a loader process or in this one."""

    def __init__(
        self, data: Dataset, pipeline: Pipeline, styled: Dataset | None, share: float | None, seed: int
    ) -> None:
        self._data, self._pipeline, self._styled, self._share, self._seed = data, pipeline, styled, share, seed

    def __getitem__(self, job: tuple[int, int, int]) -> tuple[Tensor, ...]:
        index, time, epoch = job
        return self.views(self.prepared(index), index, epoch, time)

    def prepared(self, index: int) -> _Prepared:
        """Return the picture and its copy, ready for :meth:`views`."""
        natural = None if self._styled is not None and self._share == 1 else self._read(self._data, index)
        return natural, None if self._styled is None else self._read(self._styled, index)

    def views(self, prepared: _Prepared, index: int, epoch: int, time: int) -> tuple[Tensor, ...]:
        """Return the views of one picture that is seen for the ``time``-th time in its epoch."""
        words = (epoch,) if time == 0 else (epoch, time)
        key = seeding.keys([str(index)], "augment", self._seed, *words)[0]
        natural, styled = prepared
        if natural is not None and styled is not None and self._share is not None:
            chosen = seeding.random_words(np.array([key ^ np.uint64(0x57)]), 1)[0, 0] / np.float64(2**64) < self._share
            natural, styled = (None, styled) if chosen else (natural, None)
        shown = natural if natural is not None else styled
        assert shown is not None
        return self._pipeline(shown, styled, key)

    def _read(self, data: Dataset, index: int) -> Tensor:
        try:
            return self._pipeline.prepare(data.read(index))
        except UnreadableImageError as error:
            raise InputError(f"{data.name}: cannot read {data.ids[index]}: {error}; remove it") from error


class _Preparer(torch.utils.data.Dataset[_Prepared]):
    def __init__(self, reader: _Reader) -> None:
        self._reader = reader

    def __getitem__(self, index: int) -> _Prepared:
        return self._reader.prepared(index)


def _as_list(items: list) -> list:
    return items


def _packed(chunk: Sequence[_Prepared]) -> list[_Prepared]:
    """Move pictures into one block of memory: alone, among much that is soon freed, they would hold on to far more."""
    parts = [part for pair in chunk for part in pair if part is not None]
    pieces = iter(torch.cat([part.flatten() for part in parts]).split([part.numel() for part in parts]))

    def moved(part: Tensor | None) -> Tensor | None:
        return None if part is None else next(pieces).view(part.shape)

    return [(moved(natural), moved(styled)) for natural, styled in chunk]


def validation_batches(n: int, batch_size: int, rank: int = 0, world: int = 1) -> list[np.ndarray]:
    """Return the sightings of each validation batch of one process; every image is in exactly one."""
    sightings = np.stack([np.arange(n), np.zeros(n, np.int64)], axis=1)
    return [chunk for chunk in np.split(sightings, range(batch_size, n, batch_size)) if len(chunk)][rank::world]


def training_batches(
    n: int, batch_size: int, seed: int, epoch: int, rank: int = 0, world: int = 1, repeats: int = 1
) -> list[np.ndarray]:
    """Return the sightings of each training batch of one process: the epoch's random order, cut up, rest dropped.

    With ``repeats`` each of the first ``n / repeats`` images of the order comes that many times, dealt out to
    different processes, as in DeiT's repeated augmentation (Hoffer et al. 2020).

    Returns:
        One array ``(B, 2)`` a batch: the image's position, and how often it came before in this epoch.
    """
    order = seeding.random_order(seeding.keys(["order"], "training", seed, epoch), n)[0]
    sightings = np.stack([np.repeat(order, repeats), np.tile(np.arange(repeats), n)], axis=1)
    steps = n // (batch_size * world)
    whole = sightings[: steps * batch_size * world]
    if repeats > 1:
        return list(whole.reshape(steps, batch_size, world, 2)[:, :, rank])
    return list(whole.reshape(steps, world, batch_size, 2)[:, rank])
