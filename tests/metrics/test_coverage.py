"""Every kind of interval that stands in a table covers the truth about nineteen times in twenty: by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import scipy.stats
import torch

import ipvit
from helpers.analysis import tables_of
from helpers.tiny import tiny_model
from ipvit.analysis.aggregate import accuracy_table, paired_differences
from ipvit.analysis.reduction import values_of
from ipvit.data.dataset import MemoryDataset
from ipvit.experiments.shared_masks import with_shared_masks
from ipvit.metrics import (
    accuracy_interval,
    clustered_interval,
    clustered_mean_interval,
    corrected_interval,
    episode_interval,
    mean_interval,
    paired_means,
    paired_proportions,
    resampled_means,
    sign_flip_test,
    wilson,
)
from ipvit.metrics.crossed import crossed_interval

Rng = np.random.Generator
CLASSES = [f"c{i}" for i in range(4)]
Interval = tuple[float, float]


def coverage(draw: Callable[[Rng], Interval], truth: float, trials: int = 1000, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    ends = [draw(rng) for _ in range(trials)]
    return sum(low <= truth <= high for low, high in ends) / trials


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def normal_mean(f: Callable[[np.ndarray], np.ndarray]) -> float:
    """The mean of a function of a standard normal variable."""
    grid = np.linspace(-8, 8, 4001)
    weight = np.exp(-(grid**2) / 2)
    return float((weight * f(grid)).sum() / weight.sum())


@pytest.mark.parametrize(("n", "rate"), [(20, 0.5), (50, 0.9), (200, 0.97), (270, 0.911), (1000, 0.02), (50_000, 0.7)])
def test_accuracy_of_one_run(n, rate):
    found = coverage(lambda rng: wilson(int(rng.binomial(n, rate)), n), rate, trials=4000)
    assert 0.935 <= found <= 0.975


def test_accuracy_of_one_run_on_average_over_accuracies():
    """At single accuracies near 0 or 1 counts are few and coverage jumps (to 91 %); on average it is as promised."""
    rng = np.random.default_rng(0)
    rates = rng.random(4000)
    inside = [low <= rate <= high for rate in rates for low, high in [wilson(int(rng.binomial(50, rate)), 50)]]
    assert 0.94 <= np.mean(inside) <= 0.965


@pytest.mark.parametrize(("n", "runs", "skill", "spread"), [(100, 5, 0, 2), (200, 3, 3, 1), (60, 5, -2, 3)])
def test_accuracy_of_several_runs_on_the_same_images(n, runs, skill, spread):
    truth = normal_mean(lambda z: logistic(skill + spread * z))

    def draw(rng: Rng) -> Interval:
        chance = logistic(skill + spread * rng.normal(size=n))
        return accuracy_interval(rng.binomial(runs, chance) / runs, runs)

    assert 0.94 <= coverage(draw, truth) <= 0.995


@pytest.mark.parametrize(
    ("masks", "runs", "skill", "effect"),
    [(4, 1, 0, 0.5), (20, 1, 0, 0.5), (20, 5, 0, 0.5), (60, 1, 2, 0.5), (8, 1, 4, 0.3)],
)
def test_accuracy_where_images_share_a_mask(masks, runs, skill, effect):
    """The authors' one mask per batch: images under it are right or wrong together."""
    size = 64
    spread = math.hypot(1, effect)
    truth = normal_mean(lambda z: logistic(skill + spread * z))
    owner = np.repeat(np.arange(masks), size)

    def right(rng: Rng) -> np.ndarray:
        difficulty = rng.normal(size=(masks, size))
        chances = [logistic(skill + difficulty + effect * rng.normal(size=(masks, 1))) for _ in range(runs)]
        return sum(rng.random((masks, size)) < chance for chance in chances).ravel() / runs  # pyright: ignore[reportAttributeAccessIssue]

    assert 0.93 <= coverage(lambda rng: clustered_interval(right(rng), owner, runs), truth) <= 0.985
    if effect == 0.5:
        assert coverage(lambda rng: accuracy_interval(right(rng), runs), truth, trials=300) < 0.85


