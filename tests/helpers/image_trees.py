"""Small folders of images in the layouts of masks, PASCAL VOC 2012, ImageNet-C and cue conflicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import ipvit

SQUARE = np.zeros((12, 16), np.uint8)
SQUARE[3:9, 4:12] = 1

CORRUPTED = ("shot_noise", "fog", "pixelate")

CONFLICTS = (
    "cat/cat1-elephant3.png",
    "cat/cat2-cat1.png",
    "elephant/elephant10-knife2.png",
    "elephant/elephant7-cat9.png",
)


def write_pair(root: Path, mask: Image.Image, stem: str = "a", suffix: str = "png") -> ipvit.data.Dataset:
    for folder in ("images", "masks"):
        (root / folder / stem).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12), "grey").save(root / "images" / f"{stem}.jpg")
    mask.save(root / "masks" / f"{stem}.{suffix}")
    return ipvit.load_dataset(f"masks:{root / 'images'},{root / 'masks'}")


def write_voc(root: Path) -> Path:
    """Two images; in the first an aeroplane (1) with a ring of void, and two birds (3)."""
    base = root / "VOCdevkit" / "VOC2012"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass", "SegmentationObject"):
        (base / folder).mkdir(parents=True)
    (base / "ImageSets/Segmentation/val.txt").write_text("2007_1\n2007_2\n")
    (base / "ImageSets/Segmentation/train.txt").write_text("2007_2\n")
    classes = np.zeros((20, 30), np.uint8)
    classes[2:12, 2:12] = 255
    classes[3:11, 3:11] = 1
    classes[2:8, 16:20] = classes[2:8, 24:28] = 3
    instances = classes.copy()
    instances[2:8, 16:20], instances[2:8, 24:28] = 2, 3
    for name in ("2007_1", "2007_2"):
        Image.new("RGB", (30, 20), "green").save(base / "JPEGImages" / f"{name}.jpg")
        for folder, numbers in (("SegmentationClass", classes), ("SegmentationObject", instances)):
            picture = Image.fromarray(numbers).convert("P")
            picture.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
            picture.save(base / folder / f"{name}.png")
    return root


def write_imagenet_c(
    root: Path, names=CORRUPTED, severities=(1, 2, 3, 4, 5), classes: int = 2, n: int = 3, side: int = 16
) -> Path:
    """Write a small ImageNet-C of random pictures; the same photo has the same name everywhere."""
    rng = np.random.default_rng(0)
    for name in names:
        for severity in severities:
            for c in range(classes):
                folder = root / name / str(severity) / f"c{c}"
                folder.mkdir(parents=True)
                for i in range(n):
                    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
                    coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"val_{i:04d}.JPEG", quality=85)
    return root


def write_cue_conflict(root: Path, names: tuple[str, ...] = CONFLICTS, size: int = 224) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / name)
    return root
