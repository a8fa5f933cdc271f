"""Random PatchDrop: the procedure of the authors' script against ipvit's, in one run on the same files and weights.

    python benchmarks/occlusion.py --data PATH/TO/CLASS/FOLDERS --images 48 --runs 2

The baseline makes a fresh pass over the files for every level and run, in fp32 eager mode, with one mask for the whole
batch, as the script released with the paper does. ``pure forward`` is nothing but the network on images that are
already in memory, as often as ipvit calls it. Without ``--data`` random JPEG files of ImageNet's usual size are made.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from common import Files, options, seconds_of_run, working_folder

import ipvit
from ipvit.perturb import n_dropped

LEVELS = tuple(k / 10 for k in range(10))


def authors_procedure(model: ipvit.Model, files: Files, runs: int) -> float:
    """Return wall seconds."""
    started = time.perf_counter()
    for level in LEVELS:
        for _ in range(runs):
            for images, _labels in files.fresh_pass():
                keep = torch.ones(196)
                keep[torch.randperm(196)[: n_dropped(level, 196)]] = 0
                mask = keep.view(1, 1, 14, 14).repeat_interleave(16, 2).repeat_interleave(16, 3)
                with torch.no_grad():
                    model(images * mask).argmax(1)
    return time.perf_counter() - started


def pure_forward(model: ipvit.Model, files: Files, calls: int) -> float:
    """Return the wall seconds of the network alone, ``calls`` times over the images."""
    images = torch.stack([files[i][0] for i in range(len(files))])
    with torch.inference_mode():
        model(images[: files.batch])
        started = time.perf_counter()
        for _ in range(calls):
            for part in images.split(files.batch):
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
    wall = seconds_of_run(ipvit.Occlusion(levels=LEVELS, runs=arguments.runs), model, arguments, out)
    model.forward = plain
    return wall, inside


def main() -> None:
    """Measure every network and print a table."""
    parser = options(__doc__)
    parser.add_argument("--model", action="append", help="default: deit_tiny_patch16_224 and torchvision:resnet50")
    parser.add_argument("--runs", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{arguments.images} images, 10 levels x {arguments.runs} runs, batch {arguments.batch}, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    print(
        f"{'network':28}{'authors s':>11}{'ours s':>9}{'ratio':>7}{'forward s':>11}{'overhead':>10}{'not forward':>13}"
    )
    with working_folder(arguments) as folder:
        for name in arguments.model or ["deit_tiny_patch16_224", "torchvision:resnet50"]:
            model = ipvit.load_model(name, pretrained=False)
            files = Files(model, arguments)
            pure = pure_forward(model, files, 1 + 9 * arguments.runs)
            wall, inside = ours(model, arguments, folder / name.replace(":", "-"))
            baseline = authors_procedure(model, files, arguments.runs)
            print(f"{name:28}{baseline:11.1f}{wall:9.1f}{baseline / wall:7.2f}{pure:11.1f}{wall / pure - 1:10.1%}"
                  f"{1 - inside / wall:13.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
