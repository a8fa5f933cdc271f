"""A data set in other textures: made when an image is read, or read from the copy that ``ipvit stylize`` wrote."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from torch import Tensor

from ipvit.core.files import write_atomic
from ipvit.data.dataset import BaseDataset, Dataset, fingerprint
from ipvit.data.decode import decode
from ipvit.data.derived.names import target_paths
from ipvit.data.derived.stylized import Painter, Stylization
from ipvit.errors import InputError


class _Copy(BaseDataset):
    """Same ids, labels and classes as the source; other pixels."""

    def __init__(self, source: Dataset, mark: str, *parts: object) -> None:
        self.name = f"{source.name} ({mark})"
        self.ids = source.ids
        self.labels = source.labels
        self.classes = source.classes
        self.aliases = source.aliases
        self.fields = dict(source.fields)
        self.fingerprint = fingerprint("restyled", source.fingerprint, *parts)


class Restyled(_Copy):
    """Copies made when they are first read, one style for each image.

    Args:
        job: source, paintings, transfer, size and seed.
        folder: where copies are kept, without loss, so that none is made twice; None keeps none.
    """

    def __init__(self, job: Stylization, folder: Path | None = None) -> None:
        super().__init__(job.source, "stylised", sorted(job.identity().items()))
        self._painter = Painter(job, keep=2048)
        self._folder = None if folder is None else folder / self.fingerprint[:16]

    def read(self, index: int) -> Tensor:
        """Return the image in the style its id and the seed choose: ``(3, *view.size)`` uint8."""
        if self._folder is None:
            return self._painter.styled(index)[0]
        path = self._folder / f"{index // 1000:06d}" / f"{index:09d}.png"
        if path.is_file():
            return decode(path.read_bytes(), "pil")
        pixels = self._painter.styled(index)[0]
        buffer = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", compress_level=1)
        write_atomic(path, buffer.getvalue())
        return pixels


class RestyledFolder(_Copy):
    """The copy that ``ipvit stylize`` wrote, image by image beside its source.

    Args:
        source: what was copied.
        folder: the copy.

    Raises:
        InputError: an image of the source has no copy there.
    """

    def __init__(self, source: Dataset, folder: Path) -> None:
        self._paths = [folder / path for path in target_paths(source, Stylization.suffix)]
        missing = [path for path in self._paths if not path.is_file()]
        if missing:
            raise InputError(
                f"{folder} lacks copies of {len(missing)} of the {len(source)} images of {source.name}, for example "
                f"{missing[0].relative_to(folder)}; make them with `ipvit stylize {source.name} --out {folder}`"
            )
        sizes = [path.stat().st_size for path in self._paths]
        super().__init__(source, "stylised", "folder", sizes)

    def read(self, index: int) -> Tensor:
        """Return the copy: ``(3, H, W)`` uint8."""
        return decode(self._paths[index].read_bytes())
