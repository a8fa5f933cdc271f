"""Confidences at another temperature from what is kept of the logits, against the logits themselves."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from ipvit.metrics.temperature import TEMPERATURES, ScaledLogits, fit_temperature

LABELS = torch.arange(80) % 11


def logits(scale=5.0):
    drawn = torch.randn(80, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (drawn + 2 * F.one_hot(LABELS, 11)) * scale


def kept(z):
    sums = torch.stack([(z / t).logsumexp(1) for t in TEMPERATURES], dim=1)
    return ScaledLogits.of(z.amax(1), z.gather(1, LABELS[:, None]).squeeze(1), sums)


@pytest.mark.parametrize("temperature", [0.4, 0.9, 1.0, 1.5, 3.1, 5.6])
def test_confidence_and_likelihood_are_those_of_the_scaled_logits(temperature):
    z = logits()
    p = (z / temperature).softmax(1)
    assert np.allclose(kept(z).confidence(temperature), p.amax(1), atol=2e-4)
    of_label = p.gather(1, LABELS[:, None]).squeeze(1)
    assert np.allclose(kept(z).label_log_probability(temperature), of_label.log(), atol=2e-3)
    if temperature >= 2 * TEMPERATURES[0]:
        assert np.allclose(kept(z).probability_squares(temperature), (p**2).sum(1), atol=5e-4)


def test_fitted_temperature_is_that_of_an_optimiser_on_the_logits():
    z = logits()
    best: Any = minimize_scalar(lambda t: float(F.cross_entropy(z / t, LABELS)), bounds=(0.3, 6), method="bounded")
    assert fit_temperature(kept(z)) == pytest.approx(best.x, rel=5e-3)


def test_temperature_stops_at_the_end_of_the_range():
    assert fit_temperature(kept(logits(200.0))) == pytest.approx(TEMPERATURES[-1])
    with pytest.raises(ValueError, match="between 0.354 and 5.66"):
        kept(logits()).confidence(6.0)
