"""Measuring with a share of the patches dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from ipvit.core.plugins import OwnCodeError, OwnFunction, own_function
from ipvit.core.queued.readback import read_back
from ipvit.errors import DownloadError, InputError
from ipvit.experiments.base import Batch, ExampleImage, Measurement, Records
from ipvit.experiments.grids import check_grid, note_on_cells
from ipvit.experiments.occlusion.experiment import FILLS, ON_A_GRID, RANDOM, Mode, Occlusion, OcclusionCondition
from ipvit.experiments.occlusion.occluders import donated, kept_cells, kept_pixels, with_one_left
from ipvit.experiments.occlusion.salience import Salience, tells_salience
from ipvit.experiments.returned import check_pixels, returned_images
from ipvit.experiments.scoring import Answered, Changed, classify_each, score_each
from ipvit.models.model import Model
from ipvit.perturb.cells import pixel_mask
from ipvit.perturb.patchdrop import fill_content, replace, shift
from ipvit.perturb.seeding import keys
from ipvit.perturb.tensors import from_numpy

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.perturb.choices import Fill


class OcclusionMeasurement(Measurement):
    """Occlusion in one run; salience maps are kept from one condition to the next.

    Raises:
        InputError: the grid does not fit a model, there is no salience to be had, or a fill of the user's own is not
            there.
    """

    def __init__(self, experiment: Occlusion, models: Sequence[Model], data: Dataset) -> None:
        self.experiment = experiment
        self._source = Salience(
            experiment.salience, experiment.salience_block, experiment.salience_head, experiment.protocol == "authors"
        )
        self._own_fill = None if experiment.fill in FILLS else own_function("fill", experiment.fill)
        for model in models:
            self._check(model)
        if experiment.uses_salience:
            try:
                self._source.prepare()
            except DownloadError as error:
                raise InputError(_without_salience(experiment.salience, error, models, data)) from None

    def _check(self, model: Model) -> None:
        if self.experiment.removal == "tokens":
            self._check_tokens(model)
        elif any(mode in ON_A_GRID for mode in self.experiment.modes):
            check_grid(self.experiment.grid, model)
        if any(pixels >= side for pixels, side in zip(self.experiment.offset, model.image_size, strict=True)):
            raise InputError(f"an offset of {max(self.experiment.offset)} pixels leaves {model.name}'s input")

    def _check_tokens(self, model: Model) -> None:
        own = "x".join(map(str, model.adapter.patch_grid(model.image_size)))
        wrong = [mode for mode in self.experiment.modes if mode not in ON_A_GRID]
        if wrong:
            raise InputError(f"tokens can be removed in the modes {', '.join(ON_A_GRID)}, not {wrong[0]}")
        if own != self.experiment.grid or any(self.experiment.offset):
            raise InputError(f"tokens are removed on the network's own grid, {own} for {model.name}, without offset")
        if max(self.experiment.levels) >= 1:
            raise InputError("with tokens removed, the information loss must stay below 1: something must be left")

    def conditions(self, model: Model) -> Sequence[OcclusionCondition]:
        """Return mode x level x run; where nothing is random, and at level 0, there is a single run."""
        return [
            self._condition(mode, level, run)
            for mode in self.experiment.modes
            for level in sorted(self.experiment.levels)
            for run in range(self.experiment.runs if level > 0 and mode in RANDOM else 1)
        ]

    def notes(self, model: Model) -> list[str]:
        """Say of what sizes the cells are where the grid does not divide the model's input."""
        on_grid = any(mode in ON_A_GRID for mode in self.experiment.modes)
        return note_on_cells(self.experiment.name, self.experiment.grid, model) if on_grid else []

    @property
    def _fill(self) -> str:
        return self.experiment.fill if self._own_fill is None else self._own_fill.name

    def _condition(self, mode: Mode, level: float, run: int) -> OcclusionCondition:
        on_grid = mode in ON_A_GRID
        shared = self.experiment.mask_scope == "batch" or self.experiment.protocol == "authors"
        return OcclusionCondition(
            mode=mode,
            information_loss=level,
            run=run,
            grid=self.experiment.grid if on_grid else "",
            offset=f"{self.experiment.offset[0]},{self.experiment.offset[1]}" if on_grid else "0,0",
            fill=self._fill if self.experiment.removal == "pixels" else "",
            removal=self.experiment.removal,
            nested=self.experiment.nested and mode in RANDOM,
            mask_scope="batch" if mode in RANDOM and shared else "image",
            salience=self._source.identity if mode in ("salient", "non_salient") else "",
        )

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the batch under every condition."""
        if self.experiment.removal == "tokens":
            return score_each(batch.labels, self._without_tokens(model, batch))
        return classify_each(model, batch, self._without_pixels(model, batch))

    def _without_pixels(self, model: Model, batch: Batch) -> Iterator[Changed]:
        for condition in batch.conditions:
            images, dropped = self._occlude(model, batch, condition)
            further = {"dropped": dropped} | _shared(batch, condition)
            yield Changed(condition, images, clean=_is_clean(condition), further=further)

    def _without_tokens(self, model: Model, batch: Batch) -> Iterator[Answered]:
        """Yield the answers without the dropped tokens. All masks are read back at once, to be grouped by size."""
        masks = [{"keep": self._kept_tokens(model, batch, condition)} for condition in batch.conditions]
        for condition, columns in zip(batch.conditions, read_back(masks), strict=True):
            keep = from_numpy(columns["keep"])
            yield Answered(
                condition,
                _with_tokens(model, batch.images, keep),
                clean=_is_clean(condition),
                further={"dropped": (~keep).float().mean(dim=(1, 2))} | _shared(batch, condition),
            )

    def _kept_tokens(self, model: Model, batch: Batch, condition: OcclusionCondition) -> Tensor:
        keep = self._cells(model, batch, condition)
        if condition.mode in RANDOM:
            return keep
        return with_one_left(keep, batch, condition.grid, self._source)  # an empty sequence has no answer

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image at every level of every mode."""
        if self.experiment.removal == "tokens":
            return
        first = batch.part(0, 1)
        for condition in self.conditions(model):
            if condition.run == 0:
                try:
                    images, dropped = self._occlude(model, first, condition)
                except OwnCodeError:  # the failure is recorded where it is measured
                    continue
                yield ExampleImage(
                    f"{condition.mode.replace('_', '-')}, {100 * float(dropped[0]):.0f} % dropped", images[0]
                )

    def _key(self, batch: Batch, condition: OcclusionCondition, *, shared: bool) -> np.ndarray:
        owners = batch.mask_seeds(shared=shared)
        level = None if condition.nested else condition.information_loss
        return keys(owners, batch.seed, self.experiment.name, condition.mode, condition.grid, condition.run, level)

    def _cells(self, model: Model, batch: Batch, condition: OcclusionCondition) -> Tensor:
        self._source.evaluated = model
        key = self._key(batch, condition, shared=condition.mask_scope == "batch")
        return kept_cells(batch, condition.mode, condition.information_loss, condition.grid, key, self._source)

    def _occlude(self, model: Model, batch: Batch, condition: OcclusionCondition) -> tuple[Tensor, Tensor]:
        """Return the occluded images and the share of pixels dropped in each."""
        if condition.mode in ON_A_GRID:
            cells = self._cells(model, batch, condition)
            mask = pixel_mask(cells, (batch.images.shape[-2], batch.images.shape[-1]))
            if condition.offset != "0,0":
                mask = shift(mask, self.experiment.offset)
        else:
            key = self._key(batch, condition, shared=condition.mask_scope == "batch")
            mask = kept_pixels(batch, condition.mode, condition.information_loss, key)
        dropped = (~mask).float().mean(dim=(1, 2, 3))
        if condition.information_loss == 0:  # nothing is dropped, in any mode
            return batch.images, dropped
        if condition.fill == "other":
            return replace(batch.images, mask, donated(batch, batch.seed, condition.run)), dropped
        own = self._key(batch, condition, shared=False)
        if self._own_fill is not None:
            return _filled(self._own_fill, batch, mask, own), dropped
        fill = cast("Fill", condition.fill)  # the other names are those handled above
        return replace(batch.images, mask, fill_content(batch.images, fill, own)), dropped


