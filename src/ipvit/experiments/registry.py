"""Experiments by name: ours, those of installed packages, and those in the user's own files."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ipvit.analysis.paper_numbers import PaperNumber, in_order
from ipvit.errors import InputError, did_you_mean
from ipvit.experiments.base import Experiment
from ipvit.experiments.earlier import refuse_earlier
from ipvit.faults import validated
from ipvit.own_code import OWN_FILE, import_own

BUILT_IN = {
    "accuracy": "ipvit.experiments.accuracy.experiment:Accuracy",
    "occlusion": "ipvit.experiments.occlusion.experiment:Occlusion",
    "feature-drop": "ipvit.experiments.feature_drop.experiment:FeatureDrop",
    "correlation": "ipvit.experiments.correlation.experiment:Correlation",
    "attention": "ipvit.experiments.attention.experiment:Attention",
    "shape-bias": "ipvit.experiments.shape_bias.experiment:ShapeBias",
    "token-similarity": "ipvit.experiments.token_similarity.experiment:TokenSimilarity",
    "segment": "ipvit.experiments.segment.experiment:Segment",
    "shuffle": "ipvit.experiments.shuffle.experiment:Shuffle",
    "position": "ipvit.experiments.position.experiment:Position",
    "probe": "ipvit.experiments.probe.experiment:Probe",
    "fewshot": "ipvit.experiments.fewshot.experiment:FewShot",
    "corruptions": "ipvit.experiments.corruptions.experiment:Corruptions",
    "attack": "ipvit.experiments.attack.experiment:Attack",
}
"""Name -> where the class is; imported when asked for."""

GROUP = "ipvit.experiments"


def experiment_names() -> list[str]:
    """Return the names of all experiments, ours first."""
    return [*BUILT_IN, *sorted(point.name for point in _plugins() if point.name not in BUILT_IN)]


def experiment_class(name: str) -> type[Experiment]:
    """Return the class of an experiment: a known name, or ``path/to/file.py:Class``.

    Raises:
        InputError: there is no such experiment, with close matches.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    if OWN_FILE in name:
        return _checked(import_own(name), name)
    for point in _plugins():
        if point.name == name:
            return _checked(point.load(), name)
    known = experiment_names()
    raise InputError(f"there is no experiment {name!r}; there are: {', '.join(known)}.{did_you_mean(name, known)}")


def make_experiment(name: str, parameters: dict[str, Any] | None = None, where: str = "") -> Experiment:
    """Make an experiment with parameters.

    Raises:
        InputError: an unknown parameter (with close matches) or a value that does not fit.
    """
    try:
        kind = experiment_class(name)
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from None
    return validated(kind, parameters or {}, f"{where}: {kind.name}" if where else kind.name)


@functools.cache
def paper_numbers() -> tuple[PaperNumber, ...]:
    """Return the paper's numbers that the known experiments are about, in the order of the paper.

    An experiment has them in a module ``paper`` beside its own module in the same package, or, where its module is in
    no package, in that module itself: as a function ``paper_numbers`` without arguments. Installed packages may so add
    numbers of other publications.
    """
    plugins = [point.value for point in _plugins() if point.name not in BUILT_IN]
    modules = dict.fromkeys(place.partition(":")[0] for place in (*BUILT_IN.values(), *plugins))
    return in_order([number for module in modules for number in _numbers_beside(module)])


def _numbers_beside(module: str) -> Iterable[PaperNumber]:
    package = module.rpartition(".")[0]
    place = f"{package}.paper" if package else module
    if importlib.util.find_spec(place) is None:
        return ()
    make = getattr(importlib.import_module(place), "paper_numbers", None)
    return () if make is None else make()


@functools.cache
def _plugins() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _checked(found: Any, name: str) -> type[Experiment]:
    if not (isinstance(found, type) and issubclass(found, Experiment)):
        raise InputError(f"{name!r} is not an ipvit.Experiment class")
    refuse_earlier(found, name)
    return found
