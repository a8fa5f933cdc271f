"""Mean attention maps under a fixed mask, attention distance, and outlying patches (section 3.1, figures 4 and 26)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement, Requirements
from ipvit.experiments.fields import Several
from ipvit.experiments.places import PAPER_SCALE, Scale
from ipvit.perturb.choices import Corner

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.attention.analysis import AttentionAnalysis
    from ipvit.models.model import Model


@dataclasses.dataclass(frozen=True)
class AttentionCondition(Condition):
    """One block and head under one mask."""

    information_loss: float
    block: int
    head: int


@dataclasses.dataclass(frozen=True)
class PlacedCondition(AttentionCondition):
    """One block and head, the image shrunk into one place of a black canvas."""

    place: str
    scale: float


class Attention(Experiment):
    """Average the attention from the class token to the patches over the data, with and without occlusion."""

    name: ClassVar[str] = "attention"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Attention maps"
    reproduces: ClassVar[str] = "Figures 4 and 26"
    question: ClassVar[str] = "Where does a transformer look when part of the image is gone?"

    levels: Several[Annotated[float, Field(ge=0, le=1)]] = (0.0, 0.7)
    """Information loss; every image of a level loses the same patches, as in figure 4."""
    blocks: tuple[int, ...] = ()
    """Whose attention, from 0; by default the first two, the middle two and the last two, as in figure 4."""
    corners: tuple[Corner, ...] = ()
    """Also with the image shrunk into these places of a black canvas: top-left, ..., centre, as in figure 26."""
    scale: Scale = PAPER_SCALE
    """Side of the shrunk image over the canvas's (the paper: 128 of 224 pixels)."""

    @property
    def requirements(self) -> Requirements:
        """A transformer with a class token."""
        return Requirements(frozenset({"attention"}), optional=frozenset({"tokens"}), labels=False)

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Check that every model has a class token and the blocks, and that its patches fill the image."""
        from ipvit.experiments.attention.measurement import AttentionMeasurement

        return AttentionMeasurement(self, models)

    def analysis(self) -> AttentionAnalysis:
        """Return mean maps, attention distances per block and head, and norms of patches per block."""
        from ipvit.experiments.attention.analysis import AttentionAnalysis

        return AttentionAnalysis.of(self)
