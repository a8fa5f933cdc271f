"""Draw the most harmful cells of a photo, and as many random ones (docs/images/attack-cells.jpg).

    IPVIT_REAL=FOLDER python docs/figures/cells.py

needs the folder with ``efficientnet_lite0.safetensors``. The photo is Chelsea the cat by Stefan van der Walt (CC0).
ImageNet has several cats that she may be taken for; all of them are right.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from perturbations import IMAGES, KEY, PATCHES, SIDE, photo
from PIL import Image, ImageDraw

import ipvit
from ipvit.perturb.attack import attack_cells
from ipvit.perturb.attacks.cells import Choice

CATS = ("n02124075", "n02123159", "n02123045")
"""Egyptian cat, tiger cat and tabby."""
COUNT = 16
NAMES = {"n02124075": "Egyptian cat", "n02123159": "tiger cat", "n02123045": "tabby", "n02127052": "lynx"}
CHOICES: tuple[tuple[Choice, str], ...] = (
    ("random", "at random"),
    ("gradient", "largest gradient"),
    ("greedy", "by search"),
)
HEAD = 34


def main() -> None:
    """Write the figure."""
    weights = Path(os.environ["IPVIT_REAL"]) / "efficientnet_lite0.safetensors"
    model = ipvit.load_model(f"tf_efficientnet_lite0@{weights}").eval().requires_grad_(False)
    classes = list(model.classes or ())
    right = torch.zeros(1, len(classes), dtype=torch.bool)
    right[0, [classes.index(name) for name in CATS]] = True
    image = photo()
    shown = {"the photo": (image, model(image))}
    for choice, words in CHOICES:
        found = attack_cells(model, image, right, KEY, grid=PATCHES, count=COUNT, choice=choice)
        shown[f"{COUNT} cells, {words}"] = found.images, found.logits
    sheet = Image.new("RGB", (len(shown) * (SIDE + 6) - 6, SIDE + HEAD), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (words, (pixels, logits)) in enumerate(shown.items()):
        probability = logits.softmax(dim=1)
        best = classes[int(logits.argmax())]
        answer = f"{NAMES.get(best, best)}; a cat: {100 * float(probability[right].sum()):.0f} %"
        pen.text((column * (SIDE + 6) + 3, 3), f"{words}\n{answer}", fill="black")
        tile = (pixels[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        sheet.paste(Image.fromarray(tile), (column * (SIDE + 6), HEAD))
    sheet.save(IMAGES / "attack-cells.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    main()
