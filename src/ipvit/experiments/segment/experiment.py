"""Segmenting objects by attention (section 3.2, table 4 of segmentation, figure 8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement, Requirements
from ipvit.experiments.fields import Several

if TYPE_CHECKING:
    from ipvit.core.preprocessing import View
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.segment.analysis import SegmentAnalysis
    from ipvit.models.model import Model

BEST, MEAN = "best", "mean"
"""Beside the heads' numbers: the best head for each object, and the mean of all."""
EVERYTHING, CENTRE = "everything", "centre"
"""Masks without a network: the whole image, and a box in its centre."""


@dataclasses.dataclass(frozen=True)
class SegmentCondition(Condition):
    """One mask per image: of a head (its number), of the mean of all, or without a network."""

    token: str
    block: int
    threshold: float
    head: str
    protocol: str


class Segment(Experiment):
    """Take the patches that hold most of the last block's attention for the foreground and compare with masks."""

    name: ClassVar[str] = "segment"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Segmentation by attention"
    reproduces: ClassVar[str] = "Table 4 and Figure 8"
    question: ClassVar[str] = "Does a network's attention know where the object is, without ever having been told?"

    thresholds: Several[Annotated[float, Field(gt=0, lt=1)]] = (0.9,)
    """The foreground is the fewest patches that hold this share of the attention; several are a sweep."""
    block: int = -1
    """Whose attention; -1 is the last block."""
    protocol: Literal["ours", "authors"] = "ours"
    """authors: pixels marked as void count as background, and images are scaled bilinearly, as in their code."""

    @field_validator("thresholds")
    @classmethod
    def _in_order(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(value))

    @property
    def requirements(self) -> Requirements:
        """Attention from a class token, and masks to compare with."""
        return Requirements(frozenset({"attention"}), labels=False, masks=True)

    def view(self, model: Model) -> View:
        """Return the whole picture scaled to the model's input, as in the authors' code: proportions are not kept."""
        own = model.preprocessing.view
        interpolation = "bilinear" if self.protocol == "authors" else own.interpolation
        return dataclasses.replace(own, crop_pct=1.0, crop_mode="squash", interpolation=interpolation)

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Check that every model has a class token and the block, and that its patches fill its input."""
        from ipvit.experiments.segment.measurement import SegmentMeasurement

        return SegmentMeasurement(self, models)

    def analysis(self) -> SegmentAnalysis:
        """Return the Jaccard index of the ways to make one mask of many heads, and of every head."""
        from ipvit.experiments.segment.analysis import SegmentAnalysis

        return SegmentAnalysis.of(self)
