"""Label spaces: the names of a network's outputs."""

from __future__ import annotations

from functools import cache


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
