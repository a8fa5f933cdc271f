"""Natural shifts of ImageNet in their authors' layouts, a few small pictures each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ipvit.data.published.imagenet_lists import synsets

OBJECTNET: Mapping[str, tuple[str, str]] = {
    "alarm_clock": ("Alarm clock", "analog clock; digital clock"),
    "banana": ("Banana", "banana"),
    "helmet": ("Helmet", "crash helmet; football helmet"),
}
"""Folder, ObjectNet's name and ImageNet's names of classes; a folder of another class lies beside them."""

OUTPUTS: Mapping[str, tuple[int, ...]] = {"alarm_clock": (409, 530), "banana": (954,), "helmet": (518, 560)}
"""The same as numbers of ImageNet's outputs."""


def write_pictures(root: Path, folders: Iterable[str], n: int = 2, suffix: str = "jpg", size: int = 24) -> Path:
    """Write pictures of noise into folders; each has its own."""
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for one in range(n):
            pixels = np.random.default_rng([number, one]).integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{one}.{suffix}")
    return root


def write_objectnet(root: Path) -> Path:
    """Write ObjectNet as it is distributed: PNG files with a red border of two pixels, and its mappings."""
    base = root / "objectnet-1.0"
    write_pictures(base / "images", [*OBJECTNET, "air_freshener"], suffix="png")
    for path in (base / "images").rglob("*.png"):
        pixels = np.asarray(Image.open(path)).copy()
        for edge in (np.s_[:2], np.s_[-2:], np.s_[:, :2], np.s_[:, -2:]):
            pixels[edge] = (255, 0, 0)
        Image.fromarray(pixels).save(path)
    mappings = base / "mappings"
    mappings.mkdir()
    labels = {folder: name for folder, (name, _) in OBJECTNET.items()} | {"air_freshener": "Air freshener"}
    names = {place: name for folder, (_, text) in OBJECTNET.items() for place, name in _pairs(folder, text)}
    # the ids of 2012 are in another order than the outputs: here backwards
    listing = [names.get(999 - row, f"class {999 - row}") for row in range(1000)]
    (mappings / "folder_to_objectnet_label.json").write_text(json.dumps(labels))
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps(dict(OBJECTNET.values())))
    (mappings / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps({str(999 - row): row for row in range(1000)}))
    (mappings / "imagenet_to_label_2012_v2").write_text("\n".join(listing) + "\n")
    return root


def _pairs(folder: str, text: str) -> Iterable[tuple[int, str]]:
    return zip(OUTPUTS[folder], text.split("; "), strict=True)


def write_v2(root: Path, folder: str = "imagenetv2-matched-frequency-format-val") -> Path:
    """Write ImageNet-V2, whose folders are numbers, with a class of one, two and three digits."""
    write_pictures(root / folder, ["0", "2", "10", "100"])
    return root


def write_validation(root: Path, classes: Iterable[int], n: int = 2) -> Path:
    """Write images of ImageNet's validation set in class folders; those of a class are numbered from 1 on, 50 apart."""
    for output in classes:
        folder = root / synsets()[output]
        folder.mkdir(parents=True)
        for one in range(n):
            pixels = np.random.default_rng([output, one]).integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"ILSVRC2012_val_{50 * output + one + 1:08d}.JPEG")
    return root


def write_all(root: Path) -> None:
    """Write a set of each kind, and the validation images of its classes, under the names of the documentation."""
    write_v2(root / "v2")
    for name in ("a", "r"):
        write_pictures(root / name, synsets(name)[:3], n=1)
    write_pictures(root / "sketch", synsets()[:3], n=1, suffix="JPEG")
    write_objectnet(root / "objectnet")
    classes = {0, 1, 2, 10, 100, *(output for some in OUTPUTS.values() for output in some)}
    classes |= {synsets().index(name) for letter in "ar" for name in synsets(letter)[:3]}
    write_validation(root / "imagenet" / "val", sorted(classes), n=1)
