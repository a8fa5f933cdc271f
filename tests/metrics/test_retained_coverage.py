"""The intervals of retained accuracy and of its differences cover the truth about nineteen times in twenty."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ipvit.metrics import Pair, drop_difference, retained_accuracy, retained_difference, retained_of_other_images

CASES = [  # images, skill on clean and perturbed images, chance, runs
    (30, 2, 0, 0.1, 1),
    (100, 4, -4, 0.1, 1),
    (100, 6, 6, 0.1, 1),
    (200, 1, -2, 0.02, 3),
    (1000, 2, 1, 0.001, 1),
    (50, 0, 0, 0.5, 1),
]
PAIRS = [  # images, skills of A, skills of B, chance, runs
    (50, (2, 0), (2, 0), 0.1, 1),
    (100, (2, 0), (1, -1), 0.1, 1),
    (100, (6, 6), (6, 5), 0.1, 1),
    (100, (4, -6), (4, -6), 0.1, 1),
    (200, (2, 0), (3, 2), 0.02, 3),
]


def rate(skill: float, hardness: np.ndarray, chance: float) -> np.ndarray:
    """How likely images of some hardness are answered right; guessing is always possible."""
    return chance + (1 - chance) / (1 + np.exp(-skill - 2 * hardness))


def mean_rate(skill: float, chance: float) -> float:
    grid = np.linspace(-8, 8, 4001)
    weight = np.exp(-(grid**2) / 2)
    return float(weight @ rate(skill, grid, chance) / weight.sum())


def drawn(
    rng: np.random.Generator, skills: tuple[float, float], hardness: np.ndarray, chance: float, runs: int
) -> Pair:
    clean = rng.random(len(hardness)) < rate(skills[0], hardness, chance)
    perturbed = rng.binomial(runs, rate(skills[1], hardness, chance)) / runs
    return Pair(clean.astype(float), perturbed, chance)


def ratio(skills: tuple[float, float], chance: float) -> float:
    clean, perturbed = (mean_rate(skill, chance) for skill in skills)
    return (perturbed - chance) / (clean - chance)


def of_one(case: tuple[int, float, float, float, int], trials: int) -> float:
    n, clean, perturbed, chance, runs = case
    truth, rng, inside = ratio((clean, perturbed), chance), np.random.default_rng(0), []
    for _ in range(trials):
        model = drawn(rng, (clean, perturbed), rng.normal(size=n), chance, runs)
        found = retained_accuracy(model.clean, model.perturbed, chance)
        if not math.isnan(found.value):
            inside.append(found.low <= truth <= found.high)
    assert len(inside) > 0.9 * trials
    return float(np.mean(inside))


def of_two(case: tuple[int, tuple[float, float], tuple[float, float], float, int], trials: int) -> tuple[float, float]:
    n, a, b, chance, runs = case
    rng, retained, lost = np.random.default_rng(0), [], []
    kept = ratio(a, chance) - ratio(b, chance)
    fall = [mean_rate(skills[0], chance) - mean_rate(skills[1], chance) for skills in (a, b)]
    for _ in range(trials):
        hardness = rng.normal(size=n)
        first, second = (drawn(rng, skills, hardness, chance, runs) for skills in (a, b))
        ends = retained_difference(first, second)
        retained.append(ends.low <= kept <= ends.high)
        ends = drop_difference(first, second)
        lost.append(ends.low <= fall[0] - fall[1] <= ends.high)
    return float(np.mean(retained)), float(np.mean(lost))


@pytest.mark.parametrize("case", CASES)
def test_retained_accuracy(case):
    assert 0.935 <= of_one(case, 600) <= 0.999


@pytest.mark.parametrize("case", PAIRS)
def test_differences_of_retained_accuracy_and_of_drops(case):
    for found in of_two(case, 300):
        assert 0.92 <= found <= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_retained_accuracy_more_exactly(case):
    assert 0.943 <= of_one(case, 5000) <= 0.998


@pytest.mark.slow
@pytest.mark.parametrize("case", PAIRS)
def test_differences_more_exactly(case):
    for found in of_two(case, 4000):
        assert 0.94 <= found <= 0.998


def test_retained_accuracy_of_other_images():
    rng, inside = np.random.default_rng(0), []
    for _ in range(1500):
        clean, shifted = int(rng.binomial(200, 0.8)), int(rng.binomial(120, 0.35))
        found = retained_of_other_images((clean, 200), (shifted, 120), 0.01)
        inside.append(found.low <= 0.34 / 0.79 <= found.high)
    assert 0.94 <= np.mean(inside) <= 0.965


def test_retained_accuracy_under_shared_masks():
    """12 masks of 25 images each: an interval over images alone covers 70 % here."""
    rng, inside, alone = np.random.default_rng(0), [], []
    masks = np.repeat(np.arange(12), 25)
    luck = rng.normal(0, 1.5, 200_000)
    truth = (float((0.1 + 0.9 / (1 + np.exp(-luck))).mean()) - 0.1) / 0.9
    for _ in range(400):
        perturbed = rng.random(300) < 0.1 + 0.9 / (1 + np.exp(-rng.normal(0, 1.5, 12)))[masks]
        found = retained_accuracy(np.ones(300), perturbed, 0.1, clusters=masks)
        inside.append(found.low <= truth <= found.high)
        found = retained_accuracy(np.ones(300), perturbed, 0.1)
        alone.append(found.low <= truth <= found.high)
    assert 0.92 <= np.mean(inside) <= 0.99
    assert np.mean(alone) < 0.8
