"""Decoding in worker processes: every picture is read once, and resized once per distinct view."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ipvit.data.dataset import Dataset, UnreadableImage
from ipvit.data.decode import Decoder, apply_view
from ipvit.preprocessing import View

VOID = 255
"""Number of the pixels of a mask that belong to neither object nor background."""


@dataclasses.dataclass
class Chunk:
    """Some images of a data set, decoded.

    Attributes:
        indices: ``(B,)`` their positions in the data set, without the unreadable ones.
        labels: ``(B,)`` their labels, in the data set's numbering.
        pixels: per view, ``(B, 3, H, W)`` uint8.
        masks: per view, ``(B, K, H, W)`` uint8: 0 is background, :data:`VOID` neither object nor background, other
            numbers tell objects apart. K is 2 for data that numbers classes and instances, else 1. Empty unless asked
            for.
        unreadable: position and reason of the images that could not be read.
    """

    indices: np.ndarray
    labels: np.ndarray
    pixels: dict[View, Tensor]
    masks: dict[View, Tensor]
    unreadable: list[tuple[int, str]]


class _ChunkReader(TorchDataset[Chunk]):
    def __init__(
        self, data: Dataset, chunks: Sequence[np.ndarray], views: Sequence[View], masks: bool, decoder: Decoder
    ) -> None:
        self.data, self.chunks, self.views, self.masks = data, chunks, views, masks
        self.decoder: Decoder = decoder

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Chunk:
        indices: list[int] = []
        labels: list[int] = []
        pixels: dict[View, list[Tensor]] = {view: [] for view in self.views}
        masks: dict[View, list[Tensor]] = {view: [] for view in self.views if self.masks}
        unreadable: list[tuple[int, str]] = []
        for index in self.chunks[number].tolist():
            try:
                picture = self.data.read(index)
                mask = self._read_mask(index) if self.masks else None
            except UnreadableImage as error:
                unreadable.append((index, str(error)))
                continue
            indices.append(index)
            labels.append(int(self.data.labels[index]))
            for view in self.views:
                pixels[view].append(apply_view(picture, view, self.decoder))
            if mask is not None:
                for view in masks:
                    masks[view].append(apply_view(mask, dataclasses.replace(view, interpolation="nearest")))
        return Chunk(
            np.array(indices, dtype=np.int64),
            np.array(labels, dtype=np.int64),
            {view: torch.stack(items) for view, items in pixels.items() if items},
            {view: torch.stack(items) for view, items in masks.items() if items},
            unreadable,
        )

    def _read_mask(self, index: int) -> Tensor:
        numbers = self.data.read_mask(index).to(torch.uint8)
        numbers = numbers.unsqueeze(0) if numbers.dim() == 2 else numbers
        void = getattr(self.data, "void", None)
        if void is None:
            return numbers.clamp(max=VOID - 1)  # a mask of 0 and 255 is all background and foreground
        return numbers.masked_fill(numbers == void, VOID)


def read_chunks(
    data: Dataset,
    chunks: Sequence[np.ndarray],
    views: Sequence[View],
    *,
    workers: int,
    masks: bool = False,
    decoder: Decoder = "fast",
    pin_memory: bool = False,
) -> Iterator[Chunk]:
    """Yield the chunks in their order, read ahead by worker processes.

    Args:
        data: the data set.
        chunks: positions of the images of each chunk.
        views: the distinct views the models need.
        workers: worker processes; 0 reads in this process.
        masks: also read foreground masks.
        decoder: how images are resized, see :mod:`ipvit.data.decode`.
        pin_memory: for fast copies to a GPU.
    """
    reader = _ChunkReader(data, chunks, list(dict.fromkeys(views)), masks, decoder)
    most = 1 if getattr(data, "sequential", False) else len(chunks)  # a stream is read from the front by one process
    workers = min(workers, most, len(chunks))
    loader = DataLoader(
        reader,
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
    )
    yield from loader


def default_workers(device_type: str) -> int:
    """Return how many decoding processes are worth starting: one beside a CPU network, more to feed a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device_type == "cpu" else max(1, min(8, cores - 1))


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)  # several decoders with several threads each would fight over the cores
