"""What it saves to take tokens out of a transformer, instead of blackening their pixels.

    python benchmarks/token_removal.py --images 32

Times are processor times of one batch after the other, the shares in turn; the median of several rounds. The images are
random and in memory: time does not depend on what is in them.
"""

from __future__ import annotations

import statistics
import time

import torch
from common import options

import ipvit

SHARES = (0.0, 0.5, 0.75, 0.9)


def keeping(n: int, grid: tuple[int, int], share: float) -> torch.Tensor:
    """Return masks that drop a share of the patches, other ones of every image."""
    places = grid[0] * grid[1]
    order = torch.rand(n, places).argsort(dim=1).argsort(dim=1)
    return (order >= int(share * places)).view(n, *grid)


def main() -> None:
    """Measure and print a table."""
    parser = options(__doc__)
    parser.add_argument("--model", action="append", help="default: deit_tiny_patch16_224 and deit_small_patch16_224")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{arguments.images} images, batch {arguments.batch}, {torch.get_num_threads()} threads")
    print(f"{'network':28}{'dropped':>9}{'tokens':>8}{'ms an image':>13}{'of the time':>13}{'of the tokens':>15}")
    for name in arguments.model or ["deit_tiny_patch16_224", "deit_small_patch16_224"]:
        model = ipvit.load_model(name, pretrained=False)
        grid = model.adapter.patch_grid(model.image_size)
        images = torch.rand(arguments.images, 3, *model.image_size)
        seconds: dict[float, list[float]] = {share: [] for share in SHARES}
        with torch.inference_mode():
            for _ in range(arguments.rounds):
                for share in SHARES:
                    keep = keeping(len(images), grid, share)
                    started = time.process_time()
                    for part, kept in zip(images.split(arguments.batch), keep.split(arguments.batch), strict=True):
                        model.without_patches(part, kept)
                    seconds[share].append(time.process_time() - started)
        whole = statistics.median(seconds[0.0])
        prefix_tokens = len(model.adapter.prefix_tokens)
        all_tokens = grid[0] * grid[1] + prefix_tokens
        for share in SHARES:
            tokens = int(keeping(1, grid, share).sum()) + prefix_tokens
            taken = statistics.median(seconds[share])
            print(
                f"{name:28}{share:9.0%}{tokens:8}{1000 * taken / len(images):13.2f}{taken / whole:13.1%}"
                f"{tokens / all_tokens:15.1%}"
            )


if __name__ == "__main__":
    main()
