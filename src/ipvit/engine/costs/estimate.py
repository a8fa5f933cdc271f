"""What a study will cost, from two batches of each of its parts: nothing of it is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ipvit.core.run_config import RunConfig
from ipvit.data.dataset import Dataset
from ipvit.data.loader import read_batches
from ipvit.engine.batches import transform_requests
from ipvit.engine.costs.setting_costs import setting_costs
from ipvit.engine.device import models_on_device
from ipvit.engine.distributed import ProcessGroup
from ipvit.engine.folders.run_folder import check_folder
from ipvit.engine.known_data import alike, known_as
from ipvit.engine.loop.residents import Residents
from ipvit.engine.preparation import checked, mark_finished, plan_sweeps
from ipvit.engine.store import Store
from ipvit.engine.sweep import sweep
from ipvit.engine.types import Outcome, Selected, SweepPlan, Task
from ipvit.experiments.base import BindContext, Measurement, PrepareContext
from ipvit.models.model import Model

FEW, MORE = 1, 4
"""Conditions in the first and in the second batch that is timed; what both take tells a batch's cost from theirs."""

SMALL_BATCH = 8
"""Images in the timed batches on a CPU, where the batch size hardly changes the time per image."""


@dataclasses.dataclass(frozen=True)
class TaskEstimate:
    """What one experiment on one model will cost.

    Attributes:
        experiment: its name.
        model: its name.
        images: that the study uses.
        conditions: of the experiment.
        results: images x conditions that are not on disk yet.
        seconds: on this machine; None where it cannot be told because something is trained first.
        reading: seconds that worker processes spend on transforming pictures for it.
        disk: bytes of records; None where something is trained first.
        error: what went wrong in the sample.
    """

    experiment: str
    model: str
    images: int
    conditions: int
    results: int
    seconds: float | None
    reading: float
    disk: float | None
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a study will cost.

    Attributes:
        parts: by experiment and model; conditions for which something is trained first are a part of their own.
        left_out: which experiments cannot be measured on which models, in sentences.
        images: of the study.
        decoding: seconds to decode them all, in one process.
        workers: decoding processes.
        memory: bytes, the largest that this process has been so far: on the GPU if there is one.
        disk_free: bytes that are free where the run folder will be.
        settings: what other settings would cost and change, in sentences.
    """

    parts: list[TaskEstimate]
    left_out: list[str]
    images: int
    decoding: float
    workers: int
    memory: int
    disk_free: int
    settings: list[str] = dataclasses.field(default_factory=list[str])

    @property
    def seconds(self) -> float:
        """Expected time in all: the networks', or the decoding where that takes longer."""
        networks = sum(part.seconds or 0 for part in self.parts)
        reading = self.decoding + sum(part.reading for part in self.parts)
        return max(networks, reading / self.workers) if self.workers else networks + reading

    @property
    def disk(self) -> float:
        """Bytes of records in all."""
        return sum(part.disk or 0 for part in self.parts)


def estimate(
    selected: Sequence[Selected],
    models: Sequence[Model],
    data: Dataset,
    config: RunConfig,
    out: Path,
    context: BindContext,
) -> Estimate:
    """Time two batches of every experiment on every model.

    Args:
        selected: the experiments, as for a run.
        models: likewise.
        data: likewise.
        config: likewise.
        out: where the run folder is or will be; nothing is written there.
        context: as for a run.

    Raises:
        InputError: models, experiments or data cannot be used.
    """
    check_folder(out)
    group = ProcessGroup()
    known = () if config.fresh else (out,)
    data = known_as(data, known, verify=config.verify)
    context = alike(data, context, known, verify=config.verify)
    device, tasks, left_out = checked(selected, models, data, config, group, context)
    plans = plan_sweeps(tasks, data, config, device, group)
    if not config.fresh:
        mark_finished(tasks, Store(out))
    parts: list[TaskEstimate] = []
    with models_on_device(models, device, config, tasks) as residents, tempfile.TemporaryDirectory() as scratch:
        decoding = 0.0
        for plan in plans:
            if not plan.tasks:
                continue
            timer = _Timer(plan, residents, Path(tempfile.mkdtemp(dir=scratch)))
            decoding += timer.decoding
            parts += [part for task in plan.tasks for part in timer.measure(task)]
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _largest()
    there = next(place for place in (out, *out.absolute().parents) if place.is_dir())
    images = plans[0]
    free = shutil.disk_usage(there).free
    found = Estimate(parts, left_out, len(images.positions), decoding, images.workers, memory, free)
    told = setting_costs(found, tasks, config, device, images.batch_size)
    return dataclasses.replace(found, settings=told)


class _Unprepared:
    """A measurement that makes nothing beforehand: what is timed needs nothing of it.

    Args:
        measurement: that all else is asked of.
    """

    def __init__(self, measurement: Measurement) -> None:
        self._measurement = measurement

    def __getattr__(self, name: str) -> Any:
        return getattr(self._measurement, name)

    def prepare(self, model: Model, context: PrepareContext) -> None:
        """Make nothing."""


