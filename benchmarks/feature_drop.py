"""Feature drop: the procedure of the authors' script against ipvit's, on the same files and weights.

    python benchmarks/feature_drop.py --data PATH/TO/CLASS/FOLDERS --images 32

The baseline makes a fresh pass over the files and a full forward for every block and rate, with one mask for the whole
batch, as the script released with the paper does. ipvit reads the files once and runs what comes before a block once
for all its rates; beyond the baseline, it also measures the network as it is.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from common import Files, options, seconds_of_run, working_folder

import ipvit
from ipvit.perturb import n_dropped

BLOCKS = (0, 2, 4, 6, 8, 10)
RATES = (0.25, 0.5, 0.75)


def authors_procedure(model: ipvit.Model, files: Files) -> float:
    """Return wall seconds."""
    network: Any = model.backbone
    started = time.perf_counter()
    for block in BLOCKS:
        for rate in RATES:
            for images, _labels in files.fresh_pass():
                lost = 1 + torch.randperm(196)[: n_dropped(rate, 196)]
                hook = network.blocks[block].register_forward_pre_hook(
                    lambda _, args, lost=lost: args[0].index_fill(1, lost, 0.0)
                )
                with torch.no_grad():
                    model(images).argmax(1)
                hook.remove()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print a table."""
    parser = options(__doc__)
    parser.add_argument("--model", default="deit_tiny_patch16_224", help="a ViT of 12 blocks with 14x14 patches")
    arguments = parser.parse_args()
    print(f"{arguments.images} images, {len(BLOCKS)} blocks x {len(RATES)} rates, batch {arguments.batch}, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    model = ipvit.load_model(arguments.model, pretrained=False)
    experiment = ipvit.FeatureDrop(blocks=BLOCKS, rates=RATES)
    with working_folder(arguments) as folder:
        wall = seconds_of_run(experiment, model, arguments, folder / "run")
        baseline = authors_procedure(model, Files(model, arguments))
    print(f"{'network':28}{'authors s':>11}{'ours s':>9}{'ratio':>7}")
    print(f"{arguments.model:28}{baseline:11.1f}{wall:9.1f}{baseline / wall:7.2f}")


if __name__ == "__main__":
    main()
