"""Sets in class folders: ImageNet, GTSRB, Omniglot, and any folder with ``train/ val/ test/``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ipvit.data.formats.image_files import is_hidden, is_picture
from ipvit.data.published.layouts import LayoutNotFoundError, below, class_folders, first, lines, rows
from ipvit.data.published.matlab import read_matlab
from ipvit.data.published.parts import FileListing, number
from ipvit.errors import InputError

SPLIT_FOLDERS = {
    "train": ("train", "training", "Training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Names that the folder of a split may have."""

SPLIT_NAMES: frozenset[str] = frozenset(name for names in SPLIT_FOLDERS.values() for name in names)

_TRUTH = "GT-final_test.csv"


def split_folder(root: Path, split: str) -> FileListing | None:
    """Return the images of a split in a folder ``train/ val/ test/`` of class folders, or None where it is not there.

    The classes are those of all the splits together, so that a class has one number in all of them.
    """
    names = {
        key: next((name for name in known if (root / name).is_dir()), None) for key, known in SPLIT_FOLDERS.items()
    }
    folder = names[split]
    if folder is None:
        return None
    every = {path.name for name in names.values() if name for path in (root / name).iterdir() if path.is_dir()}
    classes = sorted(name for name in every if not is_hidden(name))
    try:
        return class_folders(root, folder, classes)
    except LayoutNotFoundError:
        return None


def imagenet(root: Path, split: str) -> FileListing:
    """ILSVRC 2012 in synset folders; a flat ``val`` needs its labels: Kaggle's table or the development kit."""
    base = below(root, ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"), split)
    try:
        return class_folders(base, split)
    except LayoutNotFoundError:
        if split == "train":
            raise
    images = sorted(path.name for path in (base / split).iterdir() if is_picture(path.name))
    owners = _from_kaggle(root) or _from_kit(root, images)
    if not images or not owners:
        raise LayoutNotFoundError(
            "val/SYNSET/IMAGE, or LOC_val_solution.csv or ILSVRC2012_devkit_t12 beside a flat val"
        )
    classes = tuple(sorted(set(owners.values())))
    if unknown := [image for image in images if Path(image).stem not in owners]:
        raise InputError(f"imagenet: no label is known for {unknown[0]!r} ({len(unknown)} such images)")
    labels = number([owners[Path(image).stem] for image in images], classes, base / split)
    return FileListing(base, tuple(f"{split}/{image}" for image in images), labels, classes)


def _from_kaggle(root: Path) -> dict[str, str]:
    path = root / "LOC_val_solution.csv"
    if not path.is_file():
        return {}
    return {
        row["ImageId"]: row["PredictionString"].split()[0] for row in rows(path, ",", ("ImageId", "PredictionString"))
    }


def _from_kit(root: Path, images: list[str]) -> dict[str, str]:
    """Read the development kit: line ``i`` of the ground truth is the number of the synset of the ``i``-th image."""
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    if not kit.is_dir():
        return {}
    truth = lines(kit / "ILSVRC2012_validation_ground_truth.txt")
    try:
        synsets = read_matlab(first(kit, ["meta.mat"]))["synsets"]
        names = {int(entry["ILSVRC2012_ID"].item()): entry["WNID"] for entry in synsets}
        found = {Path(image).stem: names[int(word)] for image, word in zip(images, truth, strict=True)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{str(kit)!r} does not fit the {len(images)} images of val: {error}") from None
    return found


def gtsrb(root: Path, split: str) -> FileListing:
    """GTSRB: training images in folders by class, and a table of the test images."""
    base = next((place for place in (root / "gtsrb" / "GTSRB", root / "GTSRB", root) if _is_gtsrb(place)), None)
    if base is None:
        raise LayoutNotFoundError("GTSRB/Training or GTSRB/Final_Training/Images or GTSRB/Final_Test/Images")
    if split == "test":
        return _gtsrb_test(base)
    folder = first(base, ["Final_Training/Images", "Training"]).relative_to(base).as_posix()
    found = class_folders(base, folder)
    classes = tuple(str(int(name)) if name.isdecimal() else name for name in found.classes)
    return dataclasses.replace(found, classes=classes)


def track(path: str) -> str:
    """Return the track of a training image of GTSRB, ``TRACK_FRAME.ppm``: its 30 frames show one and the same sign."""
    return Path(path).stem.split("_")[0]


def _is_gtsrb(place: Path) -> bool:
    return any((place / name).is_dir() for name in ("Final_Training/Images", "Training", "Final_Test/Images"))


def _gtsrb_test(base: Path) -> FileListing:
    first(base, ["Final_Test/Images"])
    places = (base, base.parent, base / "Final_Test", base / "Final_Test" / "Images")
    listing = next((place / _TRUTH for place in places if (place / _TRUTH).is_file()), None)
    if listing is None:
        raise LayoutNotFoundError(_TRUTH)
    table = rows(listing, ";", ("Filename", "ClassId"))
    classes = tuple(str(n) for n in range(43))
    labels = number([row["ClassId"].strip() for row in table], classes, listing)
    return FileListing(base, tuple(f"Final_Test/Images/{row['Filename']}" for row in table), labels, classes)


def omniglot(root: Path, split: str) -> FileListing:
    """Omniglot: ``images_background`` and ``images_evaluation``; a class is a character, ``ALPHABET/CHARACTER``."""
    folder = {"train": "images_background", "test": "images_evaluation"}[split]
    base = below(root, ("omniglot-py", "python", "omniglot/python", ""), folder)
    found = class_folders(base, folder)
    owners = [path.removeprefix(f"{folder}/").rpartition("/")[0] for path in found.paths]
    classes = tuple(sorted(set(owners)))
    return FileListing(base, found.paths, number(owners, classes, base / folder), classes)


def any_folder(_root: Path, split: str) -> FileListing:
    """Nothing but the folders ``train/ val/ test/`` themselves, which :func:`split_folder` reads."""
    raise LayoutNotFoundError(f"{split}/CLASS/IMAGE")
