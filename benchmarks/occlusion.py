"""Random PatchDrop: the procedure of the authors' script against ipvit's, in one run on the same files and weights.

    python benchmarks/occlusion.py --data PATH/TO/CLASS/FOLDERS --images 48 --runs 2

The baseline makes a fresh pass over the files for every level and run, in fp32 eager mode, with one mask for the whole
batch, as the script released with the paper does. ``pure forward`` is nothing but the network on images that are
already in memory, as often as ipvit calls it. Without ``--data`` random JPEG files of ImageNet's usual size are made.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

import ipvit
from ipvit.data.decode import apply_view
from ipvit.data.subset import select
from ipvit.perturb import n_dropped

LEVELS = tuple(k / 10 for k in range(10))


class Files(TorchDataset):
    """What torchvision's ImageFolder with Resize, CenterCrop and ToTensor does, on the chosen images."""

    def __init__(self, data: ipvit.data.Dataset, chosen: np.ndarray, model: ipvit.Model) -> None:
        self.data, self.chosen, self.view = data, chosen, model.preprocessing.view

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        index = int(self.chosen[number])
        return apply_view(self.data.read(index), self.view, "pil").float() / 255, int(self.data.labels[index])


def authors_procedure(model: ipvit.Model, files: Files, runs: int, batch: int, workers: int) -> tuple[float, int]:
    """Return wall seconds and the number of correct answers at level 0."""
    started, correct = time.perf_counter(), 0
    for level in LEVELS:
        for _ in range(runs):
            for images, labels in DataLoader(files, batch, shuffle=True, num_workers=workers):
                keep = torch.ones(196)
                keep[torch.randperm(196)[: n_dropped(level, 196)]] = 0
                mask = keep.view(1, 1, 14, 14).repeat_interleave(16, 2).repeat_interleave(16, 3)
                with torch.no_grad():
                    answers = model(images * mask).argmax(1)
                correct += int((answers == labels).sum()) if level == 0 else 0
    return time.perf_counter() - started, correct


def pure_forward(model: ipvit.Model, files: Files, calls: int, batch: int) -> float:
    """Return the wall seconds of the network alone, ``calls`` times over the images."""
    images = torch.stack([files[i][0] for i in range(len(files))])
    with torch.inference_mode():
        model(images[:batch])
        started = time.perf_counter()
        for _ in range(calls):
            for part in images.split(batch):
                model(part)
        return time.perf_counter() - started


def ours(model: ipvit.Model, arguments: argparse.Namespace, out: Path) -> tuple[float, float]:
    """Return wall seconds of ``ipvit.run``, and those of them inside the network."""
    inside = 0.0
    plain = model.forward

    def timed(images: torch.Tensor) -> torch.Tensor:
        nonlocal inside
        started = time.perf_counter()
        answer = plain(images)
        inside += time.perf_counter() - started
        return answer

    model.forward = timed
    _ = model.digest
    data = ipvit.load_dataset(arguments.data)
    experiment, run = ipvit.Occlusion(levels=LEVELS, runs=arguments.runs), ipvit.run  # imported before the clock starts
    started = time.perf_counter()
    run(
        experiment, models=model, data=data, out=out, limit=arguments.images,
        batch_size=arguments.batch, workers=arguments.workers, device="cpu", progress=False,
    )  # fmt: skip
    wall = time.perf_counter() - started
    model.forward = plain
    return wall, inside


def made_up_photos(root: Path, n: int) -> Path:
    """Write ``n`` JPEG files of 500 x 375 pixels into one class folder."""
    rng = np.random.default_rng(0)
    folder = root / "n01440764"
    folder.mkdir()
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg", quality=90)
    return root


def main() -> None:
    """Measure every network and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="default: deit_tiny_patch16_224 and torchvision:resnet50")
    parser.add_argument("--data", help="class folders named by ImageNet synsets")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{arguments.images} images, 10 levels x {arguments.runs} runs, batch {arguments.batch}, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    print(
        f"{'network':28}{'authors s':>11}{'ours s':>9}{'ratio':>7}{'forward s':>11}{'overhead':>10}{'not forward':>13}"
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments.data = arguments.data or str(made_up_photos(Path(folder), arguments.images))
        for name in arguments.model or ["deit_tiny_patch16_224", "torchvision:resnet50"]:
            model = ipvit.load_model(name, pretrained=False)
            data = ipvit.load_dataset(arguments.data)
            files = Files(data, select(data.ids, arguments.images), model)
            pure = pure_forward(model, files, 1 + 9 * arguments.runs, arguments.batch)
            wall, inside = ours(model, arguments, Path(folder) / name.replace(":", "-"))
            baseline, _ = authors_procedure(model, files, arguments.runs, arguments.batch, arguments.workers)
            print(f"{name:28}{baseline:11.1f}{wall:9.1f}{baseline / wall:7.2f}{pure:11.1f}{wall / pure - 1:10.1%}"
                  f"{1 - inside / wall:13.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
