"""What ``ipvit.run`` is given, and what would be right where it is something else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from torch import nn

from ipvit.errors import InputError, did_you_mean, shown
from ipvit.experiments.base import Experiment
from ipvit.experiments.registry import BUILT_IN
from ipvit.models.model import Model


def listed_experiments(given: Any) -> list[Experiment]:
    """Return one experiment or several as a list.

    Raises:
        InputError: there is none, or something is none.
    """
    found = _as_list(given, Experiment)
    if not found:
        raise InputError("at least one experiment is needed, for example ipvit.Occlusion()")
    for one in found:
        if not isinstance(one, Experiment):
            raise InputError(_no_experiment(one))
    return found


def listed_models(given: Any) -> list[Model | str]:
    """Return one model, or several, or their names, as a list.

    Raises:
        InputError: there is none, or something is none.
    """
    found = _as_list(given, nn.Module)  # a Sequential is iterable
    if not found:
        raise InputError("at least one model is needed, for example 'demo:deit_micro'")
    for one in found:
        if not isinstance(one, Model | str):
            raise InputError(_no_model(one))
    return found


def _as_list(given: Any, alone: type) -> list[Any]:
    """Return what may be one thing or several as a list; one is what is of a type, a text or a class."""
    several = isinstance(given, Iterable) and not isinstance(given, alone | str | type)
    return [*cast("Iterable[Any]", given)] if several else [given]


def folder(given: Any) -> Path:
    """Return a run folder's path.

    Raises:
        InputError: it is none.
    """
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"out is the path of a folder, not {shown(given)}")
    return Path(cast("str", given))


def _no_experiment(one: Any) -> str:
    if isinstance(one, str):
        places = {name: place.rpartition(":")[2] for name, (place, _) in BUILT_IN.items()}
        known = places.get(one) or next((kind for kind in places.values() if kind.lower() == one.lower()), None)
        if known is not None:
            return f"experiments are objects, not names: give ipvit.{known}() in place of {one!r}"
        hint = did_you_mean(one, [*places, *places.values()])
        return f"experiments are objects such as ipvit.Occlusion(), not names such as {one!r}.{hint}"
    if isinstance(one, type):
        if issubclass(one, Experiment):
            return f"give an object, {one.__name__}(), in place of the class {one.__name__}"
        return f"{one.__name__} is no subclass of ipvit.Experiment, and an object of one is needed"
    return f"an experiment is an object such as ipvit.Occlusion(), not {shown(one)}"


def _no_model(one: Any) -> str:
    name = type(one).__name__
    if isinstance(one, nn.Module):
        return (
            f"{name} is a bare network: ipvit.wrap(network, mean=..., std=..., size=..., classes=...) makes a model of "
            "it, which knows what its images must look like"
        )
    if isinstance(one, type):
        return f"give an object, not the class {one.__name__}: a name, or what ipvit.load_model or ipvit.wrap returns"
    return f"a model is a name, or what ipvit.load_model or ipvit.wrap returns, not {shown(one)}"
