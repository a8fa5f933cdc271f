"""The object in a corner: is the receptive field dynamic? (appendix F, table 8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

import polars as pl
from pydantic import Field

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying, with_paper
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, Condition, ExampleImage, Experiment, Records, classify
from ipvit.experiments.fields import Several
from ipvit.models.model import Model
from ipvit.perturb.place import Corner, shrink_into

if TYPE_CHECKING:
    from torch import Tensor

    from ipvit.analysis.charts import Figure

WHOLE = "whole image"
_ORDER = ("top-right", "top-left", "bottom-right", "bottom-left", "centre")


@dataclasses.dataclass(frozen=True)
class PositionCondition(Condition):
    """One place; the scale is 1 for the whole image."""

    place: str
    scale: float


class Position(Experiment):
    """Shrink the image, put it into each corner of a black canvas, and see whether it is still recognised."""

    name: ClassVar[str] = "position"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "The image in a corner"
    reproduces: ClassVar[str] = "Table 8"
    question: ClassVar[str] = (
        "Does a network recognise an object wherever it stands, however much of the input is empty?"
    )
    compare_by: ClassVar[tuple[str, ...]] = ("place", "scale")
    reads: ClassVar[tuple[str, ...] | None] = ("place", "scale", "correct", "correct5")

    corners: Several[Corner] = _ORDER[:4]
    """Where the shrunk image goes."""
    scale: Annotated[float, Field(gt=0, lt=1)] = 128 / 224
    """Side of the shrunk image over the canvas's (the paper: 128 of 224 pixels)."""

    def check(self, model: Model) -> None:
        """Raise InputError when nothing would be left of the image."""
        if min(self._size(model.image_size)) < 1:
            raise InputError(f"position: a scale of {self.scale} leaves nothing of {model.name}'s input")

    def conditions(self, model: Model) -> Sequence[PositionCondition]:
        """Return the whole image, then every corner."""
        return [PositionCondition(WHOLE, 1.0), *(PositionCondition(corner, self.scale) for corner in self.corners)]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the batch in every place."""
        for condition in batch.conditions:
            yield Records(condition, classify(model, self._placed(batch.images, condition), batch.labels))

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return accuracy per model and place."""
        places = records.filter(pl.col("place") != WHOLE)
        by = ["model", "place", *varying(places, ["scale"])]
        order = pl.col("place").replace_strict({place: i for i, place in enumerate((WHOLE, *_ORDER))}, default=99)
        return {"position": accuracy_table(records, by).sort("model", order, *by[2:], maintain_order=True)}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return bars per place, one colour per model."""
        table = with_paper(tables["position"], tables, self.name)
        if "scale" in table.columns:  # measured at several scales: a place for each
            scaled = pl.when(pl.col("place") != WHOLE).then(pl.format("{}, {}", "place", pl.col("scale").round(2)))
            table = table.with_columns(pl.coalesce(scaled, "place").alias("place"))
        return {
            "position": charts.bars(
                table,
                charts.Encoding(x="place", y="top1", y_title="Top-1 accuracy (%)"),
                title="The image shrunk into a corner",
            )
        }

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image in every place."""
        for condition in self.conditions(model):
            yield ExampleImage(condition.place, self._placed(batch.images[:1], condition)[0])

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say what is left in the corners, and how much the corners differ."""
        sentences = []
        for (model,), frame in tables["position"].group_by(["model"], maintain_order=True):
            whole = frame.filter(pl.col("place") == WHOLE)["top1"]
            corners = frame.filter(pl.col("place") != WHOLE)["top1"]
            if len(whole) and len(corners):
                spread = float(corners.max()) - float(corners.min())  # pyright: ignore[reportArgumentType]
                sentences.append(
                    f"{model} keeps {corners.mean():.1f} % top-1 of its {whole[0]:.1f} % when the image is shrunk into "
                    f"a corner; the corners differ by {spread:.1f} points."
                )
        return sentences

    def _size(self, size: tuple[int, int]) -> tuple[int, int]:
        return round(size[0] * self.scale), round(size[1] * self.scale)

    def _placed(self, images: Tensor, condition: PositionCondition) -> Tensor:
        if condition.place == WHOLE:
            return images
        height, width = images.shape[-2:]
        return shrink_into(images, self._size((height, width)), condition.place)  # pyright: ignore[reportArgumentType]
