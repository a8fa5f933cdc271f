"""Measuring how representations of clean and occluded images correlate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from ipvit.core.queued.readback import read_back
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, Measurement, Records
from ipvit.experiments.correlation.experiment import Correlation, CorrelationCondition
from ipvit.experiments.correlation.superclasses import superclass_of
from ipvit.experiments.grids import check_grid, note_on_cells, rows_and_columns
from ipvit.metrics.accuracy import first_labels
from ipvit.metrics.correlation import correlation
from ipvit.models.adapters.base import DISTILLATION_NAMES
from ipvit.models.model import Model
from ipvit.models.readout import own_token
from ipvit.perturb.on_device import random_keep
from ipvit.perturb.patchdrop import n_dropped, patchdrop
from ipvit.perturb.seeding import keys


class CorrelationMeasurement(Measurement):
    """Correlation in one run.

    Raises:
        InputError: the grid has more cells than a model's input has room for, or a model has no such block or token.
    """

    def __init__(self, experiment: Correlation, models: Sequence[Model]) -> None:
        self.experiment = experiment
        for model in models:
            self._check(model)

    def _check(self, model: Model) -> None:
        check_grid(self.experiment.grid, model)
        _blocks(model, self.experiment.blocks)
        tokens = {"distillation" if name in DISTILLATION_NAMES else name for name in model.adapter.prefix_tokens}
        if self.experiment.feature in ("class", "distillation") and self.experiment.feature not in tokens:
            raise InputError(
                f"correlation: {model.name} has no {self.experiment.feature} token; use auto, mean_patch or pooled"
            )

    def conditions(self, model: Model) -> Sequence[CorrelationCondition]:
        """Return level x run x block."""
        feature = self._feature(model)
        return [
            CorrelationCondition(level, run, self.experiment.grid, block, feature, self.experiment.norm)
            for level in sorted(self.experiment.levels)
            for run in range(self.experiment.runs)
            for block in _blocks(model, self.experiment.blocks)
        ]

    def notes(self, model: Model) -> list[str]:
        """Say of what sizes the cells are where the grid does not divide the model's input."""
        return note_on_cells(self.experiment.name, self.experiment.grid, model)

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Correlate; the clean image and each occluded copy go through the network once for all blocks."""
        blocks = sorted({condition.block for condition in batch.conditions})
        clean = self._vectors(model, batch.images, blocks)
        by_mask: dict[tuple[float, int], list[CorrelationCondition]] = {}
        for condition in batch.conditions:
            by_mask.setdefault((condition.information_loss, condition.run), []).append(condition)
        found: list[tuple[CorrelationCondition, Tensor]] = []
        for (level, run), conditions in by_mask.items():
            occluded = self._vectors(model, self._occlude(batch, level, run), blocks)
            found += [(one, correlation(clean[one.block], occluded[one.block])) for one in conditions]
        # after all is queued, as to ask for the labels is to wait
        (read,) = read_back([{"label": first_labels(batch.labels)}])
        groups = np.array([superclass_of(model.classes, label) for label in read["label"].tolist()])
        for condition, values in found:
            yield Records(condition, {"correlation": values, "superclass": groups})

    def _feature(self, model: Model) -> str:
        if self.experiment.feature != "auto":
            return self.experiment.feature
        return own_token(model)

    def _vectors(self, model: Model, images: Tensor, blocks: list[int]) -> dict[int, Tensor]:
        kind = self._feature(model)
        found = model.tokens(images, blocks, norm=self.experiment.norm)
        return {block: tokens.vector(kind) for block, tokens in found.items()}

    def _occlude(self, batch: Batch, level: float, run: int) -> Tensor:
        rows, columns = rows_and_columns(self.experiment.grid)
        # the masks of the occlusion experiment, so that both can be read side by side
        key = keys(batch.ids, batch.seed, "occlusion", "random", self.experiment.grid, run, level)
        keep = random_keep(key, (rows, columns), n_dropped(level, rows * columns), batch.images.device)
        return patchdrop(batch.images, keep)


def _blocks(model: Model, blocks: Sequence[int]) -> list[int]:
    count = model.adapter.n_blocks
    wrong = [block for block in blocks if not -count <= block < count]
    if wrong:
        raise InputError(f"{model.name} has blocks 0 to {count - 1} (or -1 for the last), not {wrong[0]}")
    return sorted({block % count for block in blocks})
