"""Measuring with the image's cells in another order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from ipvit.experiments.base import Batch, ExampleImage, Measurement, Records
from ipvit.experiments.grids import check_grid, rows_and_columns
from ipvit.experiments.scoring import classify
from ipvit.experiments.shuffle.experiment import CLEAN, Shuffle, ShuffleCondition, n_cells
from ipvit.models.model import Model
from ipvit.perturb.seeding import keys
from ipvit.perturb.shuffle import shuffle, shuffle_order


class ShuffleMeasurement(Measurement):
    """Patch shuffle in one run.

    Raises:
        InputError: a grid does not divide a model's input.
    """

    def __init__(self, experiment: Shuffle, models: Sequence[Model]) -> None:
        self.experiment = experiment
        for model in models:
            for grid in experiment.grids:
                check_grid(grid, model)

    def conditions(self, model: Model) -> Sequence[ShuffleCondition]:
        """Return the clean image, then grid x run."""
        return [
            ShuffleCondition(CLEAN, 1, 0),
            *(
                ShuffleCondition(grid, n_cells(grid), run)
                for grid in sorted(self.experiment.grids, key=n_cells)
                if grid != CLEAN
                for run in range(self.experiment.runs)
            ),
        ]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the batch in every order."""
        for condition in batch.conditions:
            yield Records(condition, classify(model, self._shuffled(batch, condition), batch.labels))

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image in every grid."""
        first = batch.part(0, 1)
        for condition in self.conditions(model):
            if condition.run == 0:
                yield ExampleImage(f"{condition.grid} cells", self._shuffled(first, condition)[0])

    def _shuffled(self, batch: Batch, condition: ShuffleCondition) -> Tensor:
        if condition.cells == 1:
            return batch.images
        grid = rows_and_columns(condition.grid)
        key = keys(batch.ids, batch.seed, self.experiment.name, condition.grid, condition.run)
        return shuffle(batch.images, shuffle_order(key, grid), grid)
