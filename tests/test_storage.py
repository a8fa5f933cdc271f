"""Records on disk: parts are joined without loss, and a failing disk costs nothing that was written."""

import errno
import os
from pathlib import Path

import polars as pl
import pytest

import ipvit
from conftest import tiny_model
from ipvit import files
from ipvit.engine import store as store_module
from ipvit.engine.lock import FolderLock
from ipvit.engine.store import Store
from test_sweep import photos, small_occlusion


def run(out, **options):
    settings = {"workers": 0, "progress": False, "batch_size": 4, "data": photos()} | options
    return ipvit.run(small_occlusion(), models=tiny_model(), out=out, **settings)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def parts(out: Path) -> list[Path]:
    return sorted(out.glob("records/*/*/part-*.parquet"))


@pytest.fixture
def scattered(tmp_path, monkeypatch) -> Path:
    """A run folder with one part per batch, as a run that was killed before its end leaves it."""
    with monkeypatch.context() as patch:
        patch.setattr(Store, "compact", lambda self: None)
        run(tmp_path / "run", flush_seconds=0)
    assert len(parts(tmp_path / "run")) == 8
    return tmp_path / "run"


def test_small_parts_become_one_with_the_same_records(scattered):
    before = Store(scattered).records("occlusion")
    Store(scattered).compact()
    assert len(parts(scattered)) == 1
    assert Store(scattered).records("occlusion").equals(before)
    (only,) = parts(scattered)
    Store(scattered).compact()
    assert parts(scattered) == [only]


def test_large_parts_are_left_alone(scattered, monkeypatch):
    monkeypatch.setattr(store_module, "SMALL_PART", 0)
    Store(scattered).compact()
    assert len(parts(scattered)) == 8


@pytest.mark.parametrize("survivors", range(9))
def test_killed_while_joining_nothing_is_lost_and_nothing_counts_twice(scattered, monkeypatch, survivors):
    before = Store(scattered).records("occlusion")
    unlink, gone = Path.unlink, []

    def dying(self, missing_ok=False):
        if len(gone) == survivors:
            raise KeyboardInterrupt
        gone.append(self)
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dying)
        if survivors < 8:
            with pytest.raises(KeyboardInterrupt):
                Store(scattered).compact()
        else:
            Store(scattered).compact()
    assert len(parts(scattered)) == 9 - survivors
    assert Store(scattered).records("occlusion").equals(before)
    assert run(scattered).manifest["measured_in_this_call"] == 0
    assert len(parts(scattered)) == 1 and Store(scattered).records("occlusion").equals(before)


def test_no_room_to_join_parts_leaves_them_as_they_are(scattered, monkeypatch):
    before = parts(scattered)
    monkeypatch.setattr(store_module, "write_atomic", failing(errno.ENOSPC))
    Store(scattered).compact()
    assert parts(scattered) == before


def test_a_damaged_part_is_not_joined_and_not_deleted(scattered):
    victim = parts(scattered)[3]
    lost = pl.read_parquet(victim).height
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    Store(scattered).compact()
    assert victim.exists() and len(parts(scattered)) == 2
    assert run(scattered).manifest["measured_in_this_call"] == lost
    assert len(parts(scattered)) == 1 and victim.with_suffix(".damaged").exists()


def test_half_written_files_of_a_killed_run_are_cleared_away(scattered):
    left = parts(scattered)[0].with_name(".part-0123456789abcdef.parquet.77-ab.tmp")
    left.write_bytes(b"half")
    run(scattered)
    assert not left.exists()


def test_records_can_be_read_in_part(scattered):
    whole = Store(scattered).records("occlusion")
    some, others = Store(scattered).select("occlusion", {"seed": 0}, ["correct"])
    assert set(some.columns) == {"image", "model", "weights", "correct"} and others == 0
    assert some["correct"].equals(whole["correct"])
    none, others = Store(scattered).select("occlusion", {"seed": 1})
    assert none.is_empty() and others == whole.height


def test_what_identifies_a_row_takes_little_memory(scattered):
    whole = Store(scattered).records("occlusion")
    for name in ("image", "condition", "weights", "data", "experiment"):
        assert whole[name].dtype == pl.Categorical
    assert whole["mode"].dtype == pl.String, "what experiments look at is text"
    assert whole["image"].to_list()[:2] == ["photo 0", "photo 1"]


