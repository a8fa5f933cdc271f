"""Kendall's tau and ranks, against scipy."""

import numpy as np
import pytest
from scipy import stats

from ipvit.metrics.ranking import kendall_tau, ranks_from_best


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_scipys_also_with_ties(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 5, (2, 8)).astype(float)
    assert kendall_tau(first, second) == pytest.approx(stats.kendalltau(first, second)[0])


def test_tau_of_many_samples_is_that_of_each():
    first, second = np.random.default_rng(0).normal(size=(2, 20, 6))
    found = kendall_tau(first, second)
    assert found.shape == (20,)
    assert found[7] == pytest.approx(stats.kendalltau(first[7], second[7])[0])


def test_scores_without_an_order_have_no_tau():
    assert np.isnan(kendall_tau([1, 1, 1], [1, 2, 3]))


def test_ranks_begin_at_the_best_and_ties_share_the_better_one():
    scores = np.array([0.3, 0.9, 0.3, 0.1])
    assert ranks_from_best(scores).tolist() == stats.rankdata(-scores, method="min").tolist()
