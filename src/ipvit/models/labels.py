"""Label spaces: the names of a network's outputs, and how one label space maps to another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor

from ipvit.errors import InputError

ENTRY_LEVEL_CATEGORIES: Mapping[str, tuple[range, ...]] = MappingProxyType(
    {
        "airplane": (range(404, 405),),
        "bear": (range(294, 298),),
        "bicycle": (range(444, 445), range(671, 672)),
        "bird": (
            range(8, 9),
            range(10, 17),
            range(18, 21),
            range(22, 25),
            range(80, 84),
            range(87, 97),
            range(98, 101),
            range(127, 134),
            range(135, 146),
        ),
        "boat": (range(472, 473), range(554, 555), range(625, 626), range(814, 815), range(914, 915)),
        "bottle": (range(440, 441), range(720, 721), range(737, 738), range(898, 900), range(901, 902), range(907, 908)),
        "car": (range(436, 437), range(511, 512), range(817, 818)),
        "cat": (range(281, 287),),
        "chair": (range(423, 424), range(559, 560), range(765, 766), range(857, 858)),
        "clock": (range(409, 410), range(530, 531), range(892, 893)),
        "dog": (
            range(152, 192),
            range(193, 204),
            range(205, 227),
            range(228, 242),
            range(243, 251),
            range(252, 258),
            range(259, 260),
            range(261, 264),
            range(265, 269),
        ),
        "elephant": (range(385, 387),),
        "keyboard": (range(508, 509), range(878, 879)),
        "knife": (range(499, 500),),
        "oven": (range(766, 767),),
        "truck": (
            range(555, 556),
            range(569, 570),
            range(656, 657),
            range(675, 676),
            range(717, 718),
            range(734, 735),
            range(864, 865),
            range(867, 868),
        ),
    }
)
"""The 16 entry-level categories of the shape-bias benchmark and their 207 outputs of ImageNet-1k.

Geirhos et al., "ImageNet-trained CNNs are biased towards texture" (2019) and its benchmark model-vs-human. In the order
of the alphabet, which settles ties.
"""


@cache
def imagenet_classes(subset: str = "imagenet-1k") -> tuple[str, ...]:
    """Return the WordNet ids of an ImageNet label space in output order, from timm's tables."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo(subset).label_names())


def classes_of_timm(network: object, pretrained_cfg: dict[str, object]) -> tuple[str, ...] | None:
    """Return the class names of a timm network: from its configuration, else by its number of outputs, else None."""
    from timm.data import infer_imagenet_subset

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
        {name: tuple(synsets[i] for part in parts for i in part) for name, parts in ENTRY_LEVEL_CATEGORIES.items()}
    )


@dataclasses.dataclass(frozen=True)
class CategoryMap:
    """From many fine classes to a few categories: a category's share is the mean over its classes.

    The mean and not the sum, since a category with 109 classes would otherwise win over one with a single class
    (Geirhos et al.'s own recommendation).

    >>> fine = CategoryMap.for_classes(["n1", "n2", "n3"], {"cat": ("n1", "n3"), "dog": ("n2",)})
    >>> fine(torch.tensor([[0.2, 0.5, 0.3]]))
    tensor([[0.2500, 0.5000]])

    Attributes:
        names: of the categories, in the order of the result.
        columns: per category the positions of its classes in the network's outputs.
        outputs: number of the network's outputs.
    """

    names: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    outputs: int

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
        if probabilities.shape[-1] != self.outputs:
            raise InputError(f"{probabilities.shape[-1]} outputs where the categories are of {self.outputs}")
        totals = probabilities.sum(dim=-1, dtype=torch.float64)
        if (probabilities < 0).any() or not torch.allclose(totals, torch.ones_like(totals), atol=1e-2):
            raise InputError("these are no probabilities (negative, or not summing to 1): take the softmax of the logits")
        means = [probabilities[..., list(columns)].mean(dim=-1) for columns in self.columns]
        return torch.stack(means, dim=-1)
