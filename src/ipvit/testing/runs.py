"""Whole runs of an experiment: one record for each image and condition, the same in every batch, order and company."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ipvit.data.dataset import Dataset, fingerprint
from ipvit.data.subset import Subset
from ipvit.engine.manifest import MANIFEST
from ipvit.engine.types import SweepPlan
from ipvit.errors import InputError
from ipvit.experiments.base import Requirements
from ipvit.models.adapters import Adapter
from ipvit.models.model import Model
from ipvit.results import Run
from ipvit.testing.contract import ContractError
from ipvit.testing.measuring import equal_values, sweeps_of
from ipvit.testing.samples import CLASSES, plain_model
from ipvit.testing.subject import Subject

FEW = 12
"""Images that are measured where only success matters."""

_KEY = ("weights", "condition", "image")


def check_whole_run(subject: Subject) -> Run:
    """Run an experiment on all images and models, twice in the same folder.

    Args:
        subject: what is tried.

    Returns:
        The run.

    Raises:
        ContractError: records are missing, or measured again.
    """
    whole = subject.run("whole", batch_size=len(subject.data))
    _check_complete(subject, "a run", sweeps_of(subject), whole, _records(subject, whole))
    added = subject.run("whole", batch_size=len(subject.data)).manifest.measured_in_this_call
    subject.require(
        added == 0,
        f"a second run in the same folder measures {added} results again; conditions and ids must be the same",
    )
    return whole


def check_other_runs(subject: Subject, whole: Run) -> None:
    """Run an experiment on fewer images, in other batches, in another order and on other models.

    Args:
        subject: what is tried.
        whole: on all images and models, which the records are compared with.

    Raises:
        ContractError: a record is not what it is in the whole run.
    """
    records = _records(subject, whole)
    _check_limit(subject, records)
    plain = not subject.experiment.requirements.donors  # donors are images of the data set, in its order
    if plain and all(plan.items is subject.data for plan in sweeps_of(subject)) and not subject.data.sequential:
        _check_order(subject, records)
    _check_requirements_suffice(subject)
    _check_refusal(subject)


def _records(subject: Subject, run: Run) -> pl.DataFrame:
    """Return the records of the experiment, with text as text."""
    frame = run.records(subject.experiment.name)
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String))


def _check_complete(subject: Subject, what: str, sweeps: Sequence[SweepPlan], run: Run, records: pl.DataFrame) -> None:
    """One record for each readable item and each condition that is measured on it."""
    skipped = {image.image for image in run.manifest.skipped}
    expected = set()
    for plan in sweeps:
        images = [plan.items.ids[position] for position in plan.positions.tolist()]
        for task in plan.tasks:
            for row, number in np.argwhere(task.missing(plan.positions)).tolist():
                if images[row] not in skipped:
                    expected.add((task.model.digest, task.conditions[number].key, images[row]))
    found = set(records.select(_KEY).rows()) if records.height else set()
    there, others = len(found & expected), len(found - expected)
    subject.require(
        found == expected,
        f"{what} has {there} of the {len(expected)} records that it should have, one for each image and condition, "
        f"and {others} others",
    )


def _check_limit(subject: Subject, records: pl.DataFrame) -> None:
    """Fewer images, one by one, then all of them: each record is what it is among all, and only the rest is added."""
    limit = max(1, len(subject.data) * 2 // 3)
    limited = subject.run("limited", limit=limit, batch_size=1)
    few = _records(subject, limited)
    _check_complete(subject, f"a run of {limit} images, one by one,", sweeps_of(subject, limit), limited, few)
    subject.require(
        set(few["condition"]) <= set(records["condition"]),
        f"a limit of {limit} images has other conditions; they must not depend on how many images are measured",
    )
    if found := _difference(few, records, subject.rounding):
        alone = _records(subject, subject.run("alone", batch_size=1))
        by_batch = _difference(alone, records, subject.rounding)
        cause = "the batch size" if by_batch else f"which other images are measured (a limit of {limit})"
        raise ContractError(f"{subject.name}: the records depend on {cause}: {by_batch or found}")
    raised = subject.run("limited", batch_size=len(subject.data))
    missing = records.join(few, on=_KEY, how="anti").height
    added = raised.manifest.measured_in_this_call
    subject.require(
        added == missing,
        f"raising the limit from {limit} to all images measures {added} results where {missing} were missing",
    )


def _check_order(subject: Subject, records: pl.DataFrame) -> None:
    backwards = Subset(subject.data, np.arange(len(subject.data))[::-1])
    backwards.fingerprint = fingerprint("backwards", subject.data.fingerprint)  # conditions may name it
    found = _records(subject, subject.run("backwards", data=backwards, batch_size=len(subject.data)))
    found = found.with_columns(pl.lit(subject.data.fingerprint).alias("data"))
    difference = _difference(found, records, subject.rounding)
    subject.require(difference is None, f"the records depend on the order of the images: {difference}")


def _difference(one: pl.DataFrame, other: pl.DataFrame, rounding: float) -> str | None:
    """Return where the records that two runs have in common differ, None where they agree.

    Args:
        one: the records that are looked at.
        other: what they should be.
        rounding: how far a number may be off.
    """
    one = one.join(other, on=_KEY, how="semi").sort(_KEY)
    other = other.join(one, on=_KEY, how="semi").sort(_KEY)
    for name in dict.fromkeys([*one.columns, *other.columns]):
        if name not in one.columns or name not in other.columns:
            return f"the column {name!r} is not always there"
        wrong = ~equal_values(one[name].to_numpy(), other[name].to_numpy(), rounding)
        if wrong.any():
            row = int(wrong.argmax())
            return f"{name} of image {one['image'][row]!r} is {one[name][row]!r} and not {other[name][row]!r}"
    return None


def _check_requirements_suffice(subject: Subject) -> None:
    """On a model and data that offer what is required and nothing else, it is measured, or refused before that."""
    needs = subject.experiment.requirements
    model = _limited(subject.able[0], needs)
    stated = ", ".join([*sorted(needs.capabilities), *(["labels"] if needs.labels else []), *needs.fields])
    _require_clear_answer(
        subject,
        "least",
        f"on a model and data that offer what requirements state ({stated or 'nothing'}) and nothing else",
        models=model,
        data=_Bare(subject.data, needs),
    )


def _check_refusal(subject: Subject) -> None:
    """A model of which nothing is known is measured, or refused by its name."""
    lacking = plain_model(subject.data.classes or CLASSES)
    error = _require_clear_answer(subject, "plain", "on a model that offers logits and gradients only", models=lacking)
    subject.require(not error or lacking.name in error, f"refuses the model {lacking.name!r} without its name: {error}")


def _require_clear_answer(subject: Subject, folder: str, where: str, **options: Any) -> str:
    """Run an experiment that may be refused before anything is written, but must not fail; return the refusal."""
    try:
        found = subject.attempt(folder, **options)
    except InputError as error:
        began = (subject.folder / folder / MANIFEST).exists()
        subject.require(
            not began, f"{where} it begins and then ends with: {error} (requirements or bind must refuse before)"
        )
        return str(error)
    failures = found.manifest.failures
    subject.require(
        not failures,
        f"{where} it fails: {failures[0].error if failures else ''} (state what is used in requirements)",
    )
    return ""


def _limited(model: Model, needs: Requirements) -> Model:
    """Return a model of the same network that offers what is required and nothing else."""
    kind: Any = type(model.adapter)

    class Limited(kind):
        @property
        def capabilities(self) -> frozenset[str]:
            return super().capabilities & needs.capabilities

    def limited(_: object) -> Adapter:
        adapter = copy.copy(model.adapter)
        adapter.__class__ = Limited
        return adapter

    found = Model(
        model.backbone,
        name=f"{model.name} without more",
        preprocessing=model.preprocessing,
        classes=model.classes,
        adapter=limited,
    )
    found.distillation_token = model.distillation_token
    return found.eval().to(model.device)


class _Bare(Subset):
    """Some images of a data set without the labels, masks and columns that are not required."""

    def __init__(self, data: Dataset, needs: Requirements) -> None:
        super().__init__(data, np.arange(min(len(data), FEW)))
        if not needs.labels:
            self.classes = self.aliases = None
            self.labels = np.full(len(self.ids), -1)
        self.has_masks = self.has_masks and needs.masks
        self.fields = {name: column for name, column in self.fields.items() if name in needs.fields}
