"""Measuring under attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ipvit.core.plugins import OwnCodeError
from ipvit.data.dataset import known_fingerprints
from ipvit.errors import InputError
from ipvit.experiments.attack.cells import CellAttacks, grid_of
from ipvit.experiments.attack.conditions import (
    AttackCondition,
    CellCondition,
    EvaluationCondition,
    VoteCondition,
    budget_of,
    size_in_words,
)
from ipvit.experiments.attack.ensembles import can_be_attacked
from ipvit.experiments.attack.experiment import Attack
from ipvit.experiments.attack.names import (
    CELLS,
    CHECK,
    CHOSEN,
    CLEAN,
    CONTENT,
    NOISE,
    ORDER,
    OWN,
    PATCH,
    RANDOM,
    VOTE,
    attack_title,
)
from ipvit.experiments.attack.patch_files import Patch, PatchSpec, load_patch
from ipvit.experiments.attack.patches import (
    Patches,
    PatchJob,
    Training,
    frozen_parameters,
    output_of,
    training_positions,
)
from ipvit.experiments.attack.pixels import PixelAttacks
from ipvit.experiments.attack.shown import ShownToOthers
from ipvit.experiments.attack.votes import VoteAttacks
from ipvit.experiments.base import Batch, BindContext, Condition, ExampleImage, Measurement, PrepareContext, Records
from ipvit.experiments.grids import check_equal_cells
from ipvit.experiments.scoring import classify
from ipvit.models.model import Model
from ipvit.perturb.attack import is_right
from ipvit.perturb.patch import noise_patch, paste, random_places
from ipvit.perturb.seeding import keys, random_words

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset, Items


_ConditionT = TypeVar("_ConditionT", bound=AttackCondition)


class AttackMeasurement(Measurement):
    """Attacks in one run: the patches of all networks, trained or read, with which each network is attacked.

    Raises:
        InputError: a patch does not fit a network, a network has no such class, no image is left to measure on, or an
            attack of the user's own is not there.
    """

    def __init__(self, experiment: Attack, models: Sequence[Model], data: Dataset, context: BindContext) -> None:
        if experiment.restarts > 1 and not experiment.random_start:
            raise InputError("attack: restarts without a random start would all be the same; set random_start")
        self.experiment = experiment
        self.models = tuple(models)
        self._pixels = PixelAttacks(experiment)
        self._cells, self._votes = CellAttacks(experiment, models), VoteAttacks(experiment, models)
        self._shown = ShownToOthers(self._pixels, self._cells, models if experiment.show_to_others else (), data)
        self._patches = Patches()
        self._files: list[Patch] = []
        self._training: Training | None = None
        if PATCH not in experiment.attacks:
            return
        if experiment.patch_files:
            self._files = [load_patch(path) for path in experiment.patch_files]
        else:
            self._training = _training(experiment, data, context)
        if not self._measured_with_patches(data).any():
            raise InputError(f"attack: of the {len(data)} images of {data.name} none is left that no patch has seen")
        for model in models:
            self._check(model)

    def _check(self, model: Model) -> None:
        sides: dict[tuple[str, float], float] = {}
        for look in dict.fromkeys(order.look for order in self._orders(model)):
            if look.grid and look.shape == "square":
                check_equal_cells(look.grid, model)
            try:
                side = look.form(model.image_size).side
            except ValueError as error:
                raise InputError(f"attack: {model.name}: {error}") from None
            if sides.setdefault((look.placement, side), look.area) != look.area:
                raise InputError(
                    f"attack: {model.name}: patches of {sides[look.placement, side]:g} and {look.area:g} of the image "
                    f"are both {side:g} pixels wide on the grid {look.grid}; leave one of them out of patch_areas"
                )
            output_of(model, look.target)
        if self._training is not None:
            self._training.digest(model)

    def applicable_images(self, condition: Condition, data: Items) -> np.ndarray | None:
        """Return the images that no patch was trained on, for patches and their control; all for other attacks."""
        assert isinstance(condition, AttackCondition)
        return self._measured_with_patches(data) if condition.attack in (PATCH, NOISE) else None

    def conditions(self, model: Model) -> Sequence[AttackCondition]:
        """Return the clean image, attacks x epsilon, cells, votes, and patches and noise x look x run x source."""
        found: list[AttackCondition] = [*self._pixels.conditions(model), *self._shown.conditions(model)]
        found += [*self._cells.conditions(model), *self._votes.conditions(model)]
        if PATCH in self.experiment.attacks and (self.experiment.patch_files or can_be_attacked(PATCH, model)):
            found += [_of(NOISE, order) for order in self._orders(model)]
            found += self._from_files(model) if self.experiment.patch_files else self._from_networks(model)
        order = (*ORDER, *self._pixels.own, RANDOM, NOISE, PATCH)
        return sorted(dict.fromkeys(found), key=lambda condition: order.index(condition.attack))

    @property
    def prepares(self) -> bool:
        """Whether patches are trained: attacks on every pixel need nothing beforehand."""
        return self._training is not None

    def needs_preparation(self, condition: Condition) -> bool:
        """Whether a trained patch is pasted; attacks on every pixel and noise need nothing beforehand."""
        assert isinstance(condition, AttackCondition)
        return self.prepares and condition.attack == PATCH

    def prepare(self, model: Model, context: PrepareContext) -> PrepareContext:
        """Train the network's own patches that are not in the run folder yet."""
        if self._training is not None:
            self._patches.train(model, self._orders(model), self._training, context)
        return context

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Attack the batch in every way; all attacks within a budget, of all epsilons, share the clean pass."""
        with frozen_parameters(model):
            cells = [condition for condition in _of_kind(batch, CellCondition) if not condition.source]
            yield from self._cells.measure(model, batch, cells, self._shown.keep)
            yield from self._votes.measure(model, batch, _of_kind(batch, VoteCondition))
            shown = [condition for condition in batch.conditions if condition.attack not in (VOTE, PATCH, NOISE)]
            pixel = [condition for condition in shown if condition.attack != CELLS and not condition.source]
            yield from self._pixels.measure(model, batch, pixel, self._shown.keep)
            yield from self._shown.measure(model, batch, [condition for condition in shown if condition.source])
            with torch.no_grad():
                for condition in batch.conditions:
                    if condition.attack in (PATCH, NOISE):
                        yield Records(condition, self._with_patch(model, batch, condition))

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield an image that the network gets right under every attack, and the patches themselves."""
        with torch.inference_mode(False), torch.no_grad():
            logits = model(batch.images)
            rows = torch.where(is_right(logits, batch.labels))[0]
            row = int(rows[0]) if len(rows) else 0
            one = batch.part(row, row + 1)
            yield ExampleImage("the image as it is", one.images[0])
            yield from self._example_attacks(model, one)
            yield from self._example_cells(model, one)
            yield from self._example_patches(model, one)

    def _example_attacks(self, model: Model, one: Batch) -> Iterator[ExampleImage]:
        for condition in self.conditions(model):
            if condition.attack in (CLEAN, CHECK, CELLS, VOTE, PATCH, NOISE) or condition.source:
                continue
            try:
                ((_, found, _),) = self._pixels.attacked(model, one, [condition])
            except OwnCodeError:  # the failure is recorded where it is measured
                continue
            name = attack_title(condition.attack)
            budget = budget_of(condition)
            unit = condition.unit if isinstance(condition, EvaluationCondition) else ""
            size = size_in_words(condition.epsilon, budget.norm, unit)
            yield ExampleImage(f"{name}, ε = {size}: {_named(model, found.logits)}", found.images[0])
            if condition.epsilon == max(self.experiment.epsilons):
                moved = found.images[0] - one.images[0]
                most = budget.size if budget.norm == "linf" else float(moved.abs().max()) or 1.0
                yield ExampleImage(f"what {name} changes at ε = {size}", moved / (2 * most) + 0.5)

    def _example_cells(self, model: Model, one: Batch) -> Iterator[ExampleImage]:
        most = [c for c in self._cells.conditions(model) if c.cells == max(self.experiment.cells)]
        for condition, found in self._cells.attacked(model, one, most):
            what = f"{condition.cells} cells of {condition.grid}, {CHOSEN[condition.choice]}"
            yield ExampleImage(f"{what}: {_named(model, found.logits)}", found.images[0])

    def _example_patches(self, model: Model, one: Batch) -> Iterator[ExampleImage]:
        conditions = [c for c in self.conditions(model) if c.attack in (PATCH, NOISE) and c.run == 0]
        for condition in conditions:
            try:
                pixels, whose = self._patch_pixels(model, condition, one)
            except ValueError:  # could not be trained: the failure is recorded where it is measured
                continue
            images, _ = _paste(model, one, condition, pixels)
            words = "noise" if condition.attack == NOISE else f"patch trained on {whose}"
            words += f", {100 * condition.area:.0f} %{_aside(condition)}"
            yield ExampleImage(f"{words}: {_named(model, model(images))}", images[0])
            if condition.source == OWN:
                yield ExampleImage(f"the {words}", pixels)

    def notes(self, model: Model) -> list[str]:
        """Say which attacks are left out of a network, and which patches of others are not shown to it, and why."""
        parts = (self._pixels, self._shown, self._cells)
        return [*(note for part in parts for note in part.notes(model)), *self._strange_patches(model)]

    def _strange_patches(self, model: Model) -> list[str]:
        """Say which patches are not shown to a network because their grid does not divide its input."""
        if PATCH not in self.experiment.attacks or self.experiment.patch_files or not self.experiment.transfer:
            return []
        strange = {
            order.look.grid: other.name
            for other in self.models
            for order in self._orders(other)
            if not _fits(order, model)
        }
        return [
            f"attack: the patches of {name} are not shown to {model.name}: their grid of {grid} does not divide its "
            "input; --patch-grid gives one for all"
            for grid, name in strange.items()
        ]

    def _orders(self, model: Model) -> list[PatchJob]:
        """Return the patches that are trained on a network; with files those that all networks are shown."""
        if self.experiment.patch_files:
            return list(dict.fromkeys(PatchJob(patch.metadata.look, patch.metadata.run) for patch in self._files))
        looks = [
            PatchSpec(
                shape=self.experiment.patch_shape,
                area=area,
                placement=placement,
                scale=self.experiment.patch_scale,
                grid=grid_of(self.experiment.patch_grid, model) if placement != "free" else "",
                target=self.experiment.patch_target,
            )
            for placement in self.experiment.patch_placements
            for area in sorted(self.experiment.patch_areas)
        ]
        return [PatchJob(look, run) for look in looks for run in range(self.experiment.runs)]

    def _from_networks(self, model: Model) -> list[AttackCondition]:
        others = [other for other in self.models if other.digest != model.digest] if self.experiment.transfer else []
        digests = {
            source: "" if self._training is None else self._training.digest(source) for source in (model, *others)
        }
        return [
            _of(PATCH, order, OWN if source is model else source.digest[:16], digest)
            for source, digest in digests.items()
            for order in self._orders(source)
            if source is model or _fits(order, model)
        ]

    def _from_files(self, model: Model) -> list[AttackCondition]:
        return [
            _of(
                PATCH,
                PatchJob(patch.metadata.look, patch.metadata.run),
                OWN if patch.metadata.weights == model.digest else patch.metadata.weights[:16],
                f"{patch.metadata.training}{CONTENT}{patch.metadata.sha256[:12]}",
            )
            for patch in self._files
        ]

    def _measured_with_patches(self, data: Items) -> np.ndarray:
        """Return which images no patch was trained on."""
        unseen = np.ones(len(data), dtype=bool)
        if self._training is not None and self._training.own:
            unseen[self._training.positions()] = False
        for patch in self._files if self.experiment.patch_files else ():
            if patch.metadata.data in known_fingerprints(data):
                unseen[training_positions(data.ids, patch.metadata.images)] = False
        return unseen

    def _patch_pixels(self, model: Model, condition: AttackCondition, batch: Batch) -> tuple[Tensor, str]:
        """Return a patch and the name of the network it was trained on."""
        order = order_of(condition)
        if condition.attack == NOISE:
            (key,) = keys(["noise"], batch.seed, "adversarial patch", condition.run)
            return noise_patch(key, order.look.form(model.image_size).resolution), ""
        if self.experiment.patch_files:
            content = condition.training.partition(CONTENT)[2]
            patch = next(patch for patch in self._files if patch.metadata.sha256.startswith(content))
            return patch.pixels, patch.metadata.trained_on
        source = model
        if condition.source != OWN:
            source = next(other for other in self.models if other.digest.startswith(condition.source))
        return self._patches.get(source.digest, order, condition.training, batch.prepared), source.name

    def _with_patch(self, model: Model, batch: Batch, condition: AttackCondition) -> dict[str, Any]:
        pixels, whose = self._patch_pixels(model, condition, batch)
        images, inside = _paste(model, batch, condition, pixels)
        columns = classify(model, images, batch.labels)
        target = output_of(model, condition.target)
        hit = ~columns["correct"] if target is None else columns["prediction"] == target
        return columns | {
            "covered": inside.float().mean(dim=(1, 2)),
            "hit": hit,
            "of_target": _is_of(batch.labels, target),
            "trained_on": np.full(len(batch), whose),
        }


