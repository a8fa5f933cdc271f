"""Probing every block: the procedure of the authors' script against ipvit's, on the same files and weights.

    python benchmarks/probe.py --train PATH/TO/CLASS/FOLDERS --data PATH/TO/OTHER/CLASS/FOLDERS --images 16

The baseline trains one linear head per block as the script released with the paper does: in every epoch every training
image is read, goes through the whole network and takes part in one step, and every test image is read and classified;
then the next block. ipvit reads every image once, keeps what leaves the blocks and trains all heads in one pass over
it. Both make the same steps: AdamW, learning rate 5e-4, weight decay 0.05, 10 epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from common import HEADER, Files, Taken, clock, made_up_photos, options, row, settings_of, timed_run, working_folder
from torch import nn

import ipvit

EPOCHS = 10


def authors_procedure(model: ipvit.Model, train: Files, test: Files) -> Taken:
    """Return the time of the authors' procedure."""
    network: Any = model.backbone
    classes = len(train.data.classes or ())
    with clock() as taken:
        for block in range(len(network.blocks)):
            kept: dict[str, torch.Tensor] = {}
            hook = network.blocks[block].register_forward_hook(lambda _m, _a, out, kept=kept: kept.update(tokens=out))
            head = nn.Linear(network.embed_dim, classes)
            optimiser = torch.optim.AdamW(head.parameters(), lr=5e-4, weight_decay=0.05)
            for _ in range(EPOCHS):
                for images, labels in train.fresh_pass():
                    with torch.no_grad():
                        model(images)
                    loss = nn.functional.cross_entropy(head(network.norm(kept["tokens"])[:, 0].detach()), labels)
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                for images, _ in test.fresh_pass():
                    with torch.no_grad():
                        model(images)
                        head(network.norm(kept["tokens"])[:, 0]).argmax(1)
            hook.remove()
    return taken


def two_classes(root: Path, n: int) -> str:
    """Write made-up photos into two class folders."""
    photos = sorted(made_up_photos(root, n).glob("*/*.jpg"))
    (root / "n01443537").mkdir()
    for photo in photos[::2]:
        photo.rename(root / "n01443537" / photo.name)
    return str(root)


def main() -> None:
    """Measure and print a table."""
    parser = options(__doc__)
    parser.set_defaults(images=16)
    parser.add_argument("--train", help="class folders to fit on; as many images are used")
    parser.add_argument("--model", default="deit_tiny_patch16_224", help="a ViT with a class token")
    arguments = parser.parse_args()
    model = ipvit.load_model(arguments.model, pretrained=False)
    blocks, images = model.adapter.n_blocks, arguments.images
    print(
        f"{images} + {images} images, {blocks} blocks, {EPOCHS} epochs, batch {arguments.batch}, "
        f"{torch.get_num_threads()} threads"
    )
    with working_folder(arguments) as folder:
        if arguments.train is None:
            arguments.data = two_classes(folder / "test", images)
            arguments.train = two_classes(folder / "train", images + 1)  # not the same files
        experiment = ipvit.Probe(
            train=arguments.train, train_limit=images, tokens=("class",), last=(), protocol="authors"
        )
        ours, _ = timed_run(experiment, model, arguments, folder / "run", **settings_of(arguments))
        train = Files(model, argparse.Namespace(**{**vars(arguments), "data": arguments.train}))
        baseline = authors_procedure(model, train, Files(model, arguments))
    print(HEADER)
    print(row(arguments.model, baseline, ours))


if __name__ == "__main__":
    main()
