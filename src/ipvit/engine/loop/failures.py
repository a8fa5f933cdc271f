"""What fails is noted with its error and its settings; the rest of the study goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import traceback
from collections.abc import Generator, Mapping, Sequence

from ipvit.core.files import is_of_the_disk
from ipvit.core.manifest import Failure
from ipvit.data.loader import DecodedBatch
from ipvit.engine.types import Outcome, SweepPlan, Task
from ipvit.errors import error_line
from ipvit.experiments.base import Condition

FOREIGN = (Exception, SystemExit)
"""What may come out of somebody's network, experiment or part. It concerns that pair of a network and an experiment:
also an ``InputError``, as what was wrong with the user's input has been said before the first batch."""


def note_failing(
    task: Task, conditions: Sequence[Condition], errors: Mapping[str, BaseException], outcome: Outcome
) -> list[int]:
    """Record conditions that failed, once for those with the same error; return their numbers.

    Args:
        task: whose conditions.
        conditions: some of them.
        errors: by the key of each condition that failed.
        outcome: where the failures are added.
    """
    failing = [condition for condition in conditions if condition.key in errors]
    for text in dict.fromkeys(_text(errors[condition.key]) for condition in failing):
        alike = [condition for condition in failing if _text(errors[condition.key]) == text]
        details = _traceback(errors[alike[0].key])
        outcome.failures.append(_failure(task, text, details, _describe(alike, task)))
    return [number for number, condition in enumerate(task.conditions) if condition.key in errors]


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
