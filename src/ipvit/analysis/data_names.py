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


def scheme_of(printed: str) -> str:
    """Return how our names of a data set begin that the paper prints in table 5 or figure 16.

    >>> scheme_of("iNat"), scheme_of("Flower")
    ('inaturalist2019', 'flowers102')
    """
    return _PRINTED[printed]


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
