"""Plain supervised training: a recipe in, checkpoints out."""

from __future__ import annotations

from pathlib import Path

from ipvit.errors import InputError
from ipvit.models.micro import build_network
from ipvit.models.model import Model
from ipvit.training.images import TrainingImages, open_data
from ipvit.training.loop import Loop, seeded
from ipvit.training.objective import Supervised
from ipvit.training.recipe import Recipe, load_recipe


def train(recipe: Recipe | str | Path, out: str | Path, *, device: str = "auto", progress: bool = True) -> Path:
    """Train a network, or go on with a training that was interrupted.

    Every finished epoch is on disk. Run again with the same recipe and folder, the training continues after the last
    finished epoch and, on one machine's CPU, ends with the same weights bit for bit as if it had never stopped.

    Args:
        recipe: a recipe, a YAML file, or the name of one that comes with the package.
        out: folder for ``best.safetensors``, ``last.safetensors``, ``recipe.yaml``, ``log.jsonl`` (one line an epoch)
            and ``state.pt`` (what continuing needs).
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        progress: show a progress bar on stderr.

    Returns:
        The path of ``best.safetensors``: the epoch with the highest accuracy on the recipe's validation data.

    Raises:
        InputError: if the recipe, the data or the folder cannot be used.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    train_data, val_data = (open_data(name, recipe.data.size) for name in (recipe.data.train, recipe.data.val))
    if train_data.classes is None or train_data.classes != val_data.classes:
        raise InputError(f"{recipe.data.train} and {recipe.data.val} do not have the same classes")
    classes = train_data.classes
    with seeded(recipe.seed, "weights"):
        network = build_network(recipe.model.name, len(classes), **recipe.model.kwargs)
    expected = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if expected and tuple(expected) != recipe.data.preprocessing.view.size:
        raise InputError(
            f"{recipe.model.name} takes {expected[0]} pixels, the recipe's data.size is {recipe.data.size}: "
            f"set model.kwargs.img_size to {recipe.data.size}"
        )
    loop = Loop(
        recipe,
        Model(network, name=recipe.model.name, preprocessing=recipe.data.preprocessing, classes=classes),
        Supervised(len(classes), recipe.label_smoothing, recipe.mixup),
        TrainingImages(train_data, recipe.data),
        TrainingImages(val_data, recipe.data),
        Path(out),
        device=device,
    )
    return loop.run(progress=progress)
