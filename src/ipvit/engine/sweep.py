"""The one loop: every image is read once, for all models, experiments and conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ipvit.core.signals import uninterrupted
from ipvit.data.loader import DecodedBatch
from ipvit.engine.batches import Donors, Images, batches_of, decoded_batches, read_donors
from ipvit.engine.device import numerics
from ipvit.engine.loop.ahead import Ahead
from ipvit.engine.loop.claims import Claims
from ipvit.engine.loop.failures import note_failed_transform, recording_failures
from ipvit.engine.loop.residents import Residents
from ipvit.engine.loop.writer import Writer
from ipvit.engine.measuring import measure_batch
from ipvit.engine.store import Store
from ipvit.engine.types import Outcome, SweepPlan, Task
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, PrepareContext


def sweep(
    plan: SweepPlan,
    store: Store,
    outcome: Outcome,
    claims: Claims | None = None,
    residents: Residents | None = None,
    *,
    advance: Callable[[int, str], None] = lambda _count, _what: None,
    on_first_batch: Callable[[Task, Batch], None] = lambda _task, _batch: None,
    main_process_first: Callable[[Callable[[], None]], None] = lambda work: work(),
) -> None:
    """Measure what is missing.

    Args:
        plan: tasks, items and how they are gone over.
        store: where records go.
        outcome: filled as the sweep goes on, so that it holds even when the sweep is interrupted.
        claims: which batches this process measures; all by default.
        residents: which networks are on the device; all by default.
        advance: called with the number of results that were finished and the experiment's name, for a progress bar;
            by the thread that writes.
        on_first_batch: given the first batch of each task, once measured, for example to take pictures.
        main_process_first: calls a function, where there are several processes in one of them before the others.
    """
    claims = claims or Claims(plan.batches, range(len(plan.batches)))
    residents = residents or Residents(plan.device)
    main_process_first(lambda: _prepare(plan, store, outcome, residents))
    shown: set[int] = set()
    writer = Writer(store, outcome, advance)
    try:
        donors: dict[int, Donors] | None = None
        for batches in claims.rounds():
            wanted = [batch for batch in batches if any(task.missing(batch).any() for task in plan.tasks)]
            if not wanted:
                continue
            in_turn = Ahead(decoded_batches(plan, wanted, outcome.notes), plan.device)
            donors = donors or read_donors(plan)
            for decoded, images in in_turn:
                _note_odd(decoded, plan, outcome)
                if not claims.begin(decoded.indices):
                    continue
                if decoded.failure:
                    note_failed_transform(decoded, plan, outcome)
                for number, task, batch, last in _with_last(_to_measure(plan, decoded, images, donors)):
                    residents.bring(task.model)
                    measured = measure_batch(task, batch, plan, outcome, in_turn.fetch if last else None, residents)
                    if number not in shown and decoded.transform is None:
                        shown.add(number)
                        with recording_failures(task, outcome, fatal=False):
                            on_first_batch(task, batch)
                    # afterwards: what is on the disk is not measured again, and pictures are of the first batch
                    count = 0 if claims.helping else len(batch) * len(batch.conditions)
                    writer.add(task, batch.ids, measured, count)
    finally:  # also on Ctrl-C, and where it comes twice: what is measured is kept
        with uninterrupted():
            writer.close()
        outcome.notes += [_note_on_memory(task) for task in plan.tasks if task.fitting.too_large]


def _to_measure(
    plan: SweepPlan, decoded: DecodedBatch, images: Images, donors: Mapping[int, Donors]
) -> Iterator[tuple[int, Task, Batch]]:
    """Yield what is to be measured of a decoded batch, with the number of the task."""
    for number, task in enumerate(plan.tasks):
        for batch in batches_of(task, plan, decoded, images, donors[task.experiment.requirements.donors]):
            yield number, task, batch


def _with_last(found: Iterable[tuple[int, Task, Batch]]) -> Iterator[tuple[int, Task, Batch, bool]]:
    """Yield the same, and whether it is the last."""
    held: tuple[int, Task, Batch] | None = None
    for one in found:
        if held is not None:
            yield *held, False
        held = one
    if held is not None:
        yield *held, True


def _note_odd(decoded: DecodedBatch, plan: SweepPlan, outcome: Outcome) -> None:
    """Note what could not be read, and what is odd about the rest."""
    _note_unreadable(decoded, plan, outcome)
    for remark, positions in decoded.remarks.items():
        outcome.remarks.setdefault(remark, set()).update(plan.items.ids[position] for position in positions)


def prepare_context(plan: SweepPlan, folder: Path, outcome: Outcome) -> PrepareContext:
    """Return what the experiments of a sweep may use to get ready.

    Args:
        plan: the sweep.
        folder: the run folder.
        outcome: where unreadable images and notes are added.
    """
    config = plan.config
    return PrepareContext(
        folder=folder,
        items=plan.items,
        seed=config.seed,
        precision=config.precision,
        device=plan.device,
        batch_size=plan.batch_size,
        workers=plan.workers,
        unreadable=outcome.unreadable,
        notes=outcome.notes,
    )


def _prepare(plan: SweepPlan, store: Store, outcome: Outcome, residents: Residents) -> None:
    context = prepare_context(plan, store.root, outcome)
    for task in plan.tasks:
        if task.missing(plan.positions).any():
            with recording_failures(task, outcome), numerics(plan.device, plan.config.precision):
                residents.bring(task.model)
                task.prepared = task.measurement.prepare(task.model, context)


def _note_on_memory(task: Task) -> str:
    fitting = task.fitting
    return (
        f"{task.experiment.name} on {task.model.name}: {fitting.too_large} at a time did not fit into the memory, "
        f"{fitting.most:.0f} at most were measured at a time; batch_size: {fitting.most:.0f} would begin with that"
    )


def _note_unreadable(decoded: DecodedBatch, plan: SweepPlan, outcome: Outcome) -> None:
    for position, reason in decoded.unreadable:
        image = plan.items.ids[position]
        if plan.config.strict:
            raise InputError(f"unreadable image {image!r} in {plan.items.name}: {reason}")
        outcome.unreadable[image] = reason
