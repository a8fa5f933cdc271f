"""Feature drop: the procedure of the authors' script against ipvit's, on the same files and weights.

    python benchmarks/feature_drop.py --data PATH/TO/CLASS/FOLDERS --images 32

The baseline makes a fresh pass over the files and a full forward for every block and rate, with one mask for the whole
batch, as the script released with the paper does. ipvit reads the files once and takes what enters every block from one
pass, for all rates; beyond the baseline, it also measures the network as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from common import HEADER, Files, Taken, clock, floor, options, row, settings_of, timed_run, working_folder

import ipvit
from ipvit.perturb import n_dropped

BLOCKS = (0, 2, 4, 6, 8, 10)
RATES = (0.25, 0.5, 0.75)


def authors_procedure(model: ipvit.Model, files: Files) -> Taken:
    """Return the time of the authors' procedure."""
    network: Any = model.backbone
    with clock() as taken:
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
    return taken


def main() -> None:
    """Measure and print a table."""
    parser = options(__doc__)
    parser.add_argument("--model", default="deit_tiny_patch16_224", help="a ViT of 12 blocks with 14x14 patches")
    arguments = parser.parse_args()
    print(
        f"{arguments.images} images, {len(BLOCKS)} blocks x {len(RATES)} rates, batch {arguments.batch}, "
        f"{torch.get_num_threads()} threads"
    )
    model = ipvit.load_model(arguments.model, pretrained=False)
    experiment = ipvit.FeatureDrop(blocks=BLOCKS, rates=RATES)
    with working_folder(arguments) as folder:
        ours, _ = timed_run(experiment, model, arguments, folder / "run", **settings_of(arguments))
        baseline = authors_procedure(model, Files(model, arguments))
    print(HEADER)
    print(row(arguments.model, baseline, ours))
    after = sum(model.adapter.n_blocks - block for block in BLOCKS) * len(RATES) / model.adapter.n_blocks
    print(floor(model, round((1 + after) * arguments.images), arguments.precision))


if __name__ == "__main__":
    main()
