"""Measuring how far representations move."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ipvit.data.corruption import Corruption
from ipvit.data.dataset import Dataset, has_pictures
from ipvit.data.subset import subset_indices
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, ExampleImage, Measurement, PrepareContext, Records
from ipvit.experiments.grids import check_grid, note_on_cells, rows_and_columns
from ipvit.experiments.places import at_place, check_scale
from ipvit.experiments.stability.experiment import (
    CORRUPTION,
    OCCLUSION,
    POSITION,
    SHUFFLE,
    Stability,
    StabilityCondition,
)
from ipvit.features.store import Features, FeatureStore
from ipvit.models.capabilities import DISTILLATION_NAMES
from ipvit.models.model import Model
from ipvit.models.readout import FeatureSpec, own_token
from ipvit.perturb.cells import divides
from ipvit.perturb.corruptions import REVISIONS
from ipvit.perturb.patchdrop import n_dropped, patchdrop, random_keep
from ipvit.perturb.pixels import as_bytes, as_floats
from ipvit.perturb.seeding import keys
from ipvit.perturb.shuffle import shuffle, shuffle_order
from ipvit.perturb.tensors import from_numpy

FEATURES = "features"
"""Where features are kept, below the run folder."""


@dataclasses.dataclass(frozen=True)
class CleanFeatures:
    """What clean images are in one model's representation.

    Attributes:
        unit: ``(R, D)`` float32 vectors of length 1 of the images that a clean image is ranked among.
        rows: place of each of these by its id.
        read: returns such vectors of other images, given by their positions in the data.
    """

    unit: Tensor
    rows: Mapping[str, int]
    read: Callable[[np.ndarray], Tensor]

    def of(self, batch: Batch) -> Tensor:
        """Return the vectors ``(B, D)`` of a batch's clean images."""
        known = np.array([one in self.rows for one in batch.ids])
        found = self.unit.new_empty(len(batch), self.unit.shape[1])
        places = torch.tensor([self.rows[one] for one in batch.ids if one in self.rows], device=found.device)
        found[from_numpy(known).to(found.device)] = self.unit[places.long()]
        if not known.all():
            found[from_numpy(~known).to(found.device)] = self.read(batch.positions[~known])
        return found

    def compared(self, ids: Sequence[str], clean: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        """Return what became of perturbed images.

        Args:
            ids: of their clean images.
            clean: ``(B, D)`` vectors of these, of length 1.
            vectors: ``(B, D)`` of the perturbed ones.

        Returns:
            ``cosine`` to the own clean image; its ``rank`` by cosine among R images, its own one counted, 1 for the
            nearest; and ``floor``, the mean cosine of the own clean image to these others. In float32 whatever the
            autocast around: a product of matrices in bfloat16 is off by more than near images are apart.
        """
        unit = nn.functional.normalize(vectors.float(), dim=1)
        cosine = (unit * clean).sum(dim=1)
        places = torch.tensor([self.rows.get(one, -1) for one in ids], device=clean.device)
        other = torch.arange(len(self.unit), device=clean.device) != places[:, None]
        other[:, -1] &= places >= 0  # one less for images that are not among them: each has as many others
        with torch.autocast(clean.device.type, enabled=False):
            closer = (unit @ self.unit.T > cosine[:, None]) & other
            floor = ((clean @ self.unit.T) * other).sum(dim=1) / other.sum(dim=1)
        rank = torch.where(cosine.isfinite(), closer.sum(dim=1) + 1.0, torch.nan)
        return {"cosine": cosine, "rank": rank, "floor": floor}


class StabilityMeasurement(Measurement):
    """Stability in one run.

    Raises:
        InputError: grid, scale or token do not fit a model.
    """

    def __init__(self, experiment: Stability, models: Sequence[Model], data: Dataset) -> None:
        self.experiment = experiment
        # the same images whatever part of the data a study measures
        self._others = subset_indices(data, experiment.among)
        if len(data) < 2:
            raise InputError(f"stability: a clean image is ranked among others, and {data.name} has {len(data)}")
        for model in models:
            self._check(model)

    def _check(self, model: Model) -> None:
        asked = self.experiment.perturbations
        if OCCLUSION in asked:
            check_grid(self.experiment.grid, model)
        if POSITION in asked:
            check_scale(self.experiment.name, self.experiment.scale, model)
        tokens = {"distillation" if name in DISTILLATION_NAMES else name for name in model.adapter.prefix_tokens}
        if self.experiment.feature in ("class", "distillation") and self.experiment.feature not in tokens:
            raise InputError(
                f"stability: {model.name} has no {self.experiment.feature} token; use auto, mean_patch or pooled"
            )
        if asked == (SHUFFLE,) and not self._grids(model):
            raise InputError(f"stability: no grid of {', '.join(self.experiment.grids)} divides {model.name}'s input")

    def conditions(self, model: Model) -> Sequence[StabilityCondition]:
        """Return every perturbation at every setting, random ones in every run."""
        asked, runs = self.experiment.perturbations, range(self.experiment.runs)
        found: list[tuple[str, str, int, str]] = []
        if OCCLUSION in asked:
            how = f"{self.experiment.grid} black"
            found += [(OCCLUSION, level, run, how) for level in self._levels for run in runs]
        if SHUFFLE in asked:
            found += [(SHUFFLE, grid, run, "") for grid in self._grids(model) for run in runs]
        if POSITION in asked:
            found += [(POSITION, corner, 0, f"{self.experiment.scale:.6g}") for corner in self.experiment.corners]
        if CORRUPTION in asked:
            found += [
                (CORRUPTION, f"{name} {severity}", 0, f"JPEG 85, revision {REVISIONS.get(name, 1)}")
                for name in self.experiment.corruptions
                for severity in sorted(self.experiment.severities)
            ]
        feature = self._feature(model)
        return [StabilityCondition(*one, feature, len(self._others)) for one in found]

    def notes(self, model: Model) -> list[str]:
        """Say which perturbations are left out, and why."""
        found = [
            "stability: salient occlusion, attacks, styles and cue conflicts are left out: they need a network that "
            "tells salience, labels, or paintings"
        ]
        if OCCLUSION in self.experiment.perturbations:
            found += note_on_cells(self.experiment.name, self.experiment.grid, model)
        lacking = [grid for grid in self.experiment.grids if grid not in self._grids(model)]
        if SHUFFLE in self.experiment.perturbations and lacking:
            size = "x".join(map(str, model.image_size))
            found.append(
                f"stability: {', '.join(lacking)} cells are left out for {model.name}: they do not divide its input of "
                f"{size} pixels"
            )
        return found

    @property
    def _levels(self) -> dict[str, float]:
        """The levels of occlusion by what tables call them, which is rounded."""
        return {f"{100 * level:g} %": level for level in sorted(self.experiment.levels)}

    def _grids(self, model: Model) -> list[str]:
        return [grid for grid in self.experiment.grids if divides(model.image_size, rows_and_columns(grid))]

    def _feature(self, model: Model) -> str:
        return own_token(model) if self.experiment.feature == "auto" else self.experiment.feature

    def image_transform(self, condition: StabilityCondition) -> Corruption | None:
        """Return the corruption of a condition, made by the worker processes; None for all else."""
        if condition.perturbation != CORRUPTION:
            return None
        name, _, severity = condition.setting.rpartition(" ")
        return Corruption(name, int(severity), jpeg=True)

    def prepare(self, model: Model, context: PrepareContext) -> CleanFeatures:
        """Read the representation of the clean images that others are ranked among; it is kept in the run folder."""
        assert has_pictures(context.items)
        data: Dataset = context.items
        spec = FeatureSpec(model.adapter.n_blocks - 1, self._feature(model))
        store = FeatureStore(context.folder / FEATURES)

        def extracted(positions: np.ndarray, workers: int) -> Features:
            return store.extract(
                model,
                data,
                [spec],
                view=self.view(model) or self.experiment.view(model),
                precision=context.precision,
                positions=positions,
                batch_size=context.batch_size,
                workers=workers,
            )

        def read(positions: np.ndarray) -> Tensor:
            known = extracted(np.concatenate([self._others, positions]), 0)
            unit = self._unit(known, spec)
            rows = torch.full((len(positions), unit.shape[1]), torch.nan)  # of an image without finite features
            place = {int(position): row for row, position in enumerate(known.positions)}
            for row, position in enumerate(positions.tolist()):
                if position in place:
                    rows[row] = unit[place[position]]
            return rows.to(context.device)

        found = extracted(self._others, context.workers)
        context.unreadable.update(found.unreadable)
        context.notes.extend(found.notes)
        rows = {one: row for row, one in enumerate(found.ids)}
        return CleanFeatures(self._unit(found, spec).to(context.device), rows, read)

    @staticmethod
    def _unit(found: Features, spec: FeatureSpec) -> Tensor:
        return nn.functional.normalize(from_numpy(found.matrix([spec])), dim=1)

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Compare every perturbed image with its own clean one and with others."""
        features: CleanFeatures = batch.prepared
        clean = features.of(batch)
        last = model.adapter.n_blocks - 1
        for condition in batch.conditions:
            images = self._perturbed(batch, condition)
            vectors = model.tokens(images, [last])[last].vector(condition.feature)
            yield Records(condition, dict(features.compared(batch.ids, clean, vectors)))

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image under every perturbation."""
        first = batch.part(0, 1)
        for condition in self.conditions(model):
            transform = self.image_transform(condition)
            if condition.run:
                continue
            if transform is None:
                image = self._perturbed(first, condition)[0]
            else:
                image = as_floats(transform(as_bytes(first.images[0]).cpu(), first.ids[0], first.seed))
            yield ExampleImage(f"{condition.perturbation}: {condition.setting.replace('_', ' ')}", image)

    def _perturbed(self, batch: Batch, condition: StabilityCondition) -> Tensor:
        """Return the images under a condition; corrupted ones come as they are."""
        if condition.perturbation == OCCLUSION:
            level, grid = self._levels[condition.setting], self.experiment.grid
            rows, columns = rows_and_columns(grid)
            # the masks of the occlusion experiment, so that both can be read side by side
            key = keys(batch.ids, batch.seed, "occlusion", "random", grid, condition.run, level)
            keep: np.ndarray = random_keep(key, (rows, columns), n_dropped(level, rows * columns))
            return patchdrop(batch.images, keep)
        if condition.perturbation == SHUFFLE:
            cells = rows_and_columns(condition.setting)
            key = keys(batch.ids, batch.seed, "shuffle", condition.setting, condition.run)
            return shuffle(batch.images, shuffle_order(key, cells), cells)
        if condition.perturbation == POSITION:
            return at_place(batch.images, condition.setting, self.experiment.scale)
        return batch.images
