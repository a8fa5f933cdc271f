"""Reductions that were made before, in the user's cache: a second report need not read millions of records again.

One is known by a digest of all that determines it: the content of the parts, what the study asked for, what the
analysis says, the name of the model, the code of this package and the versions of the libraries that compute. It is
kept only where it comes back equal in every value. A damaged one is made anew. Nothing in it is executed.
``--no-cache`` uses none.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable
from pathlib import Path

import polars as pl

from ipvit.analysis.records.reduction_file import decoded, encoded, same_reduction
from ipvit.analysis.reduction import Reduction
from ipvit.core.digests import digest_of_json
from ipvit.core.files import cache_folder, write_atomic
from ipvit.core.versions import digest_of_source, installed_version
from ipvit.data.known_files import nothing_kept_is_used

FEWEST_BYTES = 2**20
"""Size of a model's parts from which on its reduction is kept: smaller ones are made at once."""

MOST_BYTES = 2 * 2**30
"""What all that is kept may take; what was not used for longest goes first."""

_COMPUTE = ("polars", "numpy", "scipy")


def kept_or_made(about: dict[str, object], make: Callable[[], tuple[Reduction | None, bool]]) -> Reduction | None:
    """Return a reduction, kept from before or made now.

    Args:
        about: all that determines it beside code and libraries, as JSON has it.
        make: makes it, and tells whether it may be kept.
    """
    folder = cache_folder()
    if folder is None or nothing_kept_is_used():
        return make()[0]
    versions = {name: installed_version(name) for name in _COMPUTE} | {"python": platform.python_version()}
    key = digest_of_json({"about": about, "source": digest_of_source(), "versions": versions})
    place = folder / "reductions" / key
    found = _recall(place)
    if found is None:
        found, whole = make()
        if found is not None and whole:
            _keep(place, found)
    return found


def _recall(place: Path) -> Reduction | None:
    try:
        found = decoded(place.read_bytes())
    except (OSError, ValueError):
        return None
    with contextlib.suppress(OSError):
        os.utime(place)  # used last now
    return found


def _keep(place: Path, reduction: Reduction) -> None:
    try:
        data = encoded(reduction)
        if not same_reduction(decoded(data), reduction):
            return
        write_atomic(place, data)
        _make_room(place)
    except (TypeError, ValueError, OSError, pl.exceptions.PolarsError):  # a cache that cannot be written is no fault
        return


def _make_room(newest: Path) -> None:
    states = [(path.stat(), path) for path in newest.parent.iterdir() if path != newest]
    room = MOST_BYTES - newest.stat().st_size
    for state, path in sorted(states, key=lambda entry: -entry[0].st_mtime_ns):
        room -= state.st_size
        if room < 0:
            path.unlink(missing_ok=True)
