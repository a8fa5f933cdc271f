"""Decoding in worker processes: every picture is read once, and resized once per distinct view."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ipvit.core.preprocessing import View
from ipvit.data.dataset import Dataset, Decoder, UnreadableImageError
from ipvit.data.decode import apply_view, is_constant

AHEAD = 2
"""Batches that a worker reads ahead."""

SHARED_MEMORY = Path("/dev/shm")
"""Where worker processes on Linux leave what they hand over; a container often has 64 MB of it."""

VOID = 255
"""Number of the pixels of a mask that belong to neither object nor background."""


class ImageTransform(Hashable, Protocol):
    """What a worker process makes of a picture, next to the decoding; equal transforms are applied once for all tasks.

    A frozen dataclass that can be pickled.
    """

    def __call__(self, pixels: Tensor, image_id: str, seed: int) -> Tensor:
        """Return another picture, ``(3, H, W)`` uint8 as ``pixels``, which is not changed."""
        ...


TransformRequests = Mapping[tuple[View, ImageTransform], np.ndarray]
"""Positions in the data set of the images of one batch that are to be transformed, per view and transform."""


@dataclasses.dataclass
class DecodedBatch:
    """Some images of a data set, decoded.

    Attributes:
        indices: ``(B,)`` their positions in the data set, without the unreadable ones.
        labels: ``(B,)`` their labels, in the data set's numbering.
        pixels: per view, ``(B, 3, H, W)`` uint8.
        masks: per view, ``(B, K, H, W)`` uint8: 0 is background, :data:`VOID` neither object nor background, other
            numbers tell objects apart. K is 2 for data that numbers classes and instances, else 1. Empty unless asked
            for.
        unreadable: position and reason of the images that could not be read.
        constant: positions of the images that are one colour all over.
        transform: what was applied to the pictures; None for the pictures as they are.
        failure: the traceback of a transform that failed; there are no pixels then.
    """

    indices: np.ndarray
    labels: np.ndarray
    pixels: dict[View, Tensor]
    masks: dict[View, Tensor]
    unreadable: list[tuple[int, str]]
    constant: Sequence[int] = ()
    transform: ImageTransform | None = None
    failure: str = ""


class _BatchReader(IterableDataset[DecodedBatch]):
    def __init__(
        self,
        data: Dataset,
        batches: Sequence[np.ndarray],
        views: Sequence[View],
        masks: bool,
        decoder: Decoder,
        transforms: Sequence[TransformRequests],
        seed: int,
        through_pipes: bool,
    ) -> None:
        self.data, self.batches, self.views, self.masks = data, batches, views, masks
        self.decoder: Decoder = decoder
        self.transforms, self.seed = transforms, seed
        self.through_pipes = through_pipes

    def __iter__(self) -> Iterator[DecodedBatch]:
        if self.through_pipes:
            yield from (_with(batch, Tensor.numpy) for batch in self._all())
        else:
            yield from self._all()

    def _all(self) -> Iterator[DecodedBatch]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in range(first, len(self.batches), step):
            plain = self._read(number)
            yield plain
            if self.transforms:
                yield from self._transformed(plain, self.transforms[number])

    def _transformed(self, plain: DecodedBatch, requests: TransformRequests) -> Iterator[DecodedBatch]:
        """Yield one transform's pictures after the other's: all of them at once would fill the memory."""
        for (view, transform), indices in requests.items():
            rows = np.flatnonzero(np.isin(plain.indices, indices))
            if len(rows):
                yield self._apply(plain, view, transform, rows)

    def _apply(self, plain: DecodedBatch, view: View, transform: ImageTransform, rows: np.ndarray) -> DecodedBatch:
        indices = plain.indices[rows]
        pixels: dict[View, Tensor] = {}
        failure = ""
        try:
            made = [
                transform(plain.pixels[view][row], self.data.ids[int(index)], self.seed)
                for row, index in zip(rows.tolist(), indices.tolist(), strict=True)
            ]
            pixels = {view: torch.stack(made)}
        except Exception:  # noqa: BLE001 - anything may come out of somebody's function; the rest goes on
            failure = traceback.format_exc()
        masks = {view: plain.masks[view][rows] for view in plain.masks}
        return DecodedBatch(indices, plain.labels[rows], pixels, masks, [], (), transform, failure)

    def _read(self, number: int) -> DecodedBatch:
        indices: list[int] = []
        labels: list[int] = []
        pixels: dict[View, list[Tensor]] = {view: [] for view in self.views}
        masks: dict[View, list[Tensor]] = {view: [] for view in self.views if self.masks}
        unreadable: list[tuple[int, str]] = []
        constant: list[int] = []
        for index in self.batches[number].tolist():
            try:
                picture = self.data.read(index)
                mask = self._read_mask(index) if self.masks else None
            except UnreadableImageError as error:
                unreadable.append((index, str(error)))
                continue
            indices.append(index)
            labels.append(int(self.data.labels[index]))
            if is_constant(picture):
                constant.append(index)
            for view in self.views:
                pixels[view].append(apply_view(picture, view, self.decoder))
            if mask is not None:
                for view in masks:
                    masks[view].append(apply_view(mask, dataclasses.replace(view, interpolation="nearest")))
        return DecodedBatch(
            np.array(indices, dtype=np.int64),
            np.array(labels, dtype=np.int64),
            {view: torch.stack(items) for view, items in pixels.items() if items},
            {view: torch.stack(items) for view, items in masks.items() if items},
            unreadable,
            constant,
        )

    def _read_mask(self, index: int) -> Tensor:
        numbers = self.data.read_mask(index).to(torch.uint8)
        numbers = numbers.unsqueeze(0) if numbers.dim() == 2 else numbers
        void = self.data.void
        if void is None:
            return numbers.clamp(max=VOID - 1)  # a mask of 0 and 255 is all background and foreground
        return numbers.masked_fill(numbers == void, VOID)


def read_batches(
    data: Dataset,
    batches: Sequence[np.ndarray],
    views: Sequence[View],
    *,
    workers: int,
    masks: bool = False,
    decoder: Decoder = "fast",
    pin_memory: bool = False,
    transforms: Sequence[TransformRequests] = (),
    seed: int = 0,
    through_pipes: bool = False,
) -> Iterator[DecodedBatch]:
    """Yield batches of images in their order, read ahead by worker processes.

    Every batch is followed by its transformed versions, one by one. With several workers the batches that they are at
    take turns.

    Args:
        data: the data set.
        batches: positions of the images of each batch.
        views: the distinct views the models need.
        workers: worker processes; 0 reads in this process.
        masks: also read foreground masks.
        decoder: how images are resized, see :mod:`ipvit.data.decode`.
        pin_memory: for fast copies to a GPU.
        transforms: per batch, the transforms that are asked for; none by default.
        seed: of the study, for the transforms.
        through_pipes: hand pictures over without shared memory, a little slower; see :func:`shared_memory_lacking`.
    """
    reader = _BatchReader(data, batches, list(dict.fromkeys(views)), masks, decoder, transforms, seed, through_pipes)
    most = 1 if data.sequential else len(batches)  # a stream is read from the front by one process
    workers = min(workers, most, len(batches))
    loader = DataLoader(
        reader,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=one_thread,
        generator=torch.Generator(),  # of its own: the loader draws a seed, and the user's random state is not ours
    )
    yield from (_with(batch, torch.from_numpy) for batch in loader) if through_pipes else loader


def constant_note(name: str, constant: Collection[str]) -> list[str]:
    """Return what a reader should know of images that are one colour all over, given their ids; nothing for none."""
    if not constant:
        return []
    verb = "image is" if len(constant) == 1 else "images are"
    return [
        f"{len(constant):,} {verb} one colour all over in {name}, for example {min(constant)!r}: "
        "nothing can be recognised there; is that the file, or a format that reads as black?"
    ]


def shared_memory_lacking(batches: Sequence[np.ndarray], views: Sequence[View], workers: int, masks: bool) -> str:
    """Return what to tell the user where the workers' pictures do not fit into shared memory; empty where they do.

    A worker that writes beyond it dies without a word, or waits for ever.
    """
    if not workers or not batches or not SHARED_MEMORY.is_dir():
        return ""
    planes = 5 if masks else 3
    batch = max(map(len, batches)) * sum(planes * view.size[0] * view.size[1] for view in dict.fromkeys(views))
    wanted, free = workers * (AHEAD + 1) * batch, shutil.disk_usage(SHARED_MEMORY).free
    if wanted <= 0.8 * free:
        return ""
    return (
        f"{SHARED_MEMORY} has {free / 1e6:,.0f} MB free, {workers} workers want {wanted / 1e6:,.0f}: pictures go by "
        "pipe instead, a little slower (docker run --shm-size=8g)"
    )


def _with(batch: DecodedBatch, change: Callable[[Any], Any]) -> DecodedBatch:
    pixels = {view: change(array) for view, array in batch.pixels.items()}
    return dataclasses.replace(batch, pixels=pixels, masks={view: change(array) for view, array in batch.masks.items()})


def default_workers(device_type: str) -> int:
    """Return how many decoding processes are worth starting: one beside a CPU network, more to feed a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device_type == "cpu" else max(1, min(8, cores - 1))


def one_thread(_: int) -> None:
    """Let a worker process compute with one thread; the ``worker_init_fn`` of a DataLoader."""
    torch.set_num_threads(1)  # several decoders with several threads each would fight over the cores
    if (cv2 := sys.modules.get("cv2")) is not None:  # imported where a transform needs it
        cv2.setNumThreads(0)
