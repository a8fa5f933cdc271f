"""Bundles: a run folder as one zip file that can be handed on, read without trusting who made it.

A bundle holds data only: what may be in it is listed here by name, every file with its digest in ``bundle.json``. It is
read from a copy in the user's cache folder, below the digest of the zip file.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ipvit.core.files import cache_folder, write_atomic
from ipvit.engine.manifest import MANIFEST
from ipvit.errors import InputError, shown

SUFFIX = ".zip"
CONTENT = "bundle.json"
_MOST_BYTES = 64 * 2**30  # of all files together, so that a small zip file does not fill the disk
_CHUNK = 2**20
_NAME = r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*"
_READ = re.compile(
    rf"manifest\.json|study\.yaml|records/{_NAME}/(?:{_NAME}\.json|asked-images\.parquet|{_NAME}/part-[0-9a-f]+\.parquet)"
)
"""Names of files that runs are read from."""
_MADE = re.compile(rf"report\.html|tables/{_NAME}\.(?:csv|json|md|tex)|figures/{_NAME}\.(?:svg|pdf)")
"""Names of files for people, which are made anew where a bundle is read."""


class BundleContent(BaseModel, frozen=True):
    """What a bundle holds."""

    model_config = ConfigDict(strict=True, extra="ignore", use_attribute_docstrings=True)

    format: Literal[1] = 1
    """Version of these keys."""
    files: Mapping[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]
    """SHA-256 of every other file by its name."""


def may_be_in_a_bundle(name: str) -> bool:
    """Tell whether a file, by its name below the run folder, may be in a bundle: no code, no picture."""
    return _READ.fullmatch(name) is not None or _MADE.fullmatch(name) is not None


def write_bundle(folder: Path, target: Path) -> int:
    """Write what may be in a bundle of a folder into a zip file; return its size in bytes.

    Raises:
        InputError: there is such a file already.
        OSError: it cannot be written; nothing is left then.
    """
    if target.exists():
        raise InputError(f"{str(target)!r} is there already; give another --out")
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    kept = {name: path for name, path in paths.items() if may_be_in_a_bundle(name)}
    content = BundleContent(files={name: _digest(path) for name, path in kept.items()})
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED) as file:
            _add(file, CONTENT, content.model_dump_json(indent=1).encode())
            for name, path in kept.items():
                _add(file, name, path)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target.stat().st_size


def _add(file: zipfile.ZipFile, name: str, source: bytes | Path) -> None:
    info = zipfile.ZipInfo(name)  # of 1980: the same run gives the same bytes
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    if isinstance(source, bytes):
        file.writestr(info, source)
        return
    with source.open("rb") as read, file.open(info, "w", force_zip64=True) as written:
        shutil.copyfileobj(read, written, _CHUNK)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def opened(path: Path) -> Path:
    """Return the run folder of a bundle, unpacked into the cache folder; any other path as it is.

    Raises:
        InputError: it is a zip file and no bundle, or a damaged one, or holds what no bundle may.
    """
    if path.suffix != SUFFIX or not path.is_file():
        return path
    cache = cache_folder()
    base = Path(tempfile.gettempdir()) / f"ipvit-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    place = (cache or base) / "bundles" / _digest(path)[:32] / path.stem
    if (place / MANIFEST).is_file():
        return place
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=place.parent))
    try:
        _unpack(path, temporary)
        try:
            temporary.replace(place)
        except OSError:
            if not (place / MANIFEST).is_file():  # another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as file:
            members = {info.filename: info for info in file.infolist()}
            content = _content(path, file, members)
            _check_members(path, members, content)
            for name, digest in content.files.items():
                if _READ.fullmatch(name):
                    _extract(path, file, members[name], folder / name, digest)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputError(f"{str(path)!r} is no bundle: {error}") from None
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{str(path)!r} is no bundle: it has no {MANIFEST}")


def _content(path: Path, file: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> BundleContent:
    if CONTENT not in members or members[CONTENT].file_size > 2**26:
        raise InputError(f"{str(path)!r} is no bundle: it has no {CONTENT}; ipvit bundle RUN makes one")
    try:
        return BundleContent.model_validate_json(file.read(CONTENT))
    except ValidationError:
        raise InputError(f"{str(path)!r} is a bundle that this version cannot read: another {CONTENT}") from None


def _check_members(path: Path, members: Mapping[str, zipfile.ZipInfo], content: BundleContent) -> None:
    """Refuse what no bundle holds: names that lead elsewhere, links, code, more than a disk takes."""
    for name, info in members.items():
        if name != CONTENT and (name not in content.files or not may_be_in_a_bundle(name)):
            raise InputError(f"{str(path)!r} holds {shown(name)}, which no bundle does; it is not opened")
        if stat.S_ISLNK(info.external_attr >> 16) or info.flag_bits & 1:
            raise InputError(f"{str(path)!r} holds {shown(name)} as a link or encrypted; it is not opened")
    if missing := [name for name in content.files if name not in members]:
        raise InputError(f"{str(path)!r} is damaged: {shown(missing[0])} is missing; fetch it again")
    if sum(info.file_size for info in members.values()) > _MOST_BYTES:
        raise InputError(f"{str(path)!r} would take more than {_MOST_BYTES >> 30} GB; it is not opened")


def _extract(path: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, digest: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    seen, size = hashlib.sha256(), 0
    with file.open(info) as read, target.open("xb") as written:
        while chunk := read.read(_CHUNK):
            size += len(chunk)
            if size > info.file_size:
                break
            seen.update(chunk)
            written.write(chunk)
    if size != info.file_size or seen.hexdigest() != digest:
        raise InputError(f"{str(path)!r} is damaged: {shown(info.filename)} is not what was written; fetch it again")


def copy_file(source: Path, target: Path) -> None:
    """Copy a file of a run folder where there is one."""
    if source.is_file():
        write_atomic(target, source.read_bytes())
