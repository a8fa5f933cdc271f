"""Worker processes that read: what crosses, what is kept alive, and what is said when one of them dies or hangs."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ipvit.core.preprocessing import View
from ipvit.data import workers
from ipvit.data.dataset import BaseDataset
from ipvit.data.loader import read_batches
from ipvit.data.workers import Loader, WorkerError, explained
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


def test_a_worker_that_dies_is_one_line():
    with pytest.raises(
        WorkerError, match=r"a process that reads numbers died .*(killed by signal|exited unexpectedly)"
    ) as caught:
        list(Loader(squares, "numbers", workers=1)([1, 99]))
    assert "\n" not in str(caught.value)


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
def test_measuring_says_it_the_same_way(processes):
    batches = [np.array([0, 1]), np.array([2, 3])]
    with pytest.raises(InputError, match=r"^the archive is of another version$"):
        list(read_batches(Refused(), batches, [View((8, 8))], workers=processes))


def test_batches_are_pinned_tensor_by_tensor(monkeypatch):
    pinned = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tuple(tensor.shape)) or tensor)
    (batch,) = read_batches(Refused(), [np.array([0, 1])], [View((8, 8)), View((4, 4))], workers=0)
    batch.pin_memory()
    assert pinned == [(2, 3, 8, 8), (2, 3, 4, 4)]
