"""Sentences of edge cases, held against their tables: what they say is there, and a tie is told as a tie."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

import ipvit
from helpers.by_hand import Made, attacked, corners, corrupted, made_of, occluded, right, shuffled
from ipvit.analysis.answers import Fall, told
from ipvit.analysis.columns import Column
from ipvit.analysis.sentences import interval
from ipvit.report.findings import headlines, unit_of
from ipvit.report.tables.cells import side_by_side

POSITION, OCCLUSION, SHUFFLE = ipvit.Position(), ipvit.Occlusion(), ipvit.Shuffle()
FOUR = ("top_left", "top_right", "bottom_left", "bottom_right")


def in_corners(n: int, of: int = 60) -> dict[str, list[bool | None]]:
    return {name: right(n, of) for name in FOUR}


def numbers_in(tables: dict[str, pl.DataFrame]) -> list[float]:
    found: list[float] = []
    for table in tables.values():
        for name, kind in table.schema.items():
            if kind.is_numeric():
                found += [float(value) for value in table[name].drop_nulls().to_list()]
    return found


def held_against(made: Made) -> None:
    """Every percentage that is followed by a sign or an interval is a number of the tables, as it is rounded there."""
    known = numbers_in(made.tables)
    if made.differences is not None:
        known += numbers_in({"": made.differences})
    known += [100 * value for value in known if 0 <= value <= 1]
    means = [
        float(np.mean(part["top1"].to_numpy()))
        for name in ("place", "corruption")
        if name in made.table.columns
        for _, part in made.table.filter(pl.col(name) != "whole image", pl.col(name) != "clean").group_by("model")
    ]
    for sentence in made.said:
        for text in re.findall(r"(\d+(?:\.\d+)?) ?%", sentence):
            digits = len(text.partition(".")[2])
            assert any(f"{abs(value):.{digits}f}" == text for value in (*known, *means)), (text, sentence)


# fmt: off
# ruff: noqa: E501
CASES = {
    "two equal models": (POSITION, {m: corners(right(57), **in_corners(6)) for m in ("a", "b")}),
    "one at chance": (POSITION, {"a": corners(right(57), **in_corners(6)), "b": corners(right(6), **in_corners(5))}),
    "three images": (POSITION, {m: corners(right(3, 3), **in_corners(n, 3)) for m, n in (("a", 0), ("b", 2))}),
    "all wrong": (POSITION, {"a": corners(right(0), **in_corners(0)), "b": corners(right(60), **in_corners(60))}),
    "nothing lost": (POSITION, {"a": corners(right(60), **in_corners(60))}),
    "one model": (OCCLUSION, {"a": occluded(l0=right(58), l50=right(30), l90=right(8))}),
    "one level": (OCCLUSION, {"a": occluded(l0=right(58), l30=right(50)), "b": occluded(l0=right(58), l30=right(20))}),
    "no clean level": (OCCLUSION, {"a": occluded(l50=right(30)), "b": occluded(l50=right(10))}),
    "other levels": (OCCLUSION, {"a": occluded(l0=right(58), l50=right(9)), "b": occluded(l0=right(58), l40=right(3))}),
    "of the mass": (OCCLUSION, {"a": occluded("salient", 0.1, l0=right(58), l50=right(30))}),
    "a rise": (OCCLUSION, {"a": occluded(l0=right(20), l50=right(50))}),
    "within the error": (OCCLUSION, {"a": occluded(l0=right(57), l50=right(56))}),
    "nobody knows chance": (OCCLUSION, {"a": occluded(l0=right(58), l50=right(30))}),
    "one missing grid": (SHUFFLE, {"a": shuffled(right(58), g2x2=right(30), g4x4=right(6)), "b": shuffled(right(58), g2x2=right(9))}),
    "grids in common none": (SHUFFLE, {"a": shuffled(right(58), g2x2=right(30)), "b": shuffled(right(58), g4x4=right(9))}),
    "eight models": (SHUFFLE, {f"m{n}": shuffled(right(58), g2x2=right(6 * n)) for n in range(8)}),
    "one corruption": (ipvit.Corruptions(), {m: corrupted(right(58), fog_1=right(40), fog_3=right(n)) for m, n in (("a", 20), ("b", 30))}),
    "one attack failed": (ipvit.Attack(), {"a": attacked(right(58), fgsm_4=right(20), pgd_4=right(0)), "b": attacked(right(58), pgd_4=right(0))}),
    "random noise": (ipvit.Attack(), {"a": attacked(right(58), random_4=right(58), pgd_4=right(0))}),
    "only clean": (POSITION, {"a": corners(right(57))}),
}
# fmt: on


@pytest.fixture(scope="module")
def made() -> dict[str, Made]:
    return {
        name: made_of(experiment, cells, 0 if name == "nobody knows chance" else 10)
        for name, (experiment, cells) in CASES.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_is_what_the_tables_say(made, name):
    held_against(made[name])


@pytest.mark.parametrize("name", CASES)
def test_no_change_goes_from_a_number_to_the_same(made, name):
    for sentence in made[name].said:
        for start, end in re.findall(r"from (\d[\d.]*) % to (\d[\d.]*) %", sentence):
            assert start != end, sentence
        assert "nan" not in sentence.lower() and "None" not in sentence, sentence


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "two equal models": "Both fall from 95 % to 10 % when the image is shrunk into a corner (guessing gives 10 %).",
        "one at chance": "When the image is shrunk into a corner, a falls from 95 % to 10 % (guessing gives 10 %); b is "
        "not above chance (10 %) on images as they are (10 %): what it loses when the image is shrunk into a corner says "
        "nothing.",
        "all wrong": "When the image is shrunk into a corner, b stays at 100 %; a is not above chance (10 %) on images as "
        "they are (0 %): what it loses when the image is shrunk into a corner says nothing.",
        "nothing lost": "a stays at 100.0 % when the image is shrunk into a corner.",
        "no clean level": "With 50 % of the patches dropped at random, a is at 50 %, b at 17 %.",
        "within the error": "a is at 95.0 % and then 93.3 %, within its error, with 50 % of the patches dropped at random: it "
        "retains 98.0 % [92.7, 103.6] of its accuracy above chance. "
        "Retained of the accuracy above chance, as the area under the curve over information losses of 0 % to 50 %: a 99 % "
        "[95, 103].",
        "only clean": "",
    }.items(),
)
def test_the_first_sentence_answers(made, name, expected):
    assert made[name].lead == expected


def test_what_is_a_share_of_the_salience_mass_is_not_told_as_one_of_the_image(made):
    lead = made["of the mass"].lead
    assert "the most salient patches dropped that hold 50 % of the salience mass" in lead
    assert "to 50.0 % (10 % of the image)" in lead
    assert made["of the mass"].table["of"].to_list() == ["salience mass"] * 2
    assert "of" not in made["one model"].table.columns


def test_levels_that_were_not_shared_are_each_named(made):
    lead = made["other levels"].lead
    assert "With 50 % of the patches dropped at random, a" in lead or "a falls" in lead.split("40 %")[0]
    assert "50 % of the patches" in lead and "40 % of the patches" in lead
    assert "over information losses of 0 % to 50 %: a" in lead and "over information losses of 0 % to 40 %: b" in lead


def test_a_model_without_the_hardest_grid_is_compared_at_the_one_of_both(made):
    assert made["one missing grid"].lead.startswith("When 2x2 cells of the image change places")
    assert "2x2" in made["grids in common none"].lead and "4x4" in made["grids in common none"].lead


def test_of_many_models_the_ends_are_named(made):
    lead = made["eight models"].lead
    assert "8 models fall to between 0 % (m0) and 70 % (m7)" in lead


def test_a_single_corruption_is_called_by_its_name(made):
    assert "under fog at severities 1 and 3 on average" in made["one corruption"].lead.lower()
    grid = side_by_side(made["one corruption"].table, made["one corruption"].analysis.columns)
    assert grid is not None and grid.level == "severity of fog"


def test_an_attack_that_has_no_result_is_no_attack_that_leaves_something(made):
    of_b = next(sentence for sentence in made["one attack failed"].said if sentence.startswith("b: of"))
    assert of_b == "b: of 96.7 % top-1, FGSM has no result; PGD leaves 0.0 % (ε = 4/255)."
    assert "b has no result under FGSM" in made["one attack failed"].lead


def test_what_is_corrected_and_what_is_not_is_said(made):
    several = made["one missing grid"]
    assert several.differences is not None and several.differences.height == 2
    (largest, *_) = headlines(several.differences, unit_of(several.analysis))
    assert re.search(r"points \[[^]]*\] uncorrected, p (=|<) [\d.]+ corrected", largest)
    (_, row) = several.differences.sort("cells").to_dicts()
    assert row["p_holm"] >= row["p"]


def test_a_better_model_that_loses_as_much_is_not_said_to_lose_less():
    """90 % and 60 % fall by 30 points each: A is better everywhere, and loses as much."""
    cells = {"a": occluded(l0=right(54), l50=right(36)), "b": occluded(l0=right(36), l50=right(18))}
    made = made_of(OCCLUSION, cells)
    assert made.differences is not None
    accuracy, lost, kept = headlines(made.differences, unit_of(made.analysis))
    assert accuracy.startswith("Largest significant difference: a over b by 30.0 points")
    assert re.fullmatch(r"Accuracy lost: no difference between the models: 0\.0 points \[-.*, .*\], p = 1\.000\.", lost)
    assert kept.startswith("Accuracy above chance retained")


def test_models_that_answer_alike_are_not_put_in_an_order():
    cells = {name: occluded(l0=right(54), l50=right(36), l90=right(10)) for name in "ab"}
    made = made_of(OCCLUSION, cells)
    assert made.differences is not None
    for said in headlines(made.differences, unit_of(made.analysis)):
        assert "o difference between the models in any of" in said and " over " not in said and "more than" not in said


def test_what_a_model_loses_that_only_guesses_is_no_finding():
    cells = {"a": occluded(l0=right(57), l50=right(9)), "guesses": occluded(l0=right(6), l50=right(5))}
    made = made_of(OCCLUSION, cells)
    assert made.differences is not None
    assert len(headlines(made.differences, unit_of(made.analysis))) == 1


def test_models_that_only_guess_are_told_together_and_of_few_images_nothing_is_claimed():
    cells = {"a": occluded(l0=right(57), l50=right(9))} | {name: occluded(l0=right(6), l50=right(5)) for name in "bc"}
    lead = made_of(OCCLUSION, cells).lead
    assert "b and c cannot be told from guessing (10 %) on images as they are: what they lose with 50 %" in lead
    assert told([Fall("a", 100.0, 0.0, above_chance=False, chance=25.0)], "here") == (
        "a cannot be told from guessing (25 %) on images as they are (100 %): what it loses here says nothing."
    )
    assert interval(-0.01, 0.2, 1) == "[0.0, 0.2]"
    assert Column(digits=2).number(-0.004) == "0.00" and Column().number(-1e-9) == "0.000"


def test_a_model_that_loses_more_is_named_as_the_one_that_does():
    cells = {"a": occluded(l0=right(57), l50=right(50)), "b": occluded(l0=right(57), l50=right(9))}
    made = made_of(OCCLUSION, cells)
    assert made.differences is not None
    _, lost, kept = headlines(made.differences, unit_of(made.analysis))
    assert "b loses more than a, by 68.3 points" in lost
    assert "a retains more than b" in kept


def test_blocks_and_stages_are_not_compared():
    def dropped(*blocks: int, layers: str) -> list:
        clean = {"block": -1, "rate": 0.0, "run": 0, "mask_scope": "", "layers": layers}
        rows = [(clean, right(58))]
        return rows + [(clean | {"block": b, "rate": 0.5, "mask_scope": "image"}, right(20)) for b in blocks]

    cells = {"cnn": dropped(0, 4, layers="5 stages"), "vit": dropped(0, 4, layers="6 blocks")}
    made = made_of(ipvit.FeatureDrop(), cells)
    assert made.differences is None
    assert [found.ranks for found in made.profile] == [{}]
    alike = made_of(ipvit.FeatureDrop(), {"a": cells["vit"], "b": cells["vit"]})
    assert alike.differences is not None


def test_corruptions_at_two_sizes_are_not_compared():
    cells = {m: corrupted(right(58), fog_1=right(n)) for m, n in (("a", 20), ("b", 30))}
    assert made_of(ipvit.Corruptions(), cells, sizes={"a": 96, "b": 224}).differences is None
    assert made_of(ipvit.Corruptions(), cells, sizes={"a": 96, "b": 96}).differences is not None
    files = {m: corrupted(right(58), "ImageNet-C files", fog_1=right(n)) for m, n in (("a", 20), ("b", 30))}
    assert made_of(ipvit.Corruptions(), files, sizes={"a": 96, "b": 224}).differences is not None
