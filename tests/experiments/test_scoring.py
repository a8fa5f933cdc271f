"""The columns of a classification record, against the probabilities of single images."""

import math

import polars as pl
import pytest
import torch

import ipvit
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.experiments import scoring
from ipvit.experiments.base import Condition
from ipvit.experiments.scoring import Answered, score_each, score_logits
from ipvit.metrics.temperature import SCALED, sum_column

LOGITS = torch.randn(12, 7, generator=torch.Generator().manual_seed(0)) * 6


def test_logarithm_of_the_label_is_finite_where_its_probability_is_not_a_float():
    found = score_logits(torch.tensor([[0.0, 200.0]]), torch.tensor([0]))
    assert found["label_probability"].item() == 0
    assert found["label_log_probability"].item() == pytest.approx(-200)


def test_squares_and_logarithms_are_those_of_each_image_by_itself():
    labels = torch.arange(12) % 7
    found = score_logits(LOGITS, labels)
    for row in range(12):
        p = LOGITS[row].double().softmax(0)
        assert found["probability_squares"][row] == pytest.approx(float((p**2).sum()), abs=1e-6)
        assert found["label_log_probability"][row] == pytest.approx(math.log(p[labels[row]]), abs=1e-4)


def test_several_right_answers_count_as_one():
    right = torch.zeros(12, 7, dtype=torch.bool)
    right[:, [1, 4]] = True
    found = score_logits(LOGITS, right, clean=True)
    for row in range(12):
        p = LOGITS[row].double().softmax(0)
        of_right = p[1] + p[4]
        others = sum(p[k] ** 2 for k in range(7) if k not in (1, 4))
        assert found["label_log_probability"][row] == pytest.approx(math.log(of_right), abs=1e-4)
        assert found["probability_squares"][row] == pytest.approx(float(others + of_right**2), abs=1e-6)
    assert all(found[name].isnan().all() for name in SCALED)


def test_one_right_answer_is_scored_alike_as_a_number_and_as_a_set():
    labels = torch.arange(12) % 7
    as_numbers = score_logits(LOGITS, labels, clean=True)
    as_sets = score_logits(LOGITS, torch.nn.functional.one_hot(labels, 7).bool(), clean=True)
    assert as_numbers.keys() == as_sets.keys()
    for name, values in as_numbers.items():
        assert torch.allclose(values.double(), as_sets[name].double(), atol=1e-5), name


def test_what_is_not_known_is_no_number():
    logits = LOGITS.clone()
    logits[0, 3] = math.nan
    found = score_logits(logits, torch.tensor([0, -1, *range(6), *range(4)]), clean=True)
    assert found["label_log_probability"][:2].isnan().all() and found["label_log_probability"][2:].isfinite().all()
    assert found["probability_squares"].isnan().tolist() == [True] + [False] * 11
    assert all(found[name][:2].isnan().all() and found[name][2:].isfinite().all() for name in SCALED)


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
@pytest.mark.parametrize("several", [False, True])
def test_conditions_that_are_scored_together_have_the_bits_that_each_has_alone(at_once, several, monkeypatch):
    monkeypatch.setattr(scoring, "SCORED_ON_A_PROCESSOR", at_once * LOGITS.numel())
    labels = torch.arange(12) % 7
    labels[3] = -1
    if several:
        labels = torch.nn.functional.one_hot(labels.clamp(min=0), 7).bool()
    answers = [LOGITS.roll(number, dims=1) for number in range(5)]
    answers[2] = answers[2].where(torch.arange(12)[:, None] != 4, math.nan)
    further = {"dropped": torch.rand(12)}
    answered = [Answered(Condition(), one, clean=number == 1, further=further) for number, one in enumerate(answers)]
    found = list(score_each(labels, answered))
    assert len(found) == len(answers)
    for number, one in enumerate(answers):
        alone = score_logits(one, labels, clean=number == 1) | further
        assert list(found[number].columns) == list(alone)
        for name, values in alone.items():
            torch.testing.assert_close(found[number].columns[name], values, rtol=0, atol=0, equal_nan=True)


def test_answers_are_not_collected_beyond_what_is_scored_together(monkeypatch):
    monkeypatch.setattr(scoring, "SCORED_ON_A_PROCESSOR", 2 * LOGITS.numel())
    made = []

    def answers():
        for number in range(6):
            made.append(number)
            yield Answered(Condition(), LOGITS)

    scored = score_each(torch.arange(12) % 7, answers())
    seen = [len(made) for _ in scored]
    assert seen == [2, 2, 4, 4, 6, 6]


def test_sums_at_temperatures_are_kept_of_clean_images_only(tmp_path):
    run = ipvit.run(small_occlusion(), models=tiny_model(), data=photos(), out=tmp_path, workers=0, progress=False)
    records = run.records("occlusion")
    clean = pl.col("information_loss") == 0
    occluded = records.filter(~clean)
    assert occluded.select(SCALED).null_count().row(0) == (occluded.height,) * len(SCALED)
    kept = records.filter(clean)
    assert kept.height == 30
    confidence = (kept["largest_logit"] - kept[sum_column(1.0)]).exp()
    assert confidence.to_list() == pytest.approx(kept["confidence"].to_list(), abs=1e-5)


def test_every_experiment_keeps_them_of_its_clean_images(tmp_path):
    clean = {
        "accuracy": pl.lit(True),
        "occlusion": pl.col("information_loss") == 0,
        "shuffle": pl.col("grid") == "1x1",
        "position": pl.col("place") == "whole image",
        "corruptions": pl.col("severity") == 0,
    }
    experiments = [
        ipvit.Accuracy(),
        small_occlusion(levels=(0, 0.5), runs=1),
        ipvit.Shuffle(grids=("1x1", "2x2"), runs=1),
        ipvit.Position(),
        ipvit.Corruptions(corruptions=("brightness",), severities=(1,)),
    ]
    run = ipvit.run(experiments, models=tiny_model(), data=photos(8), out=tmp_path, workers=0, progress=False)
    for name, rows in clean.items():
        records = run.records(name)
        assert records.filter(rows)["label_logit"].null_count() == 0, name
        others = records.filter(~rows)
        assert others["label_logit"].null_count() == others.height, name
        assert records["label_log_probability"].is_finite().all() and records["probability_squares"].is_finite().all()
