"""The files of a folder as a plain walk finds them, in sorted order, however they are asked for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from ipvit.data import folders_ahead
from ipvit.data.formats import listing
from ipvit.data.formats.image_files import LeftOut, is_picture
from ipvit.data.formats.listing import Listing, list_images, runs
from ipvit.data.known_files import GONE
from ipvit.errors import InputError

PATHS = [
    "a/1.jpg",
    "a-b/2.JPEG",
    "a/b/3.png",
    "a/b.png",
    "a/b-c/4.jpg",
    "z.jpg",
    "a.jpg",
    "é/ü.jpg",
    "é/日.png",
    "b/notes.txt",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folders whose names are beginnings of others, letters of several bytes, a name that is no UTF-8, and links."""
    root = tmp_path / "images"
    for number, path in enumerate([*PATHS, os.fsdecode(b"raw/\xff.jpg")]):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x" * number)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "5.jpg").write_bytes(b"12345")
    (root / "link").symlink_to("../elsewhere", target_is_directory=True)
    (root / "again").symlink_to(".", target_is_directory=True)
    (root / "b" / "nowhere.jpg").symlink_to("there is none")
    os.mkfifo(root / "b" / "pipe.jpg")
    return root


def walked(root: Path) -> list[str]:
    """What ``os.walk`` finds, sorted."""
    found = [
        (Path(place) / name).relative_to(root).as_posix()
        for start in (root, root / "link")
        for place, _, names in os.walk(start)
        for name in names
        if is_picture(name) and name != "pipe.jpg"
    ]
    return sorted(found)


@pytest.mark.parametrize(("slow", "many"), [(0.0, 1e9), (1e9, 1e9), (1e9, 0)], ids=["threads", "in turn", "processes"])
def test_it_finds_what_a_walk_finds_in_the_order_of_the_paths(folder, monkeypatch, slow, many):
    monkeypatch.setattr(listing, "_SLOW", slow)
    monkeypatch.setattr(listing, "_FIRST", 1)
    monkeypatch.setattr(folders_ahead, "MANY", many)
    found = list_images(folder)
    assert found.paths == walked(folder)
    assert found.states is not None
    for path, size, state in zip(found.paths, found.sizes.tolist(), found.states.tolist(), strict=True):
        if path == "b/nowhere.jpg":
            assert (tuple(state), size) == (GONE, 0)
        else:
            told = (folder / path).stat()
            assert size == told.st_size
            assert state == [told.st_size, told.st_ino, told.st_mtime_ns, told.st_ctime_ns]


def test_a_long_folder_is_listed_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "_AT_ONCE", 3)
    names = [f"{number}.jpg" for number in range(20)] + ["no.txt"]
    for name in names:
        (tmp_path / name).write_bytes(b"1")
    left_out = LeftOut()
    assert list_images(tmp_path, left_out).paths == sorted(names[:-1])
    assert left_out.notes("x") == ("x: files left out: 1 that are no pictures by their names (.txt 1)",)


def test_systems_without_open_folders_find_the_same(folder, monkeypatch):
    monkeypatch.setattr(os, "supports_dir_fd", set())
    assert list_images(folder).paths == walked(folder)


def test_folders_of_sorted_paths_are_told_from_files_of_the_root(folder):
    found = list_images(folder)
    expected: list[tuple[str, bool]] = [(path.split("/")[0], "/" in path) for path in found.paths]
    assert [(name, inside) for name, count, inside in runs(found.paths) for _ in range(count)] == expected


def test_the_files_of_some_folders_are_chosen_with_their_sizes_and_states(folder):
    found = list_images(folder)
    chosen = found.of_folders({"a", "é"})
    assert chosen.paths == [path for path in found.paths if path.startswith(("a/", "é/"))]
    assert dict(chosen.files()) == {path: size for path, size in found.files() if path.startswith(("a/", "é/"))}
    assert isinstance(chosen, Listing) and chosen.states is not None and len(chosen.states) == len(chosen.paths)


def test_a_folder_that_may_not_be_entered_is_not_missing_without_a_word(folder, monkeypatch):
    def refused(path: str) -> folders_ahead.Content:
        names, rows = content(path)
        return names, np.where(np.array(names.split(b"\0")[:-1])[:, None] == b"a", [-errno.EACCES, 0, 0, 0, 0], rows)

    content = folders_ahead.content
    monkeypatch.setattr(listing, "content", refused)
    with pytest.raises(InputError, match=f"cannot read the folder '{folder}/a': Permission denied"):
        list_images(folder)


def test_folders_in_a_long_folder_come_between_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "_AT_ONCE", 2)
    paths = [
        "a.jpg",
        "b.jpg",
        "b/1.jpg",
        "b/2.PNG",
        "c.jpg",
        "c.txt",
        "d/1.jpg",
        "d-e.jpg",
        "d/2.jpg",
        "f.Jpg",
        "g/h.jpg",
    ]
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    found = list_images(tmp_path)
    assert found.files() == [(path, len(path)) for path in sorted(paths) if path != "c.txt"]
