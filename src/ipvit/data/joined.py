"""Several data sets behind each other, measured as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ipvit.data.dataset import BaseDataset, Dataset
from ipvit.errors import InputError


class JoinedDataset(BaseDataset):
    """The images of several data sets; each id names its set by its fingerprint, so that the whole needs none.

    Labels are left to who joins them: every set has classes of its own.

    Args:
        name: of the whole.
        parts: the sets, with one decoder.

    Attributes:
        part: ``(N,)`` which set each image is of.
        place: ``(N,)`` its position there.

    Raises:
        InputError: one can only be read from the front.
    """

    def __init__(self, name: str, parts: Sequence[Dataset]) -> None:
        for data in parts:
            if data.sequential:
                raise InputError(f"{data.name} can only be read from the front; {name} are read in any order")
        self.parts = tuple(parts)
        self.part = np.repeat(np.arange(len(parts)), [len(data) for data in parts])
        self.place = np.concatenate([np.arange(len(data)) for data in parts])
        ids = [f"{data.fingerprint[-12:]}/{name}" for data in parts for name in data.ids]
        super().__init__(name, np.full(len(ids), -1, dtype=np.int64), ids=ids)
        self.decoder = parts[0].decoder
        self.fingerprint = "of each image's set"
        self.notes = tuple(note for data in parts for note in getattr(data, "notes", ()))

    def read(self, index: int) -> Tensor:
        """Decode image ``index``: ``(3, H, W)`` uint8."""
        return self.parts[self.part[index]].read(int(self.place[index]))
