"""How far a representation moves under each perturbation, beside how far apart different images are; no labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement, Requirements
from ipvit.experiments.fields import Several
from ipvit.experiments.grids import Grid
from ipvit.experiments.places import PAPER_SCALE, Scale
from ipvit.perturb.choices import Corner
from ipvit.perturb.corruptions.names import CORRUPTIONS, Corruption

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.stability.analysis import StabilityAnalysis
    from ipvit.models.model import Model

OCCLUSION, SHUFFLE, POSITION, CORRUPTION = "occlusion", "shuffle", "position", "corruption"
"""The perturbations, in the order of tables."""

Feature = Literal["auto", "class", "distillation", "mean_patch", "pooled"]
Named = Literal["occlusion", "shuffle", "position", "corruption"]
Severity = Annotated[int, Field(ge=1, le=5)]


@dataclasses.dataclass(frozen=True)
class StabilityCondition(Condition):
    """One perturbation at one setting.

    Attributes:
        perturbation: ``occlusion``, ``shuffle``, ``position`` or ``corruption``.
        setting: its level, grid, place, or name and severity.
        run: number of the repetition.
        how: further details that determine it.
        feature: the vector that is read, of the last block.
        among: how many images of the data the clean image is ranked among.
    """

    perturbation: str
    setting: str
    run: int
    how: str
    feature: str
    among: int


class Stability(Experiment):
    """Compare the representation of every perturbed image with that of all clean images."""

    name: ClassVar[str] = "stability"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Stability of representations"
    question: ClassVar[str] = (
        "How far does a representation move under each perturbation, and is it still nearest to its own image?"
    )

    perturbations: Several[Named] = (OCCLUSION, SHUFFLE, POSITION, CORRUPTION)
    """Which perturbations, all by default."""
    levels: Several[Annotated[float, Field(gt=0, le=1)]] = (0.25, 0.5, 0.75)
    """Occlusion: shares of the patches that are dropped at random, black; with the masks of occlusion."""
    grid: Grid = "14x14"
    """Occlusion: rows and columns of the patch grid."""
    grids: Several[Grid] = ("2x2", "4x4", "8x8")
    """Shuffle: rows and columns of the cells; those that do not divide a network's input are left out, and named."""
    corners: Several[Corner] = ("top-right", "top-left", "bottom-right", "bottom-left")
    """Position: where the shrunk image goes."""
    scale: Scale = PAPER_SCALE
    """Position: side of the shrunk image over the canvas's."""
    corruptions: Several[Corruption] = CORRUPTIONS
    """Corruption: names of ImageNet-C's fifteen, or speckle_noise gaussian_blur spatter saturate."""
    severities: Several[Severity] = (3,)
    """Corruption: from 1 to 5."""
    runs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Random masks and orders per image and setting."""
    among: Annotated[int, Field(ge=2)] = 1000
    """So many images of the data, the same ones every time, are those that a clean image is ranked among."""
    feature: Feature = "auto"
    """auto: the class token of the last block, or for networks without one the pooled features."""

    @property
    def requirements(self) -> Requirements:
        """Tokens, and nothing of the data but images."""
        return Requirements(frozenset({"tokens"}), labels=False)

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Check that grid, scale and token fit every model."""
        from ipvit.experiments.stability.measurement import StabilityMeasurement

        return StabilityMeasurement(self, models, data)

    def analysis(self) -> StabilityAnalysis:
        """Return cosines, ranks and the floor by perturbation."""
        from ipvit.experiments.stability.analysis import StabilityAnalysis

        return StabilityAnalysis.of(self)
