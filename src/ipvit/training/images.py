"""Training images: in an order and with changes that follow from (seed, epoch, image) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ipvit.data.dataset import Dataset
from ipvit.data.workers import Loader, shared_memory_short
from ipvit.perturb import seeding
from ipvit.training.reading import ImageBatch, Job, Pipeline, Reader

_CHUNK = 256
"""Pictures that are read at a time to be kept in memory."""


class TrainingImages:
    """Batches of a data set's views.

    Args:
        data: the pictures.
        pipeline: what becomes of each.
        styled: the same pictures in other textures, or None.
        share: probability that an image is seen in its styled copy where there is one; a pipeline that shows both
            says None.
        workers: loader processes, which stay alive from epoch to epoch.
        memory: in GB; prepared pictures are kept when all of them fit.
        seed: of the training.
        pin_memory: hand batches over in memory that a GPU copies from by itself.
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
        pin_memory: bool = False,
    ) -> None:
        self.data = data
        self.pin_memory = pin_memory
        self._reader = Reader(data, pipeline, styled, share, seed)
        self._workers, self._memory = 0 if data.sequential else workers, memory * 1e9
        self._fits: bool | None = None
        self._loader: Loader[Job, ImageBatch] | None = None

    def __len__(self) -> int:
        return len(self.data)

    def batches(self, chosen: Sequence[np.ndarray], epoch: int = 0) -> Iterator[ImageBatch]:
        """Yield the views of each array of sightings, ``(B, 2)``: position and how often it came before.

        Another ``epoch``, or another sighting in it, changes the same image in another way.
        """
        if not len(chosen):
            return iter(())
        self._hold()
        if self._loader is None:  # now that what is held is there for the workers as well
            views = self._reader((chosen[0][:1], epoch)).views
            self._loader = self._open(self._reader, max(map(len, chosen)) * sum(view.nbytes for view in views))
        return self._loader([(sightings, epoch) for sightings in chosen])

    def close(self) -> None:
        """End the worker processes; the next batches start others."""
        self._loader = None

    def _open(self, work: Callable[[Any], Any], batch: int) -> Loader:
        lacking = shared_memory_short(batch, self._workers)
        return Loader(
            work,
            self.data.name,
            workers=self._workers,
            pin_memory=self.pin_memory,
            through_pipes=bool(lacking),
        )

    def _hold(self) -> None:
        """Read everything once if it fits into memory, judged by a sample."""
        if self._fits is not None or not self._memory:
            return
        sample = range(0, len(self), -(-len(self) // 32))
        sizes = [sum(part.nbytes for part in self._reader.prepared(i) if part is not None) for i in sample]
        self._fits = max(sizes) * len(self) <= self._memory
        if self._fits:
            chunks = [list(range(i, min(i + _CHUNK, len(self)))) for i in range(0, len(self), _CHUNK)]
            load = self._open(self._reader.pack, _CHUNK * max(sizes))
            self._reader.held = [pair for pack in load(chunks) for pair in pack.unpacked()]


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
