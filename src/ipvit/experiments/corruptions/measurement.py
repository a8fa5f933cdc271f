"""Measuring on corrupted pictures: made in the worker processes or on the device, or read from files of ImageNet-C."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from ipvit.core.preprocessing import View
from ipvit.data.corruption import Corruption, OwnCorruption, corruption_keys, frost_pictures
from ipvit.data.dataset import Dataset, Items
from ipvit.data.formats.imagenet_c import CLEAN, ImageNetC
from ipvit.errors import InputError, did_you_mean
from ipvit.experiments.base import Batch, ExampleImage, Measurement, Records
from ipvit.experiments.corruptions.experiment import (
    ALEXNET,
    COPY,
    FILES,
    HERE,
    HERE_JPEG,
    KEYED_HERE,
    KEYED_HERE_JPEG,
    CorruptionCondition,
    Corruptions,
    FileCondition,
    RevisedCondition,
)
from ipvit.experiments.scoring import Changed, classify, classify_each
from ipvit.models.label_spaces import imagenet_classes
from ipvit.models.model import Model
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA, KEYED, REVISIONS, SEVERITIES
from ipvit.perturb.corruptions.keyed import keyed_tensors
from ipvit.perturb.corruptions.tensor_versions import corrupt_tensors, equal
from ipvit.perturb.pixels import as_bytes, as_floats

_MADE = {
    ("original", False): HERE,
    ("original", True): HERE_JPEG,
    ("keyed", False): KEYED_HERE,
    ("keyed", True): KEYED_HERE_JPEG,
}
"""What conditions say of how they are made, by ``made`` and ``jpeg``."""


def bound(
    experiment: Corruptions, models: Sequence[Model], data: Dataset, device: torch.device | None = None
) -> Measurement:
    """Return what measures corruptions on some data.

    Raises:
        InputError: the normaliser is not among the models, the frost folder cannot be used, the files of ImageNet-C
            lack what is asked for, or keyed corruptions are asked for of files.
    """
    _check_normaliser(experiment.normaliser, [model.name for model in models])
    pictures = frost_pictures(experiment.frost)
    if isinstance(data, ImageNetC):
        if experiment.made == "keyed":
            raise InputError(f"{data.name} holds pictures that are corrupted already: leave out --made keyed")
        return FileMeasurement(experiment, data)
    sizes = [experiment.view(model).size for model in models]
    return CorruptionMeasurement(experiment, pictures, made_there(experiment, device, sizes))


def made_there(
    experiment: Corruptions, device: torch.device | None, sizes: Sequence[tuple[int, int]]
) -> frozenset[str]:
    """Return the names of the corruptions that a GPU makes, byte for byte as the workers would.

    Args:
        experiment: the parameters.
        device: where the models are.
        sizes: of the pictures that the models see.
    """
    if device is None or device.type == "cpu":  # where they would take longer than in numpy, OpenCV and Pillow
        return frozenset()
    return frozenset(
        name
        for name in experiment.corruptions
        if all(equal(name, device, size, jpeg=experiment.jpeg) for size in dict.fromkeys(sizes))
    )


def _check_normaliser(normaliser: str, names: Sequence[str]) -> None:
    if normaliser.lower() != ALEXNET.lower() and normaliser not in names:
        raise InputError(
            f"corruptions: the normaliser {normaliser!r} is not one of the models; give alexnet or one of "
            f"{', '.join(names)}.{did_you_mean(normaliser, ['alexnet', *names])}"
        )


class CorruptionMeasurement(Measurement):
    """Corruptions that the worker processes make of each picture, or the device of each batch.

    Args:
        experiment: the parameters.
        pictures: what tells the frost pictures apart, see :func:`ipvit.data.corruption.frost_pictures`.
        there: names of the corruptions without chance that the device makes; it makes all keyed ones.
    """

    def __init__(self, experiment: Corruptions, pictures: str, there: frozenset[str] = frozenset()) -> None:
        self.experiment = experiment
        self._pictures = pictures
        self._keyed = frozenset(KEYED if experiment.made == "keyed" else ())
        self._there = there | self._keyed
        self._corruptions = _by_name(experiment)

    def conditions(self, model: Model) -> Sequence[CorruptionCondition]:
        """Return the clean image, then corruption x severity."""
        made = _MADE[self.experiment.made, self.experiment.jpeg]
        corrupted = [
            self._condition(name, severity, made)
            for name in self._corruptions
            for severity in self.experiment.severities
        ]
        return [CorruptionCondition(CLEAN, 0, "", ""), *corrupted]

    def _condition(self, name: str, severity: int, made: str) -> CorruptionCondition:
        pictures = self._pictures if name == "frost" else ""
        if name in REVISIONS and name not in self._keyed:
            return RevisedCondition(name, severity, made, pictures, REVISIONS[name])
        return CorruptionCondition(name, severity, made, pictures)

    def image_transform(self, condition: CorruptionCondition) -> Corruption | OwnCorruption | None:
        """Return the corruption of a condition that workers make; None for the clean image and what a device makes."""
        if condition.corruption == CLEAN or condition.corruption in self._there:
            return None
        return dataclasses.replace(self._corruptions[condition.corruption], severity=condition.severity)

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the pictures that the workers corrupted, or corrupt them here and classify them."""
        further = _answers_imagenet(model, batch)
        changed = (
            Changed(one, self._seen(batch, one), clean=one.corruption == CLEAN, further=further)
            for one in batch.conditions
        )
        yield from classify_each(model, batch, changed)

    def _seen(self, batch: Batch, condition: CorruptionCondition) -> torch.Tensor:
        """Return the images as a condition has them: workers have corrupted them, unless it is done here."""
        if condition.corruption not in self._there:
            return batch.images
        pixels, name, severity = as_bytes(batch.images), condition.corruption, condition.severity
        if name not in self._keyed:
            return as_floats(corrupt_tensors(pixels, name, severity, jpeg=self.experiment.jpeg))
        return as_floats(self._keyed_pixels(pixels, name, severity, batch))

    def _keyed_pixels(self, pixels: torch.Tensor, name: str, severity: int, batch: Batch) -> torch.Tensor:
        """Return the first images of a batch corrupted with keyed numbers, ``(n, 3, H, W)`` uint8."""
        key = corruption_keys(batch.ids[: len(pixels)], batch.seed)
        folder = self.experiment.frost
        return keyed_tensors(pixels, name, severity, key, jpeg=self.experiment.jpeg, frost_folder=folder)

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image under every corruption at a middle severity."""
        yield ExampleImage("clean", batch.images[0])
        pixels = as_bytes(batch.images[:1]).cpu()
        severity = self.experiment.severities[len(self.experiment.severities) // 2]
        for name, corruption in self._corruptions.items():
            if name in self._keyed:
                made = self._keyed_pixels(pixels, name, severity, batch)[0]
            else:
                made = dataclasses.replace(corruption, severity=severity)(pixels[0], batch.ids[0], batch.seed)
            yield ExampleImage(f"{name.replace('_', ' ')}, severity {severity}", as_floats(made))


def _by_name(experiment: Corruptions) -> Mapping[str, Corruption | OwnCorruption]:
    """Return every corruption by its name in tables, at severity 1."""
    found: dict[str, Corruption | OwnCorruption] = {}
    for name in experiment.corruptions:
        if name not in (*CORRUPTIONS, *EXTRA):
            own = OwnCorruption.at(name, 1, experiment.jpeg)
            found[own.name] = own
        else:
            found[name] = Corruption(name, 1, experiment.jpeg, experiment.frost if name == "frost" else None)
    return found


class FileMeasurement(Measurement):
    """Pictures that are corrupted already: the files of an ImageNet-C folder.

    Raises:
        InputError: the folder lacks a corruption or severity that is asked for.
    """

    def __init__(self, experiment: Corruptions, data: ImageNetC) -> None:
        _check_cells(experiment, data)
        self.experiment = experiment
        self._names = np.array([*data.corruptions, CLEAN])  # clean photos have -1, the last
        self._made = FILES if data.published else COPY

    def view(self, model: Model) -> View:
        """Return the whole picture at the model's input size: the files are cropped already."""
        return dataclasses.replace(model.preprocessing.view, crop_pct=1.0, crop_mode="squash")

    def conditions(self, model: Model) -> Sequence[FileCondition]:
        """Return a single condition: the files as they are."""
        return [FileCondition(self._made)]

    def applicable_images(self, condition: FileCondition, data: Items) -> np.ndarray:
        """Return the files of the corruptions and severities that are asked for, and the clean photos."""
        wanted = np.isin(self._names[data.fields["corruption"]], self.experiment.corruptions)
        severity = data.fields["severity"]
        return (wanted & np.isin(severity, self.experiment.severities)) | (severity == 0)

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the files, and name their corruption."""
        names = self._names[batch.fields["corruption"]]
        for condition in batch.conditions:
            answers = classify(model, batch.images, batch.labels)
            yield Records(condition, {**answers, **_answers_imagenet(model, batch), "corruption": names})

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image."""
        name = str(self._names[batch.fields["corruption"][0]]).replace("_", " ")
        yield ExampleImage(f"{name}, severity {batch.fields['severity'][0]}", batch.images[0])


def _check_cells(experiment: Corruptions, data: ImageNetC) -> None:
    names = {name for name, _ in data.cells}
    missing = [name for name in experiment.corruptions if name not in names]
    for name in experiment.corruptions:
        if name in names:
            missing += [f"{name}/{level}" for level in experiment.severities if (name, level) not in data.cells]
    if missing:
        there = [name for name in data.corruptions if name in names]
        levels = [str(level) for level in SEVERITIES if all((name, level) in data.cells for name in there)]
        raise InputError(
            f"{data.name} has no images of {', '.join(missing)}; ask for what is there: --corruptions "
            f"{' '.join(there)}" + (f" --severities {' '.join(levels)}" if levels else "")
        )


def _answers_imagenet(model: Model, batch: Batch) -> dict[str, np.ndarray]:
    """Return the column that says whether the network answers ImageNet's thousand classes.

    The published errors of AlexNet are for those alone.
    """
    imagenet = model.classes is not None and set(model.classes) == set(imagenet_classes())
    return {"imagenet": np.full(len(batch), imagenet)}
