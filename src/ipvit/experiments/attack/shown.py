"""Transfer: images that attacks made on one network, within a budget or by cells, shown to the others of a study."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ipvit.errors import InputError
from ipvit.experiments.attack.conditions import AttackCondition, CellCondition
from ipvit.experiments.attack.names import CHECK, CLEAN, PATCH, RANDOM, VOTE, WORST, attack_title
from ipvit.experiments.attack.patches import frozen_parameters
from ipvit.experiments.base import Batch, Records
from ipvit.experiments.scoring import score_logits
from ipvit.models.label_mapping import outputs_for
from ipvit.models.model import Model
from ipvit.perturb.attack import Attacked, is_right
from ipvit.perturb.tensors import from_numpy

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.attack.cells import CellAttacks
    from ipvit.experiments.attack.pixels import PixelAttacks

_NOT_SHOWN = {
    VOTE: "what is made against a network and against its vote is not shown to others; apgd makes the same images "
    "against a network alone, and these are shown",
    WORST: "for other networks there is no worst of what is shown; each attack has its own row",
    PATCH: "patches are shown to others by transfer, in a table of their own",
}
"""Attacks whose images are not among those that are shown, and why."""


class ShownToOthers:
    """The images that attacks make of a batch, kept until the next batch, so that each is made once.

    Args:
        pixels: the attacks within a budget.
        cells: those that replace cells.
        models: all networks of the study; none where nothing is shown.
        data: whose labels are read where two networks number their answers differently.
    """

    def __init__(self, pixels: PixelAttacks, cells: CellAttacks, models: Sequence[Model], data: Dataset) -> None:
        self.pixels, self.cells, self.models, self.data = pixels, cells, tuple(models), data
        self._ids: tuple[str, ...] = ()
        self._made: dict[tuple[str, str], Attacked] = {}

    def conditions(self, model: Model) -> list[AttackCondition]:
        """Return every attack on every other network whose images a network can be shown."""
        found: list[AttackCondition] = []
        for source in self._sources(model):
            if not self._why_not(source, model):
                every = [*self.pixels.conditions(source), *self.cells.conditions(source)]
                own = [condition for condition in every if condition.attack not in (CLEAN, CHECK, RANDOM)]
                found += [dataclasses.replace(condition, source=source.digest[:16]) for condition in own]
        return found

    def notes(self, model: Model) -> list[str]:
        """Say which images a network is not shown, and why."""
        if not self.models:
            return []
        if len({other.digest for other in self.models}) == 1:
            return ["attack: show_to_others shows nothing: the study has one network"]
        reasons = {source.name: self._why_not(source, model) for source in self._sources(model)}
        found = [
            f"attack: what is made on {name} is not shown to {model.name}: {reason}"
            for name, reason in reasons.items()
            if reason
        ]
        asked = self.pixels.experiment.attacks
        return [*found, *(f"attack: {attack_title(name)}: {_NOT_SHOWN[name]}" for name in _NOT_SHOWN if name in asked)]

    def keep(self, model: Model, batch: Batch, condition: AttackCondition, found: Attacked) -> None:
        """Keep what an attack on a network made of a batch, where others are shown it."""
        if not self.models:
            return
        if self._ids != batch.ids:
            self._ids = batch.ids
            self._made.clear()
        self._made[model.digest[:16], condition.key] = found

    def measure(self, model: Model, batch: Batch, conditions: Sequence[AttackCondition]) -> Iterator[Records]:
        """Show a network what was made on others. What is not there yet is made."""
        for condition in conditions:
            source = next(other for other in self.models if other.digest.startswith(condition.source))
            plain = dataclasses.replace(condition, source="")
            theirs = dataclasses.replace(batch, labels=self._labels(source, model, batch))
            made = self._of(source, theirs, plain)
            clean = self._of(source, theirs, AttackCondition(CLEAN))
            with torch.no_grad():
                logits = model(made.images)
            columns = score_logits(logits, batch.labels)
            yield Records(
                condition,
                columns
                | {
                    "flat": torch.zeros_like(columns["correct"]),
                    "source_right": is_right(clean.logits, theirs.labels),
                    "source_fooled": ~is_right(made.logits, theirs.labels),
                    "trained_on": np.full(len(batch), source.name),
                },
            )

    def _of(self, source: Model, batch: Batch, condition: AttackCondition) -> Attacked:
        key = (source.digest[:16], condition.key)
        if self._ids != batch.ids or key not in self._made:
            with frozen_parameters(source):
                self.keep(source, batch, condition, self._make(source, batch, condition))
        return self._made[key]

    def _make(self, source: Model, batch: Batch, condition: AttackCondition) -> Attacked:
        if isinstance(condition, CellCondition):
            ((_, found),) = self.cells.attacked(source, batch, [condition])
        else:
            ((_, found, _),) = self.pixels.attacked(source, batch, [condition])
        return found

    def _sources(self, model: Model) -> list[Model]:
        return [other for other in self.models if other.digest != model.digest]

    def _why_not(self, source: Model, model: Model) -> str:
        if source.preprocessing.view != model.preprocessing.view:
            return "the two see pictures at another size, crop or interpolation"
        if not _same_answers(source, model):
            with contextlib.suppress(InputError):
                outputs_for(self.data, source)
                return ""
            return "their answers are others, and the data do not say which are the same"
        return ""

    def _labels(self, source: Model, model: Model, batch: Batch) -> Tensor:
        """Return the right answers of a source for a batch of another network."""
        if _same_answers(source, model):
            return batch.labels
        labels = np.asarray(self.data.labels)[batch.positions]
        outputs = outputs_for(self.data, source)
        return from_numpy(np.where(labels < 0, -1, outputs[np.maximum(labels, 0)])).to(batch.labels)


def _same_answers(one: Model, other: Model) -> bool:
    spaces = [None if model.answer_space is None else model.answer_space.digest for model in (one, other)]
    return one.classes is not None and one.classes == other.classes and spaces[0] == spaces[1]
