"""Training images: read once, in an order and with changes that follow from (seed, epoch, image) alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from ipvit.data import load_dataset, trifeature
from ipvit.data.dataset import Dataset, UnreadableImage
from ipvit.data.decode import apply_view
from ipvit.errors import InputError
from ipvit.perturb import seeding
from ipvit.preprocessing import View
from ipvit.training.recipe import AugmentPart, DataPart


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
    """Batches of a data set, resized to the network's view, as uint8.

    Args:
        data: the pictures.
        part: the recipe's data section: view, loader processes, memory.
    """

    def __init__(self, data: Dataset, part: DataPart) -> None:
        self.data = data
        self._labels = torch.as_tensor(np.asarray(data.labels), dtype=torch.int64)
        self._view = part.preprocessing.view
        self._workers = part.workers
        self._held: Tensor | None = None
        self._fits = 3 * part.size**2 * len(data) <= part.memory * 1e9

    def __len__(self) -> int:
        return len(self.data)

    def batches(self, chosen: Sequence[np.ndarray]) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
        """Yield ``(images, labels, indices)`` for each array of indices: ``(B, 3, H, W)`` uint8, ``(B,)``, ``(B,)``."""
        if self._fits and self._held is None:
            self._held = torch.cat([images for images, _ in self._loader(_chunks(len(self)))])
        if self._held is not None:
            for indices in chosen:
                rows = torch.from_numpy(indices)
                yield self._held[rows], self._labels[rows], indices
            return
        for indices, (images, labels) in zip(chosen, self._loader(chosen), strict=True):
            yield images, labels, indices

    def _loader(self, chosen: Sequence[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        source = _Reader(self.data, self._labels, self._view)
        batches = [indices.tolist() for indices in chosen]
        # A generator of its own: the loader draws a seed, which must not come out of the training's numbers.
        loader = torch.utils.data.DataLoader(
            source, batch_sampler=batches, num_workers=self._workers, generator=torch.Generator()
        )
        return iter(loader)


class _Reader(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, data: Dataset, labels: Tensor, view: View) -> None:
        self._data, self._labels, self._view = data, labels, view

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        try:
            picture = self._data.read(index)
        except UnreadableImage as error:
            raise InputError(f"{self._data.name}: cannot read {self._data.ids[index]}: {error}; remove it") from error
        return apply_view(picture, self._view), self._labels[index]


def _chunks(n: int, size: int = 256) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]


def validation_batches(n: int, batch_size: int, rank: int = 0, world: int = 1) -> list[np.ndarray]:
    """Return the indices of each validation batch of one process; every image is in exactly one."""
    return [chunk for chunk in np.split(np.arange(n), range(batch_size, n, batch_size)) if len(chunk)][rank::world]


def training_batches(n: int, batch_size: int, seed: int, epoch: int, rank: int = 0, world: int = 1) -> list[np.ndarray]:
    """Return the indices of each training batch of one process: the epoch's random order, cut up, rest dropped."""
    order = seeding.random_order(seeding.keys(["order"], "training", seed, epoch), n)[0]
    steps = n // (batch_size * world)
    whole = order[: steps * batch_size * world].reshape(steps, world, batch_size)
    return list(whole[:, rank])


def augment(images: Tensor, indices: np.ndarray, part: AugmentPart, seed: int, epoch: int) -> Tensor:
    """Crop with padding and flip each image by its own random numbers.

    Args:
        images: ``(B, 3, H, W)`` uint8 on the CPU.
        indices: ``(B,)`` positions of the images in their data set.
        part: which changes.
        seed: of the training.
        epoch: another epoch changes the same image in another way.
    """
    if not (part.pad or part.hflip or part.vflip):
        return images
    keys = seeding.keys([str(index) for index in indices], "augment", seed, epoch)
    uniform = seeding.random_words(keys, 4) / np.float64(2**64)
    if part.pad:
        height, width = images.shape[-2:]
        tops, lefts = (np.minimum(uniform[:, :2] * (2 * part.pad + 1), 2 * part.pad)).astype(np.int64).T
        padded = torch.nn.functional.pad(images, [part.pad] * 4)
        windows = [
            image[:, top : top + height, left : left + width]
            for image, top, left in zip(padded, tops.tolist(), lefts.tolist(), strict=True)
        ]
        images = torch.stack(windows)
    for column, probability, dim in ((2, part.hflip, 3), (3, part.vflip, 2)):
        chosen = torch.from_numpy(uniform[:, column] < probability)[:, None, None, None]
        images = torch.where(chosen, images.flip(dim), images)
    return images
