"""Trained adversarial patches as files: a PNG and, beside it, a JSON file that says what it is.

Reading one executes nothing, and refuses what is not such a patch.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ipvit.core import artifacts
from ipvit.core.digests import digest_of
from ipvit.core.files import user_path, write_atomic
from ipvit.errors import InputError
from ipvit.experiments.grids import Grid, rows_and_columns
from ipvit.perturb.patch import PatchGeometry, Placement, Shape
from ipvit.perturb.pixels import as_bytes, as_floats
from ipvit.perturb.tensors import from_numpy

MOST_PIXELS = 4096
"""Height and width of the largest patch that is read."""


class PatchSpec(BaseModel):
    """How a patch is put on images of any size; the fields of :class:`ipvit.perturb.patch.PatchGeometry`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: Shape
    area: Annotated[float, Field(gt=0, le=0.5)]
    placement: Placement = "free"
    grid: Grid | Literal[""] = ""
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)
    target: str = ""
    """The class that images are to be taken for; empty: any wrong one."""

    def form(self, size: tuple[int, int]) -> PatchGeometry:
        """Return the form on images of a height and width.

        Raises:
            ValueError: the patch does not fit there.
        """
        grid = rows_and_columns(self.grid) if self.grid else None
        return PatchGeometry(self.shape, size, self.area, self.placement, grid, self.scale)


class PatchMetadata(artifacts.Metadata):
    """What is known of a patch beside its pixels; the JSON file."""

    model_config = ConfigDict(extra="forbid")

    look: PatchSpec
    run: int
    trained_on: str
    """Name of the network."""
    weights: str
    """The network's digest."""
    data: str
    """Fingerprint of the data set that the training images are of."""
    data_name: str
    images: int
    """How many images it was trained on."""
    steps: int
    batch: int
    rate: float
    seed: int
    precision: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = "0" * 64
    """Of the PNG file."""

    @property
    def training(self) -> str:
        """Digest (12 hex digits) of how it was trained: the same for the runs of a study."""
        text = self.model_dump_json(include={"data", "images", "steps", "batch", "rate", "seed", "precision"})
        return digest_of(text.encode(), 12)


PATCH = artifacts.Kind(
    "patch",
    PatchMetadata,
    content="picture",
    place=".json file",
    hint="a patch is a .png and a .json of one name",
    most_bytes=1 << 16,
)


@dataclasses.dataclass(frozen=True)
class Patch:
    """A patch: pixels ``(3, S, S)`` in [0, 1], and what is known of it."""

    pixels: Tensor
    metadata: PatchMetadata


def save_patch(stem: Path, patch: Patch) -> Path:
    """Write ``STEM.png`` and ``STEM.json``; return the path of the picture."""
    buffer = io.BytesIO()
    pixels = as_bytes(patch.pixels).permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(buffer, "PNG")
    picture, data = stem.with_name(f"{stem.name}.png"), buffer.getvalue()
    write_atomic(picture, data)
    metadata = patch.metadata.model_copy(update={"sha256": digest_of(data)})
    PATCH.write(stem.with_name(f"{stem.name}.json"), metadata)
    return picture


def load_patch(path: str | Path) -> Patch:
    """Read a patch that :func:`save_patch` wrote.

    Args:
        path: of the PNG or of the JSON file; the other one lies beside it.

    Raises:
        InputError: one of them is missing, is no such file, or they do not belong together.
    """
    path = user_path(path)
    picture = path.with_suffix(".png")
    metadata = PATCH.read(path.with_suffix(".json"))
    data = PATCH.read_bytes(picture, 4 * MOST_PIXELS**2)
    PATCH.verify(data, metadata.sha256, picture)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode != "RGB" or image.width != image.height or not 1 <= image.width <= MOST_PIXELS:
                raise InputError(
                    f"the patch {str(picture)!r} is {image.mode}, {image.width}x{image.height} pixels; a patch is a "
                    f"square RGB picture of at most {MOST_PIXELS} pixels"
                )
            pixels = np.asarray(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"the patch {str(picture)!r} is not a PNG picture: {error}") from None
    return Patch(as_floats(from_numpy(pixels.copy()).permute(2, 0, 1)), metadata)
