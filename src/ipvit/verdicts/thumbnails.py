"""Small pictures of images of a run, where its data are at hand."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from ipvit.core.plugins import OWN_FILE
from ipvit.data.dataset import Dataset, known_fingerprints
from ipvit.engine.study import STUDY, read_study
from ipvit.errors import InputError
from ipvit.results import Run

SIDE = 128
"""Pixels of the longer side."""


def thumbnails(run: Run, ids: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return pictures as ``data:`` URLs by the ids of the images, and why there are none, or an empty text.

    The data are opened as the run's study names them. Code that it names is not run, and data that have changed since
    are not shown.
    """
    try:
        data = _data_of(run)
    except (InputError, OSError) as error:
        return {}, f"No pictures: {error}."
    places = {image: number for number, image in enumerate(data.ids)}
    found: dict[str, str] = {}
    for image in ids:
        if image in places:
            try:
                found[image] = _picture(data, places[image])
            except Exception:  # noqa: BLE001 - one that cannot be read has no picture, and the others have
                continue
    return found, ""


def _data_of(run: Run) -> Dataset:
    path = run.out / STUDY
    if not path.is_file():
        raise InputError("the run keeps no study that says where its images are")
    entry = read_study(path, check=False).data
    if OWN_FILE in entry.name:
        raise InputError(f"the images are those of {entry.name}, and code that a run folder names is not run")
    data = entry.open()
    there = run.manifest.data.fingerprint
    if not {there, run.manifest.fingerprints.get(there)} & known_fingerprints(data):
        raise InputError(f"{entry.name} holds other images than when it was measured")
    return data


def _picture(data: Dataset, index: int) -> str:
    from PIL import Image

    pixels = data.read(index).permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
