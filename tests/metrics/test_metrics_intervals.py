import math

import numpy as np
import pytest
import scipy.stats

from ipvit.metrics import accuracy_interval, mean_interval, wilson
from ipvit.metrics.intervals import student_t_quantile


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (1, 3), (37_000, 50_000), (0, 1)])
def test_wilson_equals_scipy(successes, n, confidence):
    expected = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_ends_are_exactly_zero_and_one():
    for n in range(1, 400):
        assert wilson(0, n)[0] == 0.0
        assert wilson(n, n)[1] == 1.0


def test_wilson_works_on_arrays_and_knows_nothing_without_trials():
    low, high = wilson(np.array([0.0, 5.0, 3.5]), np.array([0.0, 10.0, 7.0]))
    assert math.isnan(low[0]) and math.isnan(high[0])
    assert (low[1], high[1]) == pytest.approx(wilson(5, 10))
    assert low[2] < 0.5 < high[2]
    assert all(math.isnan(end) for end in wilson(0, 0))


def test_wilson_refuses_more_successes_than_trials_and_odd_confidences():
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 2, confidence=95)


def beta_binomial(rng, mean, concentration, n, runs):
    """Per-image accuracies whose runs share the image's own difficulty; a low concentration couples runs more."""
    return rng.binomial(runs, rng.beta(mean * concentration, (1 - mean) * concentration, size=n)) / runs


@pytest.mark.parametrize(
    ("n", "mean", "concentration"), [(200, 0.5, 0.5), (200, 0.7, 2), (100, 0.97, 1), (200, 0.5, 50)]
)
def test_accuracy_interval_covers_the_truth_nineteen_times_in_twenty(n, mean, concentration):
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(1500):
        low, high = accuracy_interval(beta_binomial(rng, mean, concentration, n, 5), n_runs=5)
        covered += low <= mean <= high
    assert 0.94 <= covered / 1500 <= 0.985


def test_counting_runs_as_independent_images_would_not_cover():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(500):
        low, high = wilson(beta_binomial(rng, 0.5, 0.5, 200, 5).sum() * 5, 200 * 5)
        covered += low <= 0.5 <= high
    assert covered / 500 < 0.8


def test_one_run_is_wilson_on_the_images():
    correct = np.random.default_rng(0).integers(0, 2, 77)
    assert accuracy_interval(correct, n_runs=1) == pytest.approx(wilson(int(correct.sum()), 77))


def test_identical_runs_add_nothing_and_independent_runs_add_all():
    coin = np.repeat([0.0, 1.0], 50)
    assert accuracy_interval(coin, n_runs=5) == pytest.approx(wilson(50, 100))
    assert accuracy_interval(np.full(100, 0.4), n_runs=5) == pytest.approx(wilson(200, 500))


def test_all_right_is_as_uncertain_as_the_number_of_images_allows():
    assert accuracy_interval(np.ones(20), n_runs=5) == wilson(20, 20)


def test_accuracy_interval_of_nothing_or_unknown_is_unknown():
    assert all(math.isnan(end) for end in accuracy_interval([], n_runs=2))
    assert all(math.isnan(end) for end in accuracy_interval([0.5, math.nan], n_runs=2))


def test_percentages_are_not_proportions():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        accuracy_interval([50.0, 70.0], n_runs=1)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_student_quantiles_equal_scipy(confidence):
    for df in [1, 2, 3, 4, 5, 10, 29, 30, 99, 100, 101, 150, 1000, 50_000]:
        expected = scipy.stats.t.ppf((1 + confidence) / 2, df)
        assert student_t_quantile(confidence, df) == pytest.approx(expected, abs=1e-6, rel=1e-9), df


def test_mean_interval_equals_scipy_and_leaves_undefined_values_out():
    values = np.random.default_rng(3).normal(0.4, 0.2, 40)
    expected = scipy.stats.t.interval(0.95, 39, values.mean(), scipy.stats.sem(values))
    assert mean_interval(np.append(values, math.nan)) == pytest.approx(expected)


def test_mean_interval_needs_two_values():
    assert all(math.isnan(end) for end in mean_interval([0.3]))
    assert mean_interval([0.3, 0.3]) == pytest.approx((0.3, 0.3))
