"""The object in a corner: is the receptive field dynamic? (appendix F, table 8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement
from ipvit.experiments.fields import Several
from ipvit.experiments.places import PAPER_SCALE, Scale
from ipvit.perturb.choices import Corner

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.position.analysis import PositionAnalysis
    from ipvit.models.model import Model

ORDER = ("top-right", "top-left", "bottom-right", "bottom-left", "centre")
"""Order of the places in tables."""


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

    corners: Several[Corner] = ORDER[:4]
    """Where the shrunk image goes."""
    scale: Scale = PAPER_SCALE
    """Side of the shrunk image over the canvas's (the paper: 128 of 224 pixels)."""

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Check that something is left of the image on every model's input."""
        from ipvit.experiments.position.measurement import PositionMeasurement

        return PositionMeasurement(self, models)

    def analysis(self) -> PositionAnalysis:
        """Return bars by place."""
        from ipvit.experiments.position.analysis import PositionAnalysis

        return PositionAnalysis.of(self)
