"""Batches are shared out, and what slow processes have not begun is measured by those that are done."""

import threading
import time

import numpy as np
import pytest

from ipvit.core.shard import Shard
from ipvit.engine.loop.claims import Claims

BATCHES = [np.arange(start, start + 4) for start in range(0, 160, 4)]


class Counter:
    """What the processes of a run share, for threads."""

    def __init__(self, count: int) -> None:
        self.lock, self.claimed, self.count = threading.Lock(), set(), count

    def first(self, number: int) -> bool:
        with self.lock:
            fresh = number not in self.claimed
            self.claimed.add(number)
            return fresh

    def left(self) -> int:
        return self.count - len(self.claimed)


def measure(claims: Claims, found: list[int], seconds: float) -> None:
    for batches in claims.rounds():
        for batch in batches:
            if claims.begin(batch) and claims.begin(batch[1:]):  # a second version of it, of fewer images
                time.sleep(seconds)
                found.append(int(batch[0]) // 4)


@pytest.fixture
def measured() -> list[list[int]]:
    """What three processes measure, the last of which is twenty times as slow as the others."""
    counter, found, threads = Counter(len(BATCHES)), [[], [], []], []
    shares = [Shard(rank, 3).of(range(len(BATCHES))) for rank in range(3)]
    for rank, share in enumerate(shares):
        others = [n for n in range(len(BATCHES)) if n not in share and n > 2]
        claims = Claims(BATCHES, share, others, counter.first, counter.left, 3)
        seconds = 0.04 if rank == 2 else 0.002
        threads.append(threading.Thread(target=measure, args=(claims, found[rank], seconds)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_every_batch_is_measured_once(measured):
    assert sorted(number for one in measured for number in one) == list(range(len(BATCHES)))


def test_the_slowest_process_does_not_decide(measured):
    fast, other, slow = map(len, measured)
    assert slow < 13 / 2 and fast + other > 40 - 13 / 2, "a third of the batches were its share"


def test_everybody_measures_the_first_batch_of_its_own(measured):
    assert [one[0] for one in measured] == [0, 1, 2]


def test_alone_all_batches_come_in_one_round_and_nobody_is_asked():
    claims = Claims(BATCHES, range(len(BATCHES)))
    (whole,) = claims.rounds()
    assert len(whole) == len(BATCHES) and all(claims.begin(batch) for batch in whole)
    assert claims.selected == 160 and np.array_equal(claims.own, np.arange(160))
    assert not claims.begin(np.zeros(0, dtype=np.int64)), "a batch of which nothing could be read"


def test_another_processs_batch_is_not_measured_though_it_was_read():
    claims = Claims(BATCHES[:2], [0, 1], first=lambda number: number != 1)
    assert [claims.begin(batch) for batch in BATCHES[:2]] == [True, False]


def test_nothing_to_do_is_no_round():
    assert list(Claims(BATCHES, []).rounds()) == []
    assert list(Claims([], []).rounds()) == [] and len(Claims([], []).possible) == 0