def test_the_difference_of_two_models_where_images_share_a_mask():
    masks, size = 20, 64
    owner = np.repeat(np.arange(masks), size)

    def pair(rng: Rng) -> np.ndarray:
        difficulty, effect = rng.normal(size=(masks, size)), rng.normal(size=(2, masks, 1))
        return np.stack([rng.random((masks, size)) < logistic(difficulty + e) for e in effect]).reshape(2, -1) * 1.0

    assert 0.92 <= coverage(lambda rng: clustered_mean_interval(np.subtract(*pair(rng)), owner), 0.0) <= 0.98
    rng = np.random.default_rng(1)
    p = [sign_flip_test(*(np.bincount(owner, weights=one) for one in pair(rng))) for _ in range(400)]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.075, "the test is wrong as often as it says"


@pytest.mark.parametrize(
    ("n", "shape", "texture"), [(1200, 0.18, 0.62), (1200, 0.01, 0.3), (100, 0.3, 0.1), (60, 0.05, 0.4)]
)
def test_shape_bias_a_ratio_whose_denominator_is_random_too(n, shape, texture):
    def draw(rng: Rng) -> Interval:
        by_shape, by_texture, _ = rng.multinomial(n, [shape, texture, 1 - shape - texture])
        return wilson(int(by_shape), int(by_shape + by_texture))

    assert 0.935 <= coverage(draw, shape / (shape + texture), trials=3000) <= 0.975


@pytest.mark.parametrize("n", [5, 20, 50, 200, 1449])
def test_jaccard_indices_of_which_many_are_zero(n):
    def draw(rng: Rng) -> Interval:
        return mean_interval(rng.beta(0.7, 1.5, n) * (rng.random(n) < 0.8), limits=(0, 1))

    assert 0.935 <= coverage(draw, 0.8 * 0.7 / 2.2, trials=2000) <= 0.975


@pytest.mark.parametrize("n", [5, 20, 200])
def test_distances_that_are_never_below_zero(n):
    def draw(rng: Rng) -> Interval:
        return mean_interval(rng.gamma(2, 10, n), limits=(0, math.inf))

    assert 0.93 <= coverage(draw, 20, trials=2000) <= 0.965


@pytest.mark.parametrize(("n", "least"), [(5, 0.9), (10, 0.94), (60, 0.94)])
def test_differences_of_which_each_is_a_step_or_none(n, least):
    """As of two shape biases, image by image."""

    def draw(rng: Rng) -> Interval:
        return mean_interval(rng.choice([-1.0, 0.0, 1.0], n, p=[0.05, 0.35, 0.6]), limits=(-1, 1))

    assert least <= coverage(draw, 0.55, trials=2000) <= 0.985


@pytest.mark.parametrize("limits", [(-1.0, 1.0), (-1.0, math.inf), (-math.inf, 1.0)])
def test_an_interval_stays_within_the_limits_and_is_students_t_far_from_them(limits):
    rng = np.random.default_rng(1)
    for n in (2, 3, 5):
        low, high = mean_interval(rng.uniform(-1, 1, n), limits=limits)
        assert limits[0] <= low < high <= limits[1]
    many = rng.normal(0, 0.01, 400)
    assert mean_interval(many, limits=limits) == pytest.approx(mean_interval(many), abs=2e-5)
    assert np.isnan(mean_interval([0.5, 0.5, 0.5], limits=limits)).all(), "equal values do not say how others vary"
    assert np.isnan(mean_interval([1.0, 1.0], limits=(-1, 1))).all()


@pytest.mark.parametrize(("n", "least"), [(5, 0.88), (20, 0.895), (50, 0.91), (200, 0.93), (1000, 0.935)])
def test_correlations_that_crowd_below_one(n, least):
    """A very skewed quantity: still too narrow on a few dozen images, where Student's t alone is 80 % of 5 images."""
    truth = 1 - 0.1**1.5 * math.gamma(2.5)
    found = coverage(lambda rng: mean_interval(1 - rng.exponential(0.1, n) ** 1.5, limits=(-1, 1)), truth, trials=2000)
    assert least <= found <= 0.965


