"""A study from start to end: checks, the sweep, the manifest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from ipvit.core.files import clear_unfinished, write_atomic
from ipvit.core.manifest import Manifest, Status
from ipvit.core.run_config import RunConfig
from ipvit.core.shard import Shard
from ipvit.core.terminal import progress as progress_bar
from ipvit.data.dataset import Dataset
from ipvit.engine.device import models_on_device
from ipvit.engine.distributed import ProcessGroup
from ipvit.engine.examples import save_examples
from ipvit.engine.lock import FolderLock
from ipvit.engine.manifest import MANIFEST, describe, read_manifest, write_manifest
from ipvit.engine.preparation import assign_shard, by_torch, checked, condition_fields, mark_finished, plan_sweeps
from ipvit.engine.store import Store, keep_analysis, prepare_folder
from ipvit.engine.sweep import sweep
from ipvit.engine.types import Outcome, Selected
from ipvit.errors import InputError
from ipvit.experiments.base import BindContext, Experiment
from ipvit.models.model import Model

STUDY = "study.yaml"
SHARDS = "shards"
OF_THE_RUN = ("records", "examples", "features", "patches", "probes")
"""Folders below a run folder that only the process that holds the folder writes to."""


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
        InputError: model, data, experiment or folder cannot be used; raised before anything is measured.
    """
    group = group or ProcessGroup()
    started = time.monotonic()
    chosen = [entry if isinstance(entry, Selected) else Selected(entry) for entry in experiments]
    experiments = [entry.experiment for entry in chosen]
    device, tasks, left_out = group.main_process_first(lambda: checked(chosen, models, data, config, group, context))
    group.assert_same_on_all_ranks("data and models", (data.fingerprint, [model.digest for model in models]))
    plans = plan_sweeps(tasks, data, config, device, group)
    group.assert_same_on_all_ranks("batch size", plans[0].batch_size)
    with _held(out, config.fresh, group) as lock, models_on_device(models, device, config, tasks):
        store = Store(out, config.flush_seconds, mend=group.is_main_process)
        group.main_process_first(lambda: mark_finished(tasks, store), per_machine=False)
        reused = [str(folder.resolve()) for folder in reused_runs if mark_finished(tasks, Store(folder))]
        (selected, *_) = [assign_shard(plan, group) for plan in plans]
        mapped = dict.fromkeys(note for task in tasks for note in task.notes)
        outcome = Outcome(selected, notes=[*by_torch(tasks, config), *mapped])
        if not lock.supported:
            outcome.notes.append("this file system has no locks: never start two runs on one folder")

        def write(status: Status, outcome: Outcome) -> Manifest:
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
            )
            if group.is_main_process:
                write_manifest(out, manifest)
            return manifest

        try:
            if group.is_main_process:
                _keep_study(out, study_yaml)
            write("running", outcome)
            if group.is_main_process:
                for experiment in experiments:
                    keep_analysis(out, experiment.analysis(), condition_fields(tasks, experiment.name))
            missing = sum(plan.count_missing() for plan in plans)
            with progress_bar("measuring", missing, shown=config.progress and group.is_main_process) as advance:
                for plan in plans:
                    sweep(
                        plan,
                        store,
                        outcome,
                        advance=advance,
                        on_first_batch=lambda task, batch: (
                            outcome.notes.extend(save_examples(out, task, batch)) if group.is_main_process else None
                        ),
                        main_process_first=lambda work: group.main_process_first(work, per_machine=False),
                    )
            outcome = Outcome.joined(group.collect(outcome))
        except BaseException as error:
            with contextlib.suppress(OSError):  # the disk may be full: the first error is the one to tell of
                write("interrupted", outcome)
            if isinstance(error, OSError) and error.errno is not None:
                hint = "what was written before is kept, and the same command goes on from there"
                raise OSError(error.errno, f"{error.strerror}; {hint}", error.filename) from error
            raise
        if group.is_main_process:
            store.compact()
            for folder in (out / name for name in OF_THE_RUN):
                clear_unfinished(folder)
        manifest = group.collect(write("failed" if outcome.failures else "done", outcome))[0]
        if len(outcome.unreadable) == outcome.selected > 0:
            raise InputError(f"none of the {outcome.selected} images of {data.name} could be read")
        return manifest


def shard_folder(out: Path, shard: Shard) -> tuple[Path, list[Path]]:
    """Return where a shard of a run is written, and the folder whose results it need not measure again."""
    if shard.count == 1:
        return out, []
    return out / SHARDS / f"{shard.index + 1}-of-{shard.count}", [out]


@contextlib.contextmanager
def _held(out: Path, fresh: bool, group: ProcessGroup) -> Generator[FolderLock]:
    """Make the run folder and hold it, all processes together."""
    with contextlib.ExitStack() as stack:

        def hold() -> FolderLock:
            if group.is_main_process:
                if fresh:
                    _put_aside(out)
                prepare_folder(out)
            lock = stack.enter_context(FolderLock(out, shared=not group.is_main_process))
            if group.size > 1:
                lock.share()
            return lock

        yield group.main_process_first(hold, per_machine=False)


def _put_aside(out: Path) -> None:
    if not out.exists():
        return
    if not (out / MANIFEST).exists():
        if any(out.iterdir()):
            raise InputError(f"{str(out)!r} holds something else than a run; --fresh leaves it alone")
        return
    out = out.resolve()
    number = next(n for n in range(1, 10_000) if not out.with_name(f"{out.name}.{n}").exists())
    try:
        with FolderLock(out):
            out.rename(out.with_name(f"{out.name}.{number}"))
    except OSError as error:
        raise InputError(f"cannot put {str(out)!r} aside: {error.strerror}") from None


def _keep_study(out: Path, text: str) -> None:
    """Write the study; an earlier one that asked for something else stays beside it, as ``study.N.yaml``."""
    path = out / STUDY
    if not text:
        return
    if path.is_file():
        earlier = path.read_bytes()
        if earlier == text.encode():
            return
        if _asked_for(earlier) != _asked_for(text.encode()):
            number = next(n for n in range(1, 10_000) if not (out / f"study.{n}.yaml").exists())
            write_atomic(out / f"study.{number}.yaml", earlier)
    write_atomic(path, text.encode())


def _asked_for(study: bytes) -> list[bytes]:
    """Return the lines of a study but those that only say how it is computed."""
    return [line for line in study.splitlines() if not line.startswith((b"batch_size:", b"workers:", b"device:"))]
