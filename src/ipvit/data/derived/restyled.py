"""A data set in other textures: made when an image is read, or read from the copy that ``ipvit stylize`` wrote."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

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
    """Copies made when they are read, one style for each image.

    Args:
        job: source, paintings, transfer, size and seed.
    """

    def __init__(self, job: Stylization) -> None:
        super().__init__(job.source, "stylised", sorted(job.identity().items()))
        self._painter = Painter(job, keep=2048)

    def read(self, index: int) -> Tensor:
        """Return the image in the style its id and the seed choose: ``(3, *view.size)`` uint8."""
        return self._painter.styled(index)[0]


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
