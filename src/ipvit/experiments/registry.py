"""Experiments by name: ours, those of installed packages, and those in the user's own files.

The command line and ``import ipvit`` read the table: importing this module must stay cheap, so everything that a class
of an experiment needs is imported where one is asked for.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from typing import TYPE_CHECKING, Any

from ipvit.core.plugins import OWN_FILE, import_own
from ipvit.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

    from ipvit.analysis.paper_numbers import PaperNumber
    from ipvit.analysis.published_tables import PublishedTable
    from ipvit.experiments.base import Experiment

BUILT_IN: dict[str, tuple[str, str]] = {
    "accuracy": (
        "ipvit.experiments.accuracy.experiment:Accuracy",
        "Clean accuracy, of each head where there are two (table 3).",
    ),
    "occlusion": (
        "ipvit.experiments.occlusion.experiment:Occlusion",
        "Drop a share of the image's patches and watch the accuracy fall (figure 3).",
    ),
    "feature-drop": (
        "ipvit.experiments.feature_drop.experiment:FeatureDrop",
        "Lose features inside the network instead of pixels (tables 6 and 7).",
    ),
    "correlation": (
        "ipvit.experiments.correlation.experiment:Correlation",
        "Correlate clean and occluded representations (table 1, figure 5).",
    ),
    "stability": (
        "ipvit.experiments.stability.experiment:Stability",
        "How far representations move under every perturbation; needs no labels.",
    ),
    "attention": (
        "ipvit.experiments.attention.experiment:Attention",
        "Mean attention maps under occlusion, attention distance (figures 4, 26).",
    ),
    "shape-bias": (
        "ipvit.experiments.shape_bias.experiment:ShapeBias",
        "Is the decision for the shape or for the texture (figure 6, table 3).",
    ),
    "token-similarity": (
        "ipvit.experiments.token_similarity.experiment:TokenSimilarity",
        "How alike class and shape token are (section 3.2).",
    ),
    "segment": (
        "ipvit.experiments.segment.experiment:Segment",
        "Segment objects by attention (table 4, figure 8).",
    ),
    "shuffle": (
        "ipvit.experiments.shuffle.experiment:Shuffle",
        "Cut the image into cells that change places (figures 10 and 11).",
    ),
    "position": (
        "ipvit.experiments.position.experiment:Position",
        "Shrink the image into each corner of a black canvas (table 8).",
    ),
    "probe": (
        "ipvit.experiments.probe.experiment:Probe",
        "Linear heads on the tokens of single blocks and of several (figure 15, table 5).",
    ),
    "fewshot": (
        "ipvit.experiments.fewshot.experiment:FewShot",
        "New classes from a few examples each, in many small tasks (figure 16).",
    ),
    "corruptions": (
        "ipvit.experiments.corruptions.experiment:Corruptions",
        "Noise, blur, weather and digital artefacts; mCE (section 3.4).",
    ),
    "shift": (
        "ipvit.experiments.shift.experiment:Shift",
        "Other photographs of the same classes; effective robustness.",
    ),
    "attack": (
        "ipvit.experiments.attack.experiment:Attack",
        "FGSM, PGD, AutoAttack, replaced cells and patches (figures 12 and 13).",
    ),
}
"""Name -> where the class is (``module:Class``), and what the experiment does in one line. Nothing else lists them."""

PUBLISHED_TABLES = {
    "robustbench": "ipvit.experiments.corruptions.published:RobustBench",
    "timm": "ipvit.experiments.accuracy.published:TimmResults",
}
"""Tables of others that ours can be set beside, ``ipvit compare --with NAME``, and where their class is."""

FURTHER_TABLES = {"robustbench": ("ipvit.experiments.attack.published:RobustBenchLinf",)}
"""More tables of the same publications, of other experiments."""

GROUP = "ipvit.experiments"
"""Entry points under which installed packages offer experiments of theirs."""


def experiment_names() -> list[str]:
    """Return the names of all experiments, ours first."""
    return [*BUILT_IN, *sorted(point.name for point in plugins())]


def classes() -> dict[str, str]:
    """Return the class names of our experiments and the modules that define them."""
    return {attribute: module for module, _, attribute in (path.partition(":") for path, _ in BUILT_IN.values())}


def experiment_class(name: str) -> type[Experiment]:
    """Return the class of an experiment: a known name, or ``path/to/file.py:Class``.

    Raises:
        InputError: there is no such experiment, with close matches.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)
    if OWN_FILE in name:
        return checked_class(import_own(name), name)
    for point in plugins():
        if point.name == name:
            return checked_class(point.load(), name)
    known = experiment_names()
    raise InputError(f"there is no experiment {name!r}; there are: {', '.join(known)}.{did_you_mean(name, known)}")


def make_experiment(name: str, parameters: dict[str, Any] | None = None, where: str = "") -> Experiment:
    """Make an experiment with parameters.

    Raises:
        InputError: an unknown parameter (with close matches) or a value that does not fit.
    """
    from ipvit.core.text.validation_messages import validated

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
    from ipvit.analysis.paper_numbers import in_order

    places = [*(path for path, _ in BUILT_IN.values()), *(point.value for point in plugins())]
    modules = dict.fromkeys(place.partition(":")[0] for place in places)
    return in_order([number for module in modules for number in _numbers_beside(module)])


def published_table(name: str) -> PublishedTable:
    """Return a table that others published, by its name in :data:`PUBLISHED_TABLES`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PUBLISHED_TABLES:
        known = ", ".join(PUBLISHED_TABLES)
        raise InputError(
            f"there is no published table {name!r}; there are: {known}.{did_you_mean(name, PUBLISHED_TABLES)}"
        )
    return _made(PUBLISHED_TABLES[name])


def further_tables(name: str) -> list[PublishedTable]:
    """Return the tables of a publication beside :func:`published_table`."""
    return [_made(place) for place in FURTHER_TABLES.get(name, ())]


def _made(place: str) -> PublishedTable:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)()


def _numbers_beside(module: str) -> Iterable[PaperNumber]:
    package = module.rpartition(".")[0]
    place = f"{package}.paper" if package else module
    if importlib.util.find_spec(place) is None:
        return ()
    make = getattr(importlib.import_module(place), "paper_numbers", None)
    return () if make is None else make()


@functools.cache
def plugins() -> tuple[EntryPoint, ...]:
    """Return the experiments of installed packages; a name of ours is not theirs to take."""
    from importlib.metadata import entry_points

    return tuple(point for point in entry_points(group=GROUP) if point.name not in BUILT_IN)


def checked_class(found: Any, name: str) -> type[Experiment]:
    """Return what was found under a name, if it is a class of an experiment that can be registered.

    Args:
        found: anything.
        name: what it was found by, for messages.

    Raises:
        InputError: it is no subclass of Experiment, is written for an earlier version, or lacks a name or a title.
    """
    from ipvit.experiments.base import Experiment
    from ipvit.experiments.earlier import refuse_earlier

    if not (isinstance(found, type) and issubclass(found, Experiment)):
        raise InputError(f"{name!r} is not an ipvit.Experiment class")
    refuse_earlier(found, name)
    for what in ("name", "title"):
        if not isinstance(getattr(found, what, None), str):
            raise InputError(f"{name!r} has no {what}; give the class one, for example {what} = 'mine'")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", found.name):
        raise InputError(
            f"{name!r} is called {found.name!r}; files are named after an experiment: use letters, digits and . _ -"
        )
    return found
