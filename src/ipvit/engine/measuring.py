"""One batch is measured: halved where memory runs out; what fails is noted, and the rest goes on."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ipvit.core.files import is_of_the_disk
from ipvit.core.memory import halving, is_out_of_memory
from ipvit.core.queued.deferred import Deferred, deferred
from ipvit.core.queued.readback import read_back
from ipvit.engine.device import numerics, without_gradients
from ipvit.engine.folders.rows import Measured
from ipvit.engine.loop.failures import FOREIGN, note_failing
from ipvit.engine.loop.residents import Residents
from ipvit.engine.types import Outcome, SweepPlan, Task
from ipvit.experiments.base import Batch, Condition, Records
from ipvit.metrics.accuracy import first_labels


def measure_batch(
    task: Task,
    batch: Batch,
    plan: SweepPlan,
    outcome: Outcome,
    queued: Callable[[], None] | None = None,
    residents: Residents | None = None,
) -> Measured:
    """Measure a batch; where that fails, try its conditions one by one, and give those up that fail alone.

    Args:
        task: what is measured.
        batch: on what.
        plan: the sweep.
        outcome: where failures are added.
        queued: called while the device works, when all conditions are queued and before results are waited for.
        residents: which networks are on the device; this one by default.

    Returns:
        What was measured, under the conditions that did not fail.
    """
    residents = residents or Residents(plan.device)
    try:
        return _measure_all(task, batch, plan, residents, queued)
    except FOREIGN as error:
        if is_of_the_disk(error):
            raise
        errors: dict[str, BaseException] = {condition.key: error for condition in batch.conditions}
    measured: list[tuple[Condition, Mapping[str, np.ndarray]]] = []
    for condition in batch.conditions if len(batch.conditions) > 1 else ():
        try:
            measured += _measure_all(task, dataclasses.replace(batch, conditions=(condition,)), plan, residents)
            del errors[condition.key]
        except FOREIGN as error:
            if is_of_the_disk(error):
                raise
            errors[condition.key] = error
    task.give_up(note_failing(task, batch.conditions, errors, outcome))
    return measured


def _measure_all(
    task: Task, batch: Batch, plan: SweepPlan, residents: Residents, queued: Callable[[], None] | None = None
) -> Measured:
    measured = _measure(task, batch, plan, residents, queued)
    lacking = {condition.key for condition in batch.conditions} - {condition.key for condition, _ in measured}
    if lacking:
        raise ValueError(f"nothing was measured under {len(lacking)} of {len(batch.conditions)} conditions")
    return measured


def measure_at_once(task: Task, batch: Batch, plan: SweepPlan) -> list[Records]:
    """Measure a batch as it is: in the run's precision, with gradients where the experiment requires them."""
    with deferred() as checks:
        measured = _queue(task, batch, plan)
    for columns in read_back([checks.numbers]):
        for numbers in columns.values():
            checks.judge(numbers)
    return measured


def _queue(task: Task, batch: Batch, plan: SweepPlan) -> list[Records]:
    gradients = "gradients" in task.experiment.requirements.of(task.model)
    grad_mode = contextlib.nullcontext() if gradients else without_gradients(task.model, plan.config.precision)
    with numerics(plan.device, plan.config.precision), grad_mode:
        return list(task.measurement.measure(task.model, batch))


def _measure(
    task: Task, batch: Batch, plan: SweepPlan, residents: Residents, queued: Callable[[], None] | None
) -> Measured:
    """Measure a batch; when it does not fit into memory, alone with its network, measure its halves and join them."""

    def measured(part: Batch) -> Measured:
        with deferred() as checks:
            records = _queue(task, part, plan)
        if queued is not None:
            queued()
        return _as_arrays(records, part, checks)

    def with_room(part: Batch) -> Measured:
        try:
            return measured(part)
        except Exception as error:
            if not (is_out_of_memory(error) and residents.make_room(task.model)):
                raise
        return measured(part)  # after the block above, whose error holds on to the tensors of the failed attempt

    return halving(with_room, batch, _halves, _joined, task.fitting)


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    middle = len(batch) // 2
    return batch.part(0, middle), batch.part(middle, len(batch))


def _joined(first: Measured, second: Measured) -> Measured:
    return [
        (condition, {name: np.concatenate([values, others[name]]) for name, values in columns.items()})
        for (condition, columns), (_, others) in zip(first, second, strict=True)
    ]


def _as_arrays(measured: Sequence[Records], batch: Batch, checks: Deferred) -> Measured:
    """Return what was measured as columns of records, after all of it is queued on the device."""
    labels = first_labels(batch.labels)
    found = read_back([{"label": labels}, *(records.columns for records in measured), checks.numbers])
    for numbers in found.pop().values():
        checks.judge(numbers)
    common = {"label": found[0]["label"].astype(np.int32)}
    common |= {name: np.asarray(column) for name, column in batch.fields.items()}
    whole = [(records.condition, common | columns) for records, columns in zip(measured, found[1:], strict=True)]
    for _, columns in whole:
        for name, values in columns.items():
            if len(values) != len(batch):
                raise ValueError(f"the column {name!r} has {len(values)} values for {len(batch)} images")
    return whole
