"""One batch, measured by itself: what comes back, and what must be as it was before."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ipvit.analysis.columns import RESERVED
from ipvit.api import bind_context
from ipvit.engine.batches import batches_of, decoded_batches, on_device, read_donors
from ipvit.engine.device import numerics
from ipvit.engine.distributed import ProcessGroup
from ipvit.engine.folders.rows import column_frame
from ipvit.engine.measuring import measure_at_once
from ipvit.engine.preparation import checked, plan_sweeps
from ipvit.engine.sweep import prepare_context
from ipvit.engine.types import Outcome, Selected, SweepPlan, Task
from ipvit.experiments.base import Batch, ExampleImage, Records
from ipvit.testing.contract import ContractError, NetworkState, no_error, randomness_untouched, require, seeded
from ipvit.testing.dataset import check_fingerprint, check_items
from ipvit.testing.subject import Subject

FEW = 8
"""Images, or other items, in the batch that is measured by itself."""

_KEPT = ("images", "labels", "masks", "regions", "donors")
"""Tensors of a batch that other experiments are given too."""


def check_measuring(subject: Subject) -> None:
    """Measure the first items of every sweep, model by model.

    Raises:
        ContractError: what is measured is not sound, or something was changed on the way.
    """
    for plan in sweeps_of(subject):
        if plan.items is not subject.data:
            what = f"{subject.name}: what items returns,"
            check_items(what, plan.items)
            check_fingerprint(what, plan.items)
        _prepare(subject, plan)
        _check_sweep(subject, plan)


def sweeps_of(subject: Subject, limit: int | None = None) -> list[SweepPlan]:
    """Return the sweeps of a run of the experiment, each with its tasks.

    Args:
        subject: what is tried.
        limit: of the run.

    Raises:
        ContractError: the experiment refuses these models or data.
    """
    group, config = ProcessGroup(), subject.config.model_copy(update={"limit": limit})
    with subject.accepted():
        chosen = [Selected(subject.experiment)]
        device, tasks, _ = checked(chosen, subject.models, subject.data, config, group, bind_context())
    return [plan for plan in plan_sweeps(tasks, subject.data, config, device, group) if plan.tasks]


def _prepare(subject: Subject, plan: SweepPlan) -> None:
    context = prepare_context(plan, subject.folder / "prepared", Outcome(0))
    context.folder.mkdir(exist_ok=True)
    for task in plan.tasks:
        doing = f"{subject.name}: prepare on {task.model.name}"
        state = NetworkState(task.model)
        with no_error(doing), randomness_untouched(doing), numerics(plan.device, plan.config.precision):
            task.prepared = task.measurement.prepare(task.model, context)
        state.require_unchanged(doing)


def _check_sweep(subject: Subject, plan: SweepPlan) -> None:
    donors = read_donors(plan)
    for decoded in decoded_batches(plan, [plan.positions[:FEW]], []):
        if decoded.failure:
            error = ContractError(f"{subject.name}: its image transform fails: {decoded.failure.splitlines()[-1]}")
            error.add_note(decoded.failure)
            raise error
        images = on_device(decoded, plan.device)
        for task in plan.tasks:
            for batch in batches_of(task, plan, decoded, images, donors[task.experiment.requirements.donors]):
                _check_batch(subject, plan, task, batch)


def _check_batch(subject: Subject, plan: SweepPlan, task: Task, batch: Batch) -> None:
    doing = f"{subject.name}: measure on {task.model.name}"
    state = NetworkState(task.model)
    before = {name: value.clone() for name in _KEPT if isinstance(value := getattr(batch, name), Tensor)}
    with seeded(1), no_error(doing), randomness_untouched(doing):
        found = measure_at_once(task, batch, plan)
    _check_records(doing, found, batch)
    state.require_unchanged(doing)
    for name, value in before.items():
        require(
            torch.equal(value, getattr(batch, name)),
            f"{doing} changes batch.{name}, which other experiments are given too; it must work on a copy",
        )
    with seeded(2), no_error(doing):
        again = _by_key(measure_at_once(task, batch, plan))
    for key, columns in _by_key(found).items():
        name = _unequal(columns, again.get(key, {}), 0.0)
        require(
            name is None,
            f"{doing} gives another {name!r} when the same batch is measured twice; what is random must follow from "
            "ipvit.perturb.keys of ids and seed",
        )
    for kept in (batch.conditions[:1], batch.conditions[-1:]) if len(batch.conditions) > 1 else ():
        _check_alone(subject, plan, task, dataclasses.replace(batch, conditions=kept), _by_key(found))
    _check_examples(subject, task, batch)


def _check_alone(
    subject: Subject, plan: SweepPlan, task: Task, batch: Batch, together: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Measure one condition as a run does where the others are on disk."""
    doing = f"{subject.name}: measure on {task.model.name}, asked for {batch.conditions[0]!r} alone,"
    with no_error(doing):
        found = measure_at_once(task, batch, plan)
    _check_records(doing, found, batch)
    for key, columns in _by_key(found).items():
        name = _unequal(columns, together[key], subject.rounding)
        require(name is None, f"{doing} gives another {name!r} than with all conditions; each must stand by itself")


