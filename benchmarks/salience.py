"""Salient and non-salient PatchDrop: the procedure of the authors' script against ipvit's, same files, same weights.

    python benchmarks/salience.py --data PATH/TO/CLASS/FOLDERS --images 32

The baseline makes a fresh pass over the files for each of ten levels of both series and asks the network for salience
again every time, as the script released with the paper does. Both networks are loaded once in either case, which the
script does again for every level. Weights are random; the network for salience has the size of DINO's ViT-S/16.
"""

from __future__ import annotations

import torch
from common import HEADER, Files, Taken, clock, floor, options, row, settings_of, timed_run, working_folder

import ipvit

LEVELS = tuple(k / 10 for k in range(1, 11))


def dino() -> ipvit.Model:
    """Return a network for salience with the size of DINO's ViT-S/16."""
    return ipvit.load_model("vit_small_patch16_224?num_classes=0", pretrained=False)


def authors_procedure(model: ipvit.Model, where: ipvit.Model, files: Files) -> Taken:
    """Return the time of the authors' procedure."""
    with clock() as taken:
        for drop_best in (True, False):
            for level in LEVELS:
                for images, _labels in files.fresh_pass():
                    with torch.no_grad():
                        (attention,) = where.attention(images, [where.adapter.n_blocks - 1]).values()
                        weights, order = attention[:, 1, 0, 1:].sort(dim=1)
                        above = (weights / weights.sum(dim=1, keepdim=True)).cumsum(dim=1) > 1 - level
                        kept = above.gather(1, order.argsort(dim=1)) != drop_best
                        mask = kept.view(-1, 1, 14, 14).repeat_interleave(16, 2).repeat_interleave(16, 3)
                        model(images * mask).argmax(1)
    return taken


def main() -> None:
    """Measure and print a table."""
    parser = options(__doc__)
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    arguments = parser.parse_args()
    print(
        f"{arguments.images} images, 2 series x {len(LEVELS)} levels, batch {arguments.batch}, "
        f"{torch.get_num_threads()} threads"
    )
    model, where = ipvit.load_model(arguments.model, pretrained=False), dino()
    experiment = ipvit.Occlusion(modes=("salient", "non_salient"), levels=LEVELS, salience=f"{__file__}:dino")
    with working_folder(arguments) as folder:
        ours, _ = timed_run(experiment, model, arguments, folder / "run", **settings_of(arguments))
        baseline = authors_procedure(model, where, Files(model, arguments))
    print(HEADER)
    print(row(f"{arguments.model}, {arguments.precision} {arguments.backend}", baseline, ours))
    print(floor(model, 2 * len(LEVELS) * arguments.images, arguments.precision, arguments.backend))
    print(floor(where, arguments.images, arguments.precision))


if __name__ == "__main__":
    main()
