"""What :func:`ipvit.wrap` is given, looked at before a network is made of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, cast

from torch import nn

from ipvit.errors import InputError, shown

MOST_PIXELS_A_SIDE = 8192


def checked_module(module: object) -> None:
    """Refuse what is no network, and a network that normalises its pictures already.

    Raises:
        InputError: says what it is.
    """
    from ipvit.models.model import Model

    if isinstance(module, Model):
        raise InputError(f"{module.name} is a Model already: wrapped again it would normalise its pictures twice")
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise InputError(f"{module.__name__} is a class, not a network: make one of it, {module.__name__}(...)")
    if not isinstance(module, nn.Module):
        raise InputError(
            f"a network must be a torch.nn.Module, not {shown(module)} ({type(module).__name__}); call a function in "
            "the forward of a Module of yours"
        )


def checked_size(size: object) -> tuple[int, int]:
    """Return height and width of the input.

    Raises:
        InputError: it is no side of so many pixels, and not two of them.
    """
    sides: Sequence[Any] = cast("Sequence[Any]", size if isinstance(size, tuple | list) else (size, size))
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not whole or not all(0 < side <= MOST_PIXELS_A_SIDE for side in sides):
        raise InputError(
            f"size is a number of pixels, or height and width, from 1 to {MOST_PIXELS_A_SIDE}, not {shown(size)}"
        )
    return sides[0], sides[1]


def checked_scale(mean: object, std: object, crop_pct: object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation, which must be of images in [0, 1], as numbers; the crop must be a share.

    Raises:
        InputError: they are not.
    """
    means, deviations = _numbers(mean), _numbers(std)
    wrong = [value for value in means if not -1 <= value <= 1] or [v for v in deviations if not 0 < v < math.inf]
    if wrong or len(means) != 3 or len(deviations) != 3:
        raise InputError(
            f"mean {shown(mean)} and std {shown(std)} must be three numbers each, for images in [0, 1]: divide those "
            "of grey levels by 255"
        )
    if not isinstance(crop_pct, int | float) or not 0 < crop_pct <= 1:
        raise InputError(f"crop_pct is a share of the resized side, above 0 and up to 1, not {shown(crop_pct)}")
    return means, deviations


def _numbers(values: object) -> tuple[float, ...]:
    """Return the numbers in a list, an array or a tensor; none for anything else."""
    try:
        listed = () if isinstance(values, str) else tuple(cast("Iterable[Any]", values))
        return tuple(value if isinstance(value, int | float) else float(value) for value in listed)
    except (TypeError, ValueError, RuntimeError):
        return ()


def checked_classes(classes: object) -> tuple[str, ...] | None:
    """Return names of outputs in their order.

    Raises:
        InputError: it is no list of names: one text would be names of one letter, and a set has no order.
    """
    if classes is None:
        return None
    if isinstance(classes, Mapping):
        raise InputError("classes is a list of names in the order of the outputs, not a mapping: give its names alone")
    if isinstance(classes, str | bytes | Set) or not isinstance(classes, Iterable):
        raise InputError(f"classes is a list of names in the order of the outputs, not {shown(classes)}")
    return tuple(str(name) for name in cast("Iterable[Any]", classes))


def checked_name(name: object) -> str | None:
    """Return the name for tables.

    Raises:
        InputError: it is no text.
    """
    if name is not None and not isinstance(name, str):
        raise InputError(f"name is text, not {shown(name)}")
    return name
