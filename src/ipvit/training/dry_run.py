"""Try a recipe without its data: everything is built, two updates run on made-up images, time and memory are taken."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ipvit.data.dataset import BaseDataset, Dataset
from ipvit.data.decode import decode
from ipvit.errors import InputError
from ipvit.models.label_spaces import imagenet_classes
from ipvit.training.images import TrainingImages
from ipvit.training.reading import Pipeline
from ipvit.training.recipe import Recipe
from ipvit.training.sources import open_data
from ipvit.training.start import assemble

_READ = 16
"""Images that are read to see how long that takes, after as many that warm up."""


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
        classes: outputs of the network.
        classes_known: whether the training data said so; else ImageNet's number was taken.
        read_seconds: of one process, to decode one training image and make its views; with the views of an update of a
            process, this says how many workers keep up.
    """

    parameters: int
    processes: int
    images_per_update: int
    seconds_per_update: float
    memory_gb: float
    device: str
    teacher: str | None
    classes: int
    classes_known: bool
    read_seconds: float

    @property
    def workers_needed(self) -> int:
        """Reading processes beside each training process that keep up with it."""
        return math.ceil(self.read_seconds * self.images_per_update / self.processes / self.seconds_per_update)


def dry_run(recipe: Recipe, *, device: str = "auto", batch_size: int | None = None) -> DryRun:
    """Build a recipe's training and take two updates on random images.

    Nothing is downloaded: a teacher starts from random weights, styles are the drawn ones. Where the training data is
    there, it says how many classes there are, and a few of its images are read to see how long that takes.

    Args:
        recipe: the recipe; its data need not be there.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        batch_size: another one than the recipe's, for a smaller machine.
    """
    changes: dict = {"epochs": 2, "warmup_epochs": 0, "tracker": None}
    if batch_size is not None:
        changes |= {"batch_size": batch_size, "lr_batch": None}  # the rate of so few images might lie below its end
    model = recipe.model.model_copy(update={"start": None})
    stylize = recipe.data.stylize
    if stylize is not None:
        stylize = stylize.model_copy(update={"folder": None, "styles": "demo:textures", "method": "statistics"})
    # nothing is kept: as in a training whose images are read in every epoch
    data = recipe.data.model_copy(update={"workers": 0, "memory": 0.0, "stylize": stylize})
    short = recipe.model_copy(update={**changes, "model": model, "data": data})
    real = _training_data(recipe)
    with tempfile.TemporaryDirectory(prefix="ipvit-dry-run-") as folder:
        n = 2 * short.batch_size * short.accumulate * int(os.environ.get("WORLD_SIZE", "1"))
        classes = imagenet_classes() if real is None or real.classes is None else real.classes
        sets = MadeUp(n, data.size, classes), MadeUp(4, data.size, classes)
        loop = assemble(short, *sets, Path(folder), device=device, pretrained=False)
        seconds = loop.time_updates(2)
    read = _read_seconds(MadeUpFiles(classes) if real is None else real, loop.objective.pipeline, recipe.seed)
    kind = loop.accelerator.device.type
    return DryRun(
        parameters=sum(weight.numel() for weight in loop.objective.module.parameters() if weight.requires_grad),
        processes=loop.accelerator.num_processes,
        images_per_update=loop.images_per_update,
        seconds_per_update=seconds[-1],
        memory_gb=torch.cuda.max_memory_allocated() / 1e9 if kind == "cuda" else _peak_memory(),
        device=kind,
        teacher=getattr(recipe.objective, "teacher", None),
        classes=len(classes),
        classes_known=real is not None,
        read_seconds=read,
    )


def _training_data(recipe: Recipe) -> Dataset | None:
    try:
        return open_data(recipe.data.train, recipe.data.size, "train")
    except (InputError, OSError):
        return None


def _read_seconds(data: Dataset, pipeline: Pipeline, seed: int) -> float:
    """Return how long one process takes to read an image and make its views; the first ones warm up."""
    images = TrainingImages(data, pipeline, memory=0, seed=seed)
    few = min(_READ, max(1, len(data) // 2))
    sightings = np.stack([np.linspace(0, len(data) - 1, 2 * few).astype(int), np.zeros(2 * few, int)], axis=1)
    seconds = 0.0
    for part in np.split(sightings, 2):
        start = time.perf_counter()
        list(images.batches([part]))
        seconds = time.perf_counter() - start
    return seconds / few


class MadeUp(BaseDataset):
    """Random pictures, none of them in memory.

    Args:
        n: number of pictures.
        size: height and width in pixels.
        classes: their names.
    """

    name = "made-up images"

    def __init__(self, n: int, size: int, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.ids = [str(i) for i in range(n)]
        self.labels = np.arange(n) % len(self.classes)
        self.fingerprint = f"made up, {n} of {size}"
        self._size = size

    def read(self, index: int) -> Tensor:
        """Return a random picture: ``(3, size, size)`` uint8."""
        pixels = np.random.default_rng(index).integers(0, 256, (3, self._size, self._size), dtype=np.uint8)
        return torch.from_numpy(pixels)


class MadeUpFiles(BaseDataset):
    """JPEG files of 500 x 375 pixels, ImageNet's usual size, that are decoded each time.

    Args:
        classes: their names.
    """

    name, fingerprint = "made-up files", "made-up files"

    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__(labels=np.zeros(2 * _READ, np.int64), classes=classes)
        coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (47, 63, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        self._file = buffer.getvalue()

    def read(self, index: int) -> Tensor:
        """Decode the picture: ``(3, 375, 500)`` uint8."""
        return decode(self._file)


def _peak_memory() -> float:
    """Return the most memory this process ever had, in GB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
