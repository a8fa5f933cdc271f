"""Commands that make networks."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ipvit import training


def train(recipe: str, /, *, out: Path | None = None, device: str = "auto", progress: bool = True) -> int:
    """Train a network by a recipe, or continue.

    Parameters
    ----------
    recipe
        A YAML file, or the name of a bundled recipe.
    out
        Folder for checkpoints and log; runs/train-RECIPE by default.
    device
        auto, cpu, cuda, cuda:1, mps.
    progress
        Show a progress bar.
    """
    loaded = training.load_recipe(recipe)
    folder = out or Path("runs") / f"train-{Path(recipe).stem}"
    best = training.train(loaded, folder, device=device, progress=progress)
    Console().print(f"best checkpoint: {best}", soft_wrap=True, highlight=False, markup=False)
    return 0
