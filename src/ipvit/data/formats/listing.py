"""Listing the image files of a folder, a million of them too: names and states in blocks of memory, in sorted order.

Each file is asked once for its state, by its name in its folder: that is most of the time a folder takes that was
opened before. Where a drive answers slowly, folders are listed by several threads.
"""

from __future__ import annotations

import array
import dataclasses
import errno
import functools
import itertools
import operator
import os
import stat
import time
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ipvit.core.text.texts import Texts
from ipvit.data.formats.image_files import IMAGE_SUFFIXES, LeftOut, is_picture, readable
from ipvit.data.known_files import GONE, STATE, as_numbers
from ipvit.errors import InputError

_USUAL = tuple(sorted({case(suffix) for suffix in IMAGE_SUFFIXES for case in (str.upper, str.lower)}))
_AT_ONCE = 4096
_STATE_OF = operator.attrgetter("st_mode", "st_size", "st_ino", "st_mtime_ns", "st_ctime_ns")
_KIND, _FOLDER, _FILE = 0o170000, stat.S_IFDIR, stat.S_IFREG
_FIRST, _SLOW, _THREADS = 256, 150e-6, 8
"""Files after which it is known whether one takes long, in seconds, and how many folders are then listed together."""


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
    content = list(_content(_Folder(os.fspath(root), "", place, frozenset({place})), found))
    _add_all(content, found)
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
    """Files of one folder that follow each other: their names and states."""

    below: str
    names: list[str]
    states: np.ndarray


class _Found:
    """What was found by now in a folder, in its order."""

    def __init__(self, root: Path) -> None:
        self.top = os.path.realpath(root)
        self.left_out = LeftOut()
        self.block, self.lengths, self.states = bytearray(), array.array("q"), array.array("q")

    def add_files(self, files: _Files) -> None:
        """Add files of a folder."""
        block = "".join([files.below + name for name in files.names]).encode("utf-8", "surrogatepass")
        lengths = [len(files.below) + len(name) for name in files.names]
        if sum(lengths) != len(block):  # letters of several bytes
            lengths = [len((files.below + name).encode("utf-8", "surrogatepass")) for name in files.names]
        self.block += block
        self.lengths.extend(lengths)
        self.states.frombytes(files.states.tobytes())

    def add(self, other: _Found) -> None:
        """Add what was found in another folder."""
        self.left_out.include(other.left_out)
        self.block += other.block
        self.lengths += other.lengths
        self.states += other.states

    def listing(self) -> Listing:
        """Return all of it."""
        ends = np.zeros(len(self.lengths) + 1, np.int64)
        np.cumsum(np.frombuffer(self.lengths, np.int64), out=ends[1:])
        states = np.frombuffer(self.states, np.int64).reshape(-1, len(STATE))
        return Listing(Texts(stored=(bytes(self.block), ends)), states[:, STATE.index("size")].copy(), states)


def _add_all(content: list[_Folder | _Files], found: _Found) -> None:
    """Add files, and all that lies in folders, which several threads list where that turns out to wait."""

    def listed(entry: _Folder | _Files) -> _Found:
        mine = _Found(Path(found.top))
        if isinstance(entry, _Files):
            mine.add_files(entry)
        else:
            _list(entry, mine)
        return mine

    begun, done = time.perf_counter(), 0
    while done < len(content) and len(found.lengths) < _FIRST:
        found.add(listed(content[done]))
        done += 1
    rest = content[done:]
    if rest and time.perf_counter() - begun > len(found.lengths) * _SLOW:
        with ThreadPoolExecutor(_THREADS) as pool:
            for other in pool.map(listed, rest):
                found.add(other)
    else:
        for entry in rest:
            found.add(listed(entry))


def _list(folder: _Folder, found: _Found) -> None:
    for entry in _content(folder, found):
        if isinstance(entry, _Files):
            found.add_files(entry)
        else:
            _list(entry, found)


