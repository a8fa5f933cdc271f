"""A study from start to end: checks, the sweep, the manifest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ipvit.core.manifest import Manifest, Status
from ipvit.core.run_config import RunConfig
from ipvit.core.share import Share
from ipvit.data.dataset import Dataset
from ipvit.engine.distributed import Team
from ipvit.engine.examples import save_examples
from ipvit.engine.lock import FolderLock
from ipvit.engine.manifest import MANIFEST, describe, read_manifest, write_manifest
from ipvit.engine.preparation import by_torch, checked, look_up, of_this_process, placed, take_share, works_of
from ipvit.engine.store import Store, keep_analysis, prepare_folder
from ipvit.engine.sweep import Outcome, count_missing, sweep
from ipvit.engine.types import Selected
from ipvit.errors import InputError
from ipvit.experiments.base import BindContext, Experiment
from ipvit.files import clear_unfinished, write_atomic
from ipvit.models.model import Model
from ipvit.terminal import progress as progress_bar

STUDY = "study.yaml"
SHARDS = "shards"
OF_THE_RUN = ("records", "examples", "features", "patches", "probes")
"""Folders below a run folder that only whoever holds the folder writes to."""


def execute(
    experiments: Sequence[Experiment | Selected],
    models: Sequence[Model],
    data: Dataset,
    out: Path,
    settings: RunConfig,
    *,
    context: BindContext,
    study_yaml: str = "",
    team: Team | None = None,
    known: Sequence[Path] = (),
) -> Manifest:
    """Measure what a study asks for and is not in the run folder yet.

    Args:
        experiments: what to measure, on all models or on some.
        models: the networks, with different names.
        data: the images.
        out: the run folder.
        settings: how to run.
        context: what experiments may use to open further data.
        study_yaml: the resolved study, kept in the folder.
        team: the processes that do this together, all with the same arguments.
        known: further run folders; what is in them is not measured again.

    Returns:
        The manifest.

    Raises:
        InputError: model, data, experiment or folder cannot be used; raised before anything is measured.
    """
    team = team or Team()
    started = time.monotonic()
    chosen = [entry if isinstance(entry, Selected) else Selected(entry) for entry in experiments]
    experiments = [entry.experiment for entry in chosen]
    device, pairs, left_out = team.in_turn(lambda: checked(chosen, models, data, settings, team, context))
    team.agree("data and models", (data.fingerprint, [model.digest for model in models]))
    settings = of_this_process(settings, device, team)
    team.agree("batch size", settings.batch_size)
    with _held(out, settings.fresh, team) as lock, placed(models, device, settings, pairs):
        store = Store(out, settings.flush_seconds, mend=team.leads)
        team.in_turn(lambda: look_up(pairs, store), per_machine=False)
        rests_on = [str(folder.resolve()) for folder in known if look_up(pairs, Store(folder))]
        works = works_of(pairs, data, settings)
        (selected, *_) = [take_share(work, device, team) for work in works]
        outcome = Outcome(selected, notes=by_torch(pairs, settings))
        if not lock.supported:
            outcome.notes.append("this file system has no locks: never start two runs on one folder")

        def write(status: Status, outcome: Outcome) -> Manifest:
            manifest = describe(
                experiments,
                models,
                data,
                settings,
                device,
                pairs,
                outcome,
                status=status,
                seconds=time.monotonic() - started,
                left_out=left_out,
                damaged=[str(path.relative_to(out)) for path in store.damaged],
                processes=team.size,
                rests_on=rests_on,
                earlier=read_manifest(out),
            )
            if team.leads:
                write_manifest(out, manifest)
            return manifest

        try:
            if team.leads:
                _keep_study(out, study_yaml)
            write("running", outcome)
            if team.leads:
                for experiment in experiments:
                    keep_analysis(out, experiment.analysis())
            missing = sum(count_missing(work.pairs, work.data, work.settings) for work in works)
            with progress_bar("measuring", missing, shown=settings.progress and team.leads) as advance:
                for work in works:
                    sweep(
                        work.pairs,
                        work.data,
                        store,
                        work.settings,
                        device,
                        outcome,
                        advance=advance,
                        on_first_batch=lambda pair, batch: (
                            outcome.notes.extend(save_examples(out, pair, batch)) if team.leads else None
                        ),
                        one_first=lambda task: team.in_turn(task, per_machine=False),
                    )
            outcome = Outcome.joined(team.collect(outcome))
        except BaseException as error:
            with contextlib.suppress(OSError):  # the disk may be full: the first error is the one to tell of
                write("interrupted", outcome)
            if isinstance(error, OSError) and error.errno is not None:
                hint = "what was written before is kept, and the same command goes on from there"
                raise OSError(error.errno, f"{error.strerror}; {hint}", error.filename) from error
            raise
        if team.leads:
            store.compact()
            for folder in (out / name for name in OF_THE_RUN):
                clear_unfinished(folder)
        manifest = team.collect(write("failed" if outcome.failures else "done", outcome))[0]
        if len(outcome.unreadable) == outcome.selected > 0:
            raise InputError(f"none of the {outcome.selected} images of {data.name} could be read")
        return manifest


def shard_folder(out: Path, shard: Share) -> tuple[Path, list[Path]]:
    """Return where a shard of a run is written, and the folder whose results it need not measure again."""
    if shard.count == 1:
        return out, []
    return out / SHARDS / f"{shard.index + 1}-of-{shard.count}", [out]


@contextlib.contextmanager
def _held(out: Path, fresh: bool, team: Team) -> Iterator[FolderLock]:
    """Make the run folder and hold it, all processes together."""
    with contextlib.ExitStack() as stack:

        def hold() -> FolderLock:
            if team.leads:
                if fresh:
                    _put_aside(out)
                prepare_folder(out)
            lock = stack.enter_context(FolderLock(out, shared=not team.leads))
            if team.size > 1:
                lock.share()
            return lock

        yield team.in_turn(hold, per_machine=False)


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
    path = out / STUDY
    if not text:
        return
    if path.is_file():
        earlier = path.read_bytes()
        if earlier == text.encode():
            return
        number = next(n for n in range(1, 10_000) if not (out / f"study.{n}.yaml").exists())
        write_atomic(out / f"study.{number}.yaml", earlier)
    write_atomic(path, text.encode())
