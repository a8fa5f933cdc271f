"""Is a network set up right: its clean accuracy against the published one, and what would explain a difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ipvit.analysis.sentences import chosen_among
from ipvit.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, View
from ipvit.core.run_config import Answers
from ipvit.data.dataset import Dataset
from ipvit.data.loader import read_batches
from ipvit.data.subset import select, subset_indices
from ipvit.engine.device import pooled_allocator
from ipvit.errors import InputError
from ipvit.metrics.intervals import wilson
from ipvit.metrics.paired import mcnemar
from ipvit.models.label_mapping import answering, outputs_for
from ipvit.models.model import Model
from ipvit.models.published import Published
from ipvit.perturb.pixels import as_floats

PROBED = 250
"""Images on which other set-ups are tried."""

CERTAIN = 0.001
"""p-value of McNemar's test below which another set-up counts as better."""

EXPLAINED = 0.8
"""Share of the expected accuracy that a mix-up of labels must restore to be the reason."""

GAIN = 0.1
"""What it must add to the accuracy as it is: an order that is the same explains nothing."""

PER_CLASS = 5
"""Images per class from which on a mix-up of classes can be told."""

BATCH = 32

SIZES = (224, 384)
"""Heights and widths of inputs that are tried where a network takes another."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the clean accuracy says of a set-up.

    Attributes:
        images: measured.
        top1: measured, in percent.
        low: end of its 95 % interval.
        high: the other end.
        published: what it is compared with, if anything.
        right: whether the published value lies within the interval; None where there is none.
        causes: likely reasons, the likeliest first, where it does not.
        n_answers: how many answers were chosen among.
        among: in a sentence, where these could have been others; see
            :func:`ipvit.analysis.sentences.chosen_among`.
    """

    images: int
    top1: float
    low: float
    high: float
    published: Published | None
    right: bool | None
    causes: list[str]
    n_answers: int
    among: list[str]


def examine(
    model: Model,
    data: Dataset,
    device: torch.device,
    *,
    limit: int | None = None,
    published: Published | None = None,
    answers: Answers | None = None,
) -> Finding:
    """Measure a network's clean accuracy and, where it is not the published one, look for the reason.

    Args:
        model: moved to the device.
        data: labelled images.
        device: where to run.
        limit: use that many images.
        published: what to compare with.
        answers: among which answers the network chooses, see :func:`ipvit.models.label_mapping.answering`.

    Raises:
        InputError: the labels do not map to the network's outputs, or no image can be read.
    """
    with pooled_allocator(device):
        chooser = answering(model.to(device).eval(), data, answers)
        return _examine(_Trial(chooser, data, subset_indices(data, limit), device), published)


def _examine(trial: _Trial, published: Published | None) -> Finding:
    data = trial.data
    predictions, labels = trial.run()
    if not len(labels):
        raise InputError(f"no labelled image of {data.name} could be read")
    right = predictions == labels
    low, high = (100 * end for end in wilson(int(right.sum()), len(right)))
    top1 = 100 * float(right.mean())
    space, count = trial.model.answer_space, trial.model.n_outputs
    outputs = count if space is None else space.outputs
    among = count, among_in_words(trial.model, data)
    if published is None or (published.images and count != (published.n_answers or outputs)):
        return Finding(len(labels), top1, low, high, None, None, [], *among)
    same_images = published.data == data.name and published.images == len(labels)
    margin = published.tolerance
    fits = abs(top1 - published.top1) <= margin if same_images else low - margin <= published.top1 <= high + margin
    causes = [] if fits else _causes(trial, predictions, labels, published.top1 / 100)
    return Finding(len(labels), top1, low, high, published, fits, causes, *among)


def among_in_words(model: Model, data: Dataset) -> list[str]:
    """Say among which answers a network chooses on some data; nothing where it cannot choose among others."""
    if not model.can("logits"):
        return []
    space, count = model.answer_space, model.n_outputs
    kind, outputs = ("all", count) if space is None else ("data", space.outputs)
    return chosen_among(kind, len(data.classes or ()), [(count, outputs)])


