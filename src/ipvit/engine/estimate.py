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
from typing import Any

import numpy as np
import torch

from ipvit.core.run_config import RunConfig
from ipvit.data.dataset import Dataset
from ipvit.data.loader import read_chunks
from ipvit.data.subset import subset_indices
from ipvit.engine.distributed import Team
from ipvit.engine.preparation import Work, checked, look_up, of_this_process, placed, works_of
from ipvit.engine.store import Store
from ipvit.engine.sweep import Outcome, Pair, altered_in, batches_of_images, sweep
from ipvit.engine.types import Selected
from ipvit.experiments.base import BindContext, Measurement
from ipvit.models.model import Model

FEW, MORE = 1, 4
"""Conditions in the first and in the second batch that is timed; what both take tells a batch's cost from theirs."""

SMALL_BATCH = 8
"""Images in the timed batches on a CPU, where the batch size hardly changes the time per image."""


@dataclasses.dataclass(frozen=True)
class Part:
    """What one experiment on one model will cost.

    Attributes:
        experiment: its name.
        model: its name.
        images: that the study uses.
        conditions: of the experiment.
        results: images x conditions that are not on disk yet.
        seconds: on this machine; None where it cannot be told because the experiment first trains something.
        reading: seconds that worker processes spend on altering pictures for it.
        disk: bytes of records.
        error: what went wrong in the sample.
    """

    experiment: str
    model: str
    images: int
    conditions: int
    results: int
    seconds: float | None
    reading: float
    disk: float
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a study will cost.

    Attributes:
        parts: by experiment and model.
        left_out: pairs that cannot be measured, in words.
        images: of the study.
        decoding: seconds to decode them all, in one process.
        workers: decoding processes.
        memory: bytes, the largest that this process has been so far: on the GPU if there is one.
        disk_free: bytes that are free where the run folder will be.
    """

    parts: list[Part]
    left_out: list[str]
    images: int
    decoding: float
    workers: int
    memory: int
    disk_free: int

    @property
    def seconds(self) -> float:
        """Expected time in all: the networks', or the decoding where that takes longer."""
        networks = sum(part.seconds or 0 for part in self.parts)
        reading = self.decoding + sum(part.reading for part in self.parts)
        return max(networks, reading / self.workers) if self.workers else networks + reading

    @property
    def disk(self) -> float:
        """Bytes of records in all."""
        return sum(part.disk for part in self.parts)


def estimate(
    selected: Sequence[Selected],
    models: Sequence[Model],
    data: Dataset,
    settings: RunConfig,
    out: Path,
    context: BindContext,
) -> Estimate:
    """Time two batches of every experiment on every model.

    Args:
        selected: the experiments, as for a run.
        models: likewise.
        data: likewise.
        settings: likewise.
        out: where the run folder is or will be; nothing is written there.
        context: as for a run.

    Raises:
        InputError: models, experiments or data cannot be used.
    """
    device, pairs, left_out = checked(selected, models, data, settings, Team(), context)
    settings = of_this_process(settings, device, Team())
    look_up(pairs, Store(out))
    parts: list[Part] = []
    with placed(models, device, settings, pairs), tempfile.TemporaryDirectory() as scratch:
        decoding = 0.0
        for work in works_of(pairs, data, settings):
            if not work.pairs:
                continue
            bench = _Bench(work, device, Path(tempfile.mkdtemp(dir=scratch)))
            decoding += bench.decoding
            parts += [bench.measure(pair) for pair in work.pairs]
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _largest()
    images = len(subset_indices(data, settings.limit))
    there = next(place for place in (out, *out.absolute().parents) if place.is_dir())
    return Estimate(parts, left_out, images, decoding, settings.workers or 0, memory, shutil.disk_usage(there).free)


class _Bench:
    """Times single pairs on the first images of a data set."""

    def __init__(self, work: Work, device: torch.device, scratch: Path) -> None:
        self.data, self.device, self.scratch = work.data, device, scratch
        self.settings = work.settings.model_copy(update={"workers": 0})
        self.chosen = subset_indices(work.data, work.settings.limit)
        self.full = batches_of_images(self.chosen, self.settings, device)[0]
        self.batch = self.full if device.type == "cuda" else self.full[:SMALL_BATCH]
        self.numbers = 0
        plain = _timed(lambda: self._read(work.pairs, masks=True))
        self.per_image = plain / len(self.batch)
        missing = np.zeros(len(work.data), dtype=bool)
        for pair in work.pairs:
            missing |= ~pair.done.all(axis=1)
        self.decoding = self.per_image * int(missing[self.chosen].sum())

    def measure(self, pair: Pair) -> Part:
        results = int((~pair.done[self.chosen]).sum())
        trains = type(pair.measurement).prepare is not Measurement.prepare
        named = (pair.experiment.name, pair.model.name, len(self.chosen), len(pair.conditions), results)
        if trains or not results:
            return Part(*named, None if trains and results else 0.0, 0.0, 0.0)
        outcome = Outcome(0)
        few, more = (_spread(len(pair.conditions), count) for count in (FEW, MORE))
        warm = self._sweep(pair, self.full, few, outcome)  # never typical in its time; it shows the memory it takes
        first = self._sweep(pair, self.batch, few, outcome)
        second = self._sweep(pair, self.batch, more, outcome)
        if outcome.failures:
            return Part(*named, None, 0.0, 0.0, outcome.failures[0].error)
        batches = results / len(pair.conditions) / len(self.batch)
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
        return Part(*named, start * batches + seconds * scale, reading * scale, disk * scale)

    def _sweep(
        self, pair: Pair, batch: np.ndarray, conditions: np.ndarray, outcome: Outcome
    ) -> tuple[float, float, float]:
        """Return the seconds of the network, the seconds of altering pictures, and the bytes on disk."""
        done = np.ones_like(pair.done)
        done[np.ix_(batch, conditions)] = False
        sample = dataclasses.replace(pair, done=done, failed=False)
        self.numbers += 1
        store = Store(self.scratch / str(self.numbers))
        plain = self.per_image * len(batch)
        altered = max(0.0, _timed(lambda: self._read([sample], batch, altered=True)) - plain)
        seconds = _timed(lambda: sweep([sample], self.data, store, self.settings, self.device, outcome), self.device)
        size = sum(path.stat().st_size for path in store.root.rglob("*.parquet"))
        return max(0.0, seconds - plain - altered), altered, float(size)

    def _read(
        self, pairs: Sequence[Pair], batch: np.ndarray | None = None, *, masks: bool = False, altered: bool = False
    ) -> None:
        batch = self.batch if batch is None else batch
        wanted = [altered_in(pairs, batch)] if altered else []
        if altered and not wanted[0]:
            return
        for _ in read_chunks(
            self.data,
            [batch],
            [pair.view for pair in pairs],
            workers=0,
            masks=masks and any(pair.experiment.requirements.masks for pair in pairs),
            decoder=self.data.decoder,
            altered=wanted,
            seed=self.settings.seed,
        ):
            pass


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
