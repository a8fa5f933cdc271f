"""Sentences that are computed: bold where the numbers are, hedged where they are not."""

import numpy as np
import polars as pl
import pytest

from helpers.analysis import differences
from ipvit.analysis.columns import COMMON, Column
from ipvit.metrics import holm, mcnemar, paired_proportions
from ipvit.report.findings import Unit, findings, for_page, headline

COLUMNS = {**COMMON, "information_loss": Column(unit="share", level=True)}
POINTS, PLAIN = Unit(1, " points", COLUMNS), Unit(3, "", COLUMNS)


def records(right: dict[tuple[str, float], np.ndarray], runs: int = 1) -> pl.DataFrame:
    """One row per model, level, run and image; the arrays are (images, runs) or (images,)."""
    rows = [
        {
            "model": model,
            "mode": "random",
            "information_loss": level,
            "run": run,
            "image": f"i{image:03d}",
            "label": 1,
            "correct": bool(np.reshape(values, (-1, runs))[image, run]),
        }
        for (model, level), values in right.items()
        for image in range(len(values))
        for run in range(runs)
    ]
    return pl.DataFrame(rows)


def answers(n_right: int, n: int = 100) -> np.ndarray:
    return np.arange(n) < n_right


def compared(right: dict[tuple[str, float], np.ndarray]) -> pl.DataFrame:
    frame = differences(records(right), ("mode", "information_loss"))
    assert frame is not None
    return frame


def test_differences_are_taken_image_by_image_with_corrected_p_values():
    rng = np.random.default_rng(0)
    right = {(m, level): rng.random(80) < 0.9 - level for m in ("a", "b") for level in (0.2, 0.5, 0.8)}
    frame = compared(right)
    assert frame["information_loss"].to_list() == [0.2, 0.5, 0.8] and "mode" not in frame.columns
    expected = [mcnemar(right["a", level], right["b", level]).p_value for level in (0.2, 0.5, 0.8)]
    assert frame["p"].to_list() == pytest.approx(expected)
    assert frame["p_holm"].to_list() == pytest.approx(holm(expected).tolist())
    plain = paired_proportions(right["a", 0.5], right["b", 0.5])
    row = frame.row(1, named=True)
    shown = (row["difference"], row["difference_low"], row["difference_high"])
    assert shown == pytest.approx((100 * plain.difference, 100 * plain.low, 100 * plain.high))


def test_runs_of_one_image_are_averaged_before_models_are_compared():
    rng = np.random.default_rng(1)
    first, second = rng.random((60, 4)) < 0.7, rng.random((60, 4)) < 0.5
    frame = differences(records({("a", 0.5): first, ("b", 0.5): second}, 4), ("information_loss",))
    expected = paired_proportions(first.mean(axis=1), second.mean(axis=1), 4)
    assert frame is not None and frame["n_images"].to_list() == [60]
    assert frame["difference"][0] == pytest.approx(100 * expected.difference)
    assert frame["difference_low"][0] == pytest.approx(100 * expected.low)


def test_images_without_label_and_images_of_one_model_only_do_not_count():
    frame = records({("a", 0.5): answers(40), ("b", 0.5): answers(20)})
    frame = frame.with_columns(label=pl.when(pl.col("image") < "i010").then(-1).otherwise(1))
    frame = frame.filter((pl.col("model") == "a") | (pl.col("image") < "i090"))
    found = differences(frame, ("information_loss",))
    assert found is not None and found["n_images"].to_list() == [80]
    assert found["difference"][0] == pytest.approx(100 * 20 / 80)


def test_what_needs_no_label_is_compared_for_a_network_without_classes_too():
    right = {(m, 0.5): answers(60) for m in ("supervised", "self-supervised")}
    frame = records(right).with_columns(
        pl.when(pl.col("model") == "supervised").then(1).otherwise(-1).alias("label"),
        pl.col("correct").cast(pl.Float64).alias("jaccard"),
    )
    found = differences(frame, ("information_loss",), "jaccard")
    assert found is not None and found["n_images"].to_list() == [100]