@pytest.mark.parametrize(
    ("episodes", "queries", "a", "b"),
    [(600, 75, 8, 4), (600, 75, 20, 0.4), (600, 10, 30, 0.6), (100, 75, 2, 2), (20, 25, 20, 1), (20, 5, 40, 0.3)],
)
def test_few_shot_accuracy_over_episodes(episodes, queries, a, b):
    truth = a / (a + b)

    def accuracies(rng: Rng) -> np.ndarray:
        return rng.binomial(queries, rng.beta(a, b, episodes)) / queries

    assert coverage(lambda rng: episode_interval(accuracies(rng), queries), truth, trials=1500) >= 0.925
    if (episodes, queries) == (20, 5):
        assert coverage(lambda rng: mean_interval(accuracies(rng)), truth, trials=300) < 0.6, "Student's t alone"


def test_an_interval_over_episodes_is_students_t_where_there_are_many_and_never_leaves_the_scale():
    rng = np.random.default_rng(0)
    many = rng.binomial(75, rng.beta(8, 4, 600)) / 75
    assert episode_interval(many, 75) == pytest.approx(mean_interval(many))
    low, high = episode_interval([1.0, 1.0, 1.0, 0.2], 5)
    assert low >= 0 and high == 1
    assert mean_interval([1.0, 1.0, 1.0, 0.2])[1] > 1
    assert all(math.isnan(end) for end in episode_interval([], 5))
    assert episode_interval([0.4], 5) == wilson(2, 5)


def test_the_gain_of_one_head_over_another_where_few_images_tell():
    truth = normal_mean(lambda z: logistic(4 + z) - logistic(3.5 + z))

    def draw(rng: Rng) -> Interval:
        difficulty = rng.normal(size=80)
        found = paired_proportions(*(rng.random(80) < logistic(skill + difficulty) for skill in (4, 3.5)))
        return found.low, found.high

    assert 0.94 <= coverage(draw, truth) <= 0.995


def test_the_difference_of_two_means_on_the_same_images():
    def draw(rng: Rng) -> Interval:
        shared = rng.normal(size=40)
        found = paired_means(0.3 + shared + rng.normal(size=40), shared + rng.normal(size=40) ** 3)
        return found.low, found.high

    assert 0.925 <= coverage(draw, 0.3) <= 0.98


CELLS = 15
HARDER = np.linspace(-1.5, 1.5, CELLS)
ALEXNET = np.linspace(0.6, 0.9, CELLS)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "skill", "spread"), [(20, -3, 1), (50, -5, 2), (200, -3, 1), (50, 0, 1)])
def test_corruption_errors_whose_images_are_drawn_anew(n, skill, spread):
    """Mean error, mCE and a single CE: also of a network that is hardly ever wrong, on few photos."""
    chance = np.array([normal_mean(lambda z, h=h: logistic(skill + h + spread * z)) for h in HARDER])
    truths = [chance.mean(), (chance / ALEXNET).mean(), chance[7]]
    rng = np.random.default_rng(0)
    trials, inside, plain = 400, np.zeros(3), 0
    for seed in range(trials):
        hard = logistic(skill + HARDER + spread * rng.normal(size=(n, 1)))
        wrong = rng.random((n, CELLS)) < hard
        for with_pseudo_counts in (True, False):
            means = resampled_means(wrong, 300, seed, with_pseudo_counts=with_pseudo_counts)
            for i, samples in enumerate((means.mean(1), (means / ALEXNET).mean(1), means[:, 7])):
                low, high = np.quantile(samples, (0.025, 0.975))
                inside[i] += with_pseudo_counts and low <= truths[i] <= high
                plain += not with_pseudo_counts and i == 2 and low <= truths[i] <= high
    assert (inside / trials >= 0.925).all(), inside / trials
    if skill == -5:
        assert plain / trials < 0.85, "a plain bootstrap is too sure"