def _check_records(doing: str, found: Sequence[Any], batch: Batch) -> None:
    """One :class:`Records` for each condition that was asked for, with one value for each item."""
    for records in found:
        require(isinstance(records, Records), f"{doing} yields {type(records).__name__}; it must yield ipvit.Records")
    asked = {condition.key: condition for condition in batch.conditions}
    got = [records.condition.key for records in found]
    for records in found:
        require(
            records.condition.key in asked,
            f"{doing} yields records of {records.condition!r}, which is not among batch.conditions",
        )
    for key, condition in asked.items():
        require(got.count(key) == 1, f"{doing} yields records of {condition!r} {got.count(key)} times; it must do once")
    for records in found:
        require(records.columns, f"{doing} measures nothing under {records.condition!r}; a column at least is needed")
        taken = {field.name for field in dataclasses.fields(records.condition)} | RESERVED
        for name, values in _arrays(records).items():
            require(
                name not in taken,
                f"{doing} returns a column {name!r}, which the records have already; give it another name",
            )
            require(
                values.ndim > 0 and len(values) == len(batch),
                f"{doing} returns the column {name!r} of shape {values.shape}; it must have one value for each of the "
                f"{len(batch)} items",
            )
            require(
                _storable(values),
                f"{doing} returns the column {name!r} of {values.dtype}; records hold numbers, true and false, text or "
                "bytes",
            )


def _storable(values: np.ndarray) -> bool:
    """Tell whether a column can be written into the records."""
    if values.dtype.kind not in "biufUSO":
        return False
    try:
        return column_frame({"values": values})["values"].dtype != pl.Object
    except (TypeError, ValueError, pl.exceptions.PolarsError):  # objects of several kinds
        return False


def _check_examples(subject: Subject, task: Task, batch: Batch) -> None:
    doing = f"{subject.name}: examples on {task.model.name}"
    with no_error(doing), randomness_untouched(doing), torch.inference_mode():
        examples = list(task.measurement.examples(task.model, batch))
    for example in examples:
        require(isinstance(example, ExampleImage), f"{doing} yields {type(example).__name__}, no ipvit.ExampleImage")
        image = example.image
        right = image.ndim == 3 and len(image) == 3 and image.is_floating_point()
        require(
            right and bool(((image >= 0) & (image <= 1)).all()),
            f"{doing} yields a picture {tuple(image.shape)} of {image.dtype}; it must be (3, H, W) in [0, 1]",
        )
        require(
            isinstance(example.caption, str) and example.caption,
            f"{doing} yields a picture without a caption; the caption says what it shows",
        )


def _by_key(found: Sequence[Records]) -> dict[str, dict[str, np.ndarray]]:
    return {records.condition.key: _arrays(records) for records in found}


def _arrays(records: Records) -> dict[str, np.ndarray]:
    return {
        name: values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        for name, values in records.columns.items()
    }


def _unequal(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], rounding: float) -> str | None:
    """Return the first column that two measurements do not agree on, None where they agree."""
    for name in {**one, **other}:
        if name not in one or name not in other or not equal_values(one[name], other[name], rounding).all():
            return name
    return None


def equal_values(one: np.ndarray, other: np.ndarray, rounding: float) -> np.ndarray:
    """Tell which values of two arrays of one shape are equal; floating-point numbers up to a rounding.

    With a rounding, bytes are taken for equal: only the analysis knows which numbers they are.

    Args:
        one: the values.
        other: the values that they should be.
        rounding: so much, or this share of a value above 1, a number may be off.
    """
    if one.dtype.kind == other.dtype.kind == "O":
        opaque = rounding > 0 and all(isinstance(value, bytes) for value in (*one, *other))
        return np.array([opaque or np.array_equal(a, b) for a, b in zip(one, other, strict=True)], dtype=bool)
    if one.dtype.kind != "f" or other.dtype.kind != "f":
        return one == other
    missing = np.isnan(one) & np.isnan(other)
    with np.errstate(invalid="ignore"):
        off = np.abs(one - other) <= rounding * np.maximum(1, np.abs(other))
    return missing | off | (one == other)
