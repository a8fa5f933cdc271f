"""A copy of a data set in other textures, as Stylized-ImageNet is of ImageNet (Geirhos et al. 2019)."""

from __future__ import annotations

import collections
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from ipvit.data.dataset import Dataset, UnreadableImageError
from ipvit.data.decode import apply_view, decode
from ipvit.data.derived.copy import DerivedCopy, File, Renderer
from ipvit.data.derived.sheet import ImageGrid, draw
from ipvit.perturb import seeding
from ipvit.perturb.pixels import as_bytes, as_floats
from ipvit.perturb.stylize import transfer_statistics

TRIES = 8
"""Paintings that are tried for an image before it is given up: collections hold unreadable ones."""

_COLUMNS, _TILE, _MARGIN = 8, 192, 60
"""Images side by side on the contact sheet, the largest side of one and the width of the titles, in pixels."""

_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


class Transfer(Protocol):
    """What styles one image; a network in :mod:`ipvit.models.sources.style` or :class:`StatisticsTransfer`.

    Attributes:
        settings: what the result depends on, for a manifest.
        device: where it computes.
    """

    settings: dict[str, object]
    device: torch.device

    def __call__(self, content: Tensor, style: Tensor, key: np.uint64) -> Tensor:
        """Return ``content`` in the style of ``style``, all ``(3, H, H)`` uint8."""
        ...


class StatisticsTransfer:
    """The transfer that needs no weights, see :mod:`ipvit.perturb.stylize`."""

    device = torch.device("cpu")

    def __init__(self, alpha: float = 1.0, texture_scale: float = 0.05) -> None:
        self.alpha, self.texture_scale = alpha, texture_scale
        self.settings: dict[str, object] = {"method": "statistics", "alpha": alpha, "texture_scale": texture_scale}

    def __call__(self, content: Tensor, style: Tensor, key: np.uint64) -> Tensor:
        """Return the content in the style: ``(3, H, H)`` uint8."""
        styled = transfer_statistics(
            as_floats(content[None]),
            as_floats(style[None]),
            np.array([key], dtype=np.uint64),
            self.alpha,
            self.texture_scale,
        )[0]
        return as_bytes(styled)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stylization(DerivedCopy):
    """Everything that determines a stylised copy; see also :class:`DerivedCopy`.

    Each image is styled by a painting that its id and the seed alone choose.

    Attributes:
        styles: the paintings.
        transfer: what styles an image.
    """

    styles: Dataset
    transfer: Transfer

    manifest: ClassVar[str] = "stylize.json"
    suffix: ClassVar[str] = ".png"
    lists_images: ClassVar[bool] = True
    sheet_title: ClassVar[str] = "Stylised images"
    on_sheet: ClassVar[int] = 2 * _COLUMNS

    @property
    def start_method(self) -> str | None:
        """``spawn`` where the transfer is not on the CPU: CUDA does not work in a forked process."""
        return None if self.transfer.device.type == "cpu" else "spawn"

    def identity(self) -> dict[str, object]:
        """Return what the copy depends on, for a manifest; not how many images or processes."""
        return {
            **self.transfer.settings,
            "size": self.view.size[0],
            "resize": self.view.resize[0],
            "seed": self.seed,
            "source": self.source.fingerprint,
            "styles": self.styles.fingerprint,
        }

    def key(self, index: int) -> np.ndarray:
        """Return the key that everything random about an image follows from, ``(1,)``."""
        return seeding.keys([self.source.ids[index]], "stylize", self.seed)

    def candidates(self, index: int) -> list[int]:
        """Return the paintings to try for an image, in their order."""
        words = seeding.random_words(self.key(index), TRIES)[0]
        return list(dict.fromkeys((words % np.uint64(len(self.styles))).tolist()))

    def renderer(self) -> Renderer:
        """Return what styles an image and saves it as PNG, with the ids of image and painting in it."""
        return Painter(self)

    def note(self, path: Path) -> str | None:
        """Return the id of the painting a file was made with; None where it is not there or not whole."""
        return style_of(path)

    def about(self, out: Path) -> dict[str, object]:
        """Return the name and number of the paintings."""
        return {"styles": {"name": self.styles.name, "images": len(self.styles)}}

    def sheet(self, out: Path, chosen: Mapping[int, str]) -> list[tuple[str, Image.Image]]:
        """Return images above their paintings above the results."""
        position = {name: number for number, name in enumerate(self.styles.ids)}
        columns = []
        for index, style in chosen.items():
            known = style in position
            painting = self.styles.read(position[style]) if known else torch.zeros(3, 1, 1, dtype=torch.uint8)
            result = decode(self.place(out, index, "").read_bytes(), "pil")
            pictures = (self.picture(index), apply_view(painting, self.view), result)
            columns.append((pictures, (self.source.ids[index], style, self.targets[index])))
        blocks = [columns[start : start + _COLUMNS] for start in range(0, len(columns), _COLUMNS)]
        grids = [
            ImageGrid(
                rows=list(zip(*(pictures for pictures, _ in block), strict=True)),
                titles=("content", "style", "result"),
                captions=list(zip(*(names for _, names in block), strict=True)),
            )
            for block in blocks
        ]
        return [("content, style and result", draw(grids, min(_TILE, self.view.size[1]), _MARGIN))]


class Painter:
    """Styles images, each by its painting; the paintings last used are kept in memory.

    Args:
        job: paintings, their size, and the seed that chooses.
        keep: number of paintings that are kept.
    """

    def __init__(self, job: Stylization, keep: int = 256) -> None:
        self._job, self._keep = job, keep
        self._held: collections.OrderedDict[int, Tensor] = collections.OrderedDict()

    def of(self, index: int) -> tuple[int, Tensor]:
        """Return the painting for an image: its position and its pixels, ``(3, *view.size)`` uint8.

        Raises:
            UnreadableImageError: none of those that are tried can be read.
        """
        for candidate in self._job.candidates(index):
            try:
                return candidate, self._read(candidate)
            except UnreadableImageError:
                continue
        raise UnreadableImageError(f"none of {TRIES} paintings that were tried for it can be read")

    def _read(self, candidate: int) -> Tensor:
        if candidate not in self._held:
            self._held[candidate] = apply_view(self._job.styles.read(candidate), self._job.view)
            while len(self._held) > self._keep:
                self._held.popitem(last=False)
        return self._held[candidate]

    def styled(self, index: int) -> tuple[Tensor, int]:
        """Return an image in its style, ``(3, *view.size)`` uint8, and the position of its painting.

        Raises:
            UnreadableImageError: the image cannot be read, or none of the paintings that are tried.
        """
        content = self._job.picture(index)
        painting, style = self.of(index)
        return self._job.transfer(content, style, self._job.key(index)[0]), painting

    def __call__(self, index: int, versions: Sequence[str]) -> Iterator[File]:
        """Make the file of an image, see :data:`ipvit.data.derived.copy.Renderer`."""
        pixels, painting = self.styled(index)
        name = self._job.styles.ids[painting]
        for version in versions:
            yield File(version, _png(pixels, source=self._job.source.ids[index], style=name), name)


def style_of(path: Path) -> str | None:
    """Return which painting an image that is already there was made with; None where it is not there or not whole."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), io.SEEK_END)
            if file.read() != _PNG_END:
                return None
            file.seek(0)
            return Image.open(file, formats=["PNG"]).info.get("style")
    except (OSError, SyntaxError, ValueError):
        return None


def _png(pixels: Tensor, **texts: str) -> bytes:
    notes = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        notes.add_text(name, text.encode("utf-8", "backslashreplace").decode())
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", pnginfo=notes)
    return buffer.getvalue()