def _with_tokens(model: Model, images: Tensor, keep: Tensor) -> Tensor:
    """Return the logits of images without tokens; those that keep equally many go through the network together.

    Args:
        model: can remove tokens.
        images: ``(B, 3, H, W)`` in [0, 1].
        keep: ``(B, rows, columns)`` bool, on the processor.
    """
    left = keep.flatten(1).sum(dim=1).numpy()
    counts = np.unique(left)
    if len(counts) == 1:
        return model.without_patches(images, keep)
    order = [from_numpy(np.flatnonzero(left == count)) for count in counts]
    parts = [model.without_patches(images[rows.to(images.device, non_blocking=True)], keep[rows]) for rows in order]
    place = torch.cat(order).argsort()
    return torch.cat(parts)[place.to(images.device, non_blocking=True)]


def _shared(batch: Batch, condition: OcclusionCondition) -> dict[str, Tensor | np.ndarray]:
    return {**batch.mask_columns(shared=condition.mask_scope == "batch")}


def _is_clean(condition: OcclusionCondition) -> bool:
    return condition.information_loss == 0


def _without_salience(name: str, error: DownloadError, models: Sequence[Model], data: Dataset) -> str:
    """Say what can be done where the network that tells salient patches cannot be had: nothing takes its place."""
    others = [] if "@" in name else [f"--salience {name}@FILE"]
    others += ["--salience masks (the data's own)"] if data.has_masks else []
    own = [model for model in models if tells_salience(model) and model.origin is not None and model.origin[1]]
    others += [f"--salience {model.origin[0]} (of this study)" for model in own[:1] if model.origin is not None]
    instead = f"; or give {' or '.join(others)}" if others else ""
    return f"occlusion: {name} says which patches are salient, and its weights are not here: {error}{instead}"


def _filled(fill: OwnFunction, batch: Batch, mask: Tensor, key: np.ndarray) -> Tensor:
    """Return the images with the pixels where the mask is False taken from what a function makes."""
    made = returned_images(fill, fill(batch.images.clone(), mask.clone(), key.copy()), batch.images)
    filled = replace(batch.images, mask, made)
    check_pixels(fill, filled, batch.ids)
    return filled
