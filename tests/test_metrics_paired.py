import math
import tracemalloc

import numpy as np
import pytest
import scipy.stats
import torch

from ipvit.metrics import Paired, mcnemar, paired_bootstrap


def disagreements(b: int, c: int, agree: int = 3) -> tuple[np.ndarray, np.ndarray]:
    first = np.concatenate([np.ones(b), np.zeros(c), np.ones(agree)]).astype(bool)
    second = np.concatenate([np.zeros(b), np.ones(c), np.ones(agree)]).astype(bool)
    return first, second


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 6), (5, 5), (5, 6), (10, 25), (900, 1100), (12_000, 12_600)])
def test_mcnemar_is_the_exact_binomial_test(b, c):
    result = mcnemar(*disagreements(b, c))
    assert (result.b, result.c) == (b, c)
    expected = scipy.stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert result.p_value == pytest.approx(expected, rel=1e-9)


def test_mcnemar_stays_finite_where_factorials_overflow():
    assert 0 <= mcnemar(*disagreements(100, 40_000)).p_value < 1e-300
    assert mcnemar(*disagreements(0, 1000)).p_value == pytest.approx(2.0**-999)


def test_mcnemar_takes_tensors_and_refuses_averages():
    assert mcnemar(torch.tensor([True, False]), torch.tensor([False, True])).p_value == 1.0
    with pytest.raises(ValueError, match="paired_bootstrap"):
        mcnemar([0.5, 1.0], [0.0, 1.0])


def test_bootstrap_interval_is_close_to_students_on_many_images():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 400), rng.normal(0.2, 1, 400)
    result = paired_bootstrap(a, b)
    low, high = scipy.stats.ttest_rel(a, b).confidence_interval()
    assert result.difference == pytest.approx((a - b).mean())
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.012)


def test_few_and_many_distinct_values_are_resampled_alike():
    """Right-or-wrong differences take the multinomial shortcut; a tiny jitter forces whole images to be drawn."""
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    short = paired_bootstrap(a, b)
    plain = paired_bootstrap(a + rng.normal(0, 1e-9, 500), b)
    assert (short.low, short.high) == pytest.approx((plain.low, plain.high), abs=0.004)


def test_bootstrap_equals_scipys_percentile_bootstrap():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 6, 60) / 5, rng.integers(0, 6, 60) / 5
    expected = scipy.stats.bootstrap((a - b,), np.mean, n_resamples=10_000, method="percentile", rng=rng)
    result = paired_bootstrap(a, b)
    assert (result.low, result.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.01)


def test_bootstrap_covers_the_true_difference():
    rng = np.random.default_rng(4)
    covered = 0
    for seed in range(400):
        hard = rng.random(150)
        a, b = rng.random(150) < 0.2 + 0.6 * hard, rng.random(150) < 0.1 + 0.6 * hard
        result = paired_bootstrap(a, b, n_resamples=500, seed=seed)
        covered += result.low <= 0.1 <= result.high
    assert 0.91 <= covered / 400 <= 0.98


def test_pairing_is_worth_something():
    easy = np.random.default_rng(5).random(1000) < 0.5
    better = easy.copy()
    better[:20] = True
    result = paired_bootstrap(better, easy)
    assert result.low > 0


def test_bootstrap_does_not_depend_on_the_order_of_images_but_on_the_seed():
    rng = np.random.default_rng(6)
    a, b = rng.random(80), rng.random(80)
    order = rng.permutation(80)
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a[order], b[order], seed=3)
    assert paired_bootstrap(a, b, seed=3) != paired_bootstrap(a, b, seed=4)


def test_images_without_both_values_are_left_out():
    assert paired_bootstrap([1, 0, math.nan], [0, 0, 1]) == paired_bootstrap([1, 0], [0, 0])
    assert math.isnan(paired_bootstrap([], []).difference)
    single = paired_bootstrap([1.0], [0.0])
    assert single.difference == 1.0 and math.isnan(single.low)


def test_identical_models_differ_by_exactly_nothing():
    same = np.random.default_rng(0).random(50)
    assert paired_bootstrap(same, same) == Paired(0.0, 0.0, 0.0)


def test_fifty_thousand_images_need_little_memory():
    rng = np.random.default_rng(8)
    a, b = rng.random(50_000), rng.random(50_000)
    tracemalloc.start()
    paired_bootstrap(a, b, n_resamples=400)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6


def test_models_must_have_seen_the_same_images():
    with pytest.raises(ValueError, match="the same images"):
        paired_bootstrap([1.0], [1.0, 0.0])
