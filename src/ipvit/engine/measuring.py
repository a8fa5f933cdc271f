"""One batch is measured: halved where memory runs out; what fails is noted, and the rest goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import traceback
from collections.abc import Generator, Sequence

import numpy as np

from ipvit.core.files import is_of_the_disk
from ipvit.core.manifest import Failure
from ipvit.core.memory import halving
from ipvit.core.queued.deferred import Deferred, deferred
from ipvit.core.queued.readback import read_back
from ipvit.data.loader import DecodedBatch
from ipvit.engine.device import numerics, without_gradients
from ipvit.engine.folders.rows import Measured
from ipvit.engine.store import Store
from ipvit.engine.types import Outcome, SweepPlan, Task
from ipvit.errors import error_line
from ipvit.experiments.base import Batch, Condition, Records
from ipvit.metrics.accuracy import first_labels

FOREIGN = (Exception, SystemExit)
"""What may come out of somebody's network, experiment or part. It concerns that pair of a network and an experiment:
also an ``InputError``, as what was wrong with the user's input has been said before the first batch."""


def measure_batch(task: Task, batch: Batch, plan: SweepPlan, store: Store, outcome: Outcome) -> None:
    """Measure a batch; where that fails, try its conditions one by one, and give those up that fail alone.

    Args:
        task: what is measured.
        batch: on what.
        plan: the sweep.
        store: where the records go.
        outcome: where failures and the number of results are added.
    """
    try:
        _measure_and_add(task, batch, plan, store, outcome)
        return
    except FOREIGN as error:
        if is_of_the_disk(error):
            raise
        errors = {condition.key: error for condition in batch.conditions}
    for condition in batch.conditions if len(batch.conditions) > 1 else ():
        try:
            _measure_and_add(task, dataclasses.replace(batch, conditions=(condition,)), plan, store, outcome)
            del errors[condition.key]
        except FOREIGN as error:
            if is_of_the_disk(error):
                raise
            errors[condition.key] = error
    failing = [condition for condition in batch.conditions if condition.key in errors]
    for text in dict.fromkeys(map(_text, errors.values())):
        alike = [condition for condition in failing if _text(errors[condition.key]) == text]
        details = _traceback(errors[alike[0].key])
        outcome.failures.append(_failure(task, text, details, _describe(alike, task)))
    task.give_up([number for number, condition in enumerate(task.conditions) if condition.key in errors])


@contextlib.contextmanager
def recording_failures(task: Task, outcome: Outcome, *, fatal: bool = True) -> Generator[None]:
    """Record whatever a network or an experiment raises; when fatal, give the whole task up."""
    try:
        yield
    except FOREIGN as error:
        if is_of_the_disk(error):
            raise
        outcome.failures.append(_failure(task, _text(error), _traceback(error)))
        if fatal:
            task.give_up(range(len(task.conditions)))


def note_failed_transform(decoded: DecodedBatch, plan: SweepPlan, outcome: Outcome) -> None:
    """Record, for all tasks that need it, that a transform failed, and give its conditions up."""
    error = decoded.failure.strip().splitlines()[-1][:300]
    for task in plan.tasks:
        numbers = task.by_transform.get(decoded.transform)
        if numbers is None or not task.missing(plan.positions)[:, numbers].any():
            continue
        which = _describe([task.conditions[int(number)] for number in numbers], task)
        outcome.failures.append(_failure(task, error, decoded.failure, which))
        task.give_up(numbers)


def _measure_and_add(task: Task, batch: Batch, plan: SweepPlan, store: Store, outcome: Outcome) -> None:
    measured = _measure(task, batch, plan)
    lacking = {condition.key for condition in batch.conditions} - {condition.key for condition, _ in measured}
    if lacking:
        raise ValueError(f"nothing was measured under {len(lacking)} of {len(batch.conditions)} conditions")
    store.add(task.identity, task.model.name, batch.ids, measured)
    outcome.measured += len(batch) * len(measured)


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


def _measure(task: Task, batch: Batch, plan: SweepPlan) -> Measured:
    """Measure a batch; when it does not fit into memory, measure its halves and join them."""

    def measured(part: Batch) -> Measured:
        with deferred() as checks:
            records = _queue(task, part, plan)
        return _as_arrays(records, part, checks)

    return halving(measured, batch, _halves, _joined, task.fitting)


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


def _failure(task: Task, error: str, details: str, condition: str = "") -> Failure:
    return Failure(
        experiment=task.experiment.name, model=task.model.name, condition=condition, error=error, details=details
    )


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _text(error: BaseException) -> str:
    return error_line(error, 300, named=True)


def _describe(conditions: Sequence[Condition], task: Task) -> str:
    """Return what sets these conditions of a task apart from its others; empty where they are all there are."""
    if len(conditions) == len(task.conditions):
        return ""
    every = [dataclasses.asdict(condition) for condition in task.conditions]
    varying = [name for name in every[0] if len({repr(fields[name]) for fields in every}) > 1]
    texts = [" ".join(f"{name}={getattr(condition, name)}" for name in varying) for condition in conditions]
    return "; ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
