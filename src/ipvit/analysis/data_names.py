"""Names of data sets: how the paper and tables call them, and which data the paper's numbers are about."""

from __future__ import annotations

from pathlib import PurePath

from ipvit.data.published import SPLIT_NAMES

PAPER_NAMES = {
    "omniglot": "Omniglot",
    "aircraft": "Aircraft",
    "cub": "CUB",
    "dtd": "DTD",
    "quickdraw": "QuickDraw",
    "fungi": "Fungi",
    "flowers102": "Flowers",
    "gtsrb": "GTSRB",
    "places365": "Places365",
    "inaturalist2019": "iNat",
    "coco-crops": "MS-COCO",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}
"""Published sets by the names that table 5 and figure 16 give them."""

_PRINTED = {name: scheme for scheme, name in PAPER_NAMES.items()} | {"Flower": "flowers102"}
"""The same the other way round; figure 16 also prints Flower."""

SCHEMES = {"voc": "voc2012"}
"""How our names of data begin, where it is not with what the paper's numbers and studies call them."""

OTHER_DATA = {"voc2012", "cue-conflict", "imagenet-c", *PAPER_NAMES}
"""How the names of data begin that are not ImageNet, which goes by many names."""

WHOLE_SETS = {
    "imagenet": (50_000, "the 50,000 images of ImageNet's validation set"),
    "voc": (1_449, "the 1,449 images of PASCAL VOC 2012's validation set"),
    "cue-conflict": (1_280, "the 1,280 cue-conflict images of Geirhos et al."),
}
"""How many images whole data sets have, and in words."""


def scheme_of(printed: str) -> str:
    """Return how our names of a data set begin that the paper prints in table 5 or figure 16.

    >>> scheme_of("iNat"), scheme_of("Flower")
    ('inaturalist2019', 'flowers102')
    """
    return _PRINTED[printed]


def may_be(name: str, kind: str) -> bool:
    """Tell whether data of this name may be what a number of the paper was measured on.

    >>> may_be("imagenet/val", "imagenet"), may_be("cub:birds/test", "imagenet"), may_be("voc2012:VOC", "voc")
    (True, False, True)
    """
    scheme, colon, _ = name.partition(":")
    if kind == "imagenet":
        return not colon or scheme not in OTHER_DATA
    return bool(colon) and scheme == SCHEMES.get(kind, kind)


def data_set(name: str) -> str:
    """Return what the paper calls a data set, or a short form of its own name.

    >>> data_set("cub:birds/all"), data_set("here/photos/val.tar"), data_set("folder:photos/test")
    ('CUB', 'photos/val.tar', 'photos')
    """
    scheme, _, place = name.partition(":")
    if scheme in PAPER_NAMES:
        return PAPER_NAMES[scheme]
    if scheme == "folder":
        return PurePath(place).parent.name or place
    if scheme == "demo":
        return name
    path = PurePath(name)
    return "/".join(path.parts[-2:]) if path.stem in SPLIT_NAMES else path.name
