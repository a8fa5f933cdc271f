"""How many processes read and transform pictures, where the user does not say it."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from ipvit.engine.distributed import ProcessGroup
from ipvit.engine.types import Task

DECODERS = 32
"""Processes beside one GPU that do nothing but decode: so many read the 10,000 photos a second of a small network."""


def default_workers(tasks: Sequence[Task], device_type: str, group: ProcessGroup) -> int:
    """Return how many workers this process starts.

    Beside a network on a CPU that is one. A GPU is fed by this process's share of the machine's cores, less one for
    itself: by all of them where pictures are transformed, which takes ten times as long as decoding.

    Args:
        tasks: what is measured on the images.
        device_type: where the networks are.
        group: the processes of the run; each of them calls this.
    """
    cores, quota = usable_cores(), core_quota()
    everyone = group.collect(cores)
    first = group.rank - group.local_rank  # the processes of a machine follow each other
    local = everyone[first : first + group.local_size]
    mine = share_out(local)[group.local_rank]
    if quota is not None:
        mine = min(mine, math.ceil(quota / group.local_size))
    if device_type == "cpu":
        return 1
    transformed = any(transform is not None for task in tasks for transform in task.by_transform)
    return max(1, mine - 1 if transformed else min(mine - 1, DECODERS))


def usable_cores() -> frozenset[int]:
    """Return the numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def share_out(cores: Sequence[Collection[int]]) -> list[int]:
    """Return how many cores each process of a machine gets, of those that it may run on.

    >>> share_out([range(8)] * 3), share_out([range(4), range(4, 8)])
    ([3, 3, 2], [4, 4])
    """
    found = [0] * len(cores)
    by_choice = sorted(
        {core for of_one in cores for core in of_one}, key=lambda core: sum(core in one for one in cores)
    )
    for core in by_choice:  # those that few may use first
        allowed = [number for number, of_one in enumerate(cores) if core in of_one]
        found[min(allowed, key=lambda number: found[number])] += 1
    return found


def core_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return how many cores' time a container may use; None where there is no limit or none that can be read.

    Args:
        root: where Linux tells of it.
    """
    try:
        if (root / "cpu.max").is_file():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):  # "max" is no number
        return None
