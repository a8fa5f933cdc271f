"""Permutation of units between two groups: against a plain loop, and simulated level and coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ipvit.metrics import permutation_difference


def share_of_divisions(a: list[float], b: list[float]) -> float:
    values, seen, hits, ways = [*a, *b], abs(sum(a) / len(a) - sum(b) / len(b)), 0, 0
    for chosen in itertools.combinations(range(len(values)), len(a)):
        first = [values[i] for i in chosen]
        second = [values[i] for i in range(len(values)) if i not in chosen]
        ways += 1
        hits += abs(sum(first) / len(first) - sum(second) / len(second)) >= seen - 1e-9
    return hits / ways


@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 4), (3, 6), (5, 4)])
def test_the_p_value_is_the_share_of_divisions_that_differ_as_much(n, m):
    random = np.random.default_rng(n * m)
    for _ in range(5):
        a, b = random.normal(0.5, 1, n).round(1), random.normal(0, 1, m).round(1)
        assert permutation_difference(a, b).p == pytest.approx(share_of_divisions(list(a), list(b)))


def test_three_and_three_can_show_nothing_at_five_per_cent():
    found = permutation_difference([90, 91, 92], [10, 11, 12])
    assert found.p == found.smallest_p == pytest.approx(0.1)
    assert found.low == -math.inf and found.high == math.inf


def test_the_interval_ends_where_the_test_begins_to_reject():
    random = np.random.default_rng(2)
    a, b = random.normal(1, 1, 5), random.normal(0, 1, 6)
    found = permutation_difference(a, b)
    for end, sign in ((found.low, -1), (found.high, 1)):
        assert share_of_divisions(list(a - end - sign * 1e-4), list(b)) <= 0.05
        assert share_of_divisions(list(a - end + sign * 1e-4), list(b)) > 0.05


def test_many_units_are_divided_at_random_and_alike_every_time():
    random = np.random.default_rng(3)
    a, b = random.normal(0.4, 1, 15), random.normal(0, 1, 15)
    found = permutation_difference(a, b)
    assert not found.exact and found == permutation_difference(a, b)


@pytest.mark.slow
def test_the_level_is_kept_and_the_interval_covers():
    random = np.random.default_rng(4)
    found = [permutation_difference(random.normal(2, 1, 5), random.normal(0, 1, 5)) for _ in range(400)]
    covered = np.mean([one.low <= 2 <= one.high for one in found])
    assert covered >= 0.93
    alike = [permutation_difference(random.normal(0, 1, 4), random.normal(0, 1, 5)).p < 0.05 for _ in range(400)]
    assert np.mean(alike) <= 0.07
