"""What the benchmarks share: options, files read as the paper's script reads them, and a run of ipvit with its time."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

import ipvit
from ipvit.data.decode import apply_view
from ipvit.data.subset import select


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="class folders named by ImageNet synsets")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    return parser


@contextlib.contextmanager
def working_folder(arguments: argparse.Namespace) -> Iterator[Path]:
    """Give a folder for the runs and, where there are no ``--data``, made-up photos."""
    with tempfile.TemporaryDirectory() as folder:
        arguments.data = arguments.data or str(made_up_photos(Path(folder) / "photos", arguments.images))
        yield Path(folder)


def made_up_photos(root: Path, n: int) -> Path:
    """Write ``n`` JPEG files of 500 x 375 pixels into one class folder."""
    rng = np.random.default_rng(0)
    folder = root / "n01440764"
    folder.mkdir(parents=True)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg", quality=90)
    return root


class Files(TorchDataset):
    """What torchvision's ImageFolder with Resize, CenterCrop and ToTensor does, on the images that ipvit would use."""

    def __init__(self, model: ipvit.Model, arguments: argparse.Namespace) -> None:
        self.data = ipvit.load_dataset(arguments.data)
        self.chosen = select(self.data.ids, arguments.images)
        self.view = model.preprocessing.view
        self.batch, self.workers = arguments.batch, arguments.workers

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        index = int(self.chosen[number])
        return apply_view(self.data.read(index), self.view, "pil").float() / 255, int(self.data.labels[index])

    def fresh_pass(self) -> DataLoader:
        """Return a loader that reads every file again, in random order."""
        return DataLoader(self, self.batch, shuffle=True, num_workers=self.workers)


def seconds_of_run(experiment: ipvit.Experiment, model: ipvit.Model, arguments: argparse.Namespace, out: Path) -> float:
    """Return the wall seconds of ``ipvit.run``; networks are loaded and modules imported before the clock starts."""
    data, run = ipvit.load_dataset(arguments.data), ipvit.run
    experiment.check(model)
    _ = model.digest, experiment.conditions(model)
    started = time.perf_counter()
    run(
        experiment, models=model, data=data, out=out, limit=arguments.images, batch_size=arguments.batch,
        workers=arguments.workers, device="cpu", progress=False,
    )  # fmt: skip
    return time.perf_counter() - started
