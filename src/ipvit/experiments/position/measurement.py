"""Measuring with the image shrunk into a corner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from ipvit.errors import InputError
from ipvit.experiments.base import Batch, ExampleImage, Measurement, Records
from ipvit.experiments.position.experiment import WHOLE, Position, PositionCondition
from ipvit.experiments.scoring import classify
from ipvit.models.model import Model
from ipvit.perturb.place import shrink_into


class PositionMeasurement(Measurement):
    """The image in a corner, in one run.

    Raises:
        InputError: nothing would be left of the image.
    """

    def __init__(self, experiment: Position, models: Sequence[Model]) -> None:
        self.corners, self.scale = experiment.corners, experiment.scale
        for model in models:
            if min(self._size(model.image_size)) < 1:
                raise InputError(f"position: a scale of {self.scale} leaves nothing of {model.name}'s input")

    def conditions(self, model: Model) -> Sequence[PositionCondition]:
        """Return the whole image, then every corner."""
        return [PositionCondition(WHOLE, 1.0), *(PositionCondition(corner, self.scale) for corner in self.corners)]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the batch in every place."""
        for condition in batch.conditions:
            yield Records(condition, classify(model, self._placed(batch.images, condition), batch.labels))

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image in every place."""
        for condition in self.conditions(model):
            yield ExampleImage(condition.place, self._placed(batch.images[:1], condition)[0])

    def _size(self, size: tuple[int, int]) -> tuple[int, int]:
        return round(size[0] * self.scale), round(size[1] * self.scale)

    def _placed(self, images: Tensor, condition: PositionCondition) -> Tensor:
        if condition.place == WHOLE:
            return images
        height, width = images.shape[-2:]
        return shrink_into(images, self._size((height, width)), condition.place)  # pyright: ignore[reportArgumentType]