class _Timer:
    """Times single tasks on the first items of a sweep."""

    def __init__(self, plan: SweepPlan, residents: Residents, scratch: Path) -> None:
        self.plan, self.residents, self.scratch = dataclasses.replace(plan, workers=0), residents, scratch
        self.full = plan.batches[0]
        self.batch = self.full if plan.device.type == "cuda" else self.full[:SMALL_BATCH]
        self.stores = 0
        self.per_image = _timed(lambda: self._read(plan.tasks, self.batch, masks=True)) / len(self.batch)
        missing = np.zeros(len(plan.positions), dtype=bool)
        for task in plan.tasks:
            missing |= task.missing(plan.positions).any(axis=1)
        self.decoding = self.per_image * int(missing.sum())

    def measure(self, task: Task) -> list[TaskEstimate]:
        """Return what a task will cost, its conditions for which something is trained first apart from the others."""
        trains = np.array([task.measurement.needs_preparation(condition) for condition in task.conditions], dtype=bool)
        missing = task.missing(self.plan.positions).sum(axis=0)
        trains &= missing > 0  # what is on disk needs no training
        found = [self._timed(task, np.flatnonzero(~trains), int(missing[~trains].sum()))] if not trains.all() else []
        if trains.any():
            found.append(TaskEstimate(*self._named(task, trains), int(missing[trains].sum()), None, 0.0, None))
        return found

    def _named(self, task: Task, chosen: np.ndarray) -> tuple[str, str, int, int]:
        conditions = int(chosen.sum()) if chosen.dtype == bool else len(chosen)
        return task.experiment.name, task.model.name, len(self.plan.positions), conditions

    def _timed(self, task: Task, conditions: np.ndarray, results: int) -> TaskEstimate:
        """Time some conditions of a task, given by their numbers, of which so many results are missing."""
        named = (*self._named(task, conditions), results)
        if not results:
            return TaskEstimate(*named, 0.0, 0.0, 0.0)
        task = dataclasses.replace(task, measurement=cast("Measurement", _Unprepared(task.measurement)))
        outcome = Outcome(0)
        few, more = (conditions[_spread(len(conditions), count)] for count in (FEW, MORE))
        warm = self._sweep(task, self.full, few, outcome)  # never typical in its time; it shows the memory it takes
        first = self._sweep(task, self.batch, few, outcome)
        second = self._sweep(task, self.batch, more, outcome)
        if outcome.failures:
            return TaskEstimate(*named, None, 0.0, 0.0, outcome.failures[0].error)
        batches = results / len(conditions) / len(self.batch)
        scale = results / len(self.batch)
        step = max(len(more) - len(few), 1)
        seconds, reading, disk = (
            max(0.0, later - earlier) / step if len(more) > len(few) else later
            for earlier, later in zip(first, second, strict=True)
        )
        if len(more) == len(few) and len(self.full) > len(self.batch):
            # the fixed size of a file is not paid for every image
            disk = max(0.0, warm[2] - first[2]) / (len(self.full) - len(self.batch)) * len(self.batch)
        start = max(0.0, first[0] - seconds * len(few))
        return TaskEstimate(*named, start * batches + seconds * scale, reading * scale, disk * scale)

    def _sweep(
        self, task: Task, batch: np.ndarray, conditions: np.ndarray, outcome: Outcome
    ) -> tuple[float, float, float]:
        """Return the seconds of the network, the seconds of transforming pictures, and the bytes on disk."""
        sample = _sample(task, batch, conditions)
        self.stores += 1
        store = Store(self.scratch / str(self.stores))
        plain = self.per_image * len(batch)
        transforming = max(0.0, _timed(lambda: self._read([sample], batch, transforms=True)) - plain)
        plan = dataclasses.replace(self.plan, tasks=[sample])
        seconds = _timed(lambda: sweep(plan, store, outcome, residents=self.residents), plan.device)
        size = sum(path.stat().st_size for path in store.root.rglob("*.parquet"))
        return max(0.0, seconds - plain - transforming), transforming, float(size)

    def _read(self, tasks: Sequence[Task], batch: np.ndarray, *, masks: bool = False, transforms: bool = False) -> None:
        data = self.plan.pictures
        requests = [transform_requests(tasks, batch)] if transforms else []
        if data is None or (transforms and not requests[0]):
            return
        for _ in read_batches(
            data,
            [batch],
            [task.view for task in tasks],
            workers=0,
            masks=masks and any(task.experiment.requirements.masks for task in tasks),
            decoder=data.decoder,
            transforms=requests,
            seed=self.plan.config.seed,
        ):
            pass


def _sample(task: Task, positions: np.ndarray, conditions: np.ndarray) -> Task:
    """Return a task to be timed: some items under some conditions, also where they would not be measured in the run.

    What is on disk and what is applicable does not matter: it is the time of a full batch that is wanted.
    """
    mine = np.zeros((len(task.items), len(task.conditions)), dtype=bool)
    mine[np.ix_(positions, conditions)] = True
    anywhere, nowhere = np.ones((1, 1), dtype=bool), np.zeros((1, 1), dtype=bool)
    return dataclasses.replace(task, applicable=anywhere, on_disk=nowhere, mine=mine, failed=nowhere)


def _spread(count: int, wanted: int) -> np.ndarray:
    """Return the numbers of conditions far apart: those of an experiment may cost differently."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(int))


def _timed(work: Callable[[], Any], device: torch.device | None = None) -> float:
    started = time.perf_counter()
    work()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _largest() -> int:
    """Return the largest amount of memory this process has had, in bytes; 0 on Windows, which does not say."""
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 0
