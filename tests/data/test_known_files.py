"""Files that were read before are not opened again, unless anything about them has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ipvit
from helpers.tiny import write_images
from ipvit.data import fingerprints, known_files
from ipvit.data.known_files import files_read_anew


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small folder that is kept like a large one, and at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(known_files, "FEWEST", 1)
    monkeypatch.setattr(known_files, "SETTLED", -60.0)
    return write_images(tmp_path / "images", per_class=3)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened to be looked at."""
    names: list[str] = []

    def look(file: int, start: int, size: int, name: str, all_bytes: bool) -> known_files.One:
        names.append(Path(name).name)
        return plain(file, start, size, name, all_bytes)

    plain = fingerprints._of_file
    monkeypatch.setattr(fingerprints, "_of_file", look)
    return names


def fingerprint(folder: Path) -> str:
    return ipvit.load_dataset(str(folder)).fingerprint


def test_a_second_start_opens_nothing_and_has_the_same_fingerprint(folder, opened):
    with files_read_anew(True):
        plain = fingerprint(folder)
    assert len(opened) == 12
    first = fingerprint(folder)
    assert len(opened) == 24
    assert fingerprint(folder) == first == plain
    assert len(opened) == 24


def test_a_file_that_is_edited_with_its_time_put_back_is_noticed(folder, opened):
    before = fingerprint(folder)
    path = next(folder.rglob("*.png"))
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # the same size
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (state.st_mtime_ns, state.st_size)
    opened.clear()
    assert fingerprint(folder) != before
    assert opened == [path.name]


def test_a_file_that_comes_is_read_and_those_beside_it_are_not(folder, opened):
    before = fingerprint(folder)
    one = next(folder.rglob("*.jpg"))
    (one.parent / "new.jpg").write_bytes(one.read_bytes())
    opened.clear()
    assert fingerprint(folder) != before and opened == ["new.jpg"]


def test_when_a_file_goes_those_beside_it_are_not_read(folder, opened):
    before = fingerprint(folder)
    next(folder.rglob("*.jpg")).unlink()
    opened.clear()
    assert fingerprint(folder) != before and opened == []


def test_another_file_of_the_same_name_and_times_is_read(folder, opened):
    fingerprint(folder)
    path = next(folder.rglob("*.jpg"))
    state = path.stat()
    copy = path.with_suffix(".new")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    opened.clear()
    fingerprint(folder)
    assert opened == [path.name]


def test_what_changed_a_moment_ago_is_not_kept(folder, opened, monkeypatch):
    monkeypatch.setattr(known_files, "SETTLED", 60.0)
    fingerprint(folder)
    opened.clear()
    fingerprint(folder)
    assert len(opened) == 12


def test_a_damaged_cache_is_as_none(folder, opened, tmp_path):
    before = fingerprint(folder)
    (kept,) = (tmp_path / "cache" / "ipvit" / "files").iterdir()
    content = bytearray(kept.read_bytes())
    content[100] ^= 1
    kept.write_bytes(content)
    opened.clear()
    assert fingerprint(folder) == before and len(opened) == 12


def test_a_cache_that_cannot_be_written_is_no_fault(folder, opened, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert fingerprint(folder) == fingerprint(folder)
    assert len(opened) == 24


def test_every_byte_is_read_when_that_is_asked_for(folder, opened):
    data = ipvit.load_dataset(str(folder))
    opened.clear()
    data.fingerprint_of_all_bytes()  # pyright: ignore[reportAttributeAccessIssue] - of a folder
    assert len(opened) == 12
