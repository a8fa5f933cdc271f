"""Measuring natural shifts: shifted and clean images go through a network once, and are answered as each set asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipvit.data.dataset import Dataset, Items, fingerprint
from ipvit.data.joined import JoinedDataset
from ipvit.data.recognition import known_name
from ipvit.data.subset import Subset, subset_indices
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, BindContext, Measurement, Records
from ipvit.experiments.scoring import score_logits
from ipvit.experiments.shift.experiment import CLEAN, SHIFTED, Shift, ShiftCondition
from ipvit.metrics.accuracy import first_labels
from ipvit.models.answers import AnswerSpace
from ipvit.models.label_mapping import as_booleans, right_answers, right_of_images, sets_as_text, space_for
from ipvit.models.model import Model
from ipvit.perturb.tensors import from_numpy


@dataclasses.dataclass(frozen=True)
class _Answered:
    """How a model answers a shifted set and the clean images of its classes.

    Attributes:
        space: what the answers are made of; None for all outputs.
        n_answers: how many there are.
        shifted: for each class of the set its right answers, ``(classes, answers)`` booleans.
        clean: the same for each class of the clean data; none for classes that the set does not have.
        digest: of both sets' images and of what is right and may be answered.
    """

    space: AnswerSpace | None
    n_answers: int
    shifted: NDArray[np.bool_]
    clean: NDArray[np.bool_]
    digest: str


class ShiftMeasurement(Measurement):
    """Natural shifts in one run.

    Args:
        experiment: the parameters.
        models: all that are measured.
        data: the clean images.
        context: how to open the shifted ones.

    Raises:
        InputError: there are no shifted data, one set is named twice, or classes do not fit the outputs.
    """

    def __init__(self, experiment: Shift, models: Sequence[Model], data: Dataset, context: BindContext) -> None:
        if not experiment.sets:
            raise InputError("shift: which shifted data? give sets, for example imagenet-v2:PATH")
        opened = [context.open_data(one) if isinstance(one, str | Path) else one for one in experiment.sets]
        self._clean_name = known_name(data)
        self._sets = dict(zip(map(known_name, opened), opened, strict=True))
        if len(self._sets) < len(opened) or len({one.fingerprint for one in (data, *opened)}) <= len(opened):
            raise InputError("shift: two of the sets are the same, or one is the clean data")
        for one in (data, *opened):
            if one.classes is None:
                raise InputError(f"shift needs labels: {one.name} has no class folders")
        self._answered = {
            (model.name, name): _answered(model, one, data, context)
            for model in models
            for name, one in self._sets.items()
        }
        self._parts: tuple[Dataset, ...] = (data, *opened)

    def items(self, data: Dataset, limit: int | None) -> Items:
        """Return the clean images and those of all sets; a limited study uses as many of each."""
        clean, *shifted = self._parts
        chosen = {name: self._clean_of(name, limit) for name in self._sets}
        used = np.unique(np.concatenate(list(chosen.values())))
        parts = [_limited(part, limit) for part in shifted]
        self._joined = JoinedDataset(f"{data.name} and {', '.join(self._sets)}", [Subset(clean, used), *parts])
        self._clean = {name: np.isin(used, positions) for name, positions in chosen.items()}
        return self._joined

    def _clean_of(self, name: str, limit: int | None) -> NDArray[np.int64]:
        """Return the positions of the clean images of a set's classes, or so many of them."""
        clean = self._parts[0]
        how = next(found for (_, of_set), found in self._answered.items() if of_set == name)
        labels = np.asarray(clean.labels), getattr(clean, "label_sets", None)
        there = np.flatnonzero(right_of_images(how.clean, *labels, how.n_answers).any(axis=1))
        return there[subset_indices(Subset(clean, there), limit)]

    def conditions(self, model: Model) -> Sequence[ShiftCondition]:
        """Return each set and the clean images of its classes."""
        found: list[ShiftCondition] = []
        for name in self._sets:
            how = self._answered[model.name, name]
            aggregate = (
                "" if how.space is None or len(how.space) == sum(map(len, how.space.columns)) else how.space.aggregate
            )
            found += [
                ShiftCondition(name, how.digest, self._clean_name, images, how.n_answers, aggregate)
                for images in (CLEAN, SHIFTED)
            ]
        return found

    def applicable_images(self, condition: ShiftCondition, data: Items) -> np.ndarray:
        """Return the images of the set, or the clean ones of its classes."""
        number = 1 + list(self._sets).index(condition.set)
        if condition.images == SHIFTED:
            return self._joined.part == number
        wanted = np.zeros(len(self._joined), dtype=bool)
        wanted[self._joined.part == 0] = self._clean[condition.set]
        return wanted

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Run the network once on all images, and let it choose as each condition says."""
        logits = model(batch.images)
        for condition in batch.conditions:
            how = self._answered[model.name, condition.set]
            right = from_numpy(self._right_of(condition, how, batch.positions)).to(logits.device, non_blocking=True)
            scores = logits if how.space is None else how.space.scores(logits)
            columns = score_logits(scores, right, clean=condition.images == CLEAN)
            yield Records(condition, columns | {"right": _first(right)})

    def _right_of(self, condition: ShiftCondition, how: _Answered, positions: np.ndarray) -> NDArray[np.bool_]:
        number = 0 if condition.images == CLEAN else 1 + list(self._sets).index(condition.set)
        labels, sets = self._labels(number)
        places = self._joined.place[positions]
        chosen = None if sets is None else [sets[int(place)] for place in places]
        of_class = how.clean if condition.images == CLEAN else how.shifted
        return right_of_images(of_class, labels[places], chosen, how.n_answers)

    def _labels(self, number: int) -> tuple[np.ndarray, Sequence[Sequence[int]] | None]:
        part = self._joined.parts[number]
        return np.asarray(part.labels), getattr(part, "label_sets", None)


def _limited(data: Dataset, limit: int | None) -> Dataset:
    return data if limit is None or limit >= len(data) else Subset(data, subset_indices(data, limit))


def _first(right: Tensor) -> Tensor:
    return first_labels(right).to(torch.int32)


def _answered(model: Model, shifted: Dataset, clean: Dataset, context: BindContext) -> _Answered:
    """Return how a model answers a set and the clean images.

    Raises:
        InputError: classes do not fit the outputs, or the clean data have none of the set's.
    """
    space = space_for(model, shifted, context.answers)
    outputs = [as_booleans(right_answers(data, model), model.n_outputs) for data in (shifted, clean)]
    if space is None:
        answers, mapped = model.n_outputs, outputs
        # of the clean images those of the set's classes, where it has fewer
        mapped[1] = mapped[1] & mapped[0].any(axis=0)
    else:
        made_of = np.zeros((space.outputs, len(space)), dtype=np.float32)
        for number, columns in enumerate(space.columns):
            made_of[list(columns), number] = 1
        answers, mapped = len(space), [one.astype(np.float32) @ made_of > 0 for one in outputs]
    if not mapped[1].any():
        raise InputError(f"shift: the clean data {clean.name} have none of the classes of {shifted.name}")
    parts = [part for data in (shifted, clean) for part in (data.fingerprint, sets_as_text(data))]
    return _Answered(
        space,
        answers,
        mapped[0],
        mapped[1],
        fingerprint("shift", *parts, "" if space is None else space.digest, *mapped)[:16],
    )
