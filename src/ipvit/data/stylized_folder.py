"""The folder of a stylised copy: its manifest ``stylize.json``, what is already there, and a sheet to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ipvit.data import copies
from ipvit.data.dataset import Dataset
from ipvit.data.decode import apply_view, decode
from ipvit.data.stylized import Stylization, style_of, write_class_list
from ipvit.data.subset import select
from ipvit.files import write_atomic

MANIFEST = "stylize.json"
CONTACT_SHEET = "contact-sheet.html"
"""A page and not an image file, which loaders of class folders would take for one of the data set's."""

_PACKAGES = ("ipvit", "torch", "torchvision", "numpy", "pillow")
_COLUMNS, _BLOCKS, _TILE = 8, 2, 192
"""Images side by side on the contact sheet, rows of them, and the largest side of one in pixels."""


def prepare(job: Stylization, out: Path) -> None:
    """Make the folder, or check that it is a copy made in the same way; call it holding the folder's lock.

    Raises:
        InputError: the folder holds something else, or a copy made in another way.
    """
    if copies.claim(out, MANIFEST, job.identity()):
        write_class_list(job.source, out)
    copies.remove_left_overs(out / folder for folder in {target.rpartition("/")[0] for target in job.targets})


def already_there(job: Stylization, out: Path) -> dict[int, str]:
    """Return the images of the source that need not be made again, with their paintings."""
    found = ((index, style_of(out / target)) for index, target in enumerate(job.targets))
    return {index: style for index, style in found if style is not None}


def write_manifest(
    job: Stylization, out: Path, styles: Mapping[int, str], skipped: Mapping[int, str], *, whole: bool
) -> dict[str, Any]:
    """Write ``stylize.json`` and return it.

    Args:
        job: what is made.
        out: the folder.
        styles: painting of each image that is there.
        skipped: reason for each image that is not.
        whole: whether all images that were asked for are dealt with.
    """
    manifest = {
        "format": 1,
        "status": "whole" if whole else "unfinished",
        "settings": job.identity(),
        "source": {"name": job.source.name, "images": len(job.source)},
        "styles": {"name": job.styles.name, "images": len(job.styles)},
        "versions": copies.versions(_PACKAGES),
        "skipped": [{"image": job.source.ids[index], "reason": skipped[index]} for index in sorted(skipped)],
        "images": {job.targets[index]: styles[index] for index in sorted(styles)},
    }
    write_atomic(out / MANIFEST, json.dumps(manifest, indent=1).encode())
    return manifest


def write_contact_sheet(job: Stylization, out: Path, styles: Mapping[int, str]) -> Path | None:
    """Write a page with some images above their paintings above the results; None where there is no image."""
    made = sorted(styles)
    if not made:
        return None
    chosen = [made[i] for i in select([job.source.ids[index] for index in made], _COLUMNS * _BLOCKS)]
    position = {name: number for number, name in enumerate(job.styles.ids)}
    columns = []
    for index in chosen:
        content = apply_view(job.source.read(index), job.view)
        style = apply_view(_painting(job.styles, position, styles[index]), job.view)
        result = decode((out / job.targets[index]).read_bytes(), "pil")
        columns.append(((content, style, result), (job.source.ids[index], styles[index], job.targets[index])))
    copies.write_page(out / CONTACT_SHEET, "Stylised images", [("content, style and result", _draw_sheet(columns))])
    return out / CONTACT_SHEET


def _painting(styles: Dataset, position: Mapping[str, int], name: str) -> Tensor:
    return styles.read(position[name]) if name in position else torch.zeros(3, 1, 1, dtype=torch.uint8)


def _draw_sheet(columns: Sequence[tuple[Sequence[Tensor], Sequence[str]]]) -> Image.Image:
    tile = min(_TILE, columns[0][0][0].shape[-1])
    wide, tall, gap, line = tile + 4, tile + 18, 60, ImageFont.load_default(10)
    across = min(_COLUMNS, len(columns))
    down = -(-len(columns) // across)
    sheet = Image.new("RGB", (gap + across * wide, down * (3 * tall + 10)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (pictures, names) in enumerate(columns):
        left, top = gap + number % across * wide, number // across * (3 * tall + 10)
        for row, (pixels, name, title) in enumerate(zip(pictures, names, ("content", "style", "result"), strict=True)):
            picture = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
            sheet.paste(picture.resize((tile, tile), Image.Resampling.LANCZOS), (left, top + row * tall))
            pen.text((left, top + row * tall + tile + 2), _clip(pen, name, line, tile), fill="black", font=line)
            if number % across == 0:
                pen.text((4, top + row * tall + tile // 2), title, fill="black", font=ImageFont.load_default(13))
    return sheet


def _clip(pen: ImageDraw.ImageDraw, name: str, font: Any, width: int) -> str:
    text = name.encode("ascii", "replace").decode()
    while text and pen.textlength(text, font=font) > width:
        text = text[1:]  # the end of a path tells more than its beginning
    return text
