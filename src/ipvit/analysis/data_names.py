"""Short names of data sets for tables and figures."""

from __future__ import annotations

from pathlib import PurePath

from ipvit.data.transfer import SPLIT_NAMES

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
