"""Measures of calibration against other libraries and plain loops, and their intervals against simulated truths."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from ipvit.metrics import calibration, calibration_intervals


def answers(n, seed=0, over=0.1):
    """Confidences and verdicts of a network that is right less often than it says."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.1, 1, n)
    return confidence, rng.random(n) < np.clip(confidence - over, 0, 1)


def gap_by_hand(confidence, correct, bins):
    total = 0.0
    for members in bins:
        if len(members):
            sure = sum(confidence[i] for i in members) / len(members)
            right = sum(bool(correct[i]) for i in members) / len(members)
            total += len(members) / len(confidence) * abs(sure - right)
    return total


def of_equal_width(confidence, k):
    return [[i for i, c in enumerate(confidence) if min(int(c * k), k - 1) == b] for b in range(k)]


def test_plain_error_is_that_of_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics", reason="pip install torchmetrics")
    logits = torch.randn(400, 7, generator=torch.Generator().manual_seed(0)) * 3
    labels = torch.randint(0, 7, (400,), generator=torch.Generator().manual_seed(1))
    theirs = torchmetrics.classification.MulticlassCalibrationError(num_classes=7, n_bins=15)(logits, labels)
    confidence, prediction = logits.double().softmax(1).max(1)
    assert calibration.ece(confidence, prediction == labels) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_plain_error_in_bins_of_equal_width_is_that_of_a_loop(bins):
    confidence, correct = answers(300)
    expected = gap_by_hand(confidence, correct, of_equal_width(confidence, bins))
    assert calibration.ece(confidence, correct, bins) == pytest.approx(expected)


def test_bins_of_equal_mass_hold_equally_many_answers_in_the_order_of_their_confidence():
    confidence, correct = answers(300)
    order = sorted(range(300), key=lambda i: confidence[i])
    expected = gap_by_hand(confidence, correct, [order[k * 20 : (k + 1) * 20] for k in range(15)])
    assert calibration.ece(confidence, correct, 15, "mass") == pytest.approx(expected)


def test_equal_confidences_are_in_one_bin():
    found = calibration.reliability_bins([0.5] * 30 + [0.9] * 30, [1] * 60)
    assert found.counts.tolist() == [30, 30]


def test_debiased_error_is_the_mean_of_many_resamples_as_in_the_authors_library():
    confidence, correct = answers(200, over=0.02)
    bins = calibration.reliability_bins(confidence, correct)
    rng = np.random.default_rng(0)
    plain = gap_by_hand(confidence, correct, [np.flatnonzero(bins.place == b) for b in range(len(bins.counts))])
    resampled = []
    for _ in range(20_000):
        drawn = rng.normal(bins.accuracy, np.sqrt(bins.accuracy * (1 - bins.accuracy) / bins.counts))
        resampled.append(np.dot(bins.counts / 200, np.abs(drawn - bins.confidence)))
    expected = 2 * plain - np.mean(resampled)
    assert calibration.ece_debiased(confidence, correct) == pytest.approx(expected, abs=5e-4)


def test_debiased_error_is_nearer_to_nothing_where_there_is_none():
    found = np.array(
        [[f(*answers(300, seed, 0)) for f in (calibration.ece_debiased, calibration.ece)] for seed in range(60)]
    )
    debiased, plain = found.mean(axis=0)
    assert debiased < 0.75 * plain


def test_no_answer_has_no_error():
    assert math.isnan(calibration.ece([], []))
    assert math.isnan(calibration.ece_debiased([], []))
    assert math.isnan(calibration.nll([]))
    assert math.isnan(calibration.confidence_auroc([0.5, 0.6], [1, 1]))


def test_confidences_out_of_range_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration.ece([1.2], [1])
    with pytest.raises(ValueError, match="one verdict for each"):
        calibration.ece([0.2, 0.3], [1])