def test_with_one_model_there_is_nothing_to_compare():
    assert differences(records({("a", 0.5): answers(40)}), ("information_loss",)) is None
    assert differences(records({("a", 0.5): answers(4)}).drop("correct"), ()) is None


def test_a_clear_difference_is_said_with_its_size_interval_and_p():
    frame = compared({("a", 0.5): answers(80), ("b", 0.5): answers(50)})
    (sentence,) = findings(frame, POINTS)
    assert sentence.startswith("a lies significantly above b, by 30.0 points [") and sentence.endswith("p < 0.001.")
    assert headline(frame, POINTS).startswith("Largest significant difference: a over b by 30.0 points")
    turned = compared({("b", 0.5): answers(50), ("a", 0.5): answers(80)})
    assert findings(turned, POINTS) == [sentence], "whichever model comes first"


def test_a_small_difference_is_hedged():
    frame = compared({("a", 0.5): answers(52), ("b", 0.5): answers(50)})
    (sentence,) = findings(frame, POINTS)
    assert sentence.startswith("a and b do not differ significantly (the difference is 2.0 points [")
    assert "p = 0.500" in sentence
    assert headline(frame, POINTS).startswith("No significant difference between the models; the largest is a over b")


def test_both_directions_and_the_rest_are_counted():
    right = {("a", 0.0): answers(90), ("b", 0.0): answers(91), ("a", 0.5): answers(70), ("b", 0.5): answers(30)}
    right |= {("a", 0.9): answers(5), ("b", 0.9): answers(35)}
    (sentence,) = findings(compared(right), POINTS)
    assert "a lies significantly above b in 1 of 3 conditions, by up to 40.0 points" in sentence
    assert "at information loss 50 %" in sentence
    assert "b lies significantly above a in 1 of 3 conditions, by up to 30.0 points" in sentence
    assert sentence.endswith("in the other 1 the difference is not significant.")
    assert headline(compared(right), POINTS).endswith("2 of 3 comparisons are significant.")


def test_a_difference_that_only_many_comparisons_make_is_not_called_significant():
    """Six images alone: p = 0.03 for one comparison, 0.3 among ten."""
    one = {("a", 0.5): answers(56), ("b", 0.5): answers(50)}
    assert "lies significantly above" in findings(compared(one), POINTS)[0]
    many = {(m, level / 10): answers(50 + 6 * (m == "a" and level == 5)) for m in ("a", "b") for level in range(10)}
    assert "do not differ significantly in any of the 10 conditions" in findings(compared(many), POINTS)[0]


def test_many_models_are_compared_with_the_first_and_sorted_into_groups():
    right = {(f"m{i:02d}", 0.5): answers(50 if i % 2 else 80 - (i == 0) * 30) for i in range(14)}
    sentences = findings(compared(right), POINTS)
    assert sentences == [
        "Significantly above m00 in at least one condition, and in none below: m02, m04, m06, m08, m10, m12.",
        "Not significantly different from m00 in any condition: m01, m03, m05, m07, m09, m11, m13.",
    ]


def test_other_quantities_have_their_own_unit():
    rng = np.random.default_rng(2)
    frame = pl.DataFrame(
        {
            "model": ["a"] * 40 + ["b"] * 40,
            "image": [f"i{i}" for i in range(40)] * 2,
            "correlation": np.concatenate([rng.normal(0.8, 0.1, 40), rng.normal(0.5, 0.1, 40)]),
        }
    )
    found = differences(frame, (), "correlation")
    assert found is not None
    assert findings(found, PLAIN)[0].startswith("a lies significantly above b, by 0.")
    assert "points" not in findings(found, PLAIN)[0]


def test_the_table_on_the_page_has_signs_and_says_what_is_significant():
    right = {("a", 0.0): answers(90), ("b", 0.0): answers(91), ("a", 0.5): answers(30), ("b", 0.5): answers(70)}
    rows = for_page(compared(right), POINTS).to_dicts()
    assert [row["significant"] for row in rows] == ["no", "yes"]
    assert rows[0]["A − B"].startswith("-1.0 [") and rows[1]["A − B"].startswith("-40.0 [")
    assert rows[1]["p"] == "< 0.001" and rows[0]["information loss"] == "0 %" and rows[0]["images"] == "100"
