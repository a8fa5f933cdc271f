"""The thread that writes: in order, nothing lost, and whatever stops it stops the run."""

import errno
import os
import threading
import time
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

import ipvit
from helpers.small_runs import Picky, photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.core.lock import FolderLock
from ipvit.engine import store as store_module
from ipvit.engine.loop import writer as writer_module
from ipvit.engine.store import Store
from ipvit.experiments.base import Records


def run(experiment, out, **options):
    settings = {"workers": 0, "progress": False, "batch_size": 3, "data": photos()} | options
    return ipvit.run(experiment, models=tiny_model(), out=out, **settings)


@pytest.fixture
def slow_disk(monkeypatch):
    """A disk behind which ten batches of photos pile up."""
    write = store_module.write_atomic
    paths = []

    def slowly(path, data):
        time.sleep(0.03)
        write(path, data)
        paths.append((path, threading.current_thread().name))

    monkeypatch.setattr(store_module, "write_atomic", slowly)
    return paths


def test_records_are_written_by_another_thread_in_the_order_they_were_measured(tmp_path, monkeypatch, slow_disk):
    monkeypatch.setattr(Store, "compact", lambda self: None)
    results = run(small_occlusion(), tmp_path, flush_seconds=0)
    written = [(path, thread) for path, thread in slow_disk if path.suffix == ".parquet"]
    assert {thread for _, thread in written} == {"ipvit-writer"} and len(written) == 10
    ids = list(photos().ids)
    chunks = [pl.read_parquet(path)["image"].unique(maintain_order=True).to_list() for path, _ in written]
    assert chunks == [ids[start : start + 3] for start in range(0, 30, 3)]
    assert results.manifest.measured_in_this_call == 30 * 7


def test_whoever_measures_waits_for_a_disk_that_cannot_follow(tmp_path, monkeypatch, slow_disk):
    monkeypatch.setattr(writer_module, "ROOM", 2)
    ahead, added, taken = [], [], []
    add, take_in = writer_module.Writer.add, writer_module.Writer._take_in

    def noting(self, *measured):
        add(self, *measured)
        added.append(1)
        ahead.append(len(added) - len(taken))

    def taking(self, job):
        take_in(self, job)
        taken.append(1)

    monkeypatch.setattr(writer_module.Writer, "add", noting)
    monkeypatch.setattr(writer_module.Writer, "_take_in", taking)
    run(small_occlusion(), tmp_path, flush_seconds=0)
    assert 1 < max(ahead) <= 3, "two wait, and one may be written"


class Strange(Picky):
    """Measures, under some conditions, what stands in no table with the rest."""

    name: ClassVar[str] = "strange"
    odd: tuple[int, ...] = (2,)

    def measure(self, model, batch):
        for number, records in enumerate(super().measure(model, batch)):
            if batch.conditions[number].number in self.odd:
                yield Records(records.condition, {"correct": np.array([["a"]] * len(batch))})
            else:
                yield records


def test_what_stands_in_no_table_is_that_conditions_failure_however_late_it_is_found(tmp_path, slow_disk):
    results = run(Strange(), tmp_path, flush_seconds=0)
    (failure,) = results.manifest.failures
    assert failure.condition == "number=2" and results.manifest.status == "failed"
    assert "polars" in failure.details
    found = results.records("strange")
    assert sorted(found["number"].unique()) == [0, 1, 3, 4] and found.height == 4 * 30
    assert results.manifest.measured_in_this_call == 4 * 30


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ESTALE])
def test_an_error_of_the_disk_ends_the_run_and_what_waits_is_tried_once_more(tmp_path, monkeypatch, number):
    write, failed = store_module.write_atomic, []

    def once(path, data):
        if path.suffix == ".parquet" and not failed:
            failed.append(path)
            raise OSError(number, os.strerror(number), str(path))
        write(path, data)

    monkeypatch.setattr(store_module, "write_atomic", once)
    with pytest.raises(OSError, match=os.strerror(number)):
        run(small_occlusion(), tmp_path, flush_seconds=0)
    kept = Store(tmp_path).records("occlusion").height
    again = run(small_occlusion(), tmp_path)
    assert kept > 0 and again.manifest.measured_in_this_call == 30 * 7 - kept


def test_a_folder_that_is_another_one_meanwhile_is_told_of_by_the_thread_that_measures(tmp_path, monkeypatch):
    check, calls = FolderLock.check, []

    def lost_later(self):
        calls.append(threading.current_thread().name)
        if calls.count("ipvit-writer") > 2:
            raise ipvit.InputError("gone")
        check(self)

    monkeypatch.setattr(FolderLock, "check", lost_later)
    with pytest.raises(ipvit.InputError, match="gone"):
        run(small_occlusion(), tmp_path, flush_seconds=0)


def test_arrays_that_an_experiment_fills_again_are_written_as_they_were(tmp_path, slow_disk):
    class Reusing(Picky):
        name: ClassVar[str] = "reusing"

        def measure(self, model, batch):
            for records in super().measure(model, batch):
                column = buffer[: len(batch)]
                column[:] = batch.positions
                yield Records(records.condition, {"position": column})

    buffer = np.zeros(3, dtype=np.int64)
    found = run(Reusing(), tmp_path, flush_seconds=0).records("reusing")
    position = {image: number for number, image in enumerate(photos().ids)}
    assert found["position"].to_list() == [position[image] for image in found["image"].to_list()]
