import itertools
import math
import tracemalloc

import numpy as np
import pytest
import scipy.stats
import torch

from ipvit.metrics import (
    Paired,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_means,
    paired_proportions,
    sign_flip_test,
)


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


def likeliest(b: int, c: int, n: int, delta: float) -> float:
    """Share of images that only B has right, most likely if the difference is ``delta``: plain search over a grid."""
    shares = np.linspace(max(0.0, -delta), (1 - delta) / 2, 200_001)[1:-1]
    with np.errstate(divide="ignore"):
        likelihood = b * np.log(shares + delta) + c * np.log(shares) + (n - b - c) * np.log(1 - 2 * shares - delta)
    return float(shares[np.argmax(likelihood)])


@pytest.mark.parametrize(("b", "c", "agree"), [(10, 4, 60), (1, 0, 30), (25, 60, 200), (3, 3, 14)])
def test_the_interval_ends_where_a_score_test_just_does_not_reject(b, c, agree):
    first, second = disagreements(b, c, agree)
    n = len(first)
    result = paired_proportions(first, second)
    assert result.difference == pytest.approx((b - c) / n)
    for end, sign in ((result.low, 1), (result.high, -1)):
        share = likeliest(b, c, n, end)
        z = (b - c - n * end) / math.sqrt(n * (2 * share + end * (1 - end)))
        assert z == pytest.approx(sign * 1.959964, abs=0.01)


def test_models_that_agree_on_every_image_may_still_differ():
    same = np.ones(50)
    result = paired_proportions(same, same)
    assert result.difference == 0 and result.low == pytest.approx(-result.high)
    assert result.high == pytest.approx(1.959964**2 / (50 + 1.959964**2), abs=1e-4)
    assert paired_bootstrap(same, same) == Paired(0.0, 0.0, 0.0), "a bootstrap would be sure of it"


def test_the_interval_turns_over_with_the_models():
    first, second = disagreements(7, 2, 40)
    one, other = paired_proportions(first, second), paired_proportions(second, first)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))


@pytest.mark.parametrize("runs", [1, 5])
@pytest.mark.parametrize(("n", "a", "b", "spread"), [(60, 5.0, 4.5, 1.0), (60, 8.0, 4.0, 1.0), (150, 1.0, 0.0, 3.0)])
def test_the_score_interval_covers_the_true_difference_where_the_bootstrap_does_not(n, a, b, spread, runs):
    """Two models with nearly the same errors: an image's difficulty is shared, few images tell the models apart."""
    rng = np.random.default_rng(0)
    grid = np.linspace(-8, 8, 4001)
    weight = np.exp(-(grid**2) / 2) / np.exp(-(grid**2) / 2).sum()
    chance = [float((weight / (1 + np.exp(-(grid * spread + skill)))).sum()) for skill in (a, b)]
    truth, covered, by_bootstrap, trials = chance[0] - chance[1], 0, 0, 600
    for seed in range(trials):
        difficulty = rng.normal(size=n) * spread
        first, second = (rng.binomial(runs, 1 / (1 + np.exp(-(difficulty + skill)))) / runs for skill in (a, b))
        result, boot = paired_proportions(first, second, runs), paired_bootstrap(first, second, 300, seed)
        covered += result.low <= truth <= result.high
        by_bootstrap += boot.low <= truth <= boot.high
    assert covered / trials >= 0.93
    assert covered >= by_bootstrap


def test_more_runs_make_the_interval_narrower_but_not_without_end():
    rng = np.random.default_rng(1)
    hard = rng.random(200)
    width = {}
    for runs in (1, 5, 50):
        first, second = rng.binomial(runs, hard) / runs, rng.binomial(runs, hard**1.3) / runs
        result = paired_proportions(first, second, runs)
        width[runs] = result.high - result.low
    assert width[1] > 1.5 * width[5] > width[50] > 0.02


def flipped(differences: np.ndarray) -> float:
    """All ways to flip the signs, one by one."""
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return float(np.mean(np.array(sums) >= abs(differences.sum()) - 1e-9))


def test_the_sign_flip_test_counts_all_flips():
    rng = np.random.default_rng(3)
    for runs in (2, 5):
        a, b = rng.integers(0, runs + 1, 12) / runs, rng.integers(0, runs + 1, 12) / runs
        assert sign_flip_test(a, b, runs) == pytest.approx(flipped(a - b))


def test_with_one_run_the_sign_flip_test_is_mcnemars():
    for b, c in ((0, 0), (0, 7), (9, 14), (900, 1100)):
        first, second = disagreements(b, c)
        assert sign_flip_test(first, second) == pytest.approx(mcnemar(first, second).p_value, rel=1e-9)


def test_many_images_and_other_quantities_use_the_limit():
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, 6, 8000) / 5, rng.integers(0, 6, 8000) / 5
    part = sign_flip_test(first[:2500], second[:2500], 5)
    d = (first - second)[:2500]
    assert part == pytest.approx(math.erfc(abs(d.sum()) / math.sqrt(2 * (d**2).sum())), abs=0.01)
    assert 0 < sign_flip_test(first, second, 5) <= 1
    assert sign_flip_test(rng.normal(1, 1, 400), rng.normal(0, 1, 400)) < 1e-10


def test_the_sign_flip_test_is_right_as_often_as_it_says():
    rng = np.random.default_rng(5)
    p = [sign_flip_test(rng.binomial(3, h) / 3, rng.binomial(3, h) / 3, 3) for h in rng.random((800, 40))]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.06


def test_holm_corrects_as_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    corrected = holm([0.02, math.nan, 0.03])
    assert math.isnan(corrected[1]) and corrected[[0, 2]].tolist() == [0.04, 0.04]
    assert holm([]).tolist() == []


def test_means_are_compared_by_students_t():
    rng = np.random.default_rng(6)
    a, b = rng.normal(0.5, 1, 30), rng.normal(0.2, 1, 30)
    low, high = scipy.stats.ttest_rel(a, b).confidence_interval()
    result = paired_means(a, b)
    assert (result.difference, result.low, result.high) == pytest.approx(((a - b).mean(), low, high))
