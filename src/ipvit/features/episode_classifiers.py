"""Classifiers that learn from a handful of feature vectors: logistic regression, nearest centroid, ridge regression.

All are exact (the two of them with weights solve a strictly convex problem), need no random numbers, and work in the
span of the support vectors, so that an episode costs milliseconds whatever the width of the features.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Classifier = Literal["logistic", "centroid", "ridge"]

_TOLERANCE = 1e-4  # largest entry of the gradient at which the fit ends, as scikit-learn's
_LEAST_GAIN = 64 * float(np.finfo(float).eps)  # relative gain of a step at which it ends too, as scikit-learn's
_MOST_STEPS = 1000


def normalised(features: NDArray[np.floating]) -> Floats:
    """Return vectors of length one, ``(N, D)`` float64; a vector of zeros stays one."""
    values = np.asarray(features, dtype=np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def centroid(support: Floats, labels: Labels, query: Floats, ways: int) -> Floats:
    """Return ``(Q, W)``: minus the squared distance of each query to the mean of each class."""
    means = _one_hot(labels, ways).T @ support / np.bincount(labels, minlength=ways)[:, None]
    return 2 * query @ means.T - (means**2).sum(axis=1)  # the query's own length is the same for every class


def ridge(support: Floats, labels: Labels, query: Floats, ways: int, penalty: float = 1.0) -> Floats:
    """Return ``(Q, W)`` scores of the linear map with the least squares to one-hot labels, in closed form.

    Minimises ``|X W + b - Y|^2 + penalty |W|^2``; the intercept ``b`` is not penalised.
    """
    centre, level = support.mean(axis=0), np.bincount(labels, minlength=ways) / len(labels)
    x, y = support - centre, _one_hot(labels, ways) - level
    if len(x) <= x.shape[1]:
        weights = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
    else:
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return (query - centre) @ weights + level


def logistic(support: Floats, labels: Labels, query: Floats, ways: int, strength: float = 1.0) -> Floats:
    """Return ``(Q, W)`` logits of multinomial logistic regression.

    Minimises ``strength * sum of cross-entropies + |W|^2 / 2``, scikit-learn's ``LogisticRegression(C=strength)``; the
    intercept is not penalised.
    """
    from scipy.optimize import minimize  # here, since it takes half a second

    targets = _one_hot(labels, ways)
    centre = support.mean(axis=0)  # a shift that the intercept takes back; without it the fit needs more steps
    support, query = support - centre, query - centre
    kernel = support @ support.T if len(support) < support.shape[1] else None
    # the rows of the kernel's Cholesky factor have the same inner products as the vectors: the same problem, narrower
    rows = support if kernel is None else np.linalg.cholesky(kernel + 1e-9 * np.eye(len(kernel)))
    width = rows.shape[1]

    def objective(flat: Floats) -> tuple[float, Floats]:
        parameters = flat.reshape(width + 1, ways)
        weights, bias = parameters[:width], parameters[width]
        logits = rows @ weights + bias
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        sums = exponentials.sum(axis=1, keepdims=True)
        loss = strength * (np.log(sums).sum() - (logits * targets).sum()) + 0.5 * (weights**2).sum()
        errors = strength * (exponentials / sums - targets)
        gradient = np.concatenate([rows.T @ errors + weights, errors.sum(axis=0, keepdims=True)])
        return float(loss), gradient.ravel()

    options = {"gtol": _TOLERANCE, "ftol": _LEAST_GAIN, "maxiter": _MOST_STEPS, "maxls": 50}
    start = np.zeros((width + 1) * ways)
    solution = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x.reshape(width + 1, ways)
    if kernel is None:
        return query @ solution[:width] + solution[width]
    # at the minimum the weights are minus the sum of the errors times the vectors
    logits = rows @ solution[:width] + solution[width]
    probability = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    return query @ (support.T @ (strength * (targets - probability))) + solution[width]


def _one_hot(labels: Labels, ways: int) -> Floats:
    return np.eye(ways)[labels]
