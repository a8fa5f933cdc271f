"""Images a second that reach the training: our loader and timm's own, with DeiT's changes, from the same JPEG files.

python benchmarks/training_loader.py [--data FOLDER] [--images 512] [--batch 64] [--workers 2] [--repeats 3]
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
from common import options, working_folder
from timm.data import create_dataset, create_loader

from ipvit.data.loading import load_dataset
from ipvit.training.augment import Augmentation
from ipvit.training.images import TrainingImages, training_batches
from ipvit.training.recipe import load_recipe


def main() -> None:
    """Print images a second of each, best of several epochs."""
    parser = options(__doc__)
    parser.set_defaults(images=512, batch=64, workers=2)
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each; the best one counts")
    parser.add_argument("--recipe", default="deit_s_shape", help="whose changes are made")
    arguments = parser.parse_args()
    with working_folder(arguments):
        recipe = load_recipe(arguments.recipe)
        part, like = recipe.augment, recipe.data.preprocessing
        data = load_dataset(arguments.data)
        ours = TrainingImages(data, Augmentation(part, like), workers=arguments.workers, memory=0)

        def our_epoch(epoch: int) -> int:
            batches = training_batches(len(data), arguments.batch, 0, epoch)
            return _count(batch.labels for batch in ours.batches(batches, epoch))

        theirs = create_loader(
            create_dataset("", root=arguments.data),
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
        for name, epoch in (("ipvit", our_epoch), ("timm", lambda _: _count(labels for _, labels in theirs))):
            speeds = []
            for number in range(arguments.repeats + 1):  # the first one starts the workers
                started = time.perf_counter()
                seen = epoch(number)
                speeds.append(seen / (time.perf_counter() - started))
            print(f"{name:6} {max(speeds[1:]):7.1f} images/s with {arguments.workers} worker(s)")
        ours.close()


def _count(labels: Iterable) -> int:
    return int(np.sum([len(batch) for batch in labels]))


if __name__ == "__main__":
    main()
