"""Every experiment there is in one study, killed fifty times at any moment: the tables do not show it."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers import whole_study
from ipvit.engine.store import Store
from ipvit.experiments.registry import BUILT_IN

KILLS = 50
BEFORE_THE_END = 38
"""So many of them while there is something to measure; the rest while parts are joined and tables are written."""

pytestmark = pytest.mark.slow


class Nursery:
    """A process that starts runs of the study, and tells of every file they write."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, whole_study.__file__],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._rest = b""

    def start(self, out: Path, **options: object) -> int:
        """Start a run; return its process number."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{out} {json.dumps(options)}\n".encode())
        self._process.stdin.flush()
        word, number = self.next_word()
        assert word == "start"
        return int(number)

    def next_word(self, seconds: float = 300) -> tuple[str, str]:
        """Return the next thing that happens."""
        assert self._process.stdout is not None
        pipe, deadline = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._rest:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "nothing has happened for too long"
            more = os.read(pipe, 65536)
            assert more, f"the process that starts runs is over: {self._process.wait(timeout=60)}"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        word, _, what = line.decode().partition(" ")
        return word, what

    def end(self) -> int:
        """Read on until the run is over; return its status."""
        while True:
            word, what = self.next_word()
            if word == "end":
                return int(what)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    found = Nursery()
    yield found
    found.close()


def stage_of(word: str, path: str) -> str:
    """Name what a run is at by what it writes."""
    top, _, rest = path.partition("/")
    if top != "records":
        return top
    return "joining" if word == "remove" and ".tmp" not in path else f"records of {rest.partition('/')[0]}"


def killed_once(nursery: Nursery, out: Path, dice: random.Random, hit: Counter[str], *, ending: bool) -> str:
    """Start the run, kill it at some moment, and return what it was at; empty where it came to its end before."""
    number = nursery.start(out, workers=dice.choice((0, 1)))
    patience, seen = dice.randint(1, 3 if ending else 10), 0
    while True:
        word, path = nursery.next_word()
        if word == "end":
            assert int(path) == 0
            return ""
        stage = stage_of(word, path)
        if word == "open" or stage.startswith(".") or stage in ("manifest.json", "study.yaml"):
            continue
        if stage not in ("joining", "tables") and (ending or hit[stage] > 1):
            continue
        seen += 1
        if stage not in hit or seen >= patience:
            break
    time.sleep(dice.choice((0, 0.001, 0.01, 0.1)) * dice.random())
    os.killpg(number, signal.SIGKILL)
    status = nursery.end()
    return stage if status == -signal.SIGKILL else ""


def contents(out: Path, *patterns: str) -> dict[str, bytes]:
    files = [path for pattern in patterns for path in out.glob(pattern) if path.is_file()]
    return {str(path.relative_to(out)): path.read_bytes() for path in files if not path.name.startswith(".")}


def features(out: Path) -> dict[str, list[float]]:
    """Rows of the feature store that have a checksum."""
    found = {}
    for path in out.glob("features/*/*.npy"):
        array = np.load(path)
        sums = np.fromfile(path.with_suffix(".sums"), dtype="<u8")
        found[str(path.relative_to(out))] = array[sums != 0].tolist()
    return found


def test_fifty_kills_in_all_experiments_leave_no_trace_in_the_tables(nursery, tmp_path):
    assert set(whole_study.SETTINGS) == set(BUILT_IN), "an experiment is missing from the study"
    whole, out = tmp_path / "whole", tmp_path / "killed"
    nursery.start(whole)
    assert nursery.end() == 0

    dice, hit, kills = random.Random(0), Counter(), 0
    while kills < KILLS:
        stage = killed_once(nursery, out, dice, hit, ending=kills >= BEFORE_THE_END)
        kills += bool(stage)
        hit[stage or "the end"] += 1
        assert hit["the end"] < 10, f"too few moments to kill at: {hit}"
    print(f"\nkilled while writing: {dict(hit)}")
    nursery.start(out)
    assert nursery.end() == 0

    wanted = {f"records of {name}" for name in BUILT_IN} | {"features", "patches", "probes", "examples", "joining"}
    assert wanted <= set(hit), f"never killed at {wanted - set(hit)}"
    tables = contents(whole, "tables/*")
    assert len(tables) > 100 and contents(out, "tables/*") == tables
    for name in BUILT_IN:
        assert Store(out).records(name).equals(Store(whole).records(name)), name
    for kept in ("patches/*/*", "probes/*/*", "examples/**/*"):
        assert contents(out, kept) == contents(whole, kept), kept
    assert features(out) == features(whole)
    assert not list(out.rglob("*.damaged"))
    assert not [path for path in out.rglob(".*.tmp") if path.parent.name != "tables"], "what was half written is gone"
