"""Natural shifts: ImageNet-V2, A, R, Sketch, ObjectNet, ReaL's labels, or any other photographs of the same classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ipvit.experiments.base import BindContext, Experiment, Measurement, Requirements, SetCondition
from ipvit.experiments.fields import DataSource

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.shift.analysis import ShiftAnalysis
    from ipvit.models.model import Model

CLEAN, SHIFTED = "clean", "shifted"


@dataclasses.dataclass(frozen=True)
class ShiftCondition(SetCondition):
    """Which images are answered, and among what; ``set`` is the shifted set, by its published name where it has one.

    Attributes:
        clean_set: the clean data, likewise.
        images: ``clean`` or ``shifted``.
        n_answers: how many answers there are to choose from.
        aggregate: what counts of several outputs of one answer; empty where each is one.
    """

    clean_set: str
    images: str
    n_answers: int
    aggregate: str


class Shift(Experiment):
    """Classify other photographs of the same classes, and the clean ones among the same answers."""

    name: ClassVar[str] = "shift"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Natural shifts"
    question: ClassVar[str] = (
        "How accurate is a network on other photographs, and is that more than clean accuracy says?"
    )
    own_answers: ClassVar[bool] = True

    sets: tuple[DataSource, ...] = ()
    """The shifted data, for example imagenet-v2:PATH; the study's data are the clean images."""

    @property
    def requirements(self) -> Requirements:
        """Logits; labels are mapped for each set by itself."""
        return Requirements(labels=False)

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Open the shifted data and map the classes of each to every model's outputs."""
        from ipvit.experiments.shift.measurement import ShiftMeasurement

        return ShiftMeasurement(self, models, data, context)

    def analysis(self) -> ShiftAnalysis:
        """Return accuracies, drops and effective robustness."""
        from ipvit.experiments.shift.analysis import ShiftAnalysis

        return ShiftAnalysis.of(self)
