"""Listing the image files of a folder, a million of them too: names and states in blocks of memory, in sorted order.

Each file is asked once for its state, by its name in its folder: that is most of the time a folder takes that was
opened before. Folders of very many files are asked for by several processes, and where a drive answers slowly by
several threads.
"""

from __future__ import annotations

import bisect
import dataclasses
import errno
import itertools
import os
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ipvit.core.text.texts import Texts
from ipvit.data.folder_content import KIND, as_block
from ipvit.data.folders_ahead import FoldersAhead, content
from ipvit.data.formats.image_files import IMAGE_SUFFIXES, LeftOut, is_picture, readable
from ipvit.data.known_files import GONE, STATE
from ipvit.errors import InputError

_ENDS = tuple(sorted({case(suffix).encode() for suffix in IMAGE_SUFFIXES for case in (str.upper, str.lower)}))
_USUAL = frozenset(end + b"\0" for end in _ENDS)
"""What the names of most pictures end in, in the case that is usual; with the zero behind it."""

_AT_ONCE, _STRETCH = 4096, 2**20
"""Names, and bytes, that are looked at together."""

_FOLDER, _FILE = stat.S_IFDIR, stat.S_IFREG
_FIRST, _SLOW, _THREADS = 256, 150e-6, 8
"""Files after which it is known whether an answer takes long, in seconds, and how many folders are then listed."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The image files of a data set, sorted by their paths.

    Attributes:
        paths: below the root.
        sizes: ``(N,)`` int64, in bytes.
        states: ``(N, 4)`` int64, see :data:`ipvit.data.known_files.STATE`; None in an archive.
    """

    paths: Texts
    sizes: np.ndarray
    states: np.ndarray | None = None

    def files(self) -> list[tuple[str, int]]:
        """Return path and size of each."""
        return list(zip(self.paths, self.sizes.tolist(), strict=True))

    def of_folders(self, names: Collection[str]) -> Listing:
        """Return the files in folders of the root with some names, and files of the root that are called so."""
        mine = np.repeat(*_columns([(name in names, count) for name, count, _ in runs(self.paths)], bool))
        paths = Texts(path for path, own in zip(self.paths, mine.tolist(), strict=True) if own)
        return Listing(paths, self.sizes[mine], None if self.states is None else self.states[mine])


def list_images(root: Path, left_out: LeftOut | None = None) -> Listing:
    """Return every image file below a folder; links are followed, but none to a folder around it.

    Args:
        root: the folder.
        left_out: told of what else lies there.

    Raises:
        InputError: a folder in it cannot be read.
    """
    found, place = _Found(root), os.path.realpath(root)
    coming: list[_Folder | _Files] = [_Folder(os.fspath(root), "", place, frozenset({place}))]
    begun, folders = time.perf_counter(), 0
    while coming and found.count < _FIRST:
        entry = coming.pop()
        if isinstance(entry, _Files):
            found.add_files(entry)
        else:
            inside = list(_content(entry, found))
            folders += len(inside)
            coming += reversed(inside)
    if coming:
        waits = time.perf_counter() - begun > (found.count + folders) * _SLOW
        (_add_by_threads if waits else _add_in_turn)(coming[::-1], found)
    if left_out is not None:
        left_out.include(found.left_out)
    return found.listing()


def runs(paths: Texts) -> Iterator[tuple[str, int, bool]]:
    """Yield the first folder of sorted paths, how many lie in it, and True.

    For a file of the root it is its name, 1 and False. Those of one folder lie together: the last is found by halving.
    """
    start = 0
    while start < len(paths):
        folder, slash, _ = paths[start].partition("/")
        end = start + 1
        if slash:
            high = len(paths)
            while end < high:
                middle = (end + high) // 2
                if paths[middle].startswith(f"{folder}/"):
                    end = middle + 1
                else:
                    high = middle
        yield folder, end - start, bool(slash)
        start = end


def _columns(rows: list[tuple[object, int]], kind: type) -> tuple[np.ndarray, np.ndarray]:
    return np.array([value for value, _ in rows], kind), np.array([count for _, count in rows], np.int64)


@dataclasses.dataclass(frozen=True)
class _Folder:
    """A folder that is to be listed.

    Attributes:
        path: to open it by.
        below: its path below the root, with a slash at its end; empty for the root.
        place: where it lies, links followed.
        around: the places of the folders around it, and its own.
    """

    path: str
    below: str
    place: str
    around: frozenset[str]


@dataclasses.dataclass(frozen=True)
class _Files:
    """Files of one folder that follow each other: their names, each with a zero behind it, and states."""

    below: str
    names: bytes
    states: np.ndarray


class _Found:
    """What was found by now in a folder, in its order."""

    def __init__(self, root: Path) -> None:
        self.top = os.path.realpath(root)
        self.left_out = LeftOut()
        self.count, self.block, self.states = 0, bytearray(), bytearray()

    def add_files(self, files: _Files) -> None:
        """Add files of a folder."""
        below = files.below.encode("utf-8", "surrogatepass")
        # a folder's path is set before each name: behind the zero of the one before
        self.block += (below + files.names.replace(b"\0", b"\0" + below))[: -len(below)] if below else files.names
        self.states += files.states.tobytes()
        self.count += len(files.states)

    def add(self, other: _Found) -> None:
        """Add what was found in another folder."""
        self.left_out.include(other.left_out)
        self.block += other.block
        self.states += other.states
        self.count += other.count

    def listing(self) -> Listing:
        """Return all of it."""
        ends, found = np.zeros(self.count + 1, np.int64), 1
        letters = np.frombuffer(self.block, np.uint8)
        for start in range(0, len(letters), _STRETCH):
            zeros = np.flatnonzero(letters[start : start + _STRETCH] == 0)
            ends[found : found + len(zeros)] = zeros + (start + 1)
            found += len(zeros)
        states = np.frombuffer(self.states, np.int64).reshape(-1, len(STATE))
        return Listing(Texts(stored=(self.block, ends)), states[:, STATE.index("size")], states)


