"""Confidences at another temperature (Guo et al. 2017), from a few numbers an image in place of its logits.

What is kept of an image is its largest logit, that of its label, and the logarithm of the sum of exp(logit / T) at
fixed temperatures T. In between it follows by cubic interpolation, so confidences, likelihoods and Brier scores are
known at any temperature of the range.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike

from ipvit.metrics.bootstrap import resampled_means
from ipvit.metrics.calibration import Floats

TEMPERATURES = tuple(2.0 ** (step / 4) for step in range(-6, 11))
"""From 0.354 to 5.66, four a doubling."""
LARGEST = "largest_logit"
OF_LABEL = "label_logit"


def sum_column(temperature: float) -> str:
    """Return the name of the column of sums at a temperature.

    >>> sum_column(1.0), sum_column(2**0.5)
    ('logsumexp_1', 'logsumexp_1.41')
    """
    return f"logsumexp_{temperature:.3g}"


SUMS = tuple(map(sum_column, TEMPERATURES))
SCALED = (LARGEST, OF_LABEL, *SUMS)
"""Columns of a classification record of clean images, beside those of every record."""


@dataclasses.dataclass(frozen=True)
class ScaledLogits:
    """What is kept of N images.

    Attributes:
        largest: ``(N,)`` largest logit of each.
        of_label: ``(N,)`` logit of its label.
        sums: ``(N, K)`` logarithms of the sums of exp(logit / T) at :data:`TEMPERATURES`.
    """

    largest: Floats
    of_label: Floats
    sums: Floats

    @classmethod
    def of(cls, largest: ArrayLike, of_label: ArrayLike, sums: ArrayLike) -> ScaledLogits:
        """Return them in double precision."""
        return cls(*(np.asarray(values, dtype=np.float64) for values in (largest, of_label, sums)))

    def rows(self, chosen: ArrayLike) -> ScaledLogits:
        """Return some of the images."""
        which = np.asarray(chosen)
        return ScaledLogits(self.largest[which], self.of_label[which], self.sums[which])

    def log_sum(self, temperature: float) -> Floats:
        """Return ``(N,)`` logarithms of the sums of exp(logit / T).

        Raises:
            ValueError: the temperature is out of range.
        """
        low, high = TEMPERATURES[0], TEMPERATURES[-1]
        if not low <= temperature <= high:
            raise ValueError(f"the temperature must lie between {low:.3g} and {high:.3g}, not {temperature:g}")
        place = math.log2(temperature / low) * 4
        first = min(max(int(place) - 1, 0), len(TEMPERATURES) - 4)
        near = range(first, first + 4)
        above = self.sums[:, first : first + 4] - self.largest[:, None] / np.array(TEMPERATURES[first : first + 4])
        weights = [math.prod((place - other) / (one - other) for other in near if other != one) for one in near]
        return above @ np.array(weights) + self.largest / temperature

    def confidence(self, temperature: float) -> Floats:
        """Return ``(N,)`` confidences at a temperature, in [0, 1]."""
        return np.minimum(np.exp(self.largest / temperature - self.log_sum(temperature)), 1.0)

    def label_log_probability(self, temperature: float) -> Floats:
        """Return ``(N,)`` logarithms of the labels' probabilities at a temperature, 0 at most."""
        return np.minimum(self.of_label / temperature - self.log_sum(temperature), 0.0)

    def probability_squares(self, temperature: float) -> Floats:
        """Return ``(N,)`` sums of squared probabilities; the temperature must be twice the lowest, or more."""
        return np.exp(self.log_sum(temperature / 2) - 2 * self.log_sum(temperature))


def fit_temperature(images: ScaledLogits) -> float:
    """Return the temperature at which the labels are most likely, in the range of :data:`TEMPERATURES`.

    To within 0.1 %; an end of the range where the likelihood still rises there.

    Raises:
        ValueError: there is no image.
    """
    if not len(images.largest):
        raise ValueError("a temperature is fitted to at least one image")
    return float(_most_likely(_columns(images).mean(axis=0, keepdims=True))[0])


def temperature_interval(images: ScaledLogits, n_resamples: int = 500, seed: int = 0) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a fitted temperature: percentiles of a bootstrap over the images."""
    fitted = _most_likely(resampled_means(_columns(images), n_resamples, seed))
    low, high = np.quantile(fitted, [0.025, 0.975])
    return float(low), float(high)


def _columns(images: ScaledLogits) -> Floats:
    return np.column_stack([images.largest, images.of_label, images.sums])


def _most_likely(means: Floats) -> Floats:
    """Return the best temperature ``(M,)`` for means over images ``(M, 2 + K)``: likelihoods are linear in them."""
    lowest, highest = math.log2(TEMPERATURES[0]), math.log2(TEMPERATURES[-1])
    tried = np.minimum(2.0 ** np.linspace(lowest, highest, 2801), TEMPERATURES[-1])
    of = ScaledLogits(means[:, 0], means[:, 1], means[:, 2:])
    likely = np.stack([of.of_label / t - of.log_sum(t) for t in tried.tolist()])
    return tried[likely.argmax(axis=0)]
