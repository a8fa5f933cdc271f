"""Feature drop: lose features inside the network instead of pixels before it (appendix C, tables 6 and 7)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ipvit.core.fields import Runs
from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement, Requirements
from ipvit.experiments.fields import Several

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.feature_drop.analysis import FeatureDropAnalysis
    from ipvit.models.model import Model

CLEAN = -1
"""Block number of the condition without any drop."""

LAYERS = "layers"
"""Column of the records that says how many blocks, or stages, the network has."""

AUTHORS = "batch (authors)"
"""Mask scope of a condition under the authors' protocol; plain ``batch`` in records of earlier versions, which counted
what is lost as the other protocol does."""


@dataclasses.dataclass(frozen=True)
class FeatureDropCondition(Condition):
    """One rate before one block; block -1 is the network as it is."""

    block: int
    rate: float
    run: int
    mask_scope: str


class FeatureDrop(Experiment):
    """Zero a share of the patch tokens, or of the spatial positions of a CNN, before one block."""

    name: ClassVar[str] = "feature-drop"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Feature drop"
    reproduces: ClassVar[str] = "Tables 6 and 7"
    question: ClassVar[str] = "Does a network survive the loss of features deep inside as well as the loss of pixels?"

    blocks: tuple[int, ...] = ()
    """Before which blocks or stages, from 0; by default every other block of a transformer (the paper: 0, 2, .. 10) and
    every stage of a CNN with the input of its pooling as the last."""
    rates: Several[Annotated[float, Field(gt=0, le=1)]] = (0.25, 0.5, 0.75)
    """Share of the patch tokens or positions that are lost; the class token is spared."""
    runs: Runs = 1
    """Random masks per image, block and rate."""
    protocol: Literal["ours", "authors"] = "ours"
    """authors: one mask for every 256 images; of a transformer int(rate x all tokens) patches are lost, of a CNN every
    position with the probability of the rate."""

    @property
    def requirements(self) -> Requirements:
        """A network that can be stopped before a block and resumed."""
        return Requirements(frozenset({"logits", "feature_drop"}))

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Check that every model has the blocks."""
        from ipvit.experiments.feature_drop.measurement import FeatureDropMeasurement

        return FeatureDropMeasurement(self, models)

    def analysis(self) -> FeatureDropAnalysis:
        """Return curves over the blocks."""
        from ipvit.experiments.feature_drop.analysis import FeatureDropAnalysis

        return FeatureDropAnalysis.of(self)
