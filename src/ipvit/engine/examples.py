"""Pictures of the conditions, kept beside the records for the report."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Annotated

import torch
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from ipvit.engine.store import safe_name
from ipvit.engine.sweep import Pair
from ipvit.experiments.base import Batch
from ipvit.files import write_atomic

EXAMPLES = "examples"
_CAPTIONS = "captions.json"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A file and what it shows."""

    caption: str
    path: Path


def save_examples(out: Path, pair: Pair, batch: Batch) -> None:
    """Keep an experiment's pictures for one model; made anew when its conditions, its parameters or the model change.

    Equal pictures, of several models or conditions, share a file.
    """
    root = out / EXAMPLES / pair.experiment.name
    listing = root / f"{safe_name(pair.model.name)}-{pair.model.digest[:8]}" / _CAPTIONS
    keys = [condition.key for condition in pair.conditions]  # they know the text of the user's own functions
    made_with = _digest(f"{pair.experiment.version} {pair.experiment.model_dump_json()} {keys}".encode())
    earlier = _listing(listing)
    if earlier is not None and earlier.made_with == made_with:
        return
    pictures = []
    with torch.inference_mode():
        for example in pair.measurement.examples(pair.model, batch):
            data = _png(example.image)
            path = root / f"{_digest(data)}.png"
            if not path.is_file():
                write_atomic(path, data)
            pictures.append({"file": path.name, "caption": example.caption})
    if pictures:
        content = {"model": pair.model.name, "made_with": made_with, "pictures": pictures}
        write_atomic(listing, json.dumps(content, ensure_ascii=False, indent=1).encode())


def read_examples(out: Path, experiment: str) -> dict[str, list[Picture]]:
    """Return an experiment's pictures by model."""
    found = {}
    for listing in sorted((out / EXAMPLES / experiment).glob(f"*/{_CAPTIONS}")):
        content = _listing(listing)
        if content is not None:
            files = [(entry.caption, listing.parents[1] / entry.file) for entry in content.pictures]
            found[content.model] = [Picture(caption, path) for caption, path in files if _is_picture(path)]
    return found


class _Entry(BaseModel):
    file: Annotated[str, Field(pattern=r"^[0-9a-f]+\.png$")]  # a file beside the listing and nowhere else
    caption: str


class _Listing(BaseModel):
    """The pictures of an experiment and model."""

    model: str
    made_with: str
    pictures: list[_Entry]


def _listing(path: Path) -> _Listing | None:
    """Read a listing; None where there is none, or a damaged one: its pictures are made again by the next run."""
    try:
        return _Listing.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def _png(image: Tensor) -> bytes:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=2)  # a third of the default's time, 3 % more bytes
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
