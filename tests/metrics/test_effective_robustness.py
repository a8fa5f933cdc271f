"""Effective robustness: the line, and intervals that cover as often as they say."""

import numpy as np
import pytest
import scipy.stats

from ipvit.metrics.effective_robustness import (
    AccuracyLine,
    accuracy_logit,
    difference_of_proportions,
    effective_robustness,
)


def test_the_line_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    x = rng.normal(1, 0.7, 60)
    y = 0.9 * x - 0.4 + rng.normal(0, 0.1, 60)
    line, known = AccuracyLine.fit(x, y), scipy.stats.linregress(x, y)
    assert (line.slope, line.intercept) == pytest.approx((known.slope, known.intercept))
    assert line.r2 == pytest.approx(known.rvalue**2) and line.networks == 60
    assert np.sqrt(line.variance / line.spread) == pytest.approx(known.stderr)
    assert np.sqrt(line.variance_at(0.0)) == pytest.approx(known.intercept_stderr)
    with pytest.raises(ValueError, match="at least three"):
        AccuracyLine.fit([1.0, 2.0], [1.0, 2.0])


def test_logits_are_finite_for_none_and_for_all():
    assert np.isfinite(accuracy_logit([0, 10], [10, 10])).all()
    assert float(accuracy_logit(3, 10)) == pytest.approx(np.log((3.5 / 11) / (1 - 3.5 / 11)))


@pytest.mark.parametrize(("clean", "beyond", "n"), [(0.75, 0.0, 2000), (0.9, 0.08, 1000), (0.6, -0.05, 500)])
def test_intervals_cover_the_true_value_as_often_as_they_say(clean, beyond, n):
    """Networks on a true line with scatter, and one at a known distance from it; everything is drawn anew each time."""
    rng = np.random.default_rng(1)
    slope, intercept, scatter, hits, rounds = 0.9, -0.5, 0.1, 0, 1500
    true_line = 1 / (1 + np.exp(-(intercept + slope * np.log(clean / (1 - clean)))))
    for _ in range(rounds):
        x = rng.normal(1.2, 0.6, 50)
        line = AccuracyLine.fit(x, intercept + slope * x + rng.normal(0, scatter, 50))
        right = rng.binomial(10_000, clean), rng.binomial(n, true_line + beyond)
        found = effective_robustness(right[0], 10_000, right[1], n, line)
        hits += found.low <= beyond <= found.high
    assert 0.93 <= hits / rounds <= 0.975


@pytest.mark.parametrize(("p", "q", "n", "m"), [(0.9, 0.6, 200, 80), (0.02, 0.01, 300, 300)])
def test_differences_of_other_images_are_covered(p, q, n, m):
    rng = np.random.default_rng(2)
    hits = 0
    for first, second in zip(rng.binomial(n, p, 2000), rng.binomial(m, q, 2000), strict=True):
        _, low, high = difference_of_proportions(first, n, second, m)
        hits += low <= p - q <= high
    assert 0.93 <= hits / 2000 <= 0.985
