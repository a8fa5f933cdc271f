"""Code that a file names: told before it runs, and not run where the file lies in somebody's results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ipvit.core.files import user_path
from ipvit.core.plugins import named_code
from ipvit.core.terminal import Terminal
from ipvit.errors import InputError, shown

if TYPE_CHECKING:
    from ipvit.engine.study import Study


def open_study(path: Path) -> Study:
    """Read a study file, say which files of code it names, and import them.

    Raises:
        InputError: it cannot be used; or it names code and lies in a run folder, which may be anybody's.
    """
    from ipvit.engine.study import read_study

    study = read_study(path, check=False)
    names = named_code(study.model_dump(include={"models", "data", "experiments"}))
    if names and _is_in_run_folder(path):
        raise InputError(
            f"{str(path)!r} lies in a run folder and names code, {shown(names[0])}, which is not run from there; look "
            "at that code, then copy the study out of the folder and run the copy"
        )
    tell(path, names)
    study.make_experiments(str(path))
    return study


def tell(path: Path, names: list[str]) -> None:
    """Say on standard error which files of code a file of the user's names."""
    if names:
        Terminal(stderr=True).print(
            f"ipvit: runs the code that {path} names: {', '.join(names)}", soft_wrap=True, highlight=False
        )


def _is_in_run_folder(path: Path) -> bool:
    """Tell whether a file lies in a run folder, by the way that was given or by where that leads."""
    from ipvit.engine.manifest import MANIFEST, read_manifest
    from ipvit.engine.store import RECORDS

    place = user_path(path)
    for folder in (place.absolute().parent, place.resolve().parent):
        if (folder / MANIFEST).is_file() or any((folder / RECORDS).glob("*/*/part-*.parquet")):
            return True
        if any(read_manifest(above) is not None for above in folder.parents):  # of shards/1-of-2, for example
            return True
    return False
