"""How many processes read pictures where nobody says it: the cores of a machine, shared out."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from ipvit.engine import worker_count
from ipvit.engine.distributed import ProcessGroup
from ipvit.engine.worker_count import core_quota, default_workers, share_out

DECODING: Any = [SimpleNamespace(by_transform={None: [0]})]
TRANSFORMING: Any = [SimpleNamespace(by_transform={None: [0], "fog": [1]})]


@dataclasses.dataclass
class Machine:
    """Eight processes on one machine, each of which may run on the same cores, or on its own."""

    cores: list[frozenset[int]]

    def workers(self, tasks, rank: int, device: str, monkeypatch) -> int:
        monkeypatch.setattr(worker_count, "usable_cores", lambda: self.cores[rank])
        monkeypatch.setattr(worker_count, "core_quota", lambda: None)
        group = ProcessGroup(rank, len(self.cores), rank, len(self.cores))
        monkeypatch.setattr(group, "collect", lambda _: self.cores)
        return default_workers(tasks, device, group)


def test_eight_gpus_share_the_128_cores_of_their_machine(monkeypatch):
    machine = Machine([frozenset(range(128))] * 8)
    assert [machine.workers(TRANSFORMING, rank, "cuda", monkeypatch) for rank in range(8)] == [15] * 8


def test_processes_that_have_cores_of_their_own_are_not_divided_once_more(monkeypatch):
    machine = Machine([frozenset(range(16 * rank, 16 * rank + 16)) for rank in range(8)])
    assert [machine.workers(TRANSFORMING, rank, "cuda", monkeypatch) for rank in range(8)] == [15] * 8


def test_all_cores_make_corruptions_and_no_more_decode_than_feed_a_gpu(monkeypatch):
    machine = Machine([frozenset(range(128))])
    assert machine.workers(TRANSFORMING, 0, "cuda", monkeypatch) == 127
    assert machine.workers(DECODING, 0, "cuda", monkeypatch) == worker_count.DECODERS


def test_one_worker_reads_beside_a_network_on_a_cpu_and_where_there_is_one_core(monkeypatch):
    assert Machine([frozenset(range(128))]).workers(TRANSFORMING, 0, "cpu", monkeypatch) == 1
    assert Machine([frozenset({5})]).workers(TRANSFORMING, 0, "cuda", monkeypatch) == 1


def test_a_container_that_may_use_four_of_128_cores_starts_three_workers(monkeypatch):
    monkeypatch.setattr(worker_count, "usable_cores", lambda: frozenset(range(128)))
    monkeypatch.setattr(worker_count, "core_quota", lambda: 4.0)
    assert default_workers(TRANSFORMING, "cuda", ProcessGroup()) == 3


@pytest.mark.parametrize("cores", [[{0, 1, 2, 3}] * 4, [{0, 1}, {0, 1, 2, 3}, {2, 3}], [{0}, set(range(64))]])
def test_every_core_is_given_to_one_process_that_may_use_it(cores):
    shares = share_out(cores)
    assert sum(shares) == len(set().union(*cores))
    assert all(share <= len(own) for share, own in zip(shares, cores, strict=True))


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "400000 100000\n"}, 4.0),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_what_linux_tells_of_a_containers_limit_is_read(tmp_path, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert core_quota(tmp_path) == quota
