"""Draw the attention of every head of a saliency network on three photographed animals (docs/images/attention.jpg).

    IPVIT_REAL=FOLDER python docs/figures/attention.py

needs the folder with ``dinov2_vits14_saliency.safetensors``, ``masked/images`` and ``masked/masks``. The animals are
cut out by their masks and put onto drawn backgrounds, so that nobody's photo of a landscape is shown.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torchvision.transforms import v2

import ipvit
from ipvit.data.decode import apply_view, decode
from ipvit.data.synthetic.textures import Textures

SIDE = 128
PHOTOS = ("002_", "040_", "043_")
BACKGROUNDS = (3, 7, 12)
"""Which of the procedural textures."""


def tile(picture: np.ndarray) -> Image.Image:
    """Return a picture of (H, W, 3) uint8 as a tile."""
    return Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def on_drawn_background(photo: Path, background: int) -> torch.Tensor:
    """Return the object of a photo on a drawn background, uint8 of (3, H, W)."""
    pixels = decode(photo.read_bytes())
    inside = decode((photo.parents[1] / "masks" / f"{photo.stem}.png").read_bytes())[:1].float() / 255
    drawn = Textures().read(background)[None].float()
    drawn = torch.nn.functional.interpolate(drawn, pixels.shape[1:], mode="bicubic", antialias=True)[0].clamp(0, 255)
    # blurred, as what lies behind an object is
    drawn = v2.functional.gaussian_blur(0.5 * drawn + 64, [41, 41], [8.0, 8.0])
    return (inside * pixels + (1 - inside) * drawn).round().to(torch.uint8)


def main() -> None:
    """Write the figure."""
    real = Path(os.environ["IPVIT_REAL"])
    name = f"vit_small_patch14_dinov2?img_size=224@{real}/dinov2_vits14_saliency.safetensors"
    model = ipvit.load_model(name)
    rows, columns = model.adapter.patch_grid(model.image_size)
    files = [next((real / "masked" / "images").glob(f"{start}*")) for start in PHOTOS]
    sheet = Image.new("RGB", (SIDE * 7, SIDE * len(files) + 18), "white")
    pen = ImageDraw.Draw(sheet)
    for column, words in enumerate(["photo", *(f"head {head}" for head in range(6))]):
        pen.text((column * SIDE + 6, 3), words, fill="black")
    for row, file in enumerate(files):
        pixels = apply_view(on_drawn_background(file, BACKGROUNDS[row]), model.preprocessing.view)
        last = model.adapter.n_blocks - 1
        maps = model.attention(pixels[None].float() / 255, [last])[last][0, :, 0, len(model.adapter.prefix_tokens) :]
        photo = pixels.permute(1, 2, 0).numpy()
        sheet.paste(tile(photo), (0, row * SIDE + 18))
        for head, values in enumerate(maps.view(-1, rows, columns)):
            light = torch.nn.functional.interpolate((values / values.max())[None, None], size=photo.shape[:2])[0, 0]
            shown = photo * 0.25 + light[..., None].numpy() * np.array([255, 140, 0]) * 0.75
            sheet.paste(tile(shown.clip(0, 255).astype(np.uint8)), ((head + 1) * SIDE, row * SIDE + 18))
    sheet.save(Path(__file__).parents[1] / "images" / "attention.jpg", quality=82)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
