"""Try a recipe without its data: everything is built, two updates run on made-up images, time and memory are taken."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ipvit.data.dataset import BaseDataset
from ipvit.models.label_spaces import imagenet_classes
from ipvit.training.recipe import Recipe
from ipvit.training.start import assemble


@dataclasses.dataclass(frozen=True)
class DryRun:
    """What a recipe costs here.

    Attributes:
        parameters: weights that are trained.
        processes: processes that train together.
        images_per_update: images of one update, over all processes.
        seconds_per_update: of the second update; the first one warms up.
        memory_gb: most memory so far: of the device, or of this process on a processor.
        device: where it ran.
        teacher: how the teacher was built, or None.
    """

    parameters: int
    processes: int
    images_per_update: int
    seconds_per_update: float
    memory_gb: float
    device: str
    teacher: str | None


def dry_run(recipe: Recipe, *, device: str = "auto", batch_size: int | None = None) -> DryRun:
    """Build a recipe's training and take two updates on random images.

    Nothing is read or downloaded: a teacher starts from random weights, styles are the drawn ones.

    Args:
        recipe: the recipe; its data need not be there.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        batch_size: another one than the recipe's, for a smaller machine.
    """
    changes: dict = {"epochs": 2, "warmup_epochs": 0, "tracker": None}
    if batch_size is not None:
        changes["batch_size"] = batch_size
    model = recipe.model.model_copy(update={"start": None})
    stylize = recipe.data.stylize
    if stylize is not None:
        stylize = stylize.model_copy(update={"folder": None, "styles": "demo:textures", "method": "statistics"})
    # nothing is kept: as in a training whose images are read in every epoch
    data = recipe.data.model_copy(update={"workers": 0, "memory": 0.0, "stylize": stylize})
    short = recipe.model_copy(update={**changes, "model": model, "data": data})
    with tempfile.TemporaryDirectory(prefix="ipvit-dry-run-") as folder:
        n = 2 * short.batch_size * short.accumulate * int(os.environ.get("WORLD_SIZE", "1"))
        loop = assemble(
            short, MadeUp(n, data.size), MadeUp(4, data.size), Path(folder), device=device, pretrained=False
        )
        seconds = loop.time_updates(2)
    kind = loop.accelerator.device.type
    return DryRun(
        parameters=sum(weight.numel() for weight in loop.objective.module.parameters() if weight.requires_grad),
        processes=loop.accelerator.num_processes,
        images_per_update=loop.images_per_update,
        seconds_per_update=seconds[-1],
        memory_gb=torch.cuda.max_memory_allocated() / 1e9 if kind == "cuda" else _peak_memory(),
        device=kind,
        teacher=getattr(recipe.objective, "teacher", None),
    )


class MadeUp(BaseDataset):
    """Random pictures of ImageNet's classes, none of them in memory.

    Args:
        n: number of pictures.
        size: height and width in pixels.
    """

    name = "made-up images"

    def __init__(self, n: int, size: int) -> None:
        self.classes = imagenet_classes()
        self.ids = [str(i) for i in range(n)]
        self.labels = np.arange(n) % len(self.classes)
        self.fingerprint = f"made up, {n} of {size}"
        self._size = size

    def read(self, index: int) -> Tensor:
        """Return a random picture: ``(3, size, size)`` uint8."""
        pixels = np.random.default_rng(index).integers(0, 256, (3, self._size, self._size), dtype=np.uint8)
        return torch.from_numpy(pixels)


def _peak_memory() -> float:
    """Return the most memory this process ever had, in GB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
