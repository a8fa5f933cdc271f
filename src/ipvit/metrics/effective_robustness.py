"""Accuracy on shifted images beyond what clean accuracy predicts.

Taori et al. 2020, "Measuring Robustness to Natural Distribution Shifts in Image Classification". Over many networks the
logit of the accuracy on shifted images is nearly a straight line of the logit of the clean accuracy. How far a network
lies above the line of networks that saw nothing but ImageNet-1k is its effective robustness.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ipvit.metrics.intervals import normal_quantile, wilson


def accuracy_logit(right: ArrayLike, n: ArrayLike) -> NDArray[np.float64]:
    """Return the logit of ``(right + 1/2) / (n + 1)``, which is finite for none and for all right.

    >>> float(accuracy_logit(50, 100))
    0.0
    """
    hits, trials = np.asarray(right, dtype=np.float64), np.asarray(n, dtype=np.float64)
    return np.log((hits + 0.5) / (trials - hits + 0.5))


@dataclasses.dataclass(frozen=True)
class AccuracyLine:
    """A least-squares line of one logit of accuracy on another.

    Attributes:
        slope: of the line.
        intercept: its value at a clean accuracy of one half.
        r2: share of the variance that it explains.
        networks: how many networks it was fitted to.
        centre: mean of the clean logits.
        spread: their sum of squares about the mean.
        variance: of the residuals, with ``networks - 2`` degrees of freedom.
    """

    slope: float
    intercept: float
    r2: float
    networks: int
    centre: float
    spread: float
    variance: float

    @classmethod
    def fit(cls, clean: ArrayLike, shifted: ArrayLike) -> AccuracyLine:
        """Fit a line to logits ``(N,)``, at least three of them.

        Raises:
            ValueError: there are fewer, or all clean logits are the same.
        """
        x, y = np.asarray(clean, dtype=np.float64), np.asarray(shifted, dtype=np.float64)
        spread = float(((x - x.mean()) ** 2).sum()) if len(x) > 2 else 0.0
        if spread == 0:
            raise ValueError("a line needs at least three networks, not all of one accuracy")
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
        intercept = float(y.mean() - slope * x.mean())
        residuals = y - intercept - slope * x
        total = float(((y - y.mean()) ** 2).sum())
        return cls(
            slope,
            intercept,
            1 - float((residuals**2).sum()) / total if total else 1.0,
            len(x),
            float(x.mean()),
            spread,
            float((residuals**2).sum()) / (len(x) - 2),
        )

    def predicted(self, clean: ArrayLike) -> NDArray[np.float64]:
        """Return the accuracy in [0, 1] that the line says for clean logits."""
        return 1 / (1 + np.exp(-(self.intercept + self.slope * np.asarray(clean, dtype=np.float64))))

    def variance_at(self, clean: float) -> float:
        """Return the variance of the line itself, as a logit, at a clean logit."""
        return self.variance * (1 / self.networks + (clean - self.centre) ** 2 / self.spread)


@dataclasses.dataclass(frozen=True)
class EffectiveRobustness:
    """How far an accuracy lies above a line; shares of one, not per cent.

    Attributes:
        predicted: accuracy that the line says.
        value: the accuracy less the predicted one.
        low: end of the 95 % interval.
        high: the other end.
    """

    predicted: float
    value: float
    low: float
    high: float


def effective_robustness(
    clean_right: float, clean_n: int, right: float, n: int, line: AccuracyLine, confidence: float = 0.95
) -> EffectiveRobustness:
    """Return the effective robustness of a network with its interval.

    The interval holds the uncertainty of both accuracies and of the line, by the delta method in accuracies. Both are
    taken as of different images; where they are of the same ones, it is too wide rather than too narrow.

    Args:
        clean_right: clean images that were right.
        clean_n: of how many.
        right: shifted images that were right.
        n: of how many.
        line: of other networks.
        confidence: in (0, 1).

    >>> line = AccuracyLine(1.0, -1.0, 1.0, 100, 1.0, 50.0, 0.0)
    >>> found = effective_robustness(7500, 10000, 5600, 10000, line)
    >>> round(found.predicted, 3), round(found.value, 3), found.low < found.value < found.high
    (0.525, 0.035, True)
    """
    x = float(accuracy_logit(clean_right, clean_n))
    predicted = float(line.predicted(x))
    slope_here = predicted * (1 - predicted)  # of the logistic function: from logits to accuracies
    of_clean = 1 / (clean_right + 0.5) + 1 / (clean_n - clean_right + 0.5)
    of_line = slope_here**2 * (line.slope**2 * of_clean + line.variance_at(x))
    low, high = wilson(right, n, confidence)
    own = right / n
    half = normal_quantile(confidence) * np.sqrt(of_line)
    value = own - predicted
    return EffectiveRobustness(
        predicted, value, value - float(np.hypot(own - low, half)), value + float(np.hypot(high - own, half))
    )


def difference_of_proportions(
    right: float, n: int, other_right: float, other_n: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return a difference of two proportions of different images with Newcombe's interval (1998, method 10).

    >>> [round(part, 4) for part in difference_of_proportions(56, 70, 48, 80)]
    [0.2, 0.0524, 0.3339]
    """
    (low, high), (other_low, other_high) = wilson(right, n, confidence), wilson(other_right, other_n, confidence)
    first, second = right / n, other_right / other_n
    value = first - second
    return (
        value,
        value - float(np.hypot(first - low, other_high - second)),
        value + float(np.hypot(high - first, second - other_low)),
    )