class _Trial:
    """Classifies the same images under several set-ups."""

    def __init__(self, model: Model, data: Dataset, chosen: np.ndarray, device: torch.device) -> None:
        if data.classes is None:
            raise InputError(f"{data.name} has no class folders: there is no accuracy to measure")
        self.model, self.data, self.chosen, self.device = model, data, chosen, device
        self.outputs = outputs_for(data, model)

    def run(self) -> tuple[np.ndarray, np.ndarray]:
        """Return predictions and labels, as outputs of the model, of the labelled images that can be read."""
        found = [(_answers(self.model, images), labels) for images, labels in self._images([self._view], self.chosen)]
        return _joined([prediction for prediction, _ in found]), _joined([labels for _, labels in found])

    def variants(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return what :meth:`run` returns, on fewer images, for the set-up itself (``""``) and others."""
        chosen = self.chosen[select([self.data.ids[int(index)] for index in self.chosen], PROBED)]
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for text, view in ({"": self._view} | self._views()).items():
            for images, labels in self._images([view], chosen):
                found.setdefault(text, []).append((_answers(self.model, images), labels))
                for name, changed in self._inputs(images) if not text else ():
                    found.setdefault(name, []).append((_answers(self.model, changed), labels))
        return {
            text: (_joined([answer for answer, _ in parts]), _joined([labels for _, labels in parts]))
            for text, parts in found.items()
        }

    @property
    def _view(self) -> View:
        return self.model.preprocessing.view

    def _views(self) -> dict[str, View]:
        """Return other ways to resize and crop, by what the model should then say of itself."""
        now = self._view
        other = "bilinear" if now.interpolation == "bicubic" else "bicubic"
        views = {
            f"interpolation: {other} instead of {now.interpolation}": dataclasses.replace(now, interpolation=other)
        }
        for crop in (0.875, 0.95, 1.0):
            if abs(crop - now.crop_pct) > 0.02:
                text = f"crop: {crop:g} of the resized image instead of {now.crop_pct:.3g}"
                views[text] = dataclasses.replace(now, crop_pct=crop)
        sizes = [(side, side) for side in SIZES if all(abs(side - own) > 0.1 * own for own in now.size)]
        for size in filter(self._takes, sizes):
            views[f"input size: {size[0]} pixels instead of {now.size[0]}"] = dataclasses.replace(now, size=size)
        return views

    def _takes(self, size: tuple[int, int]) -> bool:
        """Tell whether the network can be given images of a size."""
        try:
            _answers(self.model, torch.zeros(1, 3, *size, device=self.device))
        except (RuntimeError, AssertionError, ValueError):  # a transformer's positions are for one size
            return False
        return True

    def _inputs(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield images that the model's own normalisation turns into those of another."""
        now = self.model.preprocessing
        for mean, std in ((IMAGENET_MEAN, IMAGENET_STD), ((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3)):
            if (tuple(now.mean), tuple(now.std)) != (mean, std):
                text = f"normalisation: mean {_listed(mean)} and std {_listed(std)} instead of {_listed(now.mean)} and "
                wanted = (images - _column(mean, images)) / _column(std, images)
                yield text + _listed(now.std), self.model.denormalize(wanted)
        yield "pixels: 0 to 255 instead of 0 to 1 before the normalisation", images * 255
        yield "channels: blue, green, red instead of red, green, blue", images.flip(1)

    def _images(self, views: Sequence[View], chosen: np.ndarray) -> Iterator[tuple[Tensor, np.ndarray]]:
        batches = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
        for batch in read_batches(self.data, batches, views, workers=0, decoder=self.data.decoder):
            rows = np.flatnonzero(batch.labels >= 0)
            if len(rows):
                images = as_floats(batch.pixels[views[0]][rows], self.device)
                yield images, self.outputs[batch.labels[rows]]


def _causes(trial: _Trial, predictions: np.ndarray, labels: np.ndarray, expected: float) -> list[str]:
    """Return what explains that an accuracy is not the expected one, a share, the likeliest first."""
    if (predictions == labels).mean() > expected:
        return ["these may be images the network was trained on, or easier ones than the published value is about"]
    mixup = _label_mixup(predictions, labels, expected, trial.model.classes)
    variants = trial.variants()
    own, truth = variants.pop("")
    better: list[tuple[float, str]] = []
    best = 0.0
    for text, (answers, _) in variants.items():
        accuracy = float((answers == truth).mean())
        gain = 100 * (accuracy - float((own == truth).mean()))
        if gain > 0 and mcnemar(answers == truth, own == truth).p_value < CERTAIN:
            better.append((gain, f"{text}: {gain:+.1f} points on {len(truth)} images"))
            best = max(best, accuracy)
    if mixup and best < EXPLAINED * expected:
        return [mixup]
    return [text for _, text in sorted(better, reverse=True)] or [
        "none of the usual mistakes explains it (normalisation, crop, interpolation, input size, channel and label "
        "order were tried): other weights than the published ones, another architecture, or harder images"
    ]


def _label_mixup(
    predictions: np.ndarray, labels: np.ndarray, expected: float, names: Sequence[str] | None = None
) -> str:
    """Return how labels are counted another way than outputs, where that explains most of the difference."""
    own = float((predictions == labels).mean())
    explained = max(EXPLAINED * expected, own + GAIN)  # an order that changes nothing explains nothing
    for shift in (-1, 1):
        shifted = float((predictions + shift == labels).mean())
        if shifted >= explained:
            return f"label order: outputs are counted one off ({100 * shifted:.1f} % with {shift:+d})"
    for text, order in _orders(names or ()):
        for places in (order, np.argsort(order)):
            reordered = float((places[predictions] == labels).mean())
            if reordered >= explained:
                return f"label order: {text} ({100 * reordered:.1f} % in the other order)"
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.mean() < PER_CLASS:
        return ""
    # the commonest answer to one half of each class, judged by the other half
    hits = total = 0
    called: set[int] = set()
    for number in classes:
        answers = predictions[labels == number]
        values, votes = np.unique(answers[::2], return_counts=True)
        called.add(values[votes.argmax()])
        hits += int((answers[1::2] == values[votes.argmax()]).sum())
        total += len(answers[1::2])
    same_for_all = len(called) < 0.8 * len(classes)  # a network that always says the same has not mixed anything up
    if same_for_all or hits < explained * total:
        return ""
    return (
        f"label order: the classes are mixed up ({100 * hits / total:.1f} % if each class were called what the network "
        "mostly calls it); compare the data's classes.txt with the model's class names"
    )


def _orders(names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield orders in which classes are often counted by mistake."""
    numbers = range(len(names))
    yield "outputs and class names are sorted once by number, once as text (0, 1, 10, 100)", _order(map(str, numbers))
    yield "outputs and class names are sorted once by name, once by something else", _order(names)


def _order(texts: Iterable[str]) -> np.ndarray:
    found = list(texts)
    return np.array(sorted(range(len(found)), key=found.__getitem__), dtype=np.int64)


@torch.inference_mode()
def _answers(model: Model, images: Tensor) -> np.ndarray:
    return model(images).argmax(dim=1).cpu().numpy()


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)


def _listed(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else "/".join(f"{value:g}" for value in values)
