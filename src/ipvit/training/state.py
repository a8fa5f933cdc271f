"""How a training goes on in a folder that holds one: with which recipe, on how many processes, from which weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError

from ipvit.errors import InputError, shown
from ipvit.training.config import DinoConfig
from ipvit.training.recipe import Recipe, flat

RECIPE, STATE = "recipe.yaml", "state.pt"
"""Files of a folder that make a training go on there."""

STATE_FORMAT = 3
_EARLIER = 2
"""Format of the states that lack the number of processes; DINO's rules were others then."""

FREE = frozenset({"data.workers", "data.memory", "data.stylize.keep", "tracker"})
"""Keys of a recipe that cannot change what a training ends with: they may be others when it goes on."""


def going_on(written: Path, recipe: Recipe) -> list[str]:
    """Compare a recipe with the one that a folder was begun with.

    Args:
        written: ``recipe.yaml`` of the folder.
        recipe: the one that is to go on.

    Returns:
        What the user should know.

    Raises:
        InputError: another training is in the folder.
    """
    try:
        before = Recipe.model_validate(yaml.safe_load(written.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError, OSError, UnicodeDecodeError):
        raise InputError(f"{written}: not a recipe of this version; choose another folder") from None
    old, new = flat(before), flat(recipe)
    other = [key for key in new if old.get(key) != new[key] and key not in FREE | {"epochs"}]
    other += [key for key in old if key not in new and key not in FREE]
    folder = written.parent
    if other:
        key = other[0]
        raise InputError(
            f"{folder} holds a training with another recipe ({key}: {shown(old.get(key))} there, {shown(new.get(key))} "
            "here); choose another folder"
        )
    if recipe.epochs < before.epochs:
        raise InputError(
            f"{folder} holds a training with another recipe: of {before.epochs} epochs, more than {recipe.epochs}; "
            "choose another folder"
        )
    if recipe.epochs > before.epochs:
        return [
            f"{recipe.epochs} epochs instead of {before.epochs}: a new schedule, and from here on not what a training "
            f"of {recipe.epochs} epochs from the start would be"
        ]
    return []


def read_state(path: Path, recipe: Recipe, known: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """Return the state of a training that goes on.

    Args:
        path: of the state.
        recipe: of the training.
        known: the fingerprints that its sets are known by, by part.

    Raises:
        InputError: it is of a version that did otherwise, or of other data.
        Exception: of many types, where it cannot be read.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    found = state["format"]
    if found not in (STATE_FORMAT, _EARLIER):
        raise InputError(f"{path}: state format {found!r}; this version continues {_EARLIER} and {STATE_FORMAT}")
    if found == _EARLIER and isinstance(recipe.objective, DinoConfig):
        raise InputError(
            f"{path}: begun by an earlier version, which clipped, decayed and blurred otherwise than DINO; choose "
            "another folder"
        )
    if any(state["data"].get(part) not in names for part, names in known.items()):
        raise InputError(f"{path}: the data changed since this training began; choose another folder")
    return state


def restore_optimizer(optimizer: Any, saved: dict[str, Any]) -> None:
    """Give an optimiser back its moments; how it computes, and its rates, stay those of this start."""
    own = optimizer.state_dict()["param_groups"]
    if [len(group["params"]) for group in own] != [len(group["params"]) for group in saved["param_groups"]]:
        raise InputError("the training state is of other groups of weights; choose another folder")
    ours = ("lr", "initial_lr", "fused", "foreach", "capturable")
    groups = [
        group | {key: mine[key] for key in ours if key in mine}
        for group, mine in zip(saved["param_groups"], own, strict=True)
    ]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})


def other_machine(state: dict[str, Any], processes: int, images: int) -> str:
    """Return what to say where a training goes on with updates of another size; empty where it does not.

    Args:
        state: as it was read.
        processes: now.
        images: of an update, now.
    """
    before = state.get("images_per_update")
    if before is None or (before == images and state["processes"] == processes):
        return ""
    said = f"goes on with {processes} process(es) where it stopped with {state['processes']}"
    if before != images:
        said += f": {images} images an update instead of {before}, and the rate and the schedule that belong to them"
    return f"{said}; the weights will not be, bit for bit, those of a training on one number of processes"
