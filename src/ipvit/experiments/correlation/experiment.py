"""Correlation of the representations of the clean and the occluded image (section 3.1, table 1, figure 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ipvit.core.fields import Runs
from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement, Requirements
from ipvit.experiments.fields import Several
from ipvit.experiments.grids import Grid

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.correlation.analysis import CorrelationAnalysis
    from ipvit.models.model import Model

Feature = Literal["auto", "class", "distillation", "mean_patch", "pooled"]

SETTINGS = ("feature", "grid", "norm")
"""Columns of the records that are no axis of a chart."""


@dataclasses.dataclass(frozen=True)
class CorrelationCondition(Condition):
    """One level of one run, read out at one block."""

    information_loss: float
    run: int
    grid: str
    block: int
    feature: str
    norm: bool


class Correlation(Experiment):
    """Compare the representation of every image with that of its occluded copy."""

    name: ClassVar[str] = "correlation"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Correlation of representations under occlusion"
    reproduces: ClassVar[str] = "Table 1 and Figure 5"
    question: ClassVar[str] = "How much of a network's representation survives when patches are lost?"

    levels: Several[Annotated[float, Field(gt=0, le=1)]] = (0.25, 0.5, 0.75)
    """Information loss: the share of patches dropped at random."""
    runs: Runs = 1
    """Random masks per image and level."""
    grid: Grid = "14x14"
    """Rows and columns of the patch grid."""
    blocks: Several[int] = (-1,)
    """Where the representation is read; -1 is the last block or stage."""
    feature: Feature = "auto"
    """auto: the class token, or for networks without one the pooled features before the classifier."""
    norm: bool = True
    """Read tokens after the network's final normalisation, as the authors' forward does."""

    @property
    def requirements(self) -> Requirements:
        """Tokens; labels only name the superclass."""
        return Requirements(frozenset({"tokens"}), labels=False)

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Check that the grid has room on every model's input, and that there are such blocks and such a token."""
        from ipvit.experiments.correlation.measurement import CorrelationMeasurement

        return CorrelationMeasurement(self, models)

    def analysis(self) -> CorrelationAnalysis:
        """Return correlations over the share of patches that is dropped, and per superclass."""
        from ipvit.experiments.correlation.analysis import CorrelationAnalysis

        return CorrelationAnalysis.of(self)
