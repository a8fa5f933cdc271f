"""Finding the files of a published set: candidates for folders, lists of lines, annotations."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ipvit.core.text.text_files import read_text
from ipvit.data.formats.image_files import LeftOut
from ipvit.data.formats.listing import list_images
from ipvit.data.published.parts import FileListing
from ipvit.errors import InputError


class LayoutNotFoundError(Exception):
    """A set is not in this layout, or a file of it is missing; the text says what was looked for."""


def first(root: Path, candidates: Sequence[str]) -> Path:
    """Return the first of the candidates below the root that exists.

    Raises:
        LayoutNotFoundError: none does.
    """
    for candidate in candidates:
        if (root / candidate).exists():
            return root / candidate
    raise LayoutNotFoundError(" or ".join(candidate or "." for candidate in candidates))


def below(root: Path, folders: Sequence[str], marker: str) -> Path:
    """Return the first of the folders below the root that holds ``marker``.

    Raises:
        LayoutNotFoundError: none does.
    """
    for folder in folders:
        if (root / folder / marker).exists():
            return root / folder
    raise LayoutNotFoundError(marker)


def lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty.

    Raises:
        LayoutNotFoundError: there is no such file.
        InputError: it is not text.
    """
    try:
        return [line.strip() for line in read_text(path).split("\n") if line.strip()]
    except OSError:
        raise LayoutNotFoundError(path.name) from None


def pairs(path: Path) -> list[tuple[str, str]]:
    """Return the lines of a text file, each cut at its first space or tab, or where there is none at its only comma.

    Raises:
        LayoutNotFoundError: there is no such file.
        InputError: a line has no space.
    """
    cut = [line.split(None, 1) for line in lines(path)]
    cut = [parts[0].split(",") if len(parts) == 1 else parts for parts in cut]
    for row, parts in enumerate(cut):
        if len(parts) != 2:
            raise InputError(f"{str(path)!r}: two words were expected, not {' '.join(parts)!r} (entry {row + 1})")
    return [(parts[0], parts[1]) for parts in cut]


def rows(path: Path, delimiter: str, wanted: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a table with a header.

    Raises:
        LayoutNotFoundError: there is no such file.
        InputError: it lacks one of the wanted columns.
    """
    found = lines(path)
    others = [other for other in (",", "\t", ";") if found and delimiter not in found[0] and other in found[0]]
    table = list(csv.DictReader(found, delimiter=(others or [delimiter])[0], skipinitialspace=True))
    if table and (missing := [name for name in wanted if table[0].get(name) is None]):
        raise InputError(f"{str(path)!r} has no column {missing[0]!r}")
    return table


def coco_lists(path: Path, wanted: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return annotations in the layout of COCO: lists of images, annotations and categories.

    Raises:
        LayoutNotFoundError: there is no such file.
        InputError: it is not of this layout.
    """
    try:
        content = json.loads(read_text(path))
    except OSError:
        raise LayoutNotFoundError(path.name) from None
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in wanted):
        raise InputError(f"{str(path)!r} does not have the lists {', '.join(wanted)}")
    return content


def class_folders(root: Path, folder: str = "", classes: Sequence[str] | None = None) -> FileListing:
    """Return the images in the class folders of a folder.

    Args:
        root: the folder that the paths start from.
        folder: where the class folders lie, below the root.
        classes: names of the classes; the folders in sorted order by default.

    Raises:
        LayoutNotFoundError: there is no such folder, or no image in class folders in it.
    """
    place = root / folder
    left_out = LeftOut()
    found = [path for path in list_images(place, left_out).paths if "/" in path] if place.is_dir() else []
    if not found:
        raise LayoutNotFoundError(f"{folder or place.name}/CLASS/IMAGE")
    owners = [path.split("/", 1)[0] for path in found]
    names = tuple(sorted(set(owners))) if classes is None else tuple(classes)
    position = {name: row for row, name in enumerate(names)}
    if unknown := sorted(set(owners) - set(names)):
        raise InputError(f"{str(place)!r}: the folder {unknown[0]!r} is none of the {len(names)} classes")
    prefix = f"{folder}/" if folder else ""
    labels = np.array([position[owner] for owner in owners], dtype=np.int64)
    return FileListing(root, tuple(prefix + path for path in found), labels, names, notes=left_out.notes(str(place)))