def _add_by_threads(coming: Sequence[_Folder | _Files], found: _Found) -> None:
    """Add files, and all that lies in folders, where what takes long is to wait."""

    def listed(entry: _Folder | _Files) -> _Found:
        mine = _Found(Path(found.top))
        _add(entry, mine)
        return mine

    with ThreadPoolExecutor(_THREADS) as pool:
        for other in pool.map(listed, coming):
            found.add(other)


def _add_in_turn(coming: Sequence[_Folder | _Files], found: _Found) -> None:
    """Add files, and all that lies in folders."""
    with FoldersAhead() as ahead:
        ahead.announce(entry.path for entry in coming if isinstance(entry, _Folder))
        for entry in coming:
            _add(entry, found, ahead)


def _add(entry: _Folder | _Files, found: _Found, ahead: FoldersAhead | None = None) -> None:
    if isinstance(entry, _Files):
        found.add_files(entry)
        return
    for inner in _content(entry, found, ahead):
        _add(inner, found, ahead)


def _content(folder: _Folder, found: _Found, ahead: FoldersAhead | None = None) -> Iterator[_Folder | _Files]:
    """Yield what lies in a folder in the order of the paths: a folder counts with the slash that follows its name."""
    try:
        names, rows = (content if ahead is None else ahead.content)(folder.path)
        folders, pieces = _told_apart(folder, names, rows, found)
    except OSError as error:  # a folder that cannot be read would be missing without a word
        path = error.filename if isinstance(error.filename, str) else folder.path
        raise InputError(f"cannot read the folder {readable(path)!r}: {error.strerror}") from None
    folders.sort(key=lambda inner: inner.below)
    if ahead is not None:
        ahead.announce(inner.path for inner in folders)
    coming = [(inner.below[len(folder.below) :], inner) for inner in reversed(folders)]
    for block, states in pieces:
        if not coming or coming[-1][0] > _names_in(block[block.rfind(b"\0", 0, -1) + 1 :])[0]:
            yield _Files(folder.below, block, states)
            continue
        some, start = _names_in(block), 0
        while start < len(some):
            end = bisect.bisect_left(some, coming[-1][0], start) if coming else len(some)
            if end > start:
                yield _Files(folder.below, as_block(some[start:end]), states[start:end])
            if end < len(some):
                yield coming.pop()[1]
            start = end
    yield from (inner for _, inner in reversed(coming))


def _told_apart(
    folder: _Folder, names: bytes, rows: np.ndarray, found: _Found
) -> tuple[list[_Folder], list[tuple[bytes, np.ndarray]]]:
    """Return the folders in one, and the pictures and their states in pieces; what is neither is told."""
    folders: list[_Folder] = []
    pieces: list[tuple[bytes, np.ndarray]] = []
    for block, some in _in_pieces(names, rows):
        if ((some[:, 0] & KIND) == _FILE).all() and _look_usual(block, len(some)):
            pieces.append((block, some[:, 1:]))
            continue
        pictures: list[str] = []
        states: list[Sequence[int]] = []
        for name, (mode, *state) in zip(_names_in(block), some.tolist(), strict=True):
            if mode == -errno.EACCES and not is_picture(name):  # it may be a folder
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), _path(folder, name))
            # a link to nowhere is reported where it is read
            kind, state = (_FILE, GONE) if mode < 0 else (mode & KIND, state)
            if kind == _FOLDER:
                folders += _inner(folder, name, found)
            elif not is_picture(name):
                found.left_out.add_file(folder.below, name)
            elif kind == _FILE:
                pictures.append(name)
                states.append(state)
        if pictures:
            pieces.append((as_block(pictures), np.array(states, np.int64)))
    return folders, pieces


def _in_pieces(names: bytes, rows: np.ndarray) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield some names at a time and their rows: as objects, a million names of one folder would take 100 MB."""
    if len(rows) <= _AT_ONCE:
        yield names, rows
        return
    ends = np.flatnonzero(np.frombuffer(names, np.uint8) == 0) + 1
    for first in range(0, len(rows), _AT_ONCE):
        some = rows[first : first + _AT_ONCE]
        yield names[ends[first - 1] if first else 0 : ends[first + len(some) - 1]], some


def _look_usual(names: bytes, count: int) -> bool:
    """Tell whether names end as pictures' do, and none is hidden; False where that takes a closer look."""
    if names.startswith(b".") or b"\0." in names:
        return False
    suffix = names[names.rfind(b".") :]
    if suffix in _USUAL and names.count(suffix) == count:  # all end alike, mostly
        return True
    return all(map(bytes.endswith, names.split(b"\0")[:-1], itertools.repeat(_ENDS)))


def _names_in(block: bytes) -> list[str]:
    return block.decode("utf-8", "surrogatepass").split("\0")[:-1]


def _path(folder: _Folder, name: str) -> str:
    return os.path.join(folder.path, name)  # noqa: PTH118 - as the root is given


def _inner(folder: _Folder, name: str, found: _Found) -> list[_Folder]:
    """Return a folder in another one; nothing where it is hidden, or leads back to one around it."""
    below = f"{folder.below}{name}/"
    if found.left_out.add_hidden_folder(below, name):
        return []
    path = _path(folder, name)
    place = os.path.realpath(path)
    # a link to a folder around it leads into it again and again
    if place in folder.around or Path(found.top).is_relative_to(place):
        return []
    return [_Folder(path, below, place, folder.around | {place})]
