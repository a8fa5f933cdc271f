"""What a study is made of: what was selected, its tasks, the sweeps that measure them, and what a sweep met."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ipvit.core.manifest import Failure
from ipvit.core.memory import Fitting
from ipvit.data.dataset import Dataset, Items, has_pictures
from ipvit.experiments.base import Condition, Experiment, Measurement

if TYPE_CHECKING:
    import torch

    from ipvit.core.preprocessing import View
    from ipvit.core.run_config import RunConfig
    from ipvit.data.loader import ImageTransform
    from ipvit.engine.store import Identity
    from ipvit.models.model import Model


@dataclasses.dataclass(frozen=True)
class Selected:
    """An experiment of a study, and which of the study's models it is for.

    Attributes:
        experiment: with its parameters.
        models: labels or names; None for all models.
    """

    experiment: Experiment
    models: Collection[str] | None = None

    def concerns(self, model: Model) -> bool:
        """Tell whether a model of the study is to be measured."""
        names = {model.name} if model.origin is None else {model.name, model.origin[0]}
        if model.texts is not None:  # several sets of prompts follow one label
            names.add(model.name.partition(" [")[0])
        return self.models is None or not names.isdisjoint(self.models)


def _everywhere(value: bool) -> np.ndarray:
    return np.full((1, 1), value)


@dataclasses.dataclass
class Task:
    """One experiment on one model over some items.

    Four arrays of booleans say different things about every result, which is one item under one condition. Their shape
    is ``(items, conditions)``, with 1 in the place of what does not matter. What is to be measured follows from all
    four: :meth:`missing`.

    Attributes:
        experiment: what was asked for.
        measurement: the same, bound to the models and the data of the run.
        model: what is measured.
        identity: what determines the results beside condition and item.
        conditions: all conditions of the experiment for this model.
        classes: the model's answer for every class of the items, ``(classes,)``, or ``(classes, answers)`` booleans
            where several are right; None where labels do not count.
        among: how many answers are chosen among, and how many outputs there are; 0 where labels do not count.
        items: what is measured one by one.
        applicable: the condition is measured on this item.
        on_disk: the result was in a run folder before the sweep.
        mine: this process may measure the result; it is no other shard's, nor surely another process's.
        failed: the condition has failed in this run, and is given up.
        notes: by which rule classes without names were mapped to outputs, and what the measurement says of how it is
            done on this model, in sentences.
        prepared: what :meth:`ipvit.experiments.base.Measurement.prepare` returned.
        fitting: how many items at a time fit into the memory.
    """

    experiment: Experiment
    measurement: Measurement
    model: Model
    identity: Identity
    conditions: tuple[Condition, ...]
    classes: np.ndarray | None
    among: tuple[int, int]
    items: Items
    applicable: np.ndarray = dataclasses.field(default_factory=lambda: _everywhere(True))
    on_disk: np.ndarray = dataclasses.field(default_factory=lambda: _everywhere(False))
    mine: np.ndarray = dataclasses.field(default_factory=lambda: _everywhere(True))
    failed: np.ndarray = dataclasses.field(default_factory=lambda: _everywhere(False))
    notes: list[str] = dataclasses.field(default_factory=list[str])
    prepared: Any = None
    fitting: Fitting = dataclasses.field(default_factory=Fitting)

    def missing(self, positions: np.ndarray) -> np.ndarray:
        """Return which results this process still has to measure, ``(len(positions), conditions)`` booleans.

        Args:
            positions: of the items that are asked about.
        """

        def rows(array: np.ndarray) -> np.ndarray:
            return array if len(array) == 1 else array[positions]

        found = rows(self.applicable) & rows(self.mine) & ~rows(self.on_disk) & ~rows(self.failed)
        return np.broadcast_to(found, (len(positions), len(self.conditions)))

    def give_up(self, numbers: Sequence[int] | np.ndarray) -> None:
        """Measure conditions, given by their numbers, no more in this run: they have failed."""
        self.failed = self.failed | np.isin(np.arange(len(self.conditions)), numbers)

    @functools.cached_property
    def view(self) -> View:
        """How pictures become the model's input in this experiment on these data."""
        return self.measurement.view(self.model) or self.experiment.view(self.model)

    @functools.cached_property
    def by_transform(self) -> dict[ImageTransform | None, np.ndarray]:
        """The numbers of the conditions by the transform of the pictures."""
        groups: dict[ImageTransform | None, list[int]] = {}
        for number, condition in enumerate(self.conditions):
            groups.setdefault(self.measurement.image_transform(condition), []).append(number)
        return {transform: np.array(numbers) for transform, numbers in groups.items()}


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """One pass over some items: over the images with all tasks on them, or over the items of one task.

    Attributes:
        tasks: all on these items.
        items: what is gone over.
        positions: ``(n,)`` positions of the items that the study uses.
        batch_size: items at a time.
        workers: decoding processes.
        device: where the models are.
        config: the options of the run.
    """

    tasks: Sequence[Task]
    items: Items
    positions: np.ndarray
    batch_size: int
    workers: int
    device: torch.device
    config: RunConfig

    @property
    def pictures(self) -> Dataset | None:
        """The items where they are pictures, which must be decoded."""
        return self.items if has_pictures(self.items) else None

    @property
    def sequential(self) -> bool:
        """Whether the items can only be read from the front to the back."""
        return self.pictures is not None and self.pictures.sequential

    @property
    def batches(self) -> list[np.ndarray]:
        """Positions of the items of each batch; the same whatever is on disk already and whichever process measures."""
        starts = range(0, len(self.positions), self.batch_size)
        return [self.positions[start : start + self.batch_size] for start in starts]

    def count_missing(self, positions: np.ndarray | None = None) -> int:
        """Return how many results (item x condition x model) this process may still have to measure.

        Args:
            positions: of some items; all by default.
        """
        asked = self.positions if positions is None else positions
        return sum(int(task.missing(asked).sum()) for task in self.tasks)


@dataclasses.dataclass
class Outcome:
    """What a sweep met on its way.

    Attributes:
        selected: images of the data set that the study uses.
        unreadable: id and reason of the images that could not be read.
        failures: models or experiments that failed.
        measured: results (image x condition x model) measured in this call.
        notes: what the user should know of how it went.
        remarks: ids of the images that are odd, under each of :mod:`ipvit.data.remarks`.
    """

    selected: int
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    failures: list[Failure] = dataclasses.field(default_factory=list)
    measured: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)
    remarks: dict[str, set[str]] = dataclasses.field(default_factory=dict)

    @property
    def nothing_read(self) -> bool:
        """Whether no image of the study could be read."""
        return len(self.unreadable) == self.selected > 0

    @classmethod
    def joined(cls, parts: Sequence[Outcome]) -> Outcome:
        """Return what several processes met, each on its shard."""
        failures = {(f.experiment, f.model, f.condition, f.error): f for part in parts for f in part.failures}
        return cls(
            max(part.selected for part in parts),
            {image: reason for part in parts for image, reason in part.unreadable.items()},
            list(failures.values()),
            sum(part.measured for part in parts),
            list(dict.fromkeys(note for part in parts for note in part.notes)),
            {
                remark: {image for part in parts for image in part.remarks.get(remark, ())}
                for remark in {remark for part in parts for remark in part.remarks}
            },
        )
