"""The two sides of a comparison: run folders, the models in them, and which model stands beside which."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ipvit.core.files import user_path
from ipvit.engine.manifest import MANIFEST
from ipvit.errors import InputError, did_you_mean, shown
from ipvit.results import Run
from ipvit.run_collection import runs_in


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        text: what the user gave.
        run: the run.
        networks: names of its models by their digests, in the order of the run.
        chosen: the user named the one model.
    """

    text: str
    run: Run
    networks: Mapping[str, str]
    chosen: bool = False


@dataclasses.dataclass(frozen=True)
class Matched:
    """A model of each side.

    Attributes:
        weights_a: digest of the first.
        weights_b: digest of the second.
        model_a: its name here, which no other has.
        model_b: likewise.
    """

    weights_a: str
    weights_b: str
    model_a: str
    model_b: str


def side(text: str | Path | Run, *, everything: bool = False) -> Side:
    """Open one side: a run, a run folder, or ``FOLDER:MODEL``, the folder being the longest prefix that is a run.

    Raises:
        InputError: there is no such run, or it has no such model.
    """
    if isinstance(text, Run):
        return Side(str(text.out), text, networks_of(text))
    folder, model = split_folder(str(text))
    (run, *more) = runs_in(folder, everything=everything)
    if more:
        raise InputError(f"{str(folder)!r} is a folder of run folders; give one of them, for example {str(run.out)!r}")
    found = networks_of(run)
    if not found:
        raise InputError(f"{str(folder)!r} holds no results that models can be compared by")
    if not model:
        return Side(str(text), run, found)
    weights = _named(model, run, found, folder)
    return Side(str(text), run, {weights: found[weights]}, chosen=True)


def split_folder(text: str) -> tuple[Path, str]:
    """Return a run folder and the name of a model, which may be empty.

    >>> split_folder("runs/v1")[1]
    ''
    """
    places = [len(text), *(place for place in range(len(text) - 1, 0, -1) if text[place] == ":")]
    for place in places:
        path = user_path(text[:place])
        if (path / MANIFEST).is_file() or (path.is_file() and path.suffix == ".zip"):
            return path, text[place + 1 :]
    return user_path(text), ""


def networks_of(run: Run) -> dict[str, str]:
    """Return the names of the models that a run has records of, by digest, in the order of the run."""
    found: dict[str, str] = {}
    for name in run.analyses:
        found |= {weights: label for weights, label in run.models_of(name).items() if weights not in found}
    order = [model.digest for model in run.manifest.models]
    return {
        weights: found[weights]
        for weights in sorted(found, key=lambda weights: order.index(weights) if weights in order else len(order))
    }


def _named(model: str, run: Run, networks: Mapping[str, str], folder: Path) -> str:
    """Return the digest of the model that a user named: by its name in the tables, or the name it was loaded by."""
    loaded = {one.digest: one.loaded_as for one in run.manifest.models}
    for weights, label in networks.items():
        if label == model:
            return weights
    for weights, label in networks.items():
        if model in (label.partition(" (")[0], loaded.get(weights)):
            return weights
    known = ", ".join(networks.values())
    raise InputError(
        f"{str(folder)!r} has no model {shown(model)}; there are: {known}.{did_you_mean(model, networks.values())}"
    )


def matched(a: Side, b: Side) -> tuple[list[Matched], list[str]]:
    """Return which model stands beside which, and sentences on those that have no counterpart.

    One model on each side is compared whatever it is called; several are matched by their names.

    Raises:
        InputError: no model of one side has a counterpart.
    """
    pairs: list[tuple[str, str]]
    if len(a.networks) == len(b.networks) == 1:
        pairs = [(next(iter(a.networks)), next(iter(b.networks)))]
    else:
        by_name = {label: weights for weights, label in b.networks.items()}
        pairs = [(weights, by_name[label]) for weights, label in a.networks.items() if label in by_name]
    if not pairs:
        raise InputError(
            f"{a.text} has {_listed(a)} and {b.text} has {_listed(b)}: no name in common; say which to compare, for "
            f"example {_one(a)} {_one(b)}"
        )
    if a.run.out.resolve() == b.run.out.resolve() and all(one == other for one, other in pairs):
        raise InputError(
            f"{a.text} and {b.text} are the same results; name two models, for example {_one(a)} "
            f"{a.run.out}:{list(a.networks.values())[-1]}, or another run"
        )
    return [_matched(a, b, *pair) for pair in pairs], [
        *_alone(a, [p[0] for p in pairs]),
        *_alone(b, [p[1] for p in pairs]),
    ]


def _matched(a: Side, b: Side, weights_a: str, weights_b: str) -> Matched:
    first, second = a.networks[weights_a], b.networks[weights_b]
    if first == second:
        names = (a.run.out.name, b.run.out.name)
        if names[0] == names[1]:
            names = (str(a.run.out), str(b.run.out))
        first, second = f"{names[0]}:{first}", f"{names[1]}:{second}"
    return Matched(weights_a, weights_b, first, second)


def _alone(of: Side, taken: Sequence[str]) -> list[str]:
    left = [label for weights, label in of.networks.items() if weights not in taken]
    return [f"Only in {of.text}, so not compared: {', '.join(left)}."] if left else []


def _listed(of: Side) -> str:
    return ", ".join(of.networks.values())


def _one(of: Side) -> str:
    return of.text if of.chosen else f"{of.text}:{next(iter(of.networks.values()))}"
