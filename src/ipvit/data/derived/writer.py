"""Making the files of a copy in worker processes, each whole or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset as TorchDataset

from ipvit.core.files import write_atomic
from ipvit.data.dataset import UnreadableImageError
from ipvit.data.derived.copy import DerivedCopy
from ipvit.data.workers import open_workers, parcels, replacing


@dataclasses.dataclass(frozen=True)
class CopiedImage:
    """What became of one image.

    Attributes:
        index: its position in the source.
        note: of its files, see :meth:`DerivedCopy.note`.
        written: versions that were made.
        kept: versions that were there.
        reason: why it was skipped, or None.
        failure: the error that writing it ended with; nothing more can be written then.
    """

    index: int
    note: str = ""
    written: int = 0
    kept: int = 0
    reason: str | None = None
    failure: OSError | None = None


def make(job: DerivedCopy, out: Path, indices: Sequence[int], workers: int) -> Iterator[CopiedImage]:
    """Write the versions of images that are not there yet; yield what became of each image, in their order.

    Args:
        job: what to make.
        out: the folder to write below.
        indices: positions of the images in the source.
        workers: worker processes, each with one thread; 0 works in this process.

    Raises:
        OSError: an image cannot be written, or a worker process was killed for the second time.
    """
    made = 0

    def begin() -> Iterator[CopiedImage]:
        left = indices[made:]
        loader = open_workers(
            _CopyWorker(job, out, left), workers=min(workers, len(left)), ahead=4, start_method=job.start_method
        )
        return parcels(loader, job.source.name, through_pipes=False)

    threads = torch.get_num_threads()
    if not workers:
        torch.set_num_threads(1)  # sums of several threads differ in their last bits
    try:
        for copied in replacing(begin):
            if copied.failure is not None:
                raise copied.failure
            made += 1
            yield copied
    finally:
        torch.set_num_threads(threads)


class _CopyWorker(TorchDataset[CopiedImage]):
    def __init__(self, job: DerivedCopy, out: Path, indices: Sequence[int]) -> None:
        self.job, self.out, self.indices = job, out, indices
        self._render = job.renderer()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> CopiedImage:
        job, index = self.job, int(self.indices[number])
        notes = {version: job.note(job.place(self.out, index, version)) for version in job.versions}
        missing = [version for version, note in notes.items() if note is None]
        note = next((note for note in notes.values() if note is not None), "")
        if not missing:
            return CopiedImage(index, note, kept=len(notes))
        try:
            for file in self._render(index, missing):
                note = file.note
                write_atomic(job.place(self.out, index, file.version), file.data)
        except UnreadableImageError as error:
            return CopiedImage(index, reason=str(error))
        except OSError as error:
            return CopiedImage(index, failure=error)
        return CopiedImage(index, note, len(missing), len(notes) - len(missing))
