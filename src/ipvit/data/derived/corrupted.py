"""A corrupted copy of a data set in ImageNet-C's layout, ``CORRUPTION/SEVERITY/CLASS/NAME.JPEG``."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from PIL import Image

from ipvit.data.corruption import Corruption, frost_pictures
from ipvit.data.decode import decode
from ipvit.data.derived.copy import DerivedCopy, File, Renderer
from ipvit.data.derived.sheet import ImageGrid, draw
from ipvit.data.formats.imagenet_c import KNOWN, MANIFEST
from ipvit.perturb.corruptions import REVISIONS, SEVERITIES

_START, _END = b"\xff\xd8", b"\xff\xd9"
_LATEST = max(REVISIONS.values())

_TILE, _MARGIN = 112, 150
"""The side of a tile on the contact sheet and the width of the names, in pixels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorruptedCopy(DerivedCopy):
    """Everything that determines a corrupted copy; see also :class:`DerivedCopy`.

    Attributes:
        corruptions: their names.
        severities: from 1 to 5.
        quality: of the JPEG files; ImageNet-C's is 85.
        frost: folder of the original's frost pictures; drawn ones where it is None.
        revision: of the corruptions that were put right; a folder does not mix two of them.
    """

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    quality: int = 85
    frost: str | None = None
    revision: int = _LATEST

    manifest: ClassVar[str] = MANIFEST
    suffix: ClassVar[str] = ".JPEG"
    packages: ClassVar[tuple[str, ...]] = (*DerivedCopy.packages, "opencv-python-headless")
    sheet_title: ClassVar[str] = "Corrupted images"
    on_sheet: ClassVar[int] = 2

    @property
    def versions(self) -> tuple[str, ...]:
        """Every corruption at every severity, ``fog/3``."""
        return tuple(_folder(name, severity) for name in self.corruptions for severity in self.severities)

    def identity(self) -> dict[str, object]:
        """Return what an image depends on, for a manifest; not how many images, corruptions or processes."""
        return {
            "revision": self.revision,
            "size": self.view.size[0],
            "resize": self.view.resize[0],
            "quality": self.quality,
            "frost": frost_pictures(self.frost),
            "seed": self.seed,
            "source": self.source.fingerprint,
        }

    def settings_of(self, manifest: Mapping[str, Any]) -> dict[str, object]:
        """Return what the images of a folder depend on; one that states no revision is of before the second."""
        revised = REVISIONS.keys() & dict(manifest.get("corruptions", {})).keys()
        return {"revision": 1 if revised else _LATEST} | super().settings_of(manifest)

    def going_on(self, settings: Mapping[str, object]) -> Self:
        """Return the same copy as a folder was begun: an earlier one takes no more of what was put right since."""
        if settings.get("revision") == self.revision or not REVISIONS.keys().isdisjoint(self.corruptions):
            return self
        return dataclasses.replace(self, revision=settings["revision"])

    def renderer(self) -> Renderer:
        """Return what corrupts an image and saves it as JPEG."""
        return self._files

    def _files(self, index: int, versions: Sequence[str]) -> Iterator[File]:
        picture = self.picture(index).permute(1, 2, 0).contiguous().numpy()
        for version in versions:
            name, _, severity = version.rpartition("/")
            made = Corruption(name, int(severity), frost=self.frost).of(picture, self.source.ids[index], self.seed)
            file = io.BytesIO()
            Image.fromarray(made).save(file, "JPEG", quality=self.quality, optimize=True)
            yield File(version, file.getvalue())

    def note(self, path: Path) -> str | None:
        """Return an empty note for a whole JPEG file, None for none."""
        return "" if is_whole(path) else None

    def about(self, out: Path) -> dict[str, object]:
        """Return the corruptions and severities that have folders."""
        there = {name: [s for s in SEVERITIES if (out / _folder(name, s)).is_dir()] for name in KNOWN}
        return {"corruptions": {name: severities for name, severities in there.items() if severities}}

    def sheet(self, out: Path, chosen: Mapping[int, str]) -> list[tuple[str, Image.Image]]:
        """Return each image under every corruption, severities from left to right."""
        heads = ("clean", *(f"severity {severity}" for severity in self.severities))
        titles = [name.replace("_", " ") for name in self.corruptions]
        sheets = []
        for index in chosen:
            clean = self.picture(index)
            rows = [[clean, *(self._stored(out, index, name, s) for s in self.severities)] for name in self.corruptions]
            sheets.append(draw([ImageGrid(rows, titles, heads)], min(_TILE, self.view.size[0]), _MARGIN))
        return [("one photo under every corruption", sheet) for sheet in sheets]

    def _stored(self, out: Path, index: int, name: str, severity: int):
        return decode(self.place(out, index, _folder(name, severity)).read_bytes(), "pil")


def _folder(name: str, severity: int) -> str:
    return f"{name}/{severity}"


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