def test_proper_scores_are_those_of_the_whole_distribution():
    logits = torch.randn(50, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 4
    labels = torch.arange(50) % 9
    p = logits.softmax(1)
    of_label = p.gather(1, labels[:, None]).squeeze(1)
    assert calibration.nll(of_label.log()) == pytest.approx(float(F.cross_entropy(logits, labels)))
    expected = float(((p - F.one_hot(labels, 9)) ** 2).sum(1).mean())
    assert calibration.brier((p**2).sum(1), of_label) == pytest.approx(expected)


def test_auroc_is_the_share_of_pairs_in_which_the_right_answer_is_more_confident():
    confidence, correct = answers(150)
    confidence = confidence.round(1)  # with ties
    right, wrong = confidence[correct], confidence[~correct]
    u = stats.mannwhitneyu(right, wrong).statistic
    assert calibration.confidence_auroc(confidence, correct) == pytest.approx(u / (len(right) * len(wrong)))
    assert calibration_intervals.auroc_estimate(confidence, correct).value == pytest.approx(u / len(right) / len(wrong))


def test_risk_at_a_coverage_is_the_error_among_the_most_confident():
    confidence, correct = answers(40)
    coverage, risk = calibration.risk_coverage(confidence, correct)
    order = sorted(range(40), key=lambda i: -confidence[i])
    for share, error in zip(coverage, risk, strict=True):
        given = order[: round(share * 40)]
        assert error == pytest.approx(sum(not correct[i] for i in given) / len(given))
    assert risk[-1] == pytest.approx(1 - correct.mean())


def test_mean_has_students_interval():
    values = np.random.default_rng(0).normal(3, 1, 40)
    found = calibration_intervals.mean_estimate(values)
    expected = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)


def test_mean_of_few_images_with_one_large_value_has_no_interval():
    found = calibration_intervals.mean_estimate([0.01] * 30 + [9.0])
    assert found.value == pytest.approx((0.3 + 9) / 31)
    assert math.isnan(found.low)
    assert "simulated coverage" in found.reason


def test_variance_of_the_auroc_is_delongs():
    confidence, correct = answers(60)
    right, wrong = confidence[correct], confidence[~correct]
    wins = np.array([[(a > b) + (a == b) / 2 for b in wrong] for a in right])
    area = wins.mean()
    variance = wins.mean(1).var(ddof=1) / len(right) + wins.mean(0).var(ddof=1) / len(wrong)
    half = 1.959964 * math.sqrt(variance) / (area * (1 - area))
    expected = [1 / (1 + math.exp(-(math.log(area / (1 - area)) + sign * half))) for sign in (-1, 1)]
    found = calibration_intervals.auroc_estimate(confidence, correct)
    assert [found.low, found.high] == pytest.approx(expected, abs=0.005)


def test_auroc_of_nine_wrong_answers_has_no_interval():
    found = calibration_intervals.auroc_estimate(np.linspace(0.1, 1, 100), [0] * 9 + [1] * 91)
    assert math.isnan(found.low)
    assert "10 wrong answers" in found.reason


@pytest.mark.parametrize(
    "measure",
    [
        lambda c, y, who: calibration_intervals.ece_estimate(c, y, who),
        lambda c, y, who: calibration_intervals.auroc_estimate(c, y, who),
    ],
    ids=["ece", "auroc"],
)
def test_the_same_answer_five_times_is_no_better_known(measure):
    confidence, correct = answers(400)
    once = measure(confidence, correct, None)
    again = measure(np.repeat(confidence, 5), np.repeat(correct, 5), np.repeat(np.arange(400), 5))
    assert again.high - again.low == pytest.approx(once.high - once.low, rel=0.1)


def test_answers_are_independent_where_each_has_its_own_cluster():
    confidence, correct = answers(200)
    for measure in (calibration_intervals.ece_estimate, calibration_intervals.auroc_estimate):
        assert measure(confidence, correct) == measure(confidence, correct, np.arange(200))


