"""Contact sheets: pictures in rows and columns with their names, in a page to look at."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ipvit.core.files import write_atomic
from ipvit.errors import harmless

CONTACT_SHEET = "contact-sheet.html"
"""A page and not an image file, which loaders of class folders would take for one of the data set's."""

_GAP, _HEAD, _FOOT, _CAPTION = 4, 24, 10, 14
"""Pixels between tiles, above the columns where they have titles, below and for a line of captions."""


@dataclasses.dataclass(frozen=True)
class ImageGrid:
    """Pictures in rows.

    Attributes:
        rows: the pictures of each row, ``(3, H, W)`` uint8.
        titles: one for each row, on its left.
        heads: one for each column, above it; none by default.
        captions: a line below each picture; none by default.
    """

    rows: Sequence[Sequence[Tensor]]
    titles: Sequence[str]
    heads: Sequence[str] = ()
    captions: Sequence[Sequence[str]] = ()

    @property
    def above(self) -> int:
        """Pixels above the first row."""
        return _HEAD if self.heads else 0

    def step(self, tile: int) -> int:
        """Pixels from one row to the next, of tiles that wide."""
        return tile + _GAP + (_CAPTION if self.captions else 0)

    def height(self, tile: int) -> int:
        """Pixels from top to bottom, of tiles that wide."""
        return self.above + len(self.rows) * self.step(tile) + (_FOOT if self.captions else 0)


def draw(grids: Sequence[ImageGrid], tile: int, margin: int) -> Image.Image:
    """Draw grids below each other.

    Args:
        grids: at least one.
        tile: side of a picture in pixels.
        margin: pixels for the titles of rows.
    """
    across = max(len(row) for grid in grids for row in grid.rows)
    size = (margin + across * (tile + _GAP), sum(grid.height(tile) for grid in grids))
    sheet, top = Image.new("RGB", size, "white"), 0
    for grid in grids:
        _draw_grid(sheet, grid, top, tile, margin)
        top += grid.height(tile)
    return sheet


def _draw_grid(sheet: Image.Image, grid: ImageGrid, top: int, tile: int, margin: int) -> None:
    pen, large, small = ImageDraw.Draw(sheet), ImageFont.load_default(13), ImageFont.load_default(10)
    for column, head in enumerate(grid.heads):
        pen.text((margin + column * (tile + _GAP), top + 4), head, fill="black", font=large)
    for row, (pictures, title) in enumerate(zip(grid.rows, grid.titles, strict=True)):
        above = top + grid.above + row * grid.step(tile)
        pen.text((4, above + tile // 2 - (0 if grid.captions else 8)), title, fill="black", font=large)
        for column, pixels in enumerate(pictures):
            left = margin + column * (tile + _GAP)
            picture = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
            sheet.paste(picture.resize((tile, tile), Image.Resampling.LANCZOS), (left, above))
            if grid.captions:
                words = _clip(pen, grid.captions[row][column], small, tile)
                pen.text((left, above + tile + 2), words, fill="black", font=small)


def _clip(pen: ImageDraw.ImageDraw, name: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    text = name.encode("ascii", "replace").decode()
    while text and pen.textlength(text, font=font) > width:
        text = text[1:]  # the end of a path tells more than its beginning
    return text


def write_page(path: Path, title: str, pictures: Sequence[tuple[str, Image.Image]]) -> None:
    """Write a page that holds pictures, each with the words for who cannot see it."""
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>']
    for words, picture in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        text = base64.b64encode(buffer.getvalue()).decode()
        parts.append(f'<p><img alt="{html.escape(harmless(words))}" src="data:image/png;base64,{text}">')
    write_atomic(path, "".join(parts).encode())
