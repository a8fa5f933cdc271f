"""Sets whose splits are lists of file names: Aircraft, CUB, DTD, Flowers-102, Places365."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ipvit.data.published.layouts import LayoutNotFoundError, below, first, lines, pairs
from ipvit.data.published.matlab import read_matlab
from ipvit.data.published.parts import FileListing, number
from ipvit.errors import InputError


def aircraft(root: Path, split: str) -> FileListing:
    """FGVC-Aircraft: the 100 variants, ``images_variant_SPLIT.txt``."""
    base = below(root, ("fgvc-aircraft-2013b/data", "data", ""), "variants.txt")
    classes = tuple(lines(base / "variants.txt"))
    listing = base / f"images_variant_{split}.txt"
    images, variants = zip(*pairs(listing), strict=True)
    return FileListing(
        base, tuple(f"images/{image}.jpg" for image in images), number(variants, classes, listing), classes
    )


def cub(root: Path, split: str) -> FileListing:
    """Caltech-UCSD Birds 200-2011: ``train_test_split.txt`` marks the training images with 1."""
    base = below(root, ("CUB_200_2011", ""), "images.txt")
    images, training = dict(pairs(base / "images.txt")), dict(pairs(base / "train_test_split.txt"))
    owner, names = dict(pairs(base / "image_class_labels.txt")), dict(pairs(base / "classes.txt"))
    wanted = [image for image in images if training.get(image) == {"trainval": "1", "test": "0"}[split]]
    classes = tuple(names.values())
    labels = number([names.get(owner.get(image, ""), "") for image in wanted], classes, base / "image_class_labels.txt")
    return FileListing(base, tuple(f"images/{images[image]}" for image in wanted), labels, classes)


def dtd(root: Path, split: str) -> FileListing:
    """Describable Textures: the first of its ten divisions, ``labels/SPLIT1.txt``."""
    base = below(root, ("dtd/dtd", "dtd", ""), "labels")
    listing = lines(base / "labels" / f"{split}1.txt")
    everything = {line for part in ("train", "val", "test") for line in lines(base / "labels" / f"{part}1.txt")}
    classes = tuple(sorted({line.split("/")[0] for line in everything}))
    labels = number([line.split("/")[0] for line in listing], classes, base / "labels")
    return FileListing(base, tuple(f"images/{line}" for line in listing), labels, classes)


def flowers102(root: Path, split: str) -> FileListing:
    """Oxford Flowers-102: ``setid.mat`` and ``imagelabels.mat``; the classes have numbers, from 1."""
    base = below(root, ("flowers-102", "flowers102", ""), "jpg")
    for name in ("setid.mat", "imagelabels.mat"):
        first(base, [name])
    key = {"train": "trnid", "val": "valid", "test": "tstid"}[split]
    owners, divisions = read_matlab(base / "imagelabels.mat").get("labels"), read_matlab(base / "setid.mat")
    images = divisions.get(key)
    if owners is None or images is None:
        raise InputError(f"{str(base)!r}: imagelabels.mat needs the variable 'labels' and setid.mat {key!r}")
    images, owners = images.ravel().astype(np.int64), owners.ravel().astype(np.int64)
    if not len(images) or images.min() < 1 or images.max() > len(owners):
        raise InputError(f"{str(base)!r}: setid.mat names images that imagelabels.mat does not know")
    classes = tuple(str(n) for n in range(1, int(owners.max()) + 1))
    return FileListing(
        base, tuple(f"jpg/image_{image:05d}.jpg" for image in images.tolist()), owners[images - 1] - 1, classes
    )


def places365(root: Path, split: str) -> FileListing:
    """Places365-Standard with its lists of files, as torchvision keeps it; 256-pixel images before large ones."""
    classes = tuple(name.split("/", 2)[-1] for name, _ in pairs(first(root, ["categories_places365.txt"])))
    listing = first(root, [{"train": "places365_train_standard.txt", "val": "places365_val.txt"}[split]])
    folders = {
        "train": ("data_256_standard", "data_256", "data_large_standard", "data_large"),
        "val": ("val_256", "val_large"),
    }
    folder = first(root, folders[split]).name
    images, owners = zip(*pairs(listing), strict=True)
    labels = np.array([int(owner) if owner.isdecimal() else -1 for owner in owners], dtype=np.int64)
    if labels.min() < 0 or labels.max() >= len(classes):
        raise LayoutNotFoundError(f"{listing.name} with labels below {len(classes)}")
    return FileListing(root, tuple(f"{folder}/{image.lstrip('/')}" for image in images), labels, classes)