CONFIDENCES = {
    "sure": lambda n, rng: rng.beta(8, 1.2, n),
    "flat": lambda n, rng: rng.uniform(0.1, 1, n),
    "unsure": lambda n, rng: rng.beta(1.5, 6, n),
    "very sure": lambda n, rng: 1 - rng.beta(0.4, 8, n),
}
RIGHT = {
    "calibrated": lambda c: c,
    "a little too sure": lambda c: np.clip(c - 0.05, 0, 1),
    "much too sure": lambda c: c**2,
    "waves": lambda c: np.clip(c + 0.08 * np.sin(12 * c), 0, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize(("n", "scheme"), [(100, "mass"), (600, "width")])
@pytest.mark.parametrize("confident", CONFIDENCES)
@pytest.mark.parametrize("right", RIGHT)
def test_intervals_of_the_error_that_are_given_hold_the_truth(n, scheme, confident, right):
    rng, given, held = np.random.default_rng(5), 0, 0
    for _ in range(120):
        confidence = CONFIDENCES[confident](n, rng)
        chance = RIGHT[right](confidence)
        correct = rng.random(n) < chance
        found = calibration_intervals.ece_estimate(confidence, correct, scheme=scheme)
        bins = calibration.reliability_bins(confidence, correct, scheme=scheme)
        truth = sum(abs((confidence - chance)[bins.place == b].sum()) for b in range(len(bins.counts))) / n
        if not found.reason:
            given, held = given + 1, held + (found.low <= truth <= found.high)
    # of 120 intervals that hold with 90 %, 96 or fewer do with a probability of 2 in 10,000
    assert given < 60 or held / given > 0.8


@pytest.mark.slow
def test_intervals_of_the_error_hold_where_images_are_measured_in_several_runs():
    rng, held = np.random.default_rng(1), []
    for _ in range(200):
        of_image = rng.uniform(0.1, 0.95, 150)
        confidence = np.repeat(of_image, 4)
        luck = np.repeat(rng.random(150), 4)  # an image is right in all of its runs or in none, mostly
        correct = np.where(rng.random(600) < 0.8, luck, rng.random(600)) < confidence - 0.08
        found = calibration_intervals.ece_estimate(confidence, correct, np.repeat(np.arange(150), 4))
        bins = calibration.reliability_bins(confidence, correct)
        gaps = confidence - np.clip(confidence - 0.08, 0, 1)
        truth = sum(abs(gaps[bins.place == b].sum()) for b in range(len(bins.counts))) / 600
        held.append(bool(found.reason) or found.low <= truth <= found.high)
    assert np.mean(held) > 0.86


@pytest.mark.slow
@pytest.mark.parametrize("apart", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(("n_right", "n_wrong"), [(10, 10), (10, 300), (60, 60)])
def test_intervals_of_the_auroc_hold_the_truth(apart, n_right, n_wrong):
    rng, held, given = np.random.default_rng(3), 0, 0
    truth = stats.norm.cdf(apart / math.sqrt(2))
    verdicts = np.repeat([1, 0], [n_right, n_wrong])
    for _ in range(400):
        scores = stats.norm.cdf(rng.normal(apart * verdicts, 1))
        found = calibration_intervals.auroc_estimate(scores, verdicts)
        if not found.reason:
            given, held = given + 1, held + (found.low <= truth <= found.high)
    assert given > 350
    assert held / given > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("n", [15, 60, 400])
def test_intervals_of_skewed_scores_that_are_given_hold_the_truth(n):
    rng, held, given = np.random.default_rng(4), 0, 0
    for _ in range(400):
        found = calibration_intervals.mean_estimate(rng.exponential(1.0, n), limits=(0, math.inf))
        if not found.reason:
            given, held = given + 1, held + (found.low <= 1 <= found.high)
    assert given < 100 or held / given > 0.88


@pytest.mark.slow
@pytest.mark.parametrize("right", ["a little too sure", "much too sure"])
def test_intervals_hold_the_error_of_all_answers_that_could_have_been_drawn(right):
    def gaps(confidence):
        place = np.minimum((confidence * 15).astype(int), 14)
        return place, confidence - RIGHT[right](confidence)

    rng, held = np.random.default_rng(7), []
    place, gap = gaps(CONFIDENCES["flat"](400_000, rng))
    truth = np.abs(np.bincount(place, weights=gap)).sum() / len(gap)
    for _ in range(120):
        confidence = CONFIDENCES["flat"](600, rng)
        correct = rng.random(600) < RIGHT[right](confidence)
        found = calibration_intervals.ece_estimate(confidence, correct, scheme="width")
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) > 0.86
