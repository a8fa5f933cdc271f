"""Measuring with the image shrunk into a corner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ipvit.experiments.base import Batch, ExampleImage, Measurement, Records
from ipvit.experiments.places import WHOLE, at_place, check_scale
from ipvit.experiments.position.experiment import Position, PositionCondition
from ipvit.experiments.scoring import Changed, classify_each
from ipvit.models.model import Model


class PositionMeasurement(Measurement):
    """The image in a corner, in one run.

    Raises:
        InputError: nothing would be left of the image.
    """

    def __init__(self, experiment: Position, models: Sequence[Model]) -> None:
        self.corners, self.scale = experiment.corners, experiment.scale
        for model in models:
            check_scale(experiment.name, self.scale, model)

    def conditions(self, model: Model) -> Sequence[PositionCondition]:
        """Return the whole image, then every corner."""
        return [PositionCondition(WHOLE, 1.0), *(PositionCondition(corner, self.scale) for corner in self.corners)]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the batch in every place."""
        yield from classify_each(
            model,
            batch,
            (
                Changed(one, at_place(batch.images, one.place, self.scale), clean=one.place == WHOLE)
                for one in batch.conditions
            ),
        )

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image in every place."""
        for condition in self.conditions(model):
            yield ExampleImage(condition.place, at_place(batch.images[:1], condition.place, self.scale)[0])
