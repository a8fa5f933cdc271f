"""Draw what the perturbations make of one picture (docs/images/perturbations/NAME.jpg).

    python docs/figures/perturbations.py

The photo is Chelsea the cat by Stefan van der Walt (CC0). Perturbations that need a mask, a second class or a network
are shown on the procedural set and the bundled networks. Everything random follows from one fixed key.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import ipvit
from ipvit import perturb
from ipvit.data.synthetic.textures import Textures
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.perturb.cells import cell_sums
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA
from ipvit.perturb.stylize import transfer_statistics

IMAGES = Path(__file__).parents[1] / "images"
SIDE = 224
PATCHES = (14, 14)
KEY = perturb.keys(["photo"], "docs", 0)
SEVERITY = 3


def photo() -> Tensor:
    """Return the photo, ``(1, 3, 224, 224)`` in [0, 1]."""
    pixels = np.asarray(Image.open(IMAGES / "photo.png").convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255


def drawn(split: str, index: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Return an image of the procedural set and its mask, ``(1, 3, S, S)`` in [0, 1] and ``(1, 1, S, S)``."""
    data = Trifeature(split, n=40, size=side)  # pyright: ignore[reportArgumentType]
    return data.read(index)[None] / 255, data.read_mask(index)[None, None].float()


def dropped(image: Tensor, share: float, grid: tuple[int, int] = PATCHES, fill: str = "black") -> Tensor:
    """Return an image without a random share of its cells."""
    keep = perturb.random_keep(KEY, grid, perturb.n_dropped(share, grid[0] * grid[1]))
    return perturb.patchdrop(image, keep, perturb.fill_content(image, fill, KEY))  # pyright: ignore[reportArgumentType]


def shuffled(image: Tensor, rows: int, columns: int) -> Tensor:
    """Return an image whose cells have changed places."""
    return perturb.shuffle(image, perturb.shuffle_order(KEY, (rows, columns)), (rows, columns))


def of_the_photo() -> Iterator[tuple[str, Tensor]]:
    """Yield name and picture of what needs nothing but pixels."""
    image = photo()
    yield "clean", image
    for share in (25, 50, 75):
        yield f"random-{share}", dropped(image, share / 100)
    yield "pixels-50", dropped(image, 0.5, (SIDE, SIDE))
    for fill in ("mean", "noise", "blur"):
        yield f"fill-{fill}", dropped(image, 0.5, fill=fill)
    for rows, columns in ((2, 2), (4, 4), (8, 8), (14, 14)):
        yield f"shuffle-{rows}x{columns}", shuffled(image, rows, columns)
    yield "position", perturb.shrink_into(image, (128, 128), "top-left")
    bytes_of = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    for name in (*CORRUPTIONS, *EXTRA):
        corrupted = perturb.corrupt(bytes_of, name, SEVERITY, KEY[0])
        yield f"corruption-{name}", torch.from_numpy(corrupted).permute(2, 0, 1)[None] / 255
    style = Textures(n=8, size=SIDE).read(3)[None] / 255
    yield "style", style
    yield "stylised", transfer_statistics(image, style, KEY)


def of_the_procedural_set() -> Iterator[tuple[str, Tensor]]:
    """Yield name and picture of what needs a mask or another class."""
    image, mask = drawn("natural", 0)
    salience = cell_sums(mask[:, 0], PATCHES) + 1e-3  # the background is not empty: an order among its cells is needed
    yield "drawn", image
    yield "drawn-mask", mask.expand(-1, 3, -1, -1)
    yield "salient-50", perturb.patchdrop(image, perturb.salient_keep(salience, 0.5))
    yield "non-salient", perturb.patchdrop(image, perturb.mass_mask(salience, 0.95))
    yield "cue-conflict", drawn("cue-conflict", 1)[0]


def of_the_bundled_network() -> Iterator[tuple[str, Tensor]]:
    """Yield name and picture of attacks on the bundled transformer, enlarged from 64 pixels."""
    model = ipvit.load_model("demo:deit_micro").eval()
    image, _ = drawn("natural", 0, side=64)
    label = torch.tensor([int(Trifeature(n=40, size=64).labels[0])])
    attacked = perturb.fgsm(model, image, label, 8).images
    yield "attack-clean", _enlarged(image)
    yield "attack-fgsm", _enlarged(attacked)
    yield "attack-noise", _enlarged((0.5 + 12 * (attacked - image)).clamp(0, 1))


def _enlarged(image: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(image, scale_factor=SIDE / 64, mode="nearest")


def all_pictures() -> Iterator[tuple[str, Tensor]]:
    """Yield name and picture of everything, ``(1, 3, 224, 224)`` in [0, 1]."""
    yield from of_the_photo()
    yield from of_the_procedural_set()
    yield from of_the_bundled_network()


def as_bytes(image: Tensor) -> np.ndarray:
    """Return a picture as ``(H, W, 3)`` bytes."""
    return (image[0].detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def main(folder: Path) -> None:
    """Write every picture into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in all_pictures():
        Image.fromarray(as_bytes(image)).save(folder / f"{name}.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=IMAGES / "perturbations")
    main(parser.parse_args().out)
