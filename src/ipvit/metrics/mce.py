"""Mean corruption error on ImageNet-C (Hendrycks & Dietterich 2019; section 3.4 of the paper).

Errors are top-1 errors in [0, 1], keyed by corruption name and severity, ``{"fog": {1: 0.31, 2: 0.35, ...}, ...}``:
never by position, so that no order of corruptions can be mistaken for another. Results are in percent, as they are
published.

Three numbers go by similar names. :func:`mce`, the mean corruption error, is what papers print: fifteen corruptions,
each divided by AlexNet's error. :func:`relative_mce` subtracts the clean errors first. :func:`mean_error` divides by
nothing, which is what the evaluation script released with ImageNet-C prints (over all nineteen corruptions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

Errors = Mapping[str, Mapping[int, float]]


def _by_severity(*errors: float) -> dict[int, float]:
    return dict(enumerate(errors, start=1))


ALEXNET_ERROR: dict[str, dict[int, float]] = {
    "gaussian_noise": _by_severity(0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": _by_severity(0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": _by_severity(0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
    "defocus_blur": _by_severity(0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": _by_severity(0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    "motion_blur": _by_severity(0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
    "zoom_blur": _by_severity(0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    "snow": _by_severity(0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
    "frost": _by_severity(0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
    "fog": _by_severity(0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
    "brightness": _by_severity(0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
    "contrast": _by_severity(0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
    "elastic_transform": _by_severity(0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    "pixelate": _by_severity(0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
    "jpeg_compression": _by_severity(0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}
"""AlexNet's top-1 errors on the published ImageNet-C, corruption by severity: the reference of the corruption error.

As given by the authors of ImageNet-C; their means over severities are the constants in the code of AugMix.
"""

ALEXNET_CLEAN_ERROR = 0.43478
"""AlexNet's top-1 error on ImageNet's validation images: 1 less torchvision's accuracy of 0.56522.

Hendrycks & Dietterich print 43.5 %.
"""


def corruption_error(errors: Errors, reference: Errors = ALEXNET_ERROR) -> dict[str, float]:
    """Return the corruption error of each corruption: the sum of errors over severities, divided by the reference's.

    Args:
        errors: top-1 errors in [0, 1] by corruption and severity; any of the reference's corruptions, each at all of
            its severities.
        reference: the same for the network to compare with.

    Returns:
        percent by corruption, in the order of ``errors``; 100 is as good as the reference.

    Raises:
        ValueError: for a corruption that the reference lacks, a missing or additional severity, an error outside
            [0, 1], or a reference without an error.

    >>> corruption_error({"fog": {1: 0.2, 2: 0.3}}, {"fog": {1: 0.5, 2: 0.5}})
    {'fog': 50.0}
    """
    _check(errors, reference)
    return {name: 100 * _total(errors[name]) / _total(reference[name]) for name in errors}


def mce(errors: Errors, reference: Errors = ALEXNET_ERROR) -> float:
    """Return the mean corruption error in percent: the mean of :func:`corruption_error` over *all* corruptions.

    Args:
        errors: top-1 errors in [0, 1] by corruption and severity: exactly the reference's corruptions. The four extra
            corruptions do not count.
        reference: the same for the network to compare with.

    Raises:
        ValueError: as :func:`corruption_error`, and when a corruption is missing.
    """
    _check_complete(errors, reference)
    return math.fsum(corruption_error(errors, reference).values()) / len(reference)


def relative_mce(
    errors: Errors,
    clean_error: float,
    reference: Errors = ALEXNET_ERROR,
    reference_clean_error: float = ALEXNET_CLEAN_ERROR,
) -> float:
    """Return the relative mean corruption error in percent: how much error corruption *adds*, against the reference.

    Per corruption, the sum over severities of error minus clean error, divided by the same for the reference; then the
    mean over corruptions.

    Args:
        errors: as for :func:`mce`.
        clean_error: the network's top-1 error on clean images, in [0, 1].
        reference: as for :func:`mce`.
        reference_clean_error: the reference's on clean images.

    Raises:
        ValueError: as :func:`mce`, for a clean error outside [0, 1], and when a corruption does not add to the
            reference's error.
    """
    _check_complete(errors, reference)
    _check_share(clean_error, "the clean error")
    _check_share(reference_clean_error, "the reference's clean error")
    added = _added(errors, clean_error)
    added_to_reference = _added(reference, reference_clean_error)
    if harmless := [name for name, more in added_to_reference.items() if not more > 0]:
        raise ValueError(f"corruption adds nothing to the reference's error on {', '.join(harmless)}")
    return 100 * math.fsum(added[name] / added_to_reference[name] for name in reference) / len(reference)


def mean_error(errors: Errors) -> float:
    """Return the plain mean error in percent, over severities and then over whichever corruptions there are.

    Not the mean corruption error: nothing is divided by a reference.

    Raises:
        ValueError: for no corruption, one without a severity, or an error outside [0, 1].
    """
    if not errors:
        raise ValueError("there is no corruption to take the mean of")
    for name, by_severity in errors.items():
        if not by_severity:
            raise ValueError(f"there is no severity of {name}")
        _check_shares(name, by_severity)
    return 100 * math.fsum(_total(e) / len(e) for e in errors.values()) / len(errors)


def _added(errors: Errors, clean_error: float) -> dict[str, float]:
    return {name: _total(by_severity) - len(by_severity) * clean_error for name, by_severity in errors.items()}


def _total(by_severity: Mapping[int, float]) -> float:
    return math.fsum(by_severity.values())


def _check(errors: Errors, reference: Errors) -> None:
    if unknown := [name for name in errors if name not in reference]:
        raise ValueError(f"the reference has no errors for {', '.join(unknown)}; it has {', '.join(reference)}")
    for name, by_severity in errors.items():
        if set(by_severity) != set(reference[name]):
            raise ValueError(
                f"{name} has severities {', '.join(map(str, sorted(by_severity))) or 'none'}, "
                f"the reference {', '.join(map(str, sorted(reference[name])))}"
            )
        _check_shares(name, by_severity)
        if not _total(reference[name]) > 0:
            raise ValueError(f"the reference makes no error on {name}: there is nothing to divide by")


def _check_complete(errors: Errors, reference: Errors) -> None:
    _check(errors, reference)
    if missing := [name for name in reference if name not in errors]:
        raise ValueError(
            f"the mean corruption error needs all {len(reference)} corruptions; missing: {', '.join(missing)}"
        )


def _check_shares(name: str, by_severity: Mapping[int, float]) -> None:
    for severity, error in by_severity.items():
        _check_share(error, f"the error on {name} at severity {severity}")


def _check_share(error: float, what: str) -> None:
    if not 0 <= error <= 1:
        raise ValueError(f"{what} must lie in [0, 1], not {error}")