def _of_kind(batch: Batch, kind: type[_ConditionT]) -> list[_ConditionT]:
    return [condition for condition in batch.conditions if isinstance(condition, kind)]


def _fits(order: PatchJob, model: Model) -> bool:
    """Tell whether a patch of another network can be placed in the images of this one."""
    try:
        order.look.form(model.image_size)
    except ValueError:
        return False
    return True


def _is_of(labels: Tensor, target: int | None) -> Tensor:
    """Tell which images are of the class that a patch is to be taken for, ``(B,)`` bool."""
    if target is None:
        return torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    return labels == target if labels.ndim == 1 else labels[:, target]


def _training(experiment: Attack, data: Dataset, context: BindContext) -> Training:
    """Return how patches are trained.

    Raises:
        InputError: the training images are the ones that are measured.
    """
    source = context.open_data(experiment.patch_data) if experiment.patch_data else data
    if source is not data and known_fingerprints(source) & known_fingerprints(data):
        raise InputError(
            f"attack: the patch would be trained on the very images it is measured on, {data.name}; leave out "
            "patch_data to keep a part of them for training"
        )
    return Training(
        source,
        source is data,
        experiment.patch_images,
        experiment.patch_steps,
        experiment.patch_batch,
        experiment.patch_rate,
    )


