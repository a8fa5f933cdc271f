"""Commands that make networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from ipvit import training
from ipvit.commands.named_code import announce
from ipvit.commands.options import Flag, Switch
from ipvit.core.plugins import named_code
from ipvit.core.terminal import Terminal, print_json
from ipvit.errors import InputError

if TYPE_CHECKING:
    from ipvit.training.recipe import Recipe


def train(
    recipe: str | None = None,
    /,
    *,
    out: Path | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    device: str = "auto",
    progress: Switch = True,
    list_: Annotated[bool, Parameter(name="--list", negative=(), show_default=False)] = False,
    dry_run: Flag = False,
    batch_size: int | None = None,
    json: Flag = False,
) -> int:
    """Train a network by a recipe, or continue.

    With several processes: accelerate launch -m ipvit train RECIPE, or torchrun -m ipvit train RECIPE.

    Parameters
    ----------
    recipe
        A YAML file, or the name of a bundled recipe.
    out
        Folder for checkpoints and log. [default: runs/train-RECIPE, with the seed where one is given]
    seed
        Everything random follows from it: weights, draws and styles. [default: the recipe's]
    epochs
        Passes over the data; the learning rate's schedule follows. [default: the recipe's]
    device
        auto, cpu, cuda, mps.
    progress
        Show a progress bar.
    list_
        List the bundled recipes and end.
    dry_run
        Build everything, take two updates on made-up images, say what they cost, write nothing.
    batch_size
        With --dry-run: images a batch, where the recipe's are too many for this machine. [default: the recipe's]
    json
        With --list or --dry-run: print as JSON on standard output.
    """
    if list_:
        return _list(json)
    if recipe is None:
        raise InputError("give a recipe: a YAML file or one of those that `ipvit train --list` shows")
    changes = {"seed": seed, "epochs": epochs}
    loaded = training.load_recipe(recipe, **{key: value for key, value in changes.items() if value is not None})
    announce(Path(recipe), named_code(loaded.model_dump()), json=json)
    if dry_run:
        return _dry_run(loaded, device, batch_size, json)
    if batch_size is not None:
        raise InputError("--batch-size is for --dry-run; a training takes it from its recipe")
    name = f"train-{Path(recipe).stem}" + ("" if seed is None else f"-seed{seed}")
    folder = out or Path("runs") / name
    best = training.train(loaded, folder, device=device, progress=progress)
    _console().print(f"best checkpoint: {best}")
    return 0


def _list(json: bool) -> int:
    from ipvit.training.bundled import ran_to_end, recipe_names, recipe_summary

    rows = [
        {"recipe": name, "trains": recipe_summary(name), "ran": "to its end" if ran_to_end(name) else "dry run only"}
        for name in recipe_names()
    ]
    if json:
        return print_json(rows)
    table = Table("recipe", "what it trains", "run here")
    for row in rows:
        table.add_row(row["recipe"], row["trains"], row["ran"])
    Terminal(highlight=False).print(table)
    return 0


def _dry_run(recipe: Recipe, device: str, batch_size: int | None, json: bool) -> int:
    from ipvit.training.dry_run import dry_run

    cost = dry_run(recipe, device=device, batch_size=batch_size)
    if json:
        return print_json(dataclasses.asdict(cost))
    console = _console()
    known = "" if cost.classes_known else ", assumed: the training data is not here to say"
    console.print(
        f"{recipe.model.name}: {cost.parameters / 1e6:.2f} M weights are trained, on {cost.device}; {cost.classes} "
        f"classes{known}"
    )
    if cost.teacher:
        console.print(f"teacher: {cost.teacher}, here with random weights")
    console.print(
        f"one update: {cost.images_per_update} images over {cost.processes} process(es), "
        f"{cost.seconds_per_update:.2f} s ({cost.images_per_update / cost.seconds_per_update:.3g} images/s); "
        f"peak memory {cost.memory_gb:.1f} GB"
    )
    files = "" if cost.classes_known else " (made-up JPEG files of 500 x 375 pixels)"
    console.print(
        f"reading: {1000 * cost.read_seconds:.1f} ms an image in one process{files}; {cost.workers_needed} worker(s) "
        f"keep up with this, the recipe has {recipe.data.workers}"
    )
    return 0


def _console() -> Terminal:
    return Terminal(soft_wrap=True, highlight=False)
