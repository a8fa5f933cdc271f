"""Names of the files of a copy, and its class list."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path

from ipvit.core.files import LONGEST, path_component, path_parts, write_atomic
from ipvit.data.dataset import Dataset
from ipvit.data.formats.folder import CLASS_LIST, IMAGE_SUFFIXES
from ipvit.errors import InputError


def class_folders(source: Dataset, most: int = LONGEST) -> list[str]:
    """Return the folder of each class: its name, where that can be the name of a folder and is no other class's.

    Args:
        source: the images.
        most: bytes of a folder's name.
    """
    names = source.classes or ()
    joined = [name.replace("/", "-") for name in names]
    counts = collections.Counter(joined)
    wanted = [short if counts[short] == 1 else name for name, short in zip(names, joined, strict=True)]
    return [path_component(name, plain=False, most=most) for name in wanted]


def target_paths(source: Dataset, suffix: str) -> list[str]:
    """Return where each image's copy goes: the source's own folders with such files in them, else one folder a class.

    Where two images would share a path (``a.jpg`` and ``a.png``) both keep their suffix: ``a.jpg.png``. Whatever the
    names of images and classes are, the paths lead nowhere but below the output folder.

    Raises:
        InputError: two images would still share a path.
    """
    folders = class_folders(source)
    places = [_place(source, folders, index) for index in range(len(source))]
    paths = [folder + _file(_without_suffix(name), suffix) for folder, name in places]
    counts = collections.Counter(paths)
    paths = [
        path if counts[path] == 1 else folder + _file(name, suffix)
        for (folder, name), path in zip(places, paths, strict=True)
    ]
    if len(set(paths)) != len(paths):
        twice = next(path for path, count in collections.Counter(paths).items() if count > 1)
        raise InputError(f"two images of {source.name} would both become {twice!r}; rename one of them")
    return paths


def _place(source: Dataset, folders: Sequence[str], index: int) -> tuple[str, str]:
    """Return the folder of an image, empty or with a slash at its end, and the name of its file there."""
    parts = path_parts(source.ids[index])
    label = int(source.labels[index])
    if source.classes is not None and label >= 0 and (len(parts) == 1 or parts[0] != folders[label]):
        return f"{folders[label]}/", "-".join(parts)
    return "".join(f"{part}/" for part in parts[:-1]), parts[-1]


def _file(name: str, suffix: str) -> str:
    return path_component(name, suffix=suffix, plain=False, most=LONGEST)


def _without_suffix(name: str) -> str:
    return name.removesuffix(suffix) if (suffix := Path(name).suffix).lower() in IMAGE_SUFFIXES else name


def write_class_list(source: Dataset, folders: Sequence[str], out: Path) -> None:
    """Write ``classes.txt`` where folders alone do not tell the classes, their order and what a model calls them.

    Args:
        source: the images.
        folders: of its classes.
        out: where the folders lie.
    """
    if source.classes is None:
        return
    names, seconds = list(source.classes), source.aliases
    with_images = sorted({names[label] for label in source.labels.tolist() if label >= 0})
    if seconds is None and folders == names == with_images:
        return
    if seconds is None and folders == names:
        lines = [f"{folder}\n" for folder in folders]
    else:
        second = (" ".join(name.split()).replace("\0", "\ufffd") for name in seconds or names)
        lines = [f"{folder}\t{name}\n" for folder, name in zip(folders, second, strict=True)]
    write_atomic(out / CLASS_LIST, "".join(lines).encode("utf-8", "backslashreplace"))