def order_of(condition: AttackCondition) -> PatchJob:
    """Return the patch of a condition."""
    low, high = (float(factor) for factor in condition.scale.split(","))
    look: dict[str, Any] = {
        "shape": condition.shape,
        "area": condition.area,
        "placement": condition.placement,
        "grid": condition.grid,
    }
    return PatchJob(PatchSpec(**look, scale=(low, high), target=condition.target), condition.run)


def _of(attack: str, order: PatchJob, source: str = "", training: str = "") -> AttackCondition:
    look = order.look
    return AttackCondition(
        attack,
        area=look.area,
        shape=look.shape,
        placement=look.placement,
        grid=look.grid,
        scale=f"{look.scale[0]:g},{look.scale[1]:g}",
        target=look.target,
        source=source,
        training=training,
        run=order.run,
    )


def _paste(model: Model, batch: Batch, condition: AttackCondition, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a patch on every image, at places that are the same for all patches, sizes and networks."""
    look = order_of(condition).look
    words = random_words(keys(batch.ids, batch.seed, "attack", "place", condition.run), 4)
    draws = (words >> np.uint64(11)) / 2.0**53  # in [0, 1): the quotient of all 64 bits can round to 1
    places = random_places(look.form(model.image_size), draws)
    return paste(batch.images, pixels.to(batch.images.device), places, look.shape)


def _named(model: Model, logits: Tensor) -> str:
    best = int(logits[0].argmax())
    return f"taken for {model.classes[best] if model.classes else f'class {best}'}"


def _aside(condition: AttackCondition) -> str:
    return "" if condition.placement == "free" else f", {condition.placement.replace('_', ' ')}"
