"""Segmentation by attention at 512 pixels: the procedure of the authors' script against ipvit's, on the same files.

    python benchmarks/segmentation.py --data masks:PATH/TO/IMAGES,PATH/TO/MASKS --images 32
    python benchmarks/segmentation.py --data masks:PATH/TO/IMAGES,PATH/TO/MASKS --images 32 --backend openvino

The baseline takes one image at a time, as the script released with the paper does: a pass in which every block writes
out its whole attention, the patches of every head of the last block that hold 90 % of it, enlarged to pixels, and their
Jaccard index with every object. Weights are random. Without ``--data`` random images with one object each are made.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    HEADER,
    Taken,
    as_in_a_run,
    clock,
    floor,
    options,
    passes_alone,
    row,
    settings_of,
    timed_run,
    working_folder,
)
from PIL import Image

import ipvit
from ipvit.data.decode import apply_view
from ipvit.data.subset import subset_indices
from ipvit.models.adapters.hooks import changed

THRESHOLD = 0.9


def authors_procedure(model: ipvit.Model, data: ipvit.Dataset, chosen: np.ndarray) -> Taken:
    """Return the time of the authors' procedure."""
    view = ipvit.Segment().view(model)
    adapter: Any = model.adapter  # of a transformer, which has blocks
    blocks = adapter.blocks
    size, last = model.image_size, len(blocks) - 1
    with contextlib.ExitStack() as stack, torch.no_grad():
        for block in blocks:
            stack.enter_context(changed(block.attn, "fused_attn", False))
        with clock() as taken:
            for index in chosen:
                image = apply_view(data.read(int(index)), view, "pil")[None].float() / 255
                attention = model.attention(image, [last])[last][0, :, 0, 1:]
                weights, order = attention.sort(dim=1)
                above = (weights / weights.sum(dim=1, keepdim=True)).cumsum(dim=1) > 1 - THRESHOLD
                masks = above.gather(1, order.argsort(dim=1)).view(-1, 1, size[0] // 16, size[1] // 16).float()
                masks = torch.nn.functional.interpolate(masks, scale_factor=16, mode="nearest")[:, 0].bool().numpy()
                labels = pixels_of(data.read_mask(int(index)), size)
                for number in np.unique(labels):
                    if number in (0, 255):
                        continue
                    region = labels == number
                    max(float((mask & region).sum() / (mask | region).sum()) for mask in masks)
    return taken


def pass_alone(model: ipvit.Model, data: ipvit.Dataset, chosen: np.ndarray, arguments: argparse.Namespace) -> Taken:
    """Return the time of what ipvit asks of the network, on images in memory, without converting it for a backend."""
    view, last = ipvit.Segment().view(model), model.adapter.n_blocks - 1
    images = torch.stack([apply_view(data.read(int(index)), view) for index in chosen]).float() / 255
    with as_in_a_run(model, arguments.backend, arguments.precision) as computed:
        return passes_alone(lambda part: computed.prefix_attention(part, last), images, arguments.batch, 1)


def pixels_of(mask: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Return a mask, ``(H, W)`` uint8, at the size of the network's input."""
    return np.asarray(Image.fromarray(mask.numpy()).resize((size[1], size[0]), Image.Resampling.NEAREST))


def made_up(root: Path, n: int) -> str:
    """Write images of 500 x 375 pixels, each with one object, and return what they are called."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(root / "images" / f"{i}.jpg", quality=90)
        mask = np.zeros((375, 500), np.uint8)
        mask[100:300, 50 : 150 + 10 * (i % 20)] = 255
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    return f"masks:{root / 'images'},{root / 'masks'}"


def main() -> None:
    """Measure and print a table."""
    parser = options(__doc__)
    parser.set_defaults(images=32, batch=8)
    parser.add_argument("--model", default="vit_small_patch16_224?img_size=512", help="a ViT with 16-pixel patches")
    arguments = parser.parse_args()
    model = ipvit.load_model(arguments.model, pretrained=False)
    given = arguments.data
    with working_folder(arguments) as folder:
        arguments.data = given or made_up(folder / "made-up", arguments.images)
        data = ipvit.load_dataset(arguments.data)
        chosen = subset_indices(data, arguments.images)
        print(f"{len(chosen)} images of {model.image_size[0]} pixels, {torch.get_num_threads()} threads")
        ours, _ = timed_run(ipvit.Segment(), model, arguments, folder / "run", **settings_of(arguments))
        baseline = authors_procedure(model, data, chosen)
        alone = pass_alone(model, data, chosen, arguments)
    print(HEADER)
    print(row(f"ViT-S, {arguments.precision} {arguments.backend}", baseline, ours))
    print(
        f"passes up to the last block's attention alone {alone.cpu:.1f} s cpu: {baseline.cpu / alone.cpu:.2f} would "
        f"be their ratio; ipvit takes {ours.cpu - alone.cpu:+.1f} s cpu"
    )
    print(floor(model, len(chosen), arguments.precision, arguments.backend))


if __name__ == "__main__":
    main()
