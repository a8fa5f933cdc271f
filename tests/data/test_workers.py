"""Worker processes that read: what crosses, what is kept alive, and what is said when one of them dies or hangs."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.tiny import write_images
from ipvit.core.preprocessing import View
from ipvit.data import workers
from ipvit.data.dataset import BaseDataset, MemoryDataset
from ipvit.data.derived.copy import File
from ipvit.data.derived.writer import make
from ipvit.data.loader import read_batches
from ipvit.data.workers import Loader, WorkerDiedError, WorkerError, explained
from ipvit.errors import InputError


@dataclasses.dataclass(frozen=True)
class Numbers:
    values: Tensor
    process: int

    def map_tensors(self, change: Callable[[Any], Any]) -> Numbers:
        return dataclasses.replace(self, values=change(self.values))


def squares(job: int) -> Numbers:
    if job == 13:
        raise InputError("thirteen is refused")
    if job == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 100:
        time.sleep(600)
    return Numbers(torch.tensor([job, job**2]), os.getpid())


@pytest.mark.parametrize("through_pipes", [False, True])
@pytest.mark.parametrize("processes", [0, 2])
def test_jobs_come_back_in_their_order_from_the_same_processes_each_time(processes, through_pipes):
    load = Loader(squares, "numbers", workers=processes, through_pipes=through_pipes)
    first, second = list(load(range(8))), list(load(range(20, 26)))
    assert [made.values.tolist() for made in first] == [[i, i**2] for i in range(8)]
    assert [made.values.tolist() for made in second] == [[i, i**2] for i in range(20, 26)]
    assert {made.process for made in first} == {made.process for made in second}
    assert len({made.process for made in first}) == max(processes, 1)
    assert (os.getpid() in {made.process for made in first}) == (processes == 0)


def test_a_list_that_is_given_up_half_way_does_not_mix_with_the_next():
    load = Loader(squares, "numbers", workers=2)
    begun = load(range(50))
    assert next(begun).values.tolist() == [0, 0]
    assert [made.values[0].item() for made in load(range(60, 66))] == list(range(60, 66))


@pytest.mark.parametrize("processes", [0, 1])
def test_what_is_refused_in_a_worker_is_one_line_here(processes):
    with pytest.raises(InputError, match=r"^thirteen is refused$"):
        list(Loader(squares, "numbers", workers=processes)([1, 13]))


def test_a_worker_that_dies_twice_is_one_line_with_the_likely_cause_and_the_way_on():
    words = r"a process that reads numbers died .*(killed by signal|exited unexpectedly).*: most likely the memory was"
    with pytest.raises(WorkerDiedError, match=words) as caught:
        list(Loader(squares, "numbers", workers=1)([1, 99]))
    assert "\n" not in str(caught.value) and "0 workers" in str(caught.value)


@dataclasses.dataclass(frozen=True)
class KilledOnce:
    """Kills its process the first time that it comes to a job."""

    marks: Path
    at: int

    def __call__(self, job: int) -> Numbers:
        if job == self.at and not (self.marks / "killed").exists():
            (self.marks / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return squares(job)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_that_is_killed_is_replaced_and_every_job_is_done_once(tmp_path, processes):
    load = Loader(KilledOnce(tmp_path, 7), "numbers", workers=processes)
    assert [made.values[0].item() for made in load(range(12))] == list(range(12))
    assert (tmp_path / "killed").exists()
    assert [made.values[0].item() for made in load(range(30, 34))] == [30, 31, 32, 33]


def test_the_death_of_a_worker_is_told_while_waiting_for_one_and_nowhere_else(tmp_path):
    """As torch tells it, it would be the failure of the network that is being measured just then."""
    made = Loader(squares, "numbers", workers=2)(range(20, 60))
    next(made)
    for child in torch.multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    time.sleep(0.3)  # here a signal handler of torch's would raise
    assert [parcel.values[0].item() for parcel in made] == list(range(21, 60))
    assert signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, None)


class Copies:
    """A copy of ten images, whose making kills one worker."""

    versions, start_method, source = ("",), None, MemoryDataset(torch.zeros(10, 3, 4, 4), name="ten images")

    def __init__(self, marks: Path) -> None:
        self.once = KilledOnce(marks, 5)

    def place(self, out: Path, index: int, version: str) -> Path:
        return out / version / f"{index}.txt"

    def note(self, path: Path) -> str | None:
        return path.read_text() if path.exists() else None

    def renderer(self) -> Callable:
        return self.render

    def render(self, index: int, versions: list[str]) -> Iterator[File]:
        yield File("", str(self.once(index).values.tolist()).encode(), f"note {index}")


def test_copies_go_on_where_a_worker_is_killed(tmp_path):
    (tmp_path / "out").mkdir()
    made = list(make(Copies(tmp_path), tmp_path / "out", range(10), 2))  # pyright: ignore[reportArgumentType]
    assert [copied.index for copied in made] == list(range(10)) and (tmp_path / "killed").exists()
    assert len(list((tmp_path / "out").iterdir())) == 10


@dataclasses.dataclass(frozen=True)
class Brighter:
    by: int
    marks: Path

    def __call__(self, pixels: Tensor, image_id: str, seed: int) -> Tensor:
        if image_id == "00000007" and self.by == 2 and not (self.marks / "killed").exists():
            (self.marks / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels + self.by


@pytest.mark.parametrize("through_pipes", [False, True])
@pytest.mark.parametrize("processes", [1, 2])
def test_no_version_of_a_batch_is_lost_or_comes_twice_where_a_worker_is_killed(tmp_path, processes, through_pipes):
    pixels = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(12, 3, 8, 8)
    data, view = MemoryDataset(pixels.clone()), View((8, 8), 1.0)
    batches = [np.arange(start, start + 3) for start in range(0, 12, 3)]
    transforms = [{(view, Brighter(by, tmp_path)): batch for by in (1, 2, 3)} for batch in batches]
    notes: list[str] = []
    options = {"workers": processes, "transforms": transforms, "notes": notes, "through_pipes": through_pipes}
    found = [
        (index, value - index)
        for batch in read_batches(data, batches, [view], **options)
        for index, value in zip(batch.indices.tolist(), batch.pixels[view][:, 0, 0, 0].tolist(), strict=True)
    ]
    assert sorted(found) == [(index, by) for index in range(12) for by in range(4)]
    (note,) = notes
    assert note.startswith("a process that reads memory died (") and note.endswith(", and was replaced")


def test_a_worker_that_hangs_is_one_line(monkeypatch):
    monkeypatch.setattr(workers, "STUCK", 1)
    with pytest.raises(WorkerError, match=r"the processes that read numbers gave nothing for 1 seconds; .*workers: 0"):
        list(Loader(squares, "numbers", workers=1)([100]))


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="a bug"), explained("numbers"):
        raise RuntimeError("a bug")


class Refused(BaseDataset):
    name, labels, fingerprint = "refused", np.zeros(4, np.int64), "refused"

    def read(self, index: int) -> Tensor:
        if index == 2:
            raise InputError("the archive is of another version")
        return torch.zeros(3, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize("processes", [0, 1])
def test_an_image_that_is_refused_is_left_out_of_what_is_measured(processes):
    batches = [np.array([0, 1]), np.array([2, 3])]
    first, second = read_batches(Refused(), batches, [View((8, 8))], workers=processes)
    assert first.indices.tolist() == [0, 1] and not first.unreadable
    assert second.indices.tolist() == [3] and second.unreadable == [(2, "the archive is of another version")]


SPAWNED = """
import multiprocessing
import sys

