"""The published sets: what they are called, how they are divided, how large their parts are and who has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from ipvit.data.published import annotated, arrays, folders, lists
from ipvit.data.published.parts import Listing

Share = Literal["all", "most", "held out"]


@dataclasses.dataclass(frozen=True)
class SplitPart:
    """A share of a part that the publisher has: all of it, or our fixed nine tenths or one tenth of each class."""

    published: str
    share: Share = "all"


Splits = Mapping[str, tuple[SplitPart, ...]]

THREE: Splits = {
    "train": (SplitPart("train"),),
    "val": (SplitPart("val"),),
    "test": (SplitPart("test"),),
    "trainval": (SplitPart("train"), SplitPart("val")),
    "all": (SplitPart("train"), SplitPart("val"), SplitPart("test")),
}
"""The publisher has train, val and test."""

TWO: Splits = {
    "train": (SplitPart("trainval", "most"),),
    "val": (SplitPart("trainval", "held out"),),
    "test": (SplitPart("test"),),
    "trainval": (SplitPart("trainval"),),
    "all": (SplitPart("trainval"), SplitPart("test")),
}
"""The publisher has a training part, here ``trainval``, and a test part; train and val are ours."""

OPEN: Splits = {
    "train": (SplitPart("train"),),
    "val": (SplitPart("val"),),
    "test": (SplitPart("val"),),
    "minitrain": (SplitPart("train", "most"),),
    "minival": (SplitPart("train", "held out"),),
    "all": (SplitPart("train"), SplitPart("val")),
}
"""The publisher keeps the labels of its test part: one reports on val, and chooses on minival, which is ours."""

CHARACTERS: Splits = {
    "train": (SplitPart("train"),),
    "test": (SplitPart("test"),),
    "all": (SplitPart("train"), SplitPart("test")),
}
"""The parts have different classes."""

WHOLE: Splits = {"all": (SplitPart("all"),)}
"""The publisher does not divide it."""


@dataclasses.dataclass(frozen=True)
class PublishedSet:
    """A set that others publish and the user has on disk.

    Attributes:
        name: before the colon.
        title: what it is.
        classes: how many it has as published.
        sizes: images of each part that the publisher has.
        splits: what can stand behind the path.
        read: reads one of the publisher's parts from the folder.
        layout: what lies in the folder.
        source: where to get it.
        reported: the split that numbers are reported on; meant where none is named.
        group: from an image's path what it must not be parted from when we divide a part, where there is such a thing.
    """

    name: str
    title: str
    classes: int
    sizes: Mapping[str, int]
    splits: Splits
    read: Callable[[Path, str], Listing]
    layout: str
    source: str
    reported: str = "test"
    group: Callable[[str], str] | None = None

    @property
    def protocol(self) -> tuple[str, str, str] | None:
        """The splits to fit on, to choose on and to report on, or None where there are no such three."""
        if "minival" in self.splits:
            return ("minitrain", "minival", "val")
        return ("train", "val", "test") if {"train", "val", "test"} <= self.splits.keys() else None

    def parts(self) -> str:
        """Return the splits as text: the publisher's with their sizes, ours with what they are made of."""
        return "; ".join(
            f"{split}{'*' if split == self.reported else ''} {self._made_of(pieces)}".rstrip()
            for split, pieces in self.splits.items()
        )

    def summary(self) -> dict[str, object]:
        """Return what a list of data sets says of it."""
        return {
            "what": self.title,
            "classes": self.classes,
            "layout": self.layout,
            "splits": {split: self._made_of(pieces) for split, pieces in self.splits.items()},
            "reported": self.reported,
            "source": self.source,
        }

    def _made_of(self, pieces: tuple[SplitPart, ...]) -> str:
        if any(piece.published not in self.sizes for piece in pieces):
            return ""
        if pieces[0].share != "all":
            return f"({'9/10' if pieces[0].share == 'most' else '1/10'} of {pieces[0].published}, ours)"
        return f"{sum(self.sizes[piece.published] for piece in pieces):,}"