def _content(folder: _Folder, found: _Found) -> Iterator[_Folder | _Files]:
    """Yield what lies in a folder in the order of the paths: a folder counts with the slash that follows its name."""
    try:
        with _opened(folder.path) as (names, state_of):
            folders, files, states = _told_apart(folder, sorted(names), state_of, found)
    except OSError as error:  # a folder that cannot be read would be missing without a word
        raise InputError(f"cannot read the folder {readable(str(error.filename))!r}: {error.strerror}") from None
    start = 0
    for inner in sorted(folders, key=lambda inner: inner.below):
        name = inner.below[len(folder.below) :]
        end = start
        while end < len(files) and files[end] < name:
            end += 1
        if end > start:
            yield _Files(folder.below, files[start:end], states[start:end])
        yield inner
        start = end
    for first in range(start, len(files), _AT_ONCE):
        yield _Files(folder.below, files[first : first + _AT_ONCE], states[first : first + _AT_ONCE])


@contextmanager
def _opened(path: str) -> Generator[tuple[list[str], Callable[[str], os.stat_result]]]:
    """Yield the names in a folder and what tells the state of one; by the open folder it is found without its path."""
    if os.stat not in os.supports_dir_fd or os.listdir not in os.supports_fd:  # Windows
        yield os.listdir(path), lambda name: os.stat(f"{path}/{name}")  # noqa: PTH116, PTH208 - a million of them
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield os.listdir(descriptor), functools.partial(os.stat, dir_fd=descriptor)  # noqa: PTH208 - likewise
    finally:
        os.close(descriptor)


def _told_apart(
    folder: _Folder, names: list[str], state_of: Callable[[str], os.stat_result], found: _Found
) -> tuple[list[_Folder], list[str], np.ndarray]:
    """Return the folders in one, the pictures, and their states; what is neither is told."""
    folders: list[_Folder] = []
    pictures: list[str] = []
    states: list[np.ndarray] = []
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        kinds, asked = _asked(folder, some, state_of)
        usual = all(map(str.endswith, some, itertools.repeat(_USUAL))) and not any(name[0] == "." for name in some)
        if usual and (kinds == _FILE).all():
            pictures += some
            states.append(asked)
            continue
        mine = np.zeros(len(some), dtype=bool)
        for place, (name, kind) in enumerate(zip(some, kinds.tolist(), strict=True)):
            if kind == _FOLDER:
                folders += _inner(folder, name, found)
            elif not is_picture(name):
                found.left_out.add_file(folder.below, name)
            else:
                mine[place] = kind == _FILE
        pictures += itertools.compress(some, mine)
        states.append(asked[mine])
    return folders, pictures, np.concatenate([np.zeros((0, len(STATE)), np.int64), *states])


def _asked(
    folder: _Folder, names: list[str], state_of: Callable[[str], os.stat_result]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what files are, and their states."""
    try:
        rows = as_numbers(list(map(_STATE_OF, map(state_of, names))))  # without a line of Python for each
    except OSError:
        rows = as_numbers([_asked_one(folder, name, state_of) for name in names])
    return rows[:, 0] & _KIND, rows[:, 1:]


def _asked_one(folder: _Folder, name: str, state_of: Callable[[str], os.stat_result]) -> tuple[int, ...]:
    try:
        return _STATE_OF(state_of(name))
    except OSError as error:
        if error.errno == errno.EACCES and not is_picture(name):  # it may be a folder
            error.filename = os.path.join(folder.path, name)  # noqa: PTH118 - as the root is given
            raise
        return _FILE, *GONE  # a link to nowhere is reported where it is read


def _inner(folder: _Folder, name: str, found: _Found) -> list[_Folder]:
    """Return a folder in another one; nothing where it is hidden, or leads back to one around it."""
    below = f"{folder.below}{name}/"
    if found.left_out.add_hidden_folder(below, name):
        return []
    path = os.path.join(folder.path, name)  # noqa: PTH118 - as the root is given
    place = os.path.realpath(path)
    # a link to a folder around it leads into it again and again
    if place in folder.around or Path(found.top).is_relative_to(place):
        return []
    return [_Folder(path, below, place, folder.around | {place})]
