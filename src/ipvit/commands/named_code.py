"""Code that a file names: told before it runs, and not run where the file lies in somebody's results."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ipvit.core.files import user_path
from ipvit.core.plugins import OWN_FILE, named_code
from ipvit.core.terminal import Terminal
from ipvit.errors import InputError, shown

if TYPE_CHECKING:
    from ipvit.commands.options import OtherModelsAndData
    from ipvit.engine.study import Study


def open_study(path: Path, *, json: bool, instead: OtherModelsAndData | None = None) -> Study:
    """Read a study file, say which files of code it names, and import them; see :func:`announce`.

    A study file inside a run folder may be anybody's, and its names are not taken for the user's: it can be run again
    with code of the working folder, and with no other.

    Args:
        path: of the file.
        json: standard output is for JSON.
        instead: models and data in the place of the study's; their code was named in this call, and is not told.

    Raises:
        InputError: it cannot be used, or lies in a run folder and names code of elsewhere.
    """
    from ipvit.engine.study import make_study, read_study

    study = read_study(path, check=False)
    if study.made_in_python:
        raise InputError(
            f"{str(path)!r} cannot be run again from its file; made in Python: {study.made_in_python}. Call ipvit.run "
            "again, or let a function or class in a file make it and name that, FILE.py:NAME"
        )
    given: list[str] = []
    if instead is not None:
        study = make_study(instead.change(study.model_dump(exclude_unset=True)), str(path), check=False)
        given = named_code([*(instead.model or []), instead.data])
    names = [
        name
        for name in named_code(study.model_dump(include={"models", "data", "experiments"}))
        if not any(name in text for text in given)
    ]
    folder = _run_folder_of(path) if names else None
    if folder is not None and (foreign := [name for name in names if not _is_at_hand(name, folder)]):
        raise InputError(
            f"{str(path)!r} lies in a run folder and names code, {shown(foreign[0])}, which is not run from there; "
            "look at that code, then copy the study out of the folder and run the copy"
        )
    announce(path, names, json=json)
    study.make_experiments(str(path))
    return study


def announce(path: Path, names: list[str], *, json: bool) -> None:
    """Say which files of code a file of the user's names; on standard error where standard output is for JSON."""
    if names and os.environ.get("RANK", "0") == "0":  # the first of several processes tells
        with contextlib.suppress(OSError, ValueError):  # nobody reads: what was asked for is done all the same
            Terminal(stderr=json).print(
                f"runs the code that {path} names: {', '.join(names)}", soft_wrap=True, highlight=False
            )


def _is_at_hand(name: str, folder: Path) -> bool:
    """Tell whether a name is that of a file in the working folder, and not in a run folder there."""
    file = user_path(name.partition(OWN_FILE)[0] + OWN_FILE.removesuffix(":"))
    place = file.resolve()
    return not file.is_absolute() and place.is_relative_to(Path.cwd().resolve()) and not place.is_relative_to(folder)


def _run_folder_of(path: Path) -> Path | None:
    """Return the run folder that a file lies in, by the way that was given or by where that leads; None for none."""
    from ipvit.engine.manifest import MANIFEST, read_manifest
    from ipvit.engine.store import RECORDS

    def is_run(place: Path) -> bool:
        with contextlib.suppress(OSError):  # a folder above may not be ours to look into
            return read_manifest(place) is not None
        return False

    place = user_path(path)
    for folder in (place.absolute().parent, place.resolve().parent):
        above = [outer for outer in folder.parents if is_run(outer)]  # of shards/1-of-2, for example
        if above or (folder / MANIFEST).is_file() or any((folder / RECORDS).glob("*/*/part-*.parquet")):
            return (above or [folder])[-1].resolve()
    return None