@pytest.mark.slow
@pytest.mark.parametrize(("n", "skills"), [(50, (1, 0)), (50, (0, 1)), (200, (-2, -1))])
def test_corruption_errors_that_are_differences_or_divided_by_another_networks(n, skills):
    """Relative mCE, and errors over those of a second network on the same photos."""
    harder = np.concatenate([HARDER, [-2.0]])  # the last is the clean image
    chance, other = (
        np.array([normal_mean(lambda z, total=skill + h: logistic(total + z)) for h in harder]) for skill in skills
    )
    added = ALEXNET - 0.43
    truths = [((chance[:-1] - chance[-1]) / added).mean(), (chance[:-1] / other[:-1]).mean()]
    rng = np.random.default_rng(0)
    trials, inside, known = 300, np.zeros(2), np.zeros(2)
    for seed in range(trials):
        difficulty = rng.normal(size=(n, 1))
        wrong, theirs = (rng.random((n, CELLS + 1)) < logistic(skill + harder + difficulty) for skill in skills)
        with_pseudo_counts = resampled_means(wrong, 300, seed, with_pseudo_counts=True)
        ours, beside = (resampled_means(table, 300, seed)[:, :-1] for table in (wrong, theirs))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios, ratio = (ours / beside).mean(1), (wrong.mean(0)[:-1] / theirs.mean(0)[:-1]).mean()
        differences = ((with_pseudo_counts[:, :-1] - with_pseudo_counts[:, -1:]) / added).mean(1)
        ends = [tuple(np.quantile(differences, (0.025, 0.975))), corrected_interval(ratios, float(ratio))]
        inside += [low <= truth <= high for (low, high), truth in zip(ends, truths, strict=True)]
        known += [not math.isnan(low) for low, _ in ends]
    assert (known > 0.9 * trials).all() and (inside / known >= 0.915).all(), inside / known


def test_a_network_without_a_mistake_has_an_interval_all_the_same():
    rows = [
        {
            "image": f"{i}",
            "model": "m",
            "weights": "w",
            "corruption": name,
            "severity": severity,
            "made": made,
            "frost": "",
            "imagenet": True,
            "correct": True,
            "correct5": True,
            "label": 0,
        }
        for i in range(40)
        for name, severity, made in (("clean", 0, ""), ("fog", 1, "here"), ("fog", 5, "here"))
    ]
    row = tables_of(ipvit.Corruptions(), pl.DataFrame(rows))["corruptions-ce"].row(0, named=True)
    assert row["mean_error"] == row["mean_error_low"] == 0 and 3 < row["mean_error_high"] < 12


