"""Images a second that reach the training: our loader and timm's own, with DeiT's changes, from the same JPEG files.

python benchmarks/training_loader.py [--data FOLDER] [--images 512] [--batch 64] [--workers 2] [--repeats 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sized

from common import options, working_folder
from PIL import ImageOps
from timm.data.dataset_factory import create_dataset
from timm.data.loader import create_loader

from ipvit.data.loading import load_dataset
from ipvit.perturb.pixels import as_floats
from ipvit.training.augment import Augmentation
from ipvit.training.erasing import Erasing
from ipvit.training.images import TrainingImages, training_batches
from ipvit.training.recipe import Recipe, load_recipe

Epoch = Callable[[int], Iterator[Sized]]
"""Gives something as long as each batch of an epoch, when the batch is ready."""


def main() -> None:
    """Print images a second of each, best of several epochs."""
    parser = options(__doc__)
    parser.set_defaults(images=512, batch=64, workers=2)
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each; the best one counts")
    parser.add_argument("--recipe", default="deit_s_shape", help="whose changes are made")
    arguments = parser.parse_args()
    with working_folder(arguments):
        recipe = load_recipe(arguments.recipe)
        for name, opened in (("ipvit", _ours), ("timm", _theirs)):
            speed = _speed(opened(arguments, recipe), arguments.repeats)
            print(f"{name:6} {speed:7.1f} images/s with {arguments.workers} worker(s)")


def _ours(arguments: argparse.Namespace, recipe: Recipe) -> Epoch:
    data = load_dataset(arguments.data)
    pipeline = Augmentation(recipe.augment, recipe.data.preprocessing)
    images = TrainingImages(data, pipeline, workers=arguments.workers, memory=0)

    erase = Erasing(recipe.augment, recipe.data.preprocessing)

    def epoch(number: int) -> Iterator[Sized]:
        batches = training_batches(len(data), arguments.batch, 0, number)
        for batch in images.batches(batches, number):
            yield erase(as_floats(batch.views[0]), batch.keys)

    return epoch


def _theirs(arguments: argparse.Namespace, recipe: Recipe) -> Epoch:
    # Pillow 13 refuses the 0 bits that timm asks for in one image of 700
    ImageOps.posterize = lambda image, bits: image.point([value & -(1 << 8 - bits) for value in range(256)] * 3)
    part, like = recipe.augment, recipe.data.preprocessing
    loader = create_loader(
        create_dataset("", root=arguments.data),  # pyright: ignore[reportArgumentType] - a folder gives an ImageDataset
        (3, *like.view.size),
        arguments.batch,
        is_training=True,
        use_prefetcher=False,
        scale=part.crop_scale,
        hflip=part.hflip,
        color_jitter=0,
        auto_augment=part.auto,
        re_prob=part.erase,
        re_mode=part.erase_mode,
        interpolation=like.view.interpolation,
        num_workers=arguments.workers,
        pin_memory=False,
        persistent_workers=arguments.workers > 0,
    )

    def epoch(number: int) -> Iterator[Sized]:  # noqa: ARG001
        return (labels for _, labels in loader)

    return epoch


def _speed(epoch: Epoch, repeats: int) -> float:
    """Return images a second of the best epoch; the first one, which starts the workers, does not count."""
    speeds = []
    for number in range(repeats + 1):
        started = time.perf_counter()
        seen = sum(len(labels) for labels in epoch(number))
        speeds.append(seen / (time.perf_counter() - started))
    return max(speeds[1:])


if __name__ == "__main__":
    main()
