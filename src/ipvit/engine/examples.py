"""Pictures of the conditions, kept beside the records for the report."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from PIL import Image
from pydantic import BaseModel, Field

from ipvit.core.artifacts import Kind, Metadata, first_whole, made_again
from ipvit.core.digests import digest_of
from ipvit.core.files import path_component, write_atomic
from ipvit.core.plugins import OWN_FILE

if TYPE_CHECKING:
    from torch import Tensor

    from ipvit.engine.types import Task
    from ipvit.experiments.base import Batch

EXAMPLES = "examples"
_CAPTIONS = "captions.json"


@dataclasses.dataclass(frozen=True)
class StoredExample:
    """A file and what it shows."""

    caption: str
    path: Path


class _Entry(BaseModel):
    file: Annotated[str, Field(pattern=r"^[0-9a-f]+\.png$")]  # a file beside the listing and nowhere else
    caption: str


class _Listing(Metadata):
    """The pictures of an experiment and model; the key, of what they were made with, is called ``made_with`` here."""

    key: str = Field(default="", alias="made_with")
    model: str
    pictures: list[_Entry]


LISTING = Kind("listing", _Listing, content="pictures", place="folder", hint="the next run makes it", unstated_format=1)


def save_examples(out: Path, task: Task, batch: Batch) -> list[str]:
    """Keep an experiment's pictures for one model; made anew when its conditions, its parameters or the model change.

    Equal pictures, of several models or conditions, share a file, whose name is the digest of its content.

    Returns:
        What was damaged and made again, in sentences.
    """
    import torch  # who only reads them, for the report, needs no network

    root = out / EXAMPLES / path_component(task.experiment.name)
    path = root / path_component(task.model.name, mark=task.model.digest[:8]) / _CAPTIONS
    conditions = [condition.key for condition in task.conditions]  # they know the text of the user's own functions
    made_with = f"{task.experiment.version} {task.experiment.model_dump_json()}"
    key = _digest(f"{made_with} {conditions}".encode())
    # version 0.1.0 did not look at the conditions, which matter where the text of somebody's file does
    known = {key} if OWN_FILE in made_with else {key, _digest(made_with.encode())}
    earlier, damage = first_whole([path], LISTING.read)
    if earlier is not None and earlier.key in known:
        lost = [entry.file for entry in earlier.pictures if not _is_whole(root / entry.file)]
        if not lost:
            return []
        damage = f"the picture {str(root / lost[0])!r} is missing or damaged"
    entries: list[_Entry] = []
    with torch.inference_mode():
        for example in task.measurement.examples(task.model, batch):
            data = _png(example.image)
            picture = root / f"{_digest(data)}.png"
            if not _is_whole(picture):
                write_atomic(picture, data)
            entries.append(_Entry(file=picture.name, caption=example.caption))
    if entries:
        LISTING.write(path, _Listing(made_with=key, model=task.model.name, pictures=entries))
    return [made_again(damage, "it was made")] if damage else []


def read_examples(out: Path, experiment: str) -> dict[str, list[StoredExample]]:
    """Return an experiment's pictures by model, without those that are damaged: the next run makes them again."""
    found: dict[str, list[StoredExample]] = {}
    for path in sorted((out / EXAMPLES / path_component(experiment)).glob(f"*/{_CAPTIONS}")):
        listing, _ = first_whole([path], LISTING.read)
        if listing is not None:
            files = [(entry.caption, path.parents[1] / entry.file) for entry in listing.pictures]
            found[listing.model] = [StoredExample(caption, file) for caption, file in files if _is_whole(file)]
    return found


def _is_whole(path: Path) -> bool:
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return _digest(data) == path.stem


def _png(image: Tensor) -> bytes:
    from ipvit.perturb.pixels import as_bytes

    pixels = as_bytes(image).permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=2)  # a third of the default's time, 3 % more bytes
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return digest_of(data, 16)
