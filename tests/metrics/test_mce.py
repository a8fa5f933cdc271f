"""The mean corruption error against published numbers, and what it refuses."""

import math

import pytest

from ipvit.metrics.mce import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERROR,
    corruption_error,
    mce,
    mean_error,
    relative_mce,
)

# torchvision's ResNet-50: accuracy (mean of five severities) and corruption error, as published with the code of "A
# simple way to make neural networks robust against diverse image corruptions" (Rusak et al. 2020), where its mean
# corruption error is 76.70 and its mean accuracy 39.17.
RESNET50 = {
    "brightness": (68.02, 56.64),
    "contrast": (39.06, 71.43),
    "defocus_blur": (38.75, 74.71),
    "elastic_transform": (45.25, 84.75),
    "fog": (45.83, 66.11),
    "frost": (38.14, 74.84),
    "gaussian_noise": (29.29, 79.77),
    "glass_blur": (26.79, 88.61),
    "impulse_noise": (23.81, 82.58),
    "jpeg_compression": (53.41, 76.82),
    "motion_blur": (38.67, 78.03),
    "pixelate": (44.79, 76.92),
    "shot_noise": (27.03, 81.58),
    "snow": (32.53, 77.83),
    "zoom_blur": (36.24, 79.86),
}
# the means over severities, as the code of AugMix has them
ALEXNET_MEANS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


def everywhere(error: float) -> dict[str, dict[int, float]]:
    return {name: dict.fromkeys(range(1, 6), error) for name in ALEXNET_ERROR}


def test_the_published_corruption_errors_of_resnet50_follow_from_its_accuracies():
    errors = {name: dict.fromkeys(range(1, 6), 1 - accuracy / 100) for name, (accuracy, _) in RESNET50.items()}
    for name, value in corruption_error(errors).items():
        assert value == pytest.approx(RESNET50[name][1], abs=0.01), name
    assert set(errors) == set(ALEXNET_ERROR)
    assert mce(errors) == pytest.approx(76.70, abs=0.01)
    assert mean_error(errors) == pytest.approx(100 - 39.17, abs=0.01)


def test_alexnets_errors_have_the_means_that_are_published_beside_them():
    assert set(ALEXNET_ERROR) == set(ALEXNET_MEANS)
    for name, mean in ALEXNET_MEANS.items():
        assert sum(ALEXNET_ERROR[name].values()) / 5 == pytest.approx(mean, abs=1e-9), name
    assert mean_error(ALEXNET_ERROR) == pytest.approx(78.8993, abs=1e-4)


def test_alexnet_scores_100_against_itself():
    assert mce(ALEXNET_ERROR) == pytest.approx(100)
    assert relative_mce(ALEXNET_ERROR, ALEXNET_CLEAN_ERROR) == pytest.approx(100)


def test_every_corruption_counts_the_same_however_hard_it_is_for_alexnet():
    halved = {
        name: {s: e / 2 if name == "brightness" else e for s, e in by.items()} for name, by in ALEXNET_ERROR.items()
    }
    assert mce(halved) == pytest.approx(100 - 50 / 15)


def test_severities_are_summed_before_the_division():
    reference = {"fog": {1: 0.1, 2: 0.9}}
    assert corruption_error({"fog": {1: 0.1, 2: 0.4}}, reference)["fog"] == pytest.approx(50)  # not (100 + 44.4) / 2


def test_the_relative_error_of_a_network_that_corruption_does_not_touch_is_zero():
    assert relative_mce(everywhere(0.3), clean_error=0.3) == pytest.approx(0)
    by_hand = [
        sum(0.6 - 0.2 for _ in range(5)) / sum(e - ALEXNET_CLEAN_ERROR for e in by.values())
        for by in ALEXNET_ERROR.values()
    ]
    assert relative_mce(everywhere(0.6), clean_error=0.2) == pytest.approx(100 * sum(by_hand) / 15)


def test_the_order_in_which_corruptions_and_severities_come_does_not_matter():
    errors = {name: {s: (i * 5 + s) / 100 for s in range(1, 6)} for i, name in enumerate(ALEXNET_ERROR)}
    shuffled = {name: dict(reversed(errors[name].items())) for name in sorted(errors)}
    assert mce(shuffled) == mce(errors)
    assert corruption_error(shuffled) == corruption_error(errors)


def test_the_mean_error_divides_by_nothing_and_takes_any_corruption():
    assert mean_error({"fog": {1: 0.1, 2: 0.3}, "spatter": {1: 0.6}}) == pytest.approx(40)


def test_a_corruption_that_the_reference_lacks_is_refused():
    with pytest.raises(ValueError, match="no errors for saturate"):
        mce(everywhere(0.5) | {"saturate": dict.fromkeys(range(1, 6), 0.5)})
    with pytest.raises(ValueError, match="no errors for Fog"):
        corruption_error({"Fog": dict.fromkeys(range(1, 6), 0.5)})


def test_a_mean_over_fewer_than_all_corruptions_is_refused():
    errors = everywhere(0.5)
    del errors["snow"], errors["fog"]
    for measure in (mce, lambda e: relative_mce(e, 0.2)):
        with pytest.raises(ValueError, match="all 15 corruptions; missing: snow, fog"):
            measure(errors)
    assert set(corruption_error(errors)) == set(errors)


def test_other_severities_than_the_references_are_refused():
    with pytest.raises(ValueError, match="fog has severities 1, 2, the reference 1, 2, 3, 4, 5"):
        corruption_error({"fog": {1: 0.5, 2: 0.5}})


@pytest.mark.parametrize("error", [43.0, -0.1, math.nan])
def test_errors_outside_zero_to_one_are_refused(error):
    errors = {"fog": dict.fromkeys(range(1, 6), 0.5) | {3: error}}
    for measure in (corruption_error, mean_error):
        with pytest.raises(ValueError, match="fog at severity 3 must lie in"):
            measure(errors)
    with pytest.raises(ValueError, match="the clean error must lie in"):
        relative_mce(everywhere(0.5), error)


def test_the_mean_error_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no corruption"):
        mean_error({})
    with pytest.raises(ValueError, match="no severity of fog"):
        mean_error({"fog": {}})


def test_a_reference_that_leaves_nothing_to_divide_by_is_refused():
    with pytest.raises(ValueError, match="no error on fog"):
        corruption_error({"fog": {1: 0.5}}, {"fog": {1: 0.0}})
    with pytest.raises(ValueError, match="adds nothing to the reference's error on brightness$"):
        relative_mce(everywhere(0.5), 0.2, reference_clean_error=0.565)