def shared_mask_records(masks: int, size: int = 16, models: tuple[str, ...] = ("a", "b"), known: bool = True):
    rng = np.random.default_rng(0)
    n = masks * size
    effect = np.repeat(rng.normal(size=masks), size)
    frames = [
        pl.DataFrame(
            {
                "image": [f"{i}" for i in range(n)],
                "label": np.zeros(n, np.int32),
                "run": np.zeros(n, np.int32),
                "mask_scope": ["batch"] * n,
                "correct": rng.random(n) < logistic(skill + effect),
                "shared_mask": (np.arange(n) // size).astype(np.int32),
            }
        ).with_columns(pl.lit(name).alias("model"))
        for skill, name in zip((0.0, 0.4), models, strict=False)
    ]
    whole = pl.concat(frames)
    return whole if known else whole.drop("shared_mask")


def compared(records: pl.DataFrame) -> pl.DataFrame:
    parts = records.group_by(["model"], maintain_order=True)
    found = paired_differences({model: values_of(part, [], "correct", proportions=True) for (model,), part in parts})
    assert found is not None
    return found


def test_tables_take_the_images_of_one_mask_together():
    records = shared_mask_records(12)
    table = accuracy_table(records, ["model"], {"correct": "top1"})
    for row in table.iter_rows(named=True):
        mine = records.filter(model=row["model"])
        low, high = clustered_interval(mine["correct"].cast(float).to_numpy(), mine["shared_mask"].to_numpy())
        assert (row["top1_low"], row["top1_high"]) == pytest.approx((100 * low, 100 * high))
        independent = wilson(mine["correct"].sum(), mine.height)
        assert high - low > 1.2 * (independent[1] - independent[0])
    (pair,) = compared(records).iter_rows(named=True)
    one, other = (records.filter(model=name)["correct"].cast(float).to_numpy() for name in "ab")
    owner = records.filter(model="a")["shared_mask"].to_numpy()
    low, high = clustered_mean_interval(one - other, owner)
    assert (pair["difference_low"], pair["difference_high"]) == pytest.approx((100 * low, 100 * high))
    assert pair["p"] == pytest.approx(sign_flip_test(*(np.bincount(owner, weights=x) for x in (one, other))))


def test_records_say_which_images_share_a_mask_and_the_report_has_wider_intervals(tmp_path):
    data = MemoryDataset(torch.randint(0, 256, (520, 3, 16, 16), dtype=torch.uint8), np.arange(520) % 4, CLASSES)
    models, found = [tiny_model(name="one"), tiny_model(1, name="two")], {}
    for scope in ("image", "batch"):
        experiment = ipvit.Occlusion(grid="4x4", levels=(0, 0.5), runs=2, mask_scope=scope)
        run = ipvit.run(
            experiment, models=models, data=data, out=tmp_path / scope, workers=0, progress=False, batch_size=200
        )
        found[scope] = run.tables["occlusion"].filter(information_loss=0.5).row(0, named=True)
        records = run.records("occlusion").filter(model="one")
    (pair,) = run.differences["occlusion"].filter(information_loss=0.5).iter_rows(named=True)
    assert math.isfinite(pair["difference_low"]) and 0 < pair["p"] <= 1
    number = records.sort("image")["image"].cast(pl.String).str.extract(r"(\d+)").cast(pl.Int32) // 256
    assert records.sort("image")["shared_mask"].equals(number.alias("shared_mask")), "256 images each, as the authors'"
    drawn = records.filter(information_loss=0.5)
    per_image = drawn.group_by("image", maintain_order=True).agg(
        pl.col("correct").mean(), pl.col("shared_mask").first()
    )
    low, high = clustered_interval(per_image["correct"].to_numpy(), per_image["shared_mask"].to_numpy(), 2)
    row = found["batch"]
    assert (row["top1_low"], row["top1_high"]) == pytest.approx((100 * low, 100 * high))
    assert row["top1_high"] - row["top1_low"] > found["image"]["top1_high"] - found["image"]["top1_low"]


@pytest.mark.parametrize("records", [shared_mask_records(1), shared_mask_records(12, known=False)])
def test_a_single_mask_or_an_unknown_one_gives_no_interval(records):
    records = with_shared_masks(records)
    row = accuracy_table(records, ["model"], {"correct": "top1"}).row(0, named=True)
    assert math.isnan(row["top1_low"]) and math.isnan(row["top1_high"]) and 0 < row["top1"] < 100
    (pair,) = compared(records).iter_rows(named=True)
    assert math.isnan(pair["difference_low"]) and math.isnan(pair["p"])


def test_clusters_of_equal_size_are_their_means():
    values = np.random.default_rng(1).normal(size=(9, 7))
    expected = scipy.stats.t.interval(0.95, 8, values.mean(), scipy.stats.sem(values.mean(axis=1)))
    assert clustered_mean_interval(values.ravel(), np.repeat(np.arange(9), 7)) == pytest.approx(expected)


def test_clusters_of_one_image_are_images():
    values = np.random.default_rng(0).normal(size=30)
    assert clustered_mean_interval(values, np.arange(30)) == pytest.approx(mean_interval(values))
    assert clustered_mean_interval(np.append(values, math.nan), np.arange(31)) == pytest.approx(mean_interval(values))
    with pytest.raises(ValueError, match="its cluster"):
        clustered_interval([1, 0], ["a"])
    assert clustered_interval([1.0] * 9, [0, 1, 2] * 3) == wilson(9, 9)


@pytest.mark.parametrize(("n", "patches", "between"), [(200, 5, 0.7), (200, 5, 0.0), (200, 2, 0.7), (600, 5, 1.0)])
def test_accuracy_where_all_images_of_a_run_share_one_patch(n, patches, between):
    rng = np.random.default_rng(7)
    skills = rng.normal(size=(1500, 1)) * 1.5 + between * rng.normal(size=(1, 1500))
    truth = float((1 / (1 + np.exp(-skills))).mean())
    images, shared = np.repeat(np.arange(n), patches), np.tile(np.arange(patches), n)

    def right(rng: Rng) -> np.ndarray:
        skill = 1.5 * rng.normal(size=(n, 1)) + between * rng.normal(size=(1, patches))
        return rng.random((n, patches)) < 1 / (1 + np.exp(-skill))

    found = coverage(lambda rng: crossed_interval(right(rng).ravel(), images, shared), truth, trials=400)
    assert found >= 0.92
    if between:
        assert coverage(lambda rng: accuracy_interval(right(rng).mean(axis=1), patches), truth, trials=200) < 0.8


def test_with_one_patch_nothing_can_be_said_of_others():
    assert np.isnan(crossed_interval([1, 0, 1], [0, 1, 2], [0, 0, 0])).all()