import numpy as np

import ipvit
from ipvit.core.preprocessing import View
from ipvit.data.loader import read_batches

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    data, batches = ipvit.load_dataset(sys.argv[1]), [np.array([0, 1]), np.array([2])]
    batches = read_batches(data, batches, [View((8, 8))], workers=1)
    print([batch.indices.tolist() for batch in batches])
"""


@pytest.mark.slow
def test_a_new_process_can_read_where_the_system_copies_none(tmp_path):
    write_images(tmp_path / "images")
    (tmp_path / "script.py").write_text(SPAWNED)
    command = [sys.executable, tmp_path / "script.py", tmp_path / "images"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout.strip() == "[[0, 1], [2]]", done.stderr


def test_a_stream_that_gives_more_than_it_stated_ends_the_run():
    class Stream(Refused):
        sequential = True

    with pytest.raises(InputError, match="the archive is of another version"):
        list(read_batches(Stream(), [np.array([0, 1]), np.array([2, 3])], [View((8, 8))], workers=0))


def test_batches_are_pinned_tensor_by_tensor(monkeypatch):
    pinned = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tuple(tensor.shape)) or tensor)
    (batch,) = read_batches(Refused(), [np.array([0, 1])], [View((8, 8)), View((4, 4))], workers=0)
    batch.pin_memory()
    assert pinned == [(2, 3, 8, 8), (2, 3, 4, 4)]