_SETS = (
    PublishedSet(
        "aircraft",
        "FGVC-Aircraft 2013b, variants of aeroplanes",
        100,
        {"train": 3334, "val": 3333, "test": 3333},
        THREE,
        lists.aircraft,
        "fgvc-aircraft-2013b/data/ with images_variant_train.txt, images/",
        "the page of FGVC-Aircraft at Oxford's Visual Geometry Group",
    ),
    PublishedSet(
        "cub",
        "Caltech-UCSD Birds 200-2011",
        200,
        {"trainval": 5994, "test": 5794},
        TWO,
        lists.cub,
        "CUB_200_2011/ with images.txt, train_test_split.txt, image_class_labels.txt, classes.txt, images/",
        "the page of CUB-200-2011 at Caltech's vision group",
    ),
    PublishedSet(
        "dtd",
        "Describable Textures, its first division",
        47,
        {"train": 1880, "val": 1880, "test": 1880},
        THREE,
        lists.dtd,
        "dtd/ with labels/train1.txt, images/",
        "the page of the Describable Textures Dataset at Oxford's Visual Geometry Group",
    ),
    PublishedSet(
        "flowers102",
        "Oxford Flowers-102",
        102,
        {"train": 1020, "val": 1020, "test": 6149},
        THREE,
        lists.flowers102,
        "flowers-102/ with jpg/, setid.mat, imagelabels.mat",
        "the page of the 102 Category Flower Dataset at Oxford's Visual Geometry Group",
    ),
    PublishedSet(
        "fungi",
        "FGVCx Fungi 2018",
        1394,
        {"train": 85578, "val": 4182},
        OPEN,
        annotated.fungi,
        "train.json, val.json, images/",
        "the page of the FGVCx Fungi 2018 challenge",
        "val",
    ),
    PublishedSet(
        "gtsrb",
        "German Traffic Sign Recognition Benchmark",
        43,
        {"trainval": 39209, "test": 12630},
        TWO,
        folders.gtsrb,
        "GTSRB/ with Final_Training/Images/ or torchvision's Training/ (26,640 images), Final_Test/Images/, "
        "GT-final_test.csv",
        "the page of the GTSRB benchmark at Ruhr University Bochum",
        group=folders.track,
    ),
    PublishedSet(
        "inaturalist2019",
        "iNaturalist 2019",
        1010,
        {"train": 265213, "val": 3030},
        OPEN,
        annotated.inaturalist2019,
        "train2019.json, val2019.json, train_val2019/",
        "the page of the iNaturalist 2019 competition",
        "val",
    ),
    PublishedSet(
        "places365",
        "Places365-Standard",
        365,
        {"train": 1803460, "val": 36500},
        OPEN,
        lists.places365,
        "categories_places365.txt, places365_train_standard.txt, places365_val.txt, data_256_standard/, val_256/",
        "the Places2 page of MIT's computer vision group, or torchvision.datasets.Places365",
        "val",
    ),
    PublishedSet(
        "cifar10",
        "CIFAR-10",
        10,
        {"trainval": 50000, "test": 10000},
        TWO,
        arrays.cifar10,
        "cifar-10-batches-bin/ or cifar-10-batches-py/",
        "the CIFAR page at the University of Toronto",
    ),
    PublishedSet(
        "cifar100",
        "CIFAR-100, fine classes",
        100,
        {"trainval": 50000, "test": 10000},
        TWO,
        arrays.cifar100,
        "cifar-100-binary/ or cifar-100-python/",
        "the CIFAR page at the University of Toronto",
    ),
    PublishedSet(
        "imagenet",
        "ImageNet-1k (ILSVRC 2012)",
        1000,
        {"train": 1281167, "val": 50000},
        OPEN,
        folders.imagenet,
        "train/SYNSET/, val/SYNSET/; or a flat val/ with LOC_val_solution.csv or ILSVRC2012_devkit_t12/",
        "the ImageNet project's page, or its Kaggle challenge",
        "val",
    ),
    PublishedSet(
        "omniglot",
        "Omniglot, a class per character: background (train), evaluation (test)",
        1623,
        {"train": 19280, "test": 13180},
        CHARACTERS,
        folders.omniglot,
        "images_background/, images_evaluation/",
        "Omniglot's own repository (python folder)",
    ),
    PublishedSet(
        "mnist",
        "MNIST",
        10,
        {"trainval": 60000, "test": 10000},
        TWO,
        arrays.mnist,
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., packed (.gz) or not",
        "the MNIST page, or torchvision.datasets.MNIST",
    ),
    PublishedSet(
        "quickdraw",
        "Quick, Draw!, its bitmaps of 28 pixels",
        345,
        {"all": 50426266},
        WHOLE,
        arrays.quickdraw,
        f"CLASS.npy; {arrays.QUICKDRAW_PER_CLASS:,} drawings of each class are used",
        "the Quick, Draw! data set's repository (numpy bitmaps)",
        "all",
    ),
    PublishedSet(
        "coco-crops",
        "COCO 2017, objects cut out by their boxes",
        80,
        {"train": 860001, "val": 36781},
        OPEN,
        annotated.coco_crops,
        "annotations/instances_train2017.json, train2017/, the same for val2017",
        "the COCO project's page (2017 train/val images and annotations)",
        "val",
    ),
    PublishedSet(
        "folder",
        "any folder of folders of class folders",
        0,
        {},
        THREE,
        folders.any_folder,
        "train/, val/, test/",
        "your own disk",
    ),
)

SETS: dict[str, PublishedSet] = {entry.name: entry for entry in _SETS}
"""Published sets by name."""
