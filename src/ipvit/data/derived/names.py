"""Names of the files of a copy, and its class list."""

from __future__ import annotations

import collections
from pathlib import Path

from ipvit.data.dataset import Dataset
from ipvit.data.folder import CLASS_LIST, IMAGE_SUFFIXES
from ipvit.errors import InputError
from ipvit.files import write_atomic


def target_paths(source: Dataset, suffix: str) -> list[str]:
    """Return where each image's copy goes: the source's own folders with such files in them, else one folder a class.

    Where two images would share a path (``a.jpg`` and ``a.png``) both keep their suffix: ``a.jpg.png``.

    Raises:
        InputError: two images would still share a path.
    """
    names = [_in_class_folder(source, index) for index in range(len(source))]
    paths = [f"{_without_suffix(name)}{suffix}" for name in names]
    counts = collections.Counter(paths)
    paths = [path if counts[path] == 1 else f"{name}{suffix}" for name, path in zip(names, paths, strict=True)]
    if len(set(paths)) != len(paths):
        twice = next(path for path, count in collections.Counter(paths).items() if count > 1)
        raise InputError(f"two images of {source.name} would both become {twice!r}; rename one of them")
    return paths


def _in_class_folder(source: Dataset, index: int) -> str:
    parts = [part for part in source.ids[index].replace("\\", "/").split("/") if part not in ("", ".", "..")]
    label = int(source.labels[index])
    if source.classes is None or label < 0:
        return "/".join(parts)
    folder = source.classes[label].replace("/", "-")
    return "/".join(parts) if parts[0] == folder and len(parts) > 1 else f"{folder}/{'-'.join(parts)}"


def _without_suffix(name: str) -> str:
    return name.removesuffix(suffix) if (suffix := Path(name).suffix).lower() in IMAGE_SUFFIXES else name


def write_class_list(source: Dataset, out: Path) -> None:
    """Write ``classes.txt`` where the source's classes have second names, so that a model's classes are found again."""
    if source.classes is not None and source.aliases is not None:
        lines = [f"{name}\t{alias}\n" for name, alias in zip(source.classes, source.aliases, strict=True)]
        write_atomic(out / CLASS_LIST, "".join(lines).encode())