def failing(number: int):
    def write(path, data):
        raise OSError(number, os.strerror(number), str(path))

    return write


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_ends_the_run_and_keeps_what_was_written(tmp_path, monkeypatch, number):
    write, calls = store_module.write_atomic, []

    def failing_later(path, data):
        calls.append(path)
        if len(calls) > 3:
            raise OSError(number, os.strerror(number), str(path))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_atomic", failing_later)
        with pytest.raises(OSError, match="what was written before is kept") as raised:
            run(tmp_path, flush_seconds=0)
    assert "\n" not in str(raised.value) and os.strerror(number) in str(raised.value)
    assert len(parts(tmp_path)) == 3
    again = run(tmp_path)
    assert again.manifest["measured_in_this_call"] == 30 * 7 - 3 * 4 * 7
    assert again.records("occlusion").equals(run(tmp_path / "fresh").records("occlusion"))


def test_a_disk_that_is_full_for_everything_still_tells_of_the_first_error(tmp_path, monkeypatch):
    from ipvit.engine import manifest

    monkeypatch.setattr(store_module, "write_atomic", failing(errno.ENOSPC))
    calls, write = [], manifest.write_atomic

    def full_after_the_first(path, data):
        calls.append(path)
        (write if len(calls) < 2 else failing(errno.ENOSPC))(path, data)

    monkeypatch.setattr(manifest, "write_atomic", full_after_the_first)
    with pytest.raises(OSError, match="No space left on device; what was written"):
        run(tmp_path)
    assert len(calls) == 2


def test_a_rename_that_is_refused_for_a_moment_is_tried_again(tmp_path, monkeypatch):
    replace, refused = Path.replace, []

    def busy(self, target):
        if len(refused) < 2:
            refused.append(self)
            raise OSError(errno.EBUSY, "Device or resource busy")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    files.write_atomic(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content" and len(refused) == 2
    assert names(tmp_path) == ["file"]


def test_a_rename_that_was_done_but_reported_as_failed_counts_as_done(tmp_path, monkeypatch):
    replace = Path.replace

    def lost_answer(self, target):
        replace(self, target)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Path, "replace", lost_answer)
    files.write_atomic(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_rename_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path, monkeypatch):
    files.write_atomic(tmp_path / "file", b"earlier")

    def refuse(self, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        files.write_atomic(tmp_path / "file", b"later")
    assert (tmp_path / "file").read_bytes() == b"earlier" and names(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_flushed_is_no_error(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.os, "open", refuse)
    files.write_atomic(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_clock_changes_do_not_matter(tmp_path, monkeypatch):
    import time

    monkeypatch.setattr(time, "time", lambda: 0.0)
    run(tmp_path, flush_seconds=0)
    assert Store(tmp_path).records("occlusion").height == 30 * 7


def test_a_refused_run_leaves_no_folder(tmp_path):
    with pytest.raises(ipvit.InputError, match="does not divide"):
        ipvit.run(small_occlusion(grid="14x14"), models=tiny_model(), data=photos(), out=tmp_path / "a" / "b")
    with pytest.raises(ipvit.InputError, match="not available|no kind of device"):
        run(tmp_path / "a" / "b", device="nonsense")
    assert not (tmp_path / "a").exists()


def test_a_refused_fresh_start_leaves_the_earlier_run_where_it_is(tmp_path):
    run(tmp_path / "run")
    with pytest.raises(ipvit.InputError, match="does not divide"):
        ipvit.run(small_occlusion(grid="14x14"), models=tiny_model(), data=photos(), out=tmp_path / "run", fresh=True)
    assert names(tmp_path) == ["run"] and parts(tmp_path / "run")


def test_a_folder_is_held_by_one_run_or_by_the_processes_of_one(tmp_path):
    with FolderLock(tmp_path) as first:
        with pytest.raises(ipvit.InputError, match=f"in use by process {os.getpid()}"), FolderLock(tmp_path):
            pass
        first.share()
        with (
            FolderLock(tmp_path, shared=True),
            FolderLock(tmp_path, shared=True),
            pytest.raises(ipvit.InputError, match="in use"),
            FolderLock(tmp_path),
        ):
            pass
    with FolderLock(tmp_path):
        pass


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    from ipvit.engine import lock

    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    assert run(tmp_path).manifest["notes"] == ["this file system has no locks: never start two runs on one folder"]
