"""Retained accuracy and what two models lose: against formulas written out, and an independent bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from ipvit.metrics import Pair, drop_difference, retained_accuracy, retained_difference, retained_of_other_images
from ipvit.metrics.intervals import student_t_p_value, wilson


def images(n: int, clean: float, perturbed: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    hard = rng.random(n)
    return (hard < clean).astype(float), (hard + rng.normal(0, 0.1, n) < perturbed).astype(float)


def test_the_value_is_the_share_of_what_is_above_chance():
    assert retained_accuracy([1] * 9 + [0], [1] * 5 + [0] * 5, 0.1).value == pytest.approx((0.5 - 0.1) / (0.9 - 0.1))


def test_it_is_not_clipped():
    clean = [1.0] * 30 + [0.0] * 20
    assert retained_accuracy(clean, [0.0] * 50, 0.1).value == pytest.approx(-0.1 / 0.5)
    assert retained_accuracy(clean, [1.0] * 50, 0.1).value == pytest.approx(0.9 / 0.5)


@pytest.mark.parametrize("right", [0, 1, 5, 8, 9])
def test_there_is_none_where_the_clean_interval_does_not_lie_above_chance(right):
    clean = [1.0] * right + [0.0] * (50 - right)
    found = retained_accuracy(clean, [0.0] * 50, 0.1)
    assert math.isnan(found.value) == (wilson(right, 50)[0] <= 0.1)
    assert math.isnan(found.value) == (right < 10)


@pytest.mark.parametrize("rates", [(0.9, 0.5), (0.95, 0.1), (0.6, 0.55)])
def test_the_ends_are_where_a_test_of_the_ratio_just_rejects(rates):
    """The equation that Fieller solves, written out over the images with the four halves and solved numerically."""
    clean, perturbed = images(120, *rates)
    found = retained_accuracy(clean, perturbed, 0.1)
    q, p = (np.append(values, added) for values, added in ((clean, [1, 1, 0, 0]), (perturbed, [1, 0, 1, 0])))
    weight = np.append(np.ones(120), [0.5] * 4)
    t = scipy.stats.t.ppf(0.975, 121)

    def excess(ratio: float) -> float:
        d = (p - 0.1) - ratio * (q - 0.1)
        mean = float(np.average(d, weights=weight))
        variance = float(weight @ (d - mean) ** 2) / (122 * 121)
        return mean**2 - t**2 * variance

    assert found.low == pytest.approx(scipy.optimize.brentq(excess, found.value - 5, found.value), abs=1e-6)
    assert found.high == pytest.approx(scipy.optimize.brentq(excess, found.value, found.value + 5), abs=1e-6)


def test_the_interval_agrees_with_a_bootstrap_of_pairs_on_many_images():
    clean, perturbed = images(3000, 0.9, 0.4)
    found, rng = retained_accuracy(clean, perturbed, 0.1), np.random.default_rng(1)
    draws = rng.integers(3000, size=(4000, 3000))
    ratios = (perturbed[draws].mean(axis=1) - 0.1) / (clean[draws].mean(axis=1) - 0.1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.002)


def test_images_under_one_mask_count_together():
    clean = np.ones(100)
    perturbed = np.repeat([1.0, 0.0, 1.0, 0.0, 0.0], 20)
    alone = retained_accuracy(clean, perturbed, 0.1)
    together = retained_accuracy(clean, perturbed, 0.1, clusters=np.repeat(np.arange(5), 20))
    assert together.value == alone.value
    assert together.high - together.low > 3 * (alone.high - alone.low)


@pytest.mark.parametrize("clusters", [np.full(100, -1), np.zeros(100, dtype=int)])
def test_one_mask_for_all_has_a_value_and_no_interval(clusters):
    clean, perturbed = images(100, 0.9, 0.5)
    found = retained_accuracy(clean, perturbed, 0.1, clusters=clusters)
    assert math.isfinite(found.value)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_on_other_images_the_variances_are_added():
    found = retained_of_other_images((900, 1000), (600, 2000), 0.001)
    deviation = math.sqrt(0.3 * 0.7 / 2000 + (0.299 / 0.899) ** 2 * 0.9 * 0.1 / 1000) / 0.899
    assert found.value == pytest.approx(0.299 / 0.899)
    assert (found.low, found.high) == pytest.approx(
        (found.value - 1.96 * deviation, found.value + 1.96 * deviation), abs=2e-3
    )
    assert math.isnan(retained_of_other_images((1, 1000), (600, 2000), 0.001).value)


def pair(n: int, clean: float, perturbed: float, seed: int) -> Pair:
    return Pair(*images(n, clean, perturbed, seed), 0.1)


def test_the_difference_of_what_two_models_retain_agrees_with_a_bootstrap_of_pairs():
    a, b = pair(2000, 0.9, 0.5, 0), pair(2000, 0.8, 0.3, 0)
    found, rng = retained_difference(a, b), np.random.default_rng(1)
    draws = rng.integers(2000, size=(4000, 2000))
    ratios = [(m.perturbed[draws].mean(axis=1) - 0.1) / (m.clean[draws].mean(axis=1) - 0.1) for m in (a, b)]
    low, high = np.quantile(ratios[0] - ratios[1], (0.025, 0.975))
    assert found.difference == pytest.approx(a.ratio - b.ratio)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.005)


def test_the_difference_of_the_drops_is_a_mean_over_images():
    a, b = pair(200, 0.9, 0.5, 0), pair(200, 0.8, 0.3, 0)
    found = drop_difference(a, b)
    lost = np.append((a.clean - a.perturbed) - (b.clean - b.perturbed), (1.0, -1.0))
    half = scipy.stats.t.ppf(0.975, 201) * lost.std(ddof=1) / math.sqrt(200)
    assert found.difference == pytest.approx(
        float((a.clean.mean() - a.perturbed.mean()) - (b.clean.mean() - b.perturbed.mean()))
    )
    assert (found.low, found.high) == pytest.approx((found.difference - half, found.difference + half), abs=1e-9)


def test_a_better_model_need_not_be_the_one_that_loses_less():
    """A is right more often, clean and perturbed, and loses as many points; of its accuracy it retains more."""
    n = 400
    a = Pair(np.arange(n) < 380, np.arange(n) < 300, 0.1)
    b = Pair(np.arange(n) < 200, np.arange(n) < 120, 0.1)
    a, b = (Pair(m.clean.astype(float), m.perturbed.astype(float), 0.1) for m in (a, b))
    assert drop_difference(a, b).difference == 0.0
    assert drop_difference(a, b).p == 1.0
    retained = retained_difference(a, b)
    assert retained.low > 0
    assert retained.p < 0.001


@pytest.mark.parametrize("seed", range(12))
def test_a_p_value_is_below_5_percent_where_the_interval_excludes_zero(seed):
    a, b = pair(80, 0.9, 0.45, seed), pair(80, 0.85, 0.4, seed + 100)
    for found in (retained_difference(a, b), drop_difference(a, b)):
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_equal_models_differ_by_nothing_and_still_have_an_interval():
    model = pair(50, 0.9, 0.5, 0)
    for found in (retained_difference(model, model), drop_difference(model, model)):
        assert found.difference == 0
        assert found.low < 0 < found.high
        assert found.p == pytest.approx(1.0)


def test_a_model_at_chance_cannot_be_compared_by_what_it_retains():
    guessing = Pair(np.arange(50) < 5, np.arange(50) < 4, 0.1)
    guessing = Pair(guessing.clean.astype(float), guessing.perturbed.astype(float), 0.1)
    assert math.isnan(retained_difference(pair(50, 0.9, 0.5, 0), guessing).difference)
    assert math.isfinite(drop_difference(pair(50, 0.9, 0.5, 0), guessing).p)


@pytest.mark.parametrize(("t", "df"), [(0.0, 5), (2.0, 1), (2.1, 2), (1.96, 37), (3.0, 1000), (2.5, 50_000)])
def test_the_p_value_of_t_is_scipys(t, df):
    assert student_t_p_value(t, df) == pytest.approx(2 * scipy.stats.t.sf(t, df), abs=1e-9)


@pytest.mark.parametrize("wrong", [([1, 0], [1], 0.1), ([1], [2], 0.1), ([1], [1], 1.0), ([1], [1], -0.1)])
def test_what_is_no_share_is_refused(wrong):
    with pytest.raises(ValueError, match=r"same images|lie in|chance"):
        retained_accuracy(*wrong)
