"""The networks of timm, torchvision and open_clip by family, from a list kept for each version of the libraries.

Importing either takes seconds, and their lists change with their version alone: the first call imports the library and
writes the list into the user's cache folder, later ones read it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

from ipvit.core.files import cache_folder, write_atomic

FORMAT = 1
"""Raised whenever the kept lists hold something else for the same version of a library."""


@cache
def families(library: str) -> Mapping[str, str]:
    """Return the family of each network of a library.

    Args:
        library: ``timm``, ``torchvision`` or ``open_clip``, which need not be installed: it then has none.

    Returns:
        Name of the network -> name of the library's module that defines it, in the library's own order.
    """
    file = list_file(library)
    found = None if file is None else _kept(file, library)
    if found is None:
        found = LISTS[library]()
        if file is not None:
            content = {"format": FORMAT, "library": library, "version": _version(library), "families": found}
            with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
                write_atomic(file, json.dumps(content, indent=0).encode())
    return MappingProxyType(found)


def list_file(library: str) -> Path | None:
    """Return where the list of the installed version of a library is kept.

    Returns:
        None where there is no place for it, or where the version does not say which networks there are: that of a
        library in development stays the same when networks are added.
    """
    folder = cache_folder()
    try:
        installed = _version(library)
    except PackageNotFoundError:
        return None
    if folder is None or ".dev" in installed or not re.fullmatch(r"[\w.+!-]+", installed):
        return None
    return folder / f"{library}-{installed}.json"


def _kept(file: Path, library: str) -> dict[str, str] | None:
    """Return the list in a file, or None where there is none or it is not what :func:`families` writes."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    found = content.pop("families", None)
    if content != {"format": FORMAT, "library": library, "version": _version(library)}:
        return None
    if not isinstance(found, dict) or not found or not all(isinstance(family, str) for family in found.values()):
        return None
    return found


def _version(library: str) -> str:
    return version({"open_clip": "open_clip_torch"}.get(library, library))


def _of_open_clip() -> dict[str, str]:
    if importlib.util.find_spec("open_clip") is None:
        return {}
    import open_clip

    found: dict[str, str] = {}
    for architecture, tag in open_clip.list_pretrained():
        start = re.match(r"[A-Za-z]+", architecture)
        kind = "SigLIP" if "SigLIP" in architecture else "CLIP" if start is None else start[0]
        found[f"{architecture}/{tag}"] = kind
    return found


def _of_timm() -> dict[str, str]:
    import timm
    from timm.models import model_entrypoint

    return {name: model_entrypoint(name).__module__.rpartition(".")[2] for name in timm.list_models()}


def _of_torchvision() -> dict[str, str]:
    import torchvision.models as zoo

    return {name: zoo.get_model_builder(name).__module__.rpartition(".")[2] for name in zoo.list_models(module=zoo)}


LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "timm": _of_timm,
    "torchvision": _of_torchvision,
    "open_clip": _of_open_clip,
}
"""Who lists the networks of a library; imports it."""
