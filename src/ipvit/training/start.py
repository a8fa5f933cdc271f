"""From a recipe to a training: a recipe in, checkpoints out."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from torch import nn

from ipvit.core.files import resumable, user_path
from ipvit.core.links import refuse_links, refuse_unwritable
from ipvit.core.lock import FolderLock
from ipvit.core.preprocessing import View
from ipvit.data.dataset import Dataset
from ipvit.data.derived.restyled import Restyled, RestyledFolder
from ipvit.data.derived.stylized import StatisticsTransfer, Stylization, Transfer
from ipvit.data.loading import load_dataset
from ipvit.data.synthetic import textures
from ipvit.errors import InputError
from ipvit.models.init_from import init_from
from ipvit.models.loading import load_model
from ipvit.models.model import Model
from ipvit.models.zoo.micro import build_network
from ipvit.training.augment import Augmentation
from ipvit.training.config import AugmentConfig, DinoConfig, DistillationConfig, StylizeConfig
from ipvit.training.dino import Dino
from ipvit.training.distillation import Distillation
from ipvit.training.images import TrainingImages
from ipvit.training.loop import Loop, seeded
from ipvit.training.objective import Labels, Objective, Supervised
from ipvit.training.optimization import make_accelerator
from ipvit.training.recipe import Recipe, load_recipe
from ipvit.training.sources import open_data, refuse_overlap
from ipvit.training.state import RECIPE, STATE, going_on
from ipvit.training.teacher import AnswersTeacher, AttentionTeacher


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
        The path of ``best.safetensors``: the epoch with the highest score on the recipe's validation data.

    Raises:
        InputError: if the recipe, the data or the folder cannot be used.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    out = Path(out)
    refuse_links(out)
    _check_folder(out, recipe)
    size = recipe.data.size
    train_data, val_data = open_data(recipe.data.train, size, "train"), open_data(recipe.data.val, size, "val")
    if train_data.classes is None or train_data.classes != val_data.classes:
        raise InputError("{} and {} do not have the same classes".format(*recipe.data.names))
    first = int(os.environ.get("RANK", "0")) == 0
    note = refuse_overlap(train_data, val_data) if first and not (out / STATE).exists() else ""
    loop = assemble(recipe, train_data, val_data, out, device=device)
    with _held(out, loop), resumable():
        if note:
            loop.say(note)
        return loop.run(progress=progress)


def _check_folder(out: Path, recipe: Recipe) -> None:
    """Refuse a folder that cannot be written, or that holds something else than this training; nothing is written.

    Raises:
        InputError: says which.
    """
    refuse_unwritable(out, "output folder")
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) if out.exists() else []
    if names and not {RECIPE, STATE} & {*names}:
        raise InputError(
            f"{str(out)!r} holds {names[0]!r} and is not the folder of a training; give a new or an empty folder as "
            "--out"
        )
    if (out / RECIPE).exists():
        going_on(out / RECIPE, recipe)


@contextlib.contextmanager
def _held(out: Path, loop: Loop) -> Generator[None]:
    """Hold the folder of a training, all its processes together; where it is taken away, nothing more is written."""
    out.mkdir(parents=True, exist_ok=True)
    first = loop.accelerator.is_main_process
    with contextlib.ExitStack() as stack:
        if first:
            lock = stack.enter_context(FolderLock(out))
            loop.guard = lock.check
            if loop.accelerator.num_processes > 1:
                lock.share()
        loop.accelerator.wait_for_everyone()
        if not first:
            stack.enter_context(FolderLock(out, shared=True))
        yield


def assemble(
    recipe: Recipe, train_data: Dataset, val_data: Dataset, out: Path, *, device: str = "auto", pretrained: bool = True
) -> Loop:
    """Return the training of a recipe on given data.

    Args:
        recipe: everything else.
        train_data: images the weights are fitted to.
        val_data: images that are scored on; of the same classes.
        out: its folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        pretrained: False gives the teacher random weights: to try out a recipe where they are not at hand.
    """
    accelerator = make_accelerator(recipe.precision, device, recipe.tracker, out)
    shared: dict[str, Any] = {"workers": recipe.data.workers, "memory": recipe.data.memory, "seed": recipe.seed}
    shared["pin_memory"] = accelerator.device.type == "cuda"
    plain = Augmentation(AugmentConfig(), recipe.data.preprocessing)
    if isinstance(recipe.objective, DinoConfig):
        references = TrainingImages(train_data, plain, **shared)
        backbone = _model(recipe, ())
        with seeded(recipe.seed, "head"):
            objective: Objective = Dino(backbone, recipe.objective, recipe, references)
    else:
        objective = _objective(recipe, train_data, out, pretrained)
    stylize = recipe.data.stylize
    styled = None if stylize is None else _styled(stylize, train_data, recipe, out)
    share = None if isinstance(recipe.objective, DinoConfig) or stylize is None else stylize.share
    return Loop(
        recipe,
        objective,
        TrainingImages(train_data, objective.pipeline, styled=styled, share=share, **shared),
        TrainingImages(val_data, plain, **shared),
        out,
        accelerator,
    )


def _objective(recipe: Recipe, data: Dataset, out: Path, pretrained: bool) -> Objective:
    part = recipe.objective
    assert data.classes is not None
    model = _model(recipe, data.classes)
    labels = Labels(len(data.classes), recipe.label_smoothing, recipe.mixup, recipe.loss, recipe.bce_threshold)
    if isinstance(part, DistillationConfig):
        stylize = recipe.data.stylize
        if part.sees == "original" and stylize is not None:
            raise InputError("objective.sees: original cannot be combined with data.stylize; use sees: augmented")
        teacher = load_model(part.teacher, pretrained=pretrained)
        shared: dict[str, Any] = {"data": data, "part": part, "folder": out, "workers": recipe.data.workers}
        attention = AttentionTeacher(teacher, student=model, **shared) if part.attention else None
        answers = AnswersTeacher(teacher, **shared) if part.alpha or attention is None else None
        return Distillation(model, labels, recipe.augment, part, answers, attention)
    return Supervised(model, labels, recipe.augment)


def _model(recipe: Recipe, classes: tuple[str, ...]) -> Model:
    part = recipe.model
    with seeded(recipe.seed, "weights"):
        network = build_network(part.name, len(classes), **part.kwargs)
    _check_size(network, recipe)
    if part.start is not None:
        init_from(network, part.start)
    return Model(network, name=part.name, preprocessing=recipe.data.preprocessing, classes=classes or None)


def _check_size(network: nn.Module, recipe: Recipe) -> None:
    expected = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if expected and tuple(expected) != recipe.data.preprocessing.view.size:
        raise InputError(
            f"{recipe.model.name} takes {expected[0]} pixels, the recipe's data.size is {recipe.data.size}: "
            f"set model.kwargs.img_size to {recipe.data.size}"
        )


def _styled(part: StylizeConfig, data: Dataset, recipe: Recipe, out: Path) -> Dataset:
    if part.folder is not None:
        return RestyledFolder(data, user_path(part.folder))
    size = recipe.data.size
    transfer: Transfer
    if part.method == "magenta":
        from ipvit.models.sources.style import MagentaTransfer

        transfer = MagentaTransfer(part.alpha)
    else:
        transfer = StatisticsTransfer(part.alpha, part.texture_scale)
    styles = textures.Textures(size=size) if part.styles == textures.NAME else load_dataset(part.styles)
    view = dataclasses.replace(View((size, size)), interpolation="bilinear")
    job = Stylization(source=data, styles=styles, transfer=transfer, view=view, seed=recipe.seed)
    return Restyled(job, out / "styled" if part.keep else None)
