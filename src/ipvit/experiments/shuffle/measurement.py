"""Measuring with the image's cells in another order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from ipvit.errors import InputError
from ipvit.experiments.base import Batch, ExampleImage, Measurement, Records
from ipvit.experiments.grids import check_equal_cells, rows_and_columns
from ipvit.experiments.scoring import Changed, classify_each
from ipvit.experiments.shuffle.experiment import (
    CLEAN,
    PAPER_GRIDS,
    Shuffle,
    ShuffleCondition,
    SubstituteCondition,
    n_cells,
)
from ipvit.models.model import Model
from ipvit.perturb.cells import divides, nearest_dividing, stands_for
from ipvit.perturb.on_device import random_order
from ipvit.perturb.seeding import keys
from ipvit.perturb.shuffle import shuffle


class ShuffleMeasurement(Measurement):
    """Patch shuffle in one run.

    What is measured on a network depends on its own input and on the experiment's grids, not on the other networks.

    Raises:
        InputError: a grid that was asked for does not divide a model's input, or none of the paper's has one near it
            that does.
    """

    def __init__(self, experiment: Shuffle, models: Sequence[Model]) -> None:
        self.experiment = experiment
        for model in models:
            if experiment.grids != PAPER_GRIDS:
                for grid in experiment.grids:
                    check_equal_cells(grid, model)
            elif not self._chosen(model)[0]:
                raise InputError(
                    f"shuffle: none of the paper's grids, nor one near them, divides {model.name}'s input of "
                    f"{model.image_size[0]}x{model.image_size[1]} pixels; give others with --grids"
                )

    def conditions(self, model: Model) -> Sequence[ShuffleCondition]:
        """Return the clean image, then grid x run."""
        chosen, _ = self._chosen(model)
        return [
            ShuffleCondition(CLEAN, 1, 0),
            *(
                SubstituteCondition(grid, n_cells(grid), run, ", ".join(chosen[grid]))
                if chosen[grid]
                else ShuffleCondition(grid, n_cells(grid), run)
                for grid in sorted(chosen, key=n_cells)
                if grid != CLEAN
                for run in range(self.experiment.runs)
            ),
        ]

    def notes(self, model: Model) -> list[str]:
        """Say which grids gave way to others, and which are left out."""
        chosen, left_out = self._chosen(model)
        found = [f"{grid} cells instead of {', '.join(others)}" for grid, others in chosen.items() if others]
        found += [f"no {grid} cells, {why}" for grid, why in left_out.items()]
        if not found:
            return []
        size = "x".join(map(str, model.image_size))
        return [f"shuffle: {model.name} with {size} pixels, which not every grid divides: {'; '.join(found)}"]

    def _chosen(self, model: Model) -> tuple[dict[str, list[str]], dict[str, str]]:
        """Return the grids that a model is measured with, each with those that it stands for, and why others are not.

        Of the paper's grids one that does not divide the input gives way to the nearest that does, where that is near
        enough and not among the paper's itself.
        """
        grids, size = self.experiment.grids, model.image_size
        chosen: dict[str, list[str]] = {grid: [] for grid in grids if divides(size, rows_and_columns(grid))}
        left_out: dict[str, str] = {}
        for grid in grids:
            wanted = rows_and_columns(grid)
            if divides(size, wanted):
                continue
            near = nearest_dividing(size, wanted)
            name = f"{near[0]}x{near[1]}"
            if name in grids:
                left_out[grid] = f"{name} is the nearest"
            elif not stands_for(near, wanted):
                left_out[grid] = "none is near"
            else:
                chosen.setdefault(name, []).append(grid)
        return chosen, left_out

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the batch in every order."""
        yield from classify_each(
            model,
            batch,
            (Changed(one, self._shuffled(batch, one), clean=one.cells == 1) for one in batch.conditions),
        )

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
        return shuffle(batch.images, random_order(key, grid[0] * grid[1], batch.images.device), grid)
