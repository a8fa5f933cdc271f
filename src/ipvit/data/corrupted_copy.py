"""A corrupted copy of a data set in ImageNet-C's layout, ``CORRUPTION/SEVERITY/CLASS/NAME.JPEG``.

What is random follows from an image's id and the seed alone, so that the copy is the same whatever the number of worker
processes, and whether it was made at once or in several runs.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

from ipvit.data.copies import outcomes
from ipvit.data.corrupted import Corruption, frost_pictures
from ipvit.data.dataset import Dataset, UnreadableImage
from ipvit.data.decode import apply_view
from ipvit.data.stylized import target_paths
from ipvit.files import write_atomic
from ipvit.preprocessing import View

SUFFIX = ".JPEG"
_START, _END = b"\xff\xd8", b"\xff\xd9"


@dataclasses.dataclass(frozen=True)
class CorruptedCopy:
    """Everything that determines a corrupted copy.

    Attributes:
        source: the images.
        view: how they are resized and cropped first; ImageNet-C resizes the shortest side to 256 and crops 224.
        corruptions: their names.
        severities: from 1 to 5.
        quality: of the JPEG files; ImageNet-C's is 85.
        frost: folder of the original's frost pictures; drawn ones where it is None.
        seed: another seed draws other noise.
    """

    source: Dataset
    view: View
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    quality: int = 85
    frost: str | None = None
    seed: int = 0

    @functools.cached_property
    def targets(self) -> list[str]:
        """Path of each image's copies below the folder of a corruption and severity."""
        return target_paths(self.source, SUFFIX)

    @property
    def cells(self) -> list[tuple[str, int]]:
        """Every corruption at every severity."""
        return [(name, severity) for name in self.corruptions for severity in self.severities]

    def identity(self) -> dict[str, object]:
        """Return what an image depends on, for a manifest; not how many images, corruptions or processes."""
        return {
            "size": self.view.size[0],
            "resize": self.view.resize[0],
            "quality": self.quality,
            "frost": frost_pictures(self.frost),
            "seed": self.seed,
            "source": self.source.fingerprint,
        }

    def place(self, out: Path, index: int, cell: tuple[str, int]) -> Path:
        """Return where a version of an image goes."""
        return out / cell[0] / str(cell[1]) / self.targets[index]

    def picture(self, index: int) -> np.ndarray:
        """Decode, resize and crop an image: ``(H, W, 3)`` uint8; raises UnreadableImage."""
        pixels = apply_view(self.source.read(index), self.view)
        return pixels.permute(1, 2, 0).contiguous().numpy()

    def version(self, picture: np.ndarray, index: int, cell: tuple[str, int]) -> bytes:
        """Return a version of an image as a JPEG file."""
        made = Corruption(*cell, frost=self.frost).of(picture, self.source.ids[index], self.seed)
        file = io.BytesIO()
        Image.fromarray(made).save(file, "JPEG", quality=self.quality, optimize=True)
        return file.getvalue()


@dataclasses.dataclass(frozen=True)
class Made:
    """What became of one image.

    Attributes:
        index: its position in the source.
        written: versions that were made.
        kept: versions that were there.
        reason: why it was skipped.
        failure: the error that writing it ended with; nothing more can be written then.
    """

    index: int
    written: int = 0
    kept: int = 0
    reason: str | None = None
    failure: OSError | None = None


def make(job: CorruptedCopy, out: Path, indices: Sequence[int], workers: int) -> Iterator[Made]:
    """Write the versions of images that are not there yet; yield what became of them, in their order.

    Args:
        job: what to make.
        out: the folder to write below.
        indices: positions of the images in the source.
        workers: worker processes; 0 works in this process.

    Raises:
        OSError: an image cannot be written.
    """
    return outcomes(_Maker(job, out, indices), min(workers, len(indices)))


def is_whole(path: Path) -> bool:
    """Whether a JPEG file is there and was written to its end."""
    try:
        with path.open("rb") as file:
            if file.read(len(_START)) != _START:
                return False
            file.seek(-len(_END), io.SEEK_END)
            return file.read() == _END
    except OSError:
        return False


class _Maker(TorchDataset[Made]):
    def __init__(self, job: CorruptedCopy, out: Path, indices: Sequence[int]) -> None:
        self.job, self.out, self.indices = job, out, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Made:
        job, index = self.job, int(self.indices[number])
        missing = [cell for cell in job.cells if not is_whole(job.place(self.out, index, cell))]
        kept = len(job.cells) - len(missing)
        if not missing:
            return Made(index, kept=kept)
        try:
            picture = job.picture(index)
        except UnreadableImage as error:
            return Made(index, reason=str(error))
        try:
            for cell in missing:
                write_atomic(job.place(self.out, index, cell), job.version(picture, index, cell))
        except OSError as error:
            return Made(index, failure=error)
        return Made(index, len(missing), kept)
