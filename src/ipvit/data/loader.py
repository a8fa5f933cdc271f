"""Decoding in worker processes: every picture is read once, and resized once per distinct view."""

from __future__ import annotations

import dataclasses
import functools
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ipvit.core.preprocessing import View
from ipvit.data import remarks
from ipvit.data.dataset import Dataset, Decoder, UnreadableImageError
from ipvit.data.decode import apply_view, check_proportions, warnings_name
from ipvit.data.workers import Stream, open_workers, parcels, pinned, replacing, shared_memory_short
from ipvit.errors import InputError, error_line

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
        remarks: positions of the images that are odd, under each of :mod:`ipvit.data.remarks`.
        transform: what was applied to the pictures; None for the pictures as they are.
        failure: the traceback of a transform that failed; there are no pixels then.
    """

    indices: np.ndarray
    labels: np.ndarray
    pixels: dict[View, Tensor]
    masks: dict[View, Tensor]
    unreadable: list[tuple[int, str]]
    remarks: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict[str, Sequence[int]])
    transform: ImageTransform | None = None
    failure: str = ""

    def map_tensors(self, change: Callable[[Any], Any]) -> Self:
        """Return the batch with ``change`` applied to its pixels and masks."""
        pixels = {view: change(array) for view, array in self.pixels.items()}
        return dataclasses.replace(
            self, pixels=pixels, masks={view: change(array) for view, array in self.masks.items()}
        )

    def pin_memory(self) -> Self:
        """Return the batch in memory that a GPU copies from by itself; torch's loader calls it."""
        return self.map_tensors(pinned)


@dataclasses.dataclass(frozen=True)
class _Step:
    """One version of a batch.

    Attributes:
        number: of the batch.
        versions: that there are of it, itself included.
        batch: the version.
    """

    number: int
    versions: int
    batch: DecodedBatch

    def map_tensors(self, change: Callable[[Any], Any]) -> Self:
        """See :class:`DecodedBatch`, likewise the next."""
        return dataclasses.replace(self, batch=self.batch.map_tensors(change))

    def pin_memory(self) -> Self:
        return self.map_tensors(pinned)


