"""Label spaces: the names of a network's outputs, and how one label space maps to another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from ipvit.errors import InputError
from ipvit.models.answers import AnswerSpace

if TYPE_CHECKING:
    from torch import Tensor

ENTRY_LEVEL_CATEGORIES: Mapping[str, str] = MappingProxyType(
    {
        "airplane": "404",
        "bear": "294-297",
        "bicycle": "444 671",
        "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145",
        "boat": "472 554 625 814 914",
        "bottle": "440 720 737 898-899 901 907",
        "car": "436 511 817",
        "cat": "281-286",
        "chair": "423 559 765 857",
        "clock": "409 530 892",
        "dog": "152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268",
        "elephant": "385-386",
        "keyboard": "508 878",
        "knife": "499",
        "oven": "766",
        "truck": "555 569 656 675 717 734 864 867",
    }
)
"""The 16 entry-level categories of the shape-bias benchmark and the positions of their 207 classes in ImageNet-1k.

Geirhos et al., "ImageNet-trained CNNs are biased towards texture" (2019) and its benchmark model-vs-human. In the order
of the alphabet, which settles ties.
"""


@cache
def imagenet_classes(subset: str = "imagenet-1k") -> tuple[str, ...]:
    """Return the WordNet ids of an ImageNet label space in output order, from timm's tables."""
    from timm.data import ImageNetInfo  # pyright: ignore[reportPrivateImportUsage]

    return tuple(ImageNetInfo(subset).label_names())


def classes_of_timm(network: object, pretrained_cfg: dict[str, object]) -> tuple[str, ...] | None:
    """Return the class names of a timm network: from its configuration, else by its number of outputs, else None."""
    from timm.data import infer_imagenet_subset  # pyright: ignore[reportPrivateImportUsage]

    names = pretrained_cfg.get("label_names")
    if isinstance(names, list | tuple):
        return tuple(str(name) for name in names)
    if not getattr(network, "num_classes", 0):
        return None
    subset = infer_imagenet_subset(network)
    return None if subset is None else imagenet_classes(subset)


@cache
def entry_level_synsets() -> Mapping[str, tuple[str, ...]]:
    """Return the WordNet ids of each of the 16 entry-level categories."""
    synsets = imagenet_classes()
    return MappingProxyType(
        {name: tuple(synsets[index] for index in _indices(text)) for name, text in ENTRY_LEVEL_CATEGORIES.items()}
    )


def _indices(text: str) -> Iterator[int]:
    for part in text.split():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@dataclasses.dataclass(frozen=True)
class CategoryMap(AnswerSpace):
    """From many fine classes to a few categories: a category's share is the mean over its classes.

    The mean and not the sum, since a category with 109 classes would otherwise win over one with a single class
    (Geirhos et al.'s own recommendation).

    >>> import torch
    >>> fine = CategoryMap.for_classes(["n1", "n2", "n3"], {"cat": ("n1", "n3"), "dog": ("n2",)})
    >>> fine(torch.tensor([[0.2, 0.5, 0.3]]))
    tensor([[0.2500, 0.5000]])
    """

    @classmethod
    def for_classes(
        cls, classes: Sequence[str] | None, categories: Mapping[str, Sequence[str]] | None = None
    ) -> CategoryMap:
        """Find each category's classes among a network's, by name, whatever their order.

        Args:
            classes: names of the network's outputs (``Model.classes``).
            categories: names of each category's classes; the 16 entry-level ones by default.

        Raises:
            InputError: the names are unknown, or a class of a category is missing or there twice.
        """
        if classes is None:
            raise InputError("the model does not say what its outputs are, so they cannot be mapped to categories")
        categories = entry_level_synsets() if categories is None else categories
        where = {name: position for position, name in enumerate(classes)}
        if len(where) != len(classes):
            raise InputError("two of the model's outputs have the same name, so they cannot be mapped to categories")
        missing = [name for names in categories.values() for name in names if name not in where]
        if missing:
            raise InputError(
                f"the model's {len(where)} outputs lack {len(missing)} of the classes that the categories are made of: "
                + ", ".join(missing[:3])
                + (", ..." if len(missing) > 3 else "")
                + f"; the model's are {', '.join(map(str, classes[:3]))}, ..."
            )
        columns = tuple(tuple(where[name] for name in names) for names in categories.values())
        return cls(tuple(categories), columns, len(where))

    def __call__(self, probabilities: Tensor) -> Tensor:
        """Return the mean probability of each category's classes.

        Args:
            probabilities: ``(..., outputs)``, softmax of the logits, each row summing to 1.

        Returns:
            ``(..., categories)``; rows do not sum to 1.

        Raises:
            InputError: another number of outputs, or values that are no probabilities.
        """
        import torch

        if probabilities.shape[-1] != self.outputs:
            raise InputError(f"{probabilities.shape[-1]} outputs where the categories are of {self.outputs}")
        totals = probabilities.sum(dim=-1)
        if (probabilities < 0).any() or not torch.allclose(totals, torch.ones_like(totals), atol=1e-2):
            raise InputError(
                "these are no probabilities (negative, or not summing to 1): take the softmax of the logits"
            )
        return self.pooled(probabilities)
