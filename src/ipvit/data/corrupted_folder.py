"""The folder of a corrupted copy: its manifest ``corrupt.json``, its classes, and a sheet to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ipvit.data import copies
from ipvit.data.corrupted_copy import CorruptedCopy
from ipvit.data.decode import decode
from ipvit.data.imagenet_c import KNOWN, MANIFEST
from ipvit.data.stylized import write_class_list
from ipvit.data.subset import select
from ipvit.files import write_atomic
from ipvit.perturb.corruptions import SEVERITIES

CONTACT_SHEET = "contact-sheet.html"
"""A page and not an image file, which loaders of class folders would take for one of the data set's."""

_PACKAGES = ("ipvit", "torch", "torchvision", "numpy", "pillow", "opencv-python-headless")
_PHOTOS, _TILE, _SIDE = 2, 112, 150
"""Photos on the contact sheet, the side of a tile and the width of the names, in pixels."""


def prepare(job: CorruptedCopy, out: Path) -> None:
    """Make the folder, or check that it is a copy made in the same way; call it holding the folder's lock.

    Raises:
        InputError: the folder holds something else, or a copy made in another way.
    """
    copies.claim(out, MANIFEST, job.identity())
    cells = [out / name / str(severity) for name, severity in job.cells]
    for folder in (out, *cells):
        write_class_list(job.source, folder)  # each of them can be used as class folders by itself
    classes = {target.rpartition("/")[0] for target in job.targets}
    copies.remove_left_overs(cell / name for cell in cells for name in classes)


def write_manifest(job: CorruptedCopy, out: Path, skipped: Mapping[int, str], *, whole: bool) -> dict[str, Any]:
    """Write ``corrupt.json`` and return it.

    Args:
        job: what is made.
        out: the folder.
        skipped: reason for each image that could not be read.
        whole: whether all images that were asked for are dealt with.
    """
    there = {name: [s for s in SEVERITIES if (out / name / str(s)).is_dir()] for name in KNOWN}
    manifest = {
        "format": 1,
        "status": "whole" if whole else "unfinished",
        "settings": job.identity(),
        "source": {"name": job.source.name, "images": len(job.source)},
        "corruptions": {name: severities for name, severities in there.items() if severities},
        "versions": copies.versions(_PACKAGES),
        "skipped": [{"image": job.source.ids[index], "reason": skipped[index]} for index in sorted(skipped)],
    }
    write_atomic(out / MANIFEST, json.dumps(manifest, indent=1).encode())
    return manifest


def write_contact_sheet(job: CorruptedCopy, out: Path, made: Sequence[int]) -> Path | None:
    """Write a page with some images under every corruption, severities from left to right; None without an image."""
    if not made:
        return None
    chosen = [made[i] for i in select([job.source.ids[index] for index in made], _PHOTOS)]
    pictures = [("one photo under every corruption", _draw_sheet(job, out, index)) for index in chosen]
    copies.write_page(out / CONTACT_SHEET, "Corrupted images", pictures)
    return out / CONTACT_SHEET


def _draw_sheet(job: CorruptedCopy, out: Path, index: int) -> Image.Image:
    tile = min(_TILE, job.view.size[0])
    step, top = tile + 4, 24
    sheet = Image.new("RGB", (_SIDE + (1 + len(job.severities)) * step, top + len(job.corruptions) * step), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, head in enumerate(("clean", *(f"severity {severity}" for severity in job.severities))):
        pen.text((_SIDE + column * step, 4), head, fill="black", font=font)
    clean = job.picture(index)
    for row, name in enumerate(job.corruptions):
        above = top + row * step
        pen.text((4, above + tile // 2 - 8), name.replace("_", " "), fill="black", font=font)
        versions = [_stored(job.place(out, index, (name, severity))) for severity in job.severities]
        for column, pixels in enumerate((clean, *versions)):
            picture = Image.fromarray(pixels).resize((tile, tile), Image.Resampling.LANCZOS)
            sheet.paste(picture, (_SIDE + column * step, above))
    return sheet


def _stored(path: Path) -> np.ndarray:
    return np.ascontiguousarray(decode(path.read_bytes(), "pil").permute(1, 2, 0).numpy())
