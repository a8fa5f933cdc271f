"""Occlusion: PatchDrop (Naseer et al. 2021, section 3.1, figure 3; appendices A and B)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from ipvit.core.fields import Runs
from ipvit.core.plugins import check_name
from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement, Requirements
from ipvit.experiments.fields import Several
from ipvit.experiments.grids import Grid

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.occlusion.analysis import OcclusionAnalysis
    from ipvit.models.model import Model

Mode = Literal["random", "salient", "non_salient", "block", "object"]

ON_A_GRID = ("random", "salient", "non_salient")
"""Modes that drop cells of a grid; the others hide a rectangle."""

RANDOM = ("random", "block")
"""Modes that differ from run to run."""

FILLS = ("black", "mean", "noise", "blur", "other")
"""What dropped pixels can become."""

TOKENS = "tokens"
"""The removal that takes the patches' tokens out of a transformer; beside the fills, what missing patches become."""

MASKS = "masks"
"""Name of the salience that is the data's own foreground masks."""

Level = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=0)]

DONORS = 64
"""Images of the data set whose pixels occlude others, with the fill ``other``."""

SETTINGS = ("grid", "offset", "fill", "removal", "nested", "mask_scope", "salience")
"""Columns of the records that are no axis of a chart."""


@dataclasses.dataclass(frozen=True)
class OcclusionCondition(Condition):
    """One level of one run."""

    mode: str
    information_loss: float
    run: int
    grid: str
    offset: str
    fill: str
    removal: str
    nested: bool
    mask_scope: str
    salience: str


class Occlusion(Experiment):
    """Drop a share of the image's patches and watch the accuracy fall."""

    name: ClassVar[str] = "occlusion"
    version: ClassVar[int] = 3
    title: ClassVar[str] = "Occlusion: PatchDrop"
    reproduces: ClassVar[str] = "Figure 3"
    question: ClassVar[str] = "How much of the image can a network lose before it no longer recognises the object?"

    modes: Several[Mode] = ("random",)
    """Which patches: random; salient or non_salient (the ones that hold the most or least foreground); block (one
    contiguous block); object (its bounding box)."""
    levels: Several[Level] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Information loss: the share of patches dropped; of the foreground's mass for salient and non_salient."""
    runs: Runs = 5
    """Random masks per image and level."""
    grid: Grid = "14x14"
    """Rows and columns of the patch grid, at most one cell a pixel: 224x224 drops single pixels of 224. Where it does
    not divide the image, cells differ by one pixel."""
    offset: tuple[Pixels, Pixels] = (0, 0)
    """Move the grid down and right by so many pixels."""
    fill: Literal["black", "mean", "noise", "blur", "other"] | str = "black"
    """What dropped pixels become: black (the paper), the image's mean colour, noise, a blurred copy, another image, or
    what a FILE.py:FUNCTION of your own makes."""
    removal: Literal["pixels", "tokens"] = "pixels"
    """Replace pixels, or take the patches' tokens out of the transformer (the grid must be the network's own)."""
    nested: bool = False
    """Let the patches dropped at a level be among those dropped at every higher level of the same run."""
    mask_scope: Literal["image", "batch"] = "image"
    """One random mask per image, or one for every 256 images as in the authors' code."""
    salience: str = "paper:dino_vits16"
    """Where the foreground is: a network with attention from a class token, or masks (the data's own)."""
    salience_block: int = -1
    """Whose attention counts; -1 is the last block."""
    salience_head: Annotated[str, BeforeValidator(str)] = "1"
    """A head's number from 0 (the paper: 1), mean, or rollout."""
    protocol: Literal["ours", "authors"] = "ours"
    """authors: one mask per 256 images, and the salience network fed with the evaluated network's normalisation."""

    @field_validator("fill")
    @classmethod
    def _known(cls, value: str) -> str:
        check_name("fill", value, FILLS)
        return value

    @property
    def requirements(self) -> Requirements:
        """Logits, or token removal; masks where they say what is hidden; other images where they fill."""
        wanted = {"logits", "token_removal"} if self.removal == "tokens" else {"logits"}
        masks = "object" in self.modes or (self.uses_salience and self.salience == MASKS)
        return Requirements(frozenset(wanted), masks=masks, donors=DONORS if self.fill == "other" else 0)

    @property
    def uses_salience(self) -> bool:
        """Whether a mode asks where the foreground is."""
        return "salient" in self.modes or "non_salient" in self.modes

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Check that the grid fits every model, and load what says where the foreground is."""
        from ipvit.experiments.occlusion.measurement import OcclusionMeasurement

        return OcclusionMeasurement(self, models, data)

    def analysis(self) -> OcclusionAnalysis:
        """Return curves over the share of the image that is dropped."""
        from ipvit.experiments.occlusion.analysis import OcclusionAnalysis

        return OcclusionAnalysis.of(self)
