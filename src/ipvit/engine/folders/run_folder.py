"""The folder that a run is written into: what may be there, and making it."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from ipvit.core.files import clear_unfinished
from ipvit.core.links import refuse_links, refuse_unwritable
from ipvit.core.lock import FolderLock
from ipvit.core.run_log import LOG
from ipvit.core.shard import Shard
from ipvit.engine.manifest import read_manifest
from ipvit.engine.store import ANALYSIS, RECORDS
from ipvit.errors import InputError

SHARDS = "shards"
OF_THE_RUN = ("records", "examples", "features", "patches", "probes")
"""Folders below a run folder that only the process that holds the folder writes to."""
WRITTEN = (*OF_THE_RUN, "tables", "figures")
"""All folders below a run folder that are written to, but those of shards."""
_SHARD = re.compile(r"[0-9]+-of-[0-9]+(\.[0-9]+)?")


def shard_folder(out: Path, shard: Shard) -> tuple[Path, list[Path]]:
    """Return where a shard of a run is written, and the folder whose results it need not measure again."""
    if shard.count == 1:
        return out, []
    folder = out / SHARDS / f"{shard.index + 1}-of-{shard.count}"
    for place in (out / SHARDS, folder):
        refuse_links(place.parent, [place.name])
    return folder, [out]


def check_folder(root: Path) -> None:
    """Refuse a folder that cannot be written, or that holds something else than a run; nothing is written.

    Raises:
        InputError: says which.
    """
    refuse_unwritable(root, "output folder")
    refuse_links(root, WRITTEN)
    if root.exists() and (foreign := _foreign(root)):
        raise InputError(
            f"{str(root)!r} holds {foreign!r} and is not the folder of a run; give a new or an empty folder as --out"
        )


def prepare_folder(root: Path) -> None:
    """Make the run folder and make sure that it can be written.

    Raises:
        InputError: it cannot.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".probe.{os.getpid()}-{secrets.token_hex(4)}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write to the output folder {str(root)!r}: {error.strerror or error}") from None


def clear_left_over(root: Path) -> None:
    """Remove what killed writers left in a run folder, whose lock is held."""
    for name in OF_THE_RUN:
        clear_unfinished(root / name)
    for name in ("study*.yaml", "manifest.json"):  # beside them a report may be written just now
        clear_unfinished(root, name)


def put_aside(out: Path) -> None:
    """Give an earlier run folder another name: the same with a number.

    Raises:
        InputError: it is in use, or cannot be renamed.
    """
    if not out.exists() or not _visible(out):
        return
    out = out.resolve()
    number = next(n for n in range(1, 10_000) if not out.with_name(f"{out.name}.{n}").exists())
    try:
        with FolderLock(out):
            out.rename(out.with_name(f"{out.name}.{number}"))
    except OSError as error:
        raise InputError(f"cannot put {str(out)!r} aside: {error.strerror}") from None


def _foreign(root: Path) -> str:
    """Return something in a folder that is not a run's; empty where the folder is empty, or a run's."""
    names = _visible(root)
    if not names or read_manifest(root) is not None:
        return ""
    records = root / RECORDS
    empty = not any(path.is_file() for path in records.rglob("[!.]*"))  # or broken off before the first was written
    if set(names) <= {*OF_THE_RUN, LOG} and empty:  # their files have names of ours, and nothing else is overwritten
        return ""
    # where the manifest is damaged, or of another version
    if any(records.glob("*/*/part-*.parquet")) or any(records.glob(f"*/{ANALYSIS}")):
        return ""
    if names == [SHARDS] and all(_SHARD.fullmatch(name) for name in _visible(root / SHARDS)):
        return ""
    return names[0]


def _visible(folder: Path) -> list[str]:
    """Return the names in a folder but for hidden ones, such as those of a lock and of a file that is being written."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
