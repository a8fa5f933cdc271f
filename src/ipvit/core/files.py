"""Paths that a user gives, names of files and folders, and writing files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ipvit.errors import InputError, shown

_PASSING = frozenset({errno.EBUSY, errno.ESTALE, errno.EAGAIN, errno.EINTR, errno.EACCES})
"""Why a rename on a network drive may fail now and succeed a moment later."""

_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
"""Why nothing more can be written, whatever is written next."""

_WAITS = (0.05, 0.2, 0.5)

LONGEST = 233
"""Bytes of a name beside which there is room for that of a temporary file: file systems take 255."""

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._+-]+")
_NOT_A_FILE = re.compile(
    r'[\x00-\x1f<>:"/\\|?*\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]+'
)
"""What some file system takes in no name, and what is not seen or turns the direction of reading."""

_PORTS = (f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³")
_DEVICES = frozenset(["CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$", "CONOUT$", *_PORTS])
"""Names that stand for something else than a file on Windows, whatever suffix they have."""


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it: a reader never sees half of it.

    Args:
        path: of the file.
        data: its content, as a whole or in pieces.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    with _unfinished(path) as temporary:
        with temporary.open("xb") as file:  # x: nothing was there before, nor a link
            file.writelines([data] if isinstance(data, bytes) else data)
            _flush(file)
        _rename(temporary, path)


def write_named(folder: Path, name: Callable[[str], str], fill: Callable[[Any], object]) -> Path:
    """Write a file whose name follows from its content, as :func:`write_atomic` does.

    Args:
        folder: where.
        name: returns its name from the SHA-256 of its content, 64 hex digits.
        fill: writes the content into the open file that it is given, from the first byte to the last.

    Returns:
        Its path.

    Raises:
        OSError: it cannot be written, whatever ``fill`` makes of that.
    """
    with _unfinished(folder / "content") as temporary:
        with temporary.open("xb") as file:
            told = _Digested(file)
            try:
                fill(told)
            except Exception:
                if told.error is not None:
                    raise told.error from None
                raise
            _flush(file)
        path = folder / name(told.digest.hexdigest())
        _rename(temporary, path)
    return path


class _Digested(io.RawIOBase):
    """Passes on what is written; keeps its digest, and the error that a library may say in other words."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(data)
        return len(data)


@contextlib.contextmanager
def _unfinished(path: Path) -> Generator[Path]:
    """Give the name under which a file is written; what is left there goes if that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # processes of other machines may write here and have the same process number
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error is the one to tell of
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:  # a full disk does not say of which file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    _flush_folder(path.parent)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def in_pieces(path: Path) -> Iterator[bytes]:
    """Yield the content of a file, a megabyte at a time.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        yield from iter(functools.partial(file.read, 2**20), b"")


@contextlib.contextmanager
def resumable() -> Generator[None]:
    """Add to what the system says of a file that the work can go on from there.

    Raises:
        OSError: as it was raised, with the way on.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        hint = "what was written before is kept, and the same command goes on from there"
        raise OSError(error.errno, f"{error.strerror}; {hint}", error.filename) from error


def is_of_the_disk(error: BaseException) -> bool:
    """Tell whether an error means that the disk takes nothing more: it is full, or fails."""
    return isinstance(error, OSError) and error.errno in _OF_THE_DISK


def clear_unfinished(folder: Path, name: str = "") -> None:
    """Remove what writers that were killed left; only for the one process that writes there.

    Args:
        folder: where.
        name: pattern of what they wanted to write into the folder itself; by default anything, also further below.
    """
    for left in folder.glob(f".{name}.*.tmp") if name else folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):  # what is left takes some bytes and does no harm
            left.unlink()


def _rename(source: Path, target: Path) -> None:
    for wait in (*_WAITS, None):
        try:
            source.replace(target)
        except OSError as error:
            if target.exists() and not source.exists():
                return  # NFS: it was done, the answer got lost, and the repeated request found nothing to rename
            if wait is None or error.errno not in _PASSING:
                raise
            time.sleep(wait)
        else:
            return


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows and some network drives cannot: the file itself is on the disk
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def cache_folder() -> Path | None:
    """Return the folder for what can be made again, where the operating system has it, or None where there is none."""
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
            return base / "ipvit" / "Cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "ipvit"
        stated = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(stated) if Path(stated).is_absolute() else Path.home() / ".cache") / "ipvit"
    except RuntimeError:  # nobody's home
        return None


def user_path(text: str | Path) -> Path:
    """Return a path that a user gave, with ``~`` spelled out.

    Raises:
        InputError: no file can have that name, or nobody may look there.
    """
    try:
        path = Path(text).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: ~nobody; ValueError: a NUL in the name
        raise InputError(f"{shown(str(text))} is no path: {getattr(error, 'strerror', None) or error}") from None
    return path


def path_component(name: str, *, mark: str = "", suffix: str = "", plain: bool = True, most: int = 80) -> str:
    """Return a name of anything as the name of one file or folder, on any file system.

    A name that can be one stays as it is, unless it starts with a dot, which hides files. In any other, what cannot
    stand there becomes ``_``, it is cut to ``most``, and eight digits of a digest of the name follow, so that no two
    names become equal.

    Args:
        name: of a class, an image, a model, a data set, an experiment, a figure.
        mark: what tells equal names apart, for example digits of a network's digest; it then follows every name, in
            place of our digest.
        suffix: of the file, with its dot.
        plain: allow letters from a to z, digits and ``._+-`` only; False, for the names of a user's own files and
            classes, allows every script and spaces.
        most: bytes of the result; with ``mark`` of the name before it.

    >>> path_component("deit_small"), path_component("../x"), path_component("hf-hub:a/b", mark="2d14873e")
    ('deit_small', 'x-d6b96a97', 'hf-hub_a_b-2d14873e')
    """
    if not mark and _is_component(name + suffix, plain, most):
        return name + suffix
    tail = "-" + (_NOT_PLAIN.sub("_", mark) or hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8])
    room = most if mark else most - len((tail + suffix).encode())
    body = (_NOT_PLAIN if plain else _NOT_A_FILE).sub("_", name).strip("._" if mark else "._- ")
    body = body.encode()[:room].decode(errors="ignore") or "unnamed"
    made = body + tail + suffix
    return f"_{made}" if _is_device(made) else made


def path_parts(path: str) -> list[str]:
    """Return an image's id, or the path of a member of an archive, as names of folders and a file, at least one.

    ``\\`` divides folders as ``/`` does; ``.``, ``..`` and empty parts, which lead nowhere or up, are left out. Each of
    the others becomes a name of a user's own by :func:`path_component`.

    >>> path_parts("../n01440764/red fox.png")
    ['n01440764', 'red fox.png']
    """
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return [path_component(part, plain=False, most=LONGEST) for part in parts or [path]]


def _is_component(name: str, plain: bool, most: int) -> bool:
    unfit = not name or name.startswith(".") or name.endswith((".", " "))
    strange = (_NOT_PLAIN if plain else _NOT_A_FILE).search(name)
    return not (unfit or strange or _is_device(name) or len(name.encode()) > most)


def _is_device(name: str) -> bool:
    return name.partition(".")[0].rstrip(" ").upper() in _DEVICES
