"""A study from start to end: checks, the sweep, the manifest."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from ipvit.core.files import resumable, write_atomic
from ipvit.core.links import refuse_links
from ipvit.core.lock import FolderLock
from ipvit.core.manifest import Manifest, Status
from ipvit.core.outdated import mark_outdated
from ipvit.core.run_config import RunConfig
from ipvit.core.run_log import log, logged_into
from ipvit.core.signals import uninterrupted
from ipvit.core.terminal import Terminal
from ipvit.core.terminal import progress as progress_bar
from ipvit.data import remarks
from ipvit.data.dataset import Dataset
from ipvit.data.fingerprints import under
from ipvit.engine.device import models_on_device, name_of
from ipvit.engine.distributed import ProcessGroup
from ipvit.engine.examples import save_examples
from ipvit.engine.folders.class_names import keep_class_names
from ipvit.engine.folders.run_folder import WRITTEN, check_folder, clear_left_over, prepare_folder, put_aside
from ipvit.engine.folders.scope import asked_for
from ipvit.engine.known_data import alike, known_as
from ipvit.engine.loop.claims import Claims
from ipvit.engine.loop.residents import Residents
from ipvit.engine.manifest import describe, read_manifest, write_manifest
from ipvit.engine.preparation import (
    assign_shard,
    by_torch,
    checked,
    condition_fields,
    count_finished,
    mark_finished,
    measured_before,
    plan_sweeps,
    uncompiled,
)
from ipvit.engine.store import Store, keep_analysis
from ipvit.engine.study import STUDY
from ipvit.engine.sweep import sweep
from ipvit.engine.types import Outcome, Selected, SweepPlan, Task
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, BindContext, Experiment
from ipvit.models.model import Model


def execute(
    experiments: Sequence[Experiment | Selected],
    models: Sequence[Model],
    data: Dataset,
    out: Path,
    config: RunConfig,
    *,
    context: BindContext,
    study_yaml: str = "",
    group: ProcessGroup | None = None,
    reused_runs: Sequence[Path] = (),
) -> Manifest:
    """Measure what a study asks for and is not in the run folder yet.

    Args:
        experiments: what to measure, on all models or on some.
        models: the networks, with different names.
        data: the images.
        out: the run folder.
        config: the options of the run.
        context: what experiments may use to open further data.
        study_yaml: the resolved study, kept in the folder.
        group: the processes that do this together, all with the same arguments.
        reused_runs: further run folders; what is in them is not measured again.

    Returns:
        The manifest.

    Raises:
        InputError: model, data, experiment or folder cannot be used; raised before anything is written.
        OSError: the disk takes nothing more, or what was measured is not on it at the end.
    """
    group = group or ProcessGroup()
    started = time.monotonic()
    group.main_process_first(lambda: check_folder(out))
    chosen = [entry if isinstance(entry, Selected) else Selected(entry) for entry in experiments]
    experiments = [entry.experiment for entry in chosen]
    known, verify = () if config.fresh else (out, *reused_runs), config.verify
    (name, *_) = group.collect(known_as(data, known, verify=verify).fingerprint)  # the first process's, as for records
    data = under(data, name)
    context = alike(data, context, known, verify=verify)
    device, tasks, left_out = group.main_process_first(lambda: checked(chosen, models, data, config, group, context))
    group.assert_same_on_all_ranks("data and models", (data.fingerprint, [model.digest for model in models]))
    plans = plan_sweeps(tasks, data, config, device, group)
    group.assert_same_on_all_ranks("batch size", plans[0].batch_size)
    with (
        models_on_device(models, device, config, tasks) as residents,
        _held(out, config.fresh, group) as lock,
        _logged(out, group),
    ):
        store = Store(out, config.flush_seconds, mend=group.is_main_process, guard=lock.check, device=name_of(device))
        earlier = group.main_process_first(lambda: mark_finished(tasks, store), per_machine=False)
        reused = [str(folder.resolve()) for folder in reused_runs if mark_finished(tasks, Store(folder))]
        before = measured_before(plans)
        claims = [assign_shard(plan, group) for plan in plans]
        mapped = [note for task in tasks for note in task.notes]
        of_data = [note for items in (data, *(task.items for task in tasks)) for note in getattr(items, "notes", ())]
        outcome = Outcome(
            claims[0].selected,
            notes=[*dict.fromkeys([*of_data, *by_torch(tasks, config), *uncompiled(tasks, config), *mapped])],
        )
        if not lock.supported:
            outcome.notes.append("this file system has no locks: never start two runs on one folder")

        _log_begin(plans[0], models, tasks, earlier, left_out)

        def write(status: Status, outcome: Outcome) -> Manifest:
            lock.check()
            if status != "running":
                log(f"{status}: {outcome.measured:,} results measured in {time.monotonic() - started:.1f} s")
            manifest = describe(
                experiments,
                models,
                plans[0],
                tasks,
                outcome,
                status=status,
                seconds=time.monotonic() - started,
                left_out=left_out,
                damaged=[str(path.relative_to(out)) for path in store.damaged],
                processes=group.size,
                reused_runs=reused,
                earlier=read_manifest(out),
                asked=asked,
                measured_before=before,
            )
            if group.is_main_process:
                write_manifest(out, manifest)
            return manifest

        asked = asked_for(tasks, plans[0])
        if group.is_main_process:
            _tell(before, out, config)
            mark_outdated(out)
        try:
            write("running", outcome)
            if group.is_main_process:
                asked_for(tasks, plans[0], out)
                outcome.notes += _keep_study(out, study_yaml)
                for experiment in experiments:
                    keep_class_names(out, experiment.name, tasks)
                    keep_analysis(out, experiment.analysis(), condition_fields(tasks, experiment.name))
            _measure(list(zip(plans, claims, strict=True)), store, outcome, residents, config, group)
            outcome.notes += residents.notes()
            outcome = Outcome.joined(group.collect(outcome))
            outcome.notes += remarks.notes(data.name, outcome.remarks)
            if group.is_main_process:
                _tidy(store)
                _check_kept(tasks, store, earlier, outcome.measured, group)
            _log_end(outcome)
            with uninterrupted():
                manifest = write("failed" if outcome.failures or outcome.nothing_read else "done", outcome)
            manifest = group.collect(manifest)[0]
        except BaseException:
            _in_any_case(lambda: write("interrupted", outcome))
            with resumable():
                raise
        if outcome.nothing_read:
            why = next(iter(outcome.unreadable.values()))
            raise InputError(f"none of the {outcome.selected} images of {data.name} could be read: {why}")
        return manifest


def _logged(out: Path, group: ProcessGroup) -> contextlib.AbstractContextManager[None]:
    return logged_into(out) if group.is_main_process else contextlib.nullcontext()


def _log_begin(
    plan: SweepPlan, models: Sequence[Model], tasks: Sequence[Task], earlier: int, left_out: Sequence[str]
) -> None:
    for model in models:
        size = "x".join(map(str, model.image_size))
        log(f"model {model.name}: {size} pixels, {model.source}, digest {model.digest[:16]}")
    log(f"data {plan.items.name}: {len(plan.positions):,} of {len(plan.items):,} images, {plan.items.fingerprint}")
    log(f"on {plan.device}, {plan.config.precision}, {plan.batch_size} images at a time, {plan.workers} workers")
    for task in tasks:
        log(f"{task.experiment.name} on {task.model.name}: {len(task.conditions):,} conditions")
    log(f"{earlier:,} results were there before")
    for text in left_out:
        log(f"left out: {text}", logging.WARNING)


def _log_end(outcome: Outcome) -> None:
    for note in outcome.notes:
        log(f"note: {note}")
    for image, reason in outcome.unreadable.items():
        log(f"unreadable: {image}: {reason}", logging.WARNING)
    for failure in outcome.failures:
        log(f"{failure.experiment} ({failure.condition}) failed on {failure.model}: {failure.error}", logging.ERROR)


class ResultsLostError(OSError):
    """Results that were measured and written are not on the disk."""


def _measure(
    plans: Sequence[tuple[SweepPlan, Claims]],
    store: Store,
    outcome: Outcome,
    residents: Residents,
    config: RunConfig,
    group: ProcessGroup,
) -> None:
    """Go through all sweeps; pictures for the report are taken on the way."""

    def on_first_batch(task: Task, batch: Batch) -> None:
        if group.is_main_process:
            outcome.notes.extend(save_examples(store.root, task, batch))

    missing = sum(plan.count_missing(claims.own) for plan, claims in plans)
    shown = config.progress and group.is_main_process
    with progress_bar("measuring", missing, shown=shown, unit="results", where=str(store.root)) as advance:
        for plan, claims in plans:
            sweep(
                plan,
                store,
                outcome,
                claims,
                residents,
                advance=advance,
                on_first_batch=on_first_batch,
                main_process_first=lambda work: group.main_process_first(work, per_machine=False),
            )


def _tidy(store: Store) -> None:
    store.compact()
    clear_left_over(store.root)


def _check_kept(tasks: Sequence[Task], store: Store, earlier: int, measured: int, group: ProcessGroup) -> None:
    """Count what is on the disk before it is said that the run is done.

    Args:
        tasks: what was asked for.
        store: the records.
        earlier: results that were there before.
        measured: results that this call has measured.
        group: the processes that have measured.

    Raises:
        ResultsLostError: something is missing.
    """
    expected, lost = earlier + measured, measured
    for wait in (0, 1, 5, 15, 40) if group.size > 1 else (0,):  # a network drive shows others' files in a minute
        time.sleep(wait if lost else 0)
        lost = expected - count_finished(tasks, store) if measured else 0
        if lost <= 0:
            return
    raise ResultsLostError(
        f"{lost:,} of {expected:,} results are no longer in {str(store.root)!r}: something has deleted or "
        "changed its files while the run went on; run the same command again to measure them"
    )


def _in_any_case(write: Callable[[], object]) -> None:
    """Write what is true of a run that ends early, however often its user is out of patience."""
    for _ in range(9):
        try:
            with uninterrupted(), contextlib.suppress(OSError):  # a full disk: the first error is the one to tell of
                write()
        except KeyboardInterrupt:
            continue
        return


@contextlib.contextmanager
def _held(out: Path, fresh: bool, group: ProcessGroup) -> Generator[FolderLock]:
    """Make the run folder and hold it, all processes together."""
    with contextlib.ExitStack() as stack:

        def hold() -> FolderLock:
            if group.is_main_process:
                if fresh:
                    put_aside(out)
                prepare_folder(out)
                refuse_links(out, WRITTEN)
                refuse_links(out, ("features",), files=True)  # they are written in place
            lock = stack.enter_context(FolderLock(out, shared=not group.is_main_process))
            if group.size > 1:
                lock.share()
            return lock

        yield group.main_process_first(hold, per_machine=False)


def _keep_study(out: Path, text: str) -> list[str]:
    """Write the study; an earlier one that asked for something else stays beside it, as ``study.N.yaml``.

    Returns:
        A note that names it, where there is one.
    """
    path = out / STUDY
    if not text:
        return []
    notes: list[str] = []
    if path.is_file() and not path.is_symlink():  # what a link leads to is nobody's earlier study
        earlier = path.read_bytes()
        if earlier == text.encode():
            return []
        if _asked_for(earlier) != _asked_for(text.encode()):
            number = next(n for n in range(1, 10_000) if not (out / f"study.{n}.yaml").exists())
            write_atomic(out / f"study.{number}.yaml", earlier)
            notes.append(f"the folder's study until now asked for something else; it is kept as study.{number}.yaml")
    write_atomic(path, text.encode())
    return notes


def _tell(before: str, out: Path, config: RunConfig) -> None:
    """Say on standard error what was measured before, where somebody reads there."""
    if before and config.progress:
        Terminal(stderr=True).print(f"ipvit: {out}: {before}", highlight=False, soft_wrap=True)


def _asked_for(study: bytes) -> list[bytes]:
    """Return the lines of a study but those that only say how it is computed."""
    how = (b"batch_size:", b"workers:", b"device:", b"tracker:")
    return [line for line in study.splitlines() if not line.startswith(how)]
