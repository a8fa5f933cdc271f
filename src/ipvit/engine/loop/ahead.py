"""The next batch travels to the device while the present one is measured there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ipvit.data.loader import DecodedBatch
from ipvit.engine.batches import Images, on_device


class Ahead(Iterator[tuple[DecodedBatch, Images]]):
    """Batches and their pixels on a device, in turn.

    On a GPU of NVIDIA pictures are copied on a stream of their own, in their bytes, from pinned memory: beside the
    kernels that are queued already, and not behind them. Elsewhere a batch is sent when it is its turn.

    Args:
        batches: as they are decoded.
        device: where they go.
    """

    def __init__(self, batches: Iterator[DecodedBatch], device: torch.device) -> None:
        self._batches, self._device = batches, device
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._next: tuple[DecodedBatch, Any] | None = None
        self._error: Exception | None = None

    def fetch(self) -> None:
        """Send the next batch, for which it may wait to be decoded; once until it is taken.

        What goes wrong is raised when the batch is taken: it is not the measurement's that it is called from.
        """
        if self._stream is None or self._next is not None or self._error is not None:
            return
        try:
            self._next = self._sent()
        except Exception as error:  # noqa: BLE001 - raised below, StopIteration too
            self._error = error

    def __next__(self) -> tuple[DecodedBatch, Images]:
        """Return the next batch, which work that is queued from now on may use."""
        if self._error is not None:
            raise self._error
        decoded, arrived = self._next or self._sent()
        self._next = None
        if arrived is not None:
            present = torch.cuda.current_stream(self._device)
            present.wait_event(arrived)
            for tensor in (*decoded.pixels.values(), *decoded.masks.values()):
                tensor.record_stream(present)  # else their memory could be given to the batch after the next
        return decoded, on_device(decoded, self._device)

    def _sent(self) -> tuple[DecodedBatch, Any]:
        decoded = next(self._batches)
        if self._stream is None:
            return decoded, None
        with torch.cuda.stream(self._stream):
            sent = decoded.map_tensors(lambda tensor: tensor.to(self._device, non_blocking=True))
            return sent, self._stream.record_event()