class _BatchReader:
    def __init__(
        self,
        data: Dataset,
        batches: Sequence[np.ndarray],
        views: Sequence[View],
        masks: bool,
        decoder: Decoder,
        transforms: Sequence[TransformRequests],
        seed: int,
    ) -> None:
        self.data, self.batches, self.views, self.masks = data, batches, views, masks
        self.decoder: Decoder = decoder
        self.transforms, self.seed = transforms, seed

    def remaining(self, had: Mapping[int, tuple[int, int]]) -> Callable[[], Iterator[_Step]]:
        """Return what makes, in each of the worker processes, its share of the steps that are still wanted.

        Args:
            had: by the number of a batch: how many of its versions there were already, and how many there are.
        """
        numbers = [
            number for number in range(len(self.batches)) if number not in had or had[number][0] < had[number][1]
        ]
        return functools.partial(self._steps, numbers, dict(had))  # it travels to each worker process

    def _steps(self, numbers: Sequence[int], had: Mapping[int, tuple[int, int]]) -> Iterator[_Step]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in numbers[first::step]:
            skipped, _ = had.get(number, (0, 0))
            plain = self._read(number)
            wanted = self._wanted(plain, self.transforms[number] if self.transforms else {})
            if not skipped:
                yield _Step(number, 1 + len(wanted), plain)
            for view, transform, rows in wanted[max(skipped - 1, 0) :]:  # one by one: all at once would fill the memory
                yield _Step(number, 1 + len(wanted), self._apply(plain, view, transform, rows))

    def _wanted(
        self, plain: DecodedBatch, requests: TransformRequests
    ) -> list[tuple[View, ImageTransform, np.ndarray]]:
        found = [
            (view, transform, np.flatnonzero(np.isin(plain.indices, indices)))
            for (view, transform), indices in requests.items()
        ]
        return [(view, transform, rows) for view, transform, rows in found if len(rows)]

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
        return DecodedBatch(indices, plain.labels[rows], pixels, masks, [], {}, transform, failure)

    def _read(self, number: int) -> DecodedBatch:
        indices: list[int] = []
        labels: list[int] = []
        pixels: dict[View, list[Tensor]] = {view: [] for view in self.views}
        masks: dict[View, list[Tensor]] = {view: [] for view in self.views if self.masks}
        unreadable: list[tuple[int, str]] = []
        odd: dict[str, list[int]] = {}
        for index in self.batches[number].tolist():
            try:
                shown, covered, found = self._seen(index)
            except (UnreadableImageError, InputError) as error:
                if self.data.sequential and isinstance(error, InputError):
                    raise  # of the stream, not of one image
                unreadable.append((index, str(error)))
                continue
            except Exception as error:  # noqa: BLE001 - somebody's data set may raise anything; the rest goes on
                unreadable.append((index, error_line(error, named=True)))
                continue
            indices.append(index)
            labels.append(int(self.data.labels[index]))
            for remark in found:
                odd.setdefault(remark, []).append(index)
            for view in self.views:
                pixels[view].append(shown[view])
            for view in masks:
                masks[view].append(covered[view])
        return DecodedBatch(
            np.array(indices, dtype=np.int64),
            np.array(labels, dtype=np.int64),
            {view: torch.stack(items) for view, items in pixels.items() if items},
            {view: torch.stack(items) for view, items in masks.items() if items},
            unreadable,
            odd,
        )

    def _seen(self, index: int) -> tuple[dict[View, Tensor], dict[View, Tensor], list[str]]:
        """Return an image in every view, its masks where they are asked for, and what is odd about them."""
        with warnings_name(self.data.ids[index]):
            picture = self.data.read(index)
        if picture.dtype != torch.uint8 or picture.ndim != 3 or len(picture) != 3:
            raise UnreadableImageError(
                f"its data set gives {tuple(picture.shape)} of {picture.dtype}, not (3, H, W) of torch.uint8"
            )
        shown = {view: apply_view(picture, view, self.decoder) for view in self.views}
        if not self.masks:
            return shown, {}, remarks.of_picture(picture)
        with warnings_name(self.data.ids[index]):
            mask = self._read_mask(index)
        check_proportions(mask.shape[-2:], picture.shape[-2:])
        nearest = {view: dataclasses.replace(view, interpolation="nearest") for view in self.views}
        covered = {view: apply_view(mask, nearest[view]) for view in self.views}
        return shown, covered, [*remarks.of_picture(picture), *remarks.of_mask(mask, VOID)]

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
    notes: list[str] | None = None,
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
        notes: what the user should know, to be filled.

    Raises:
        ipvit.data.workers.WorkerError: a worker process was killed for the second time, or hangs.
    """
    reader = _BatchReader(data, batches, list(dict.fromkeys(views)), masks, decoder, transforms, seed)
    most = 1 if data.sequential else len(batches)  # a stream is read from the front by one process
    had: dict[int, tuple[int, int]] = {}

    def begin() -> Iterator[_Step]:
        loader = open_workers(
            Stream(reader.remaining(had), through_pipes),
            workers=min(workers, most, len(batches)),
            pin_memory=pin_memory and not through_pipes,
        )
        return parcels(loader, data.name, through_pipes)

    for step in replacing(begin, notes):
        count, _ = had.get(step.number, (0, 0))
        had[step.number] = count + 1, step.versions
        yield step.batch


def shared_memory_lacking(batches: Sequence[np.ndarray], views: Sequence[View], workers: int, masks: bool) -> str:
    """Return what to tell the user where the workers' pictures do not fit into shared memory; empty where they do.

    A worker that writes beyond it dies without a word, or waits for ever.
    """
    if not batches:
        return ""
    planes = 5 if masks else 3
    batch = max(map(len, batches)) * sum(planes * view.size[0] * view.size[1] for view in dict.fromkeys(views))
    return shared_memory_short(batch, workers)
