"""Names of classes for people."""

from __future__ import annotations

import re
from functools import cache


def readable(name: str) -> str:
    """Return a class's name in words where it is a WordNet id: ``n01440764`` is a tench."""
    if re.fullmatch(r"n\d{8}", name) is None:
        return name
    return _words().get(name, name).split(",")[0]


@cache
def _words() -> dict[str, str]:
    from timm.data import ImageNetInfo  # pyright: ignore[reportPrivateImportUsage]

    infos = [
        ImageNetInfo(subset) for subset in ("imagenet-22k", "imagenet-1k")
    ]  # the former lacks a class of the latter
    return {name: info.label_name_to_description(name) for info in infos for name in info.label_names()}
