"""What other processes say of folders is what this one sees, and nothing is lost where they fail."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ipvit.data import folder_content, folders_ahead
from ipvit.data.folder_content import COLUMNS, HEAD, MARK, REQUEST, rows_of
from ipvit.data.folders_ahead import FoldersAhead, content

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there one process does it")

NAMES = ["1.jpg", "two words.png", "é.jpg", "日本.jpg", "new\nline.jpg", "it's.jpg", os.fsdecode(b"\xff.jpg")]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders of any names, one of them empty, which are worth processes."""
    monkeypatch.setattr(folders_ahead, "MANY", 0)
    monkeypatch.setattr(folders_ahead, "_cores", lambda: 2)
    for number, folder in enumerate(["plain", "new\nline", os.fsdecode(b"\xff"), "é", "empty", *"abcdefgh"]):
        (tmp_path / folder).mkdir()
        for name in NAMES[: 0 if folder == "empty" else number + 1]:
            (tmp_path / folder / name).write_bytes(b"x" * number)
        (tmp_path / folder / "nowhere.jpg").symlink_to("there is none")
        (tmp_path / folder / "inner").mkdir()
    return [str(path) for path in sorted(tmp_path.iterdir())]


def all_of(folders: list[str], ahead: FoldersAhead) -> list[object]:
    ahead.announce(folders)
    return [told(ahead.content(folder)) for folder in folders]


def told(found: folders_ahead.Content) -> object:
    return found[0], found[1].tolist()


def by_processes(ahead: FoldersAhead) -> int:
    """How many folders other processes have answered for."""
    return sum(process.answered for process in ahead._processes)


def test_processes_say_what_is_seen_here(folders):
    with FoldersAhead() as ahead:
        assert all_of(folders, ahead) == [told(content(folder)) for folder in folders]
        assert by_processes(ahead) == len(folders) - 1  # all but the one that shows that it is worth it
    assert len(ahead._processes) == 2


def test_what_is_seen_is_what_the_system_says_of_each_file(folders):
    for folder in folders:
        block, rows = content(folder)
        names = block.decode("utf-8", "surrogatepass").split("\0")[:-1]
        assert names == sorted(path.name for path in Path(folder).iterdir())
        for name, row in zip(names, rows.tolist(), strict=True):
            if name == "nowhere.jpg":
                assert row == [-2, 0, 0, 0, 0]
            else:
                assert row == [getattr((Path(folder) / name).stat(), column) for column in COLUMNS]
                assert stat.S_ISDIR(row[0]) == (name == "inner")


def test_folders_that_are_found_in_others_come_first(folders):
    with FoldersAhead() as ahead:
        ahead.announce(folders)
        assert told(ahead.content(folders[0])) == told(content(folders[0]))
        inner = [f"{folder}/inner" for folder in folders]
        ahead.announce(inner)
        for folder in [*inner, *folders[1:]]:
            assert told(ahead.content(folder)) == told(content(folder))
        assert by_processes(ahead) == len(inner) + len(folders) - 1


def test_folders_that_are_not_announced_are_seen_here(folders):
    with FoldersAhead() as ahead:
        ahead.announce(folders[:-1])
        assert told(ahead.content(folders[-1])) == told(content(folders[-1]))
        assert told(ahead.content(folders[3])) == told(content(folders[3]))


def test_nothing_is_lost_where_processes_die(folders):
    with FoldersAhead() as ahead:
        ahead.announce(folders)
        found = [told(ahead.content(folder)) for folder in folders[:4]]
        for process in ahead._processes:
            process._process.kill()
            process._process.wait()
        found += [told(ahead.content(folder)) for folder in folders[4:]]
    assert found == [told(content(folder)) for folder in folders]


@pytest.mark.parametrize(
    "program",
    ["exit 3", "echo another; exec sleep 60", "echo x; exec sleep 60", "exec sleep 60", "echo ipvit-1; exec cat", None],
    ids=["ends", "says something else", "says less", "says nothing", "sends back", "is not there"],
)
def test_a_program_that_is_not_ours_is_not_believed(folders, tmp_path, monkeypatch, program):
    other = tmp_path / "other program"
    if program is not None:
        other.write_text(f"#!/bin/sh\n{program}\n")
        other.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(other))
    monkeypatch.setattr(folders_ahead, "_PATIENCE", 0.2)
    with FoldersAhead() as ahead:
        assert all_of(folders, ahead) == [told(content(folder)) for folder in folders]
        assert by_processes(ahead) == 0


def test_a_folder_that_vanishes_meanwhile_is_an_error_and_those_beside_it_are_none(folders):
    with FoldersAhead() as ahead:
        ahead.announce(folders)
        ahead.content(folders[0])
        shutil.rmtree(folders[7])
        for folder in folders[1:]:
            if folder == folders[7]:
                with pytest.raises(FileNotFoundError):
                    ahead.content(folder)
            else:
                assert told(ahead.content(folder)) == told(content(folder))


def test_no_process_is_left_when_the_work_is_interrupted(folders):
    ahead = FoldersAhead()
    with pytest.raises(KeyboardInterrupt), ahead:
        ahead.announce(folders)
        ahead.content(folders[0])
        ahead.content(folders[1])
        raise KeyboardInterrupt
    assert len(ahead._processes) == 2
    assert all(process._process.returncode == -signal.SIGKILL for process in ahead._processes)


def test_a_process_ends_with_its_input_and_not_by_ctrl_c(folders):
    command = [sys.executable, "-I", "-S", folder_content.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.read(len(MARK)) == MARK
        process.send_signal(signal.SIGINT)
        path = os.fsencode(folders[0])
        process.stdin.write(REQUEST.pack(len(path)) + path)
        process.stdin.flush()
        mark, count, _ = HEAD.unpack(process.stdout.read(HEAD.size))
        assert (mark, count) == (MARK, len(list(Path(folders[0]).iterdir())))
        process.stdin.close()
        assert process.wait(10) == 0


def test_few_files_start_no_process(folders, monkeypatch):
    monkeypatch.setattr(folders_ahead, "MANY", 1_000)
    with FoldersAhead() as ahead:
        assert len(all_of(folders, ahead)) == len(folders)
        assert not ahead._processes


def test_files_that_are_numbered_up_to_the_end_of_64_bits_are_told_apart():
    numbers = {"a": 2**64 - 1, "b": 2**63, "c": 5}

    def state_of(name: str) -> os.stat_result:
        values = dict.fromkeys(COLUMNS, 1) | {"st_ino": numbers[name]}
        return SimpleNamespace(**values)  # pyright: ignore[reportReturnType] - what is asked of it

    assert rows_of(list(numbers), state_of).tolist()[2::5] == [-1, -(2**63), 5]
