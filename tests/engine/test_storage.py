"""Records on disk: parts are joined without loss, and a failing disk costs nothing that was written."""

import errno
import itertools
import os
import sys
from pathlib import Path

import polars as pl
import pytest

import ipvit
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.core import files
from ipvit.core.lock import FolderLock
from ipvit.engine import store as store_module
from ipvit.engine.folders.parts import write_pieces
from ipvit.engine.loop.writer import Writer
from ipvit.engine.store import Store


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
    assert run(scattered).manifest.measured_in_this_call == 0
    assert len(parts(scattered)) == 1 and Store(scattered).records("occlusion").equals(before)


def test_no_room_to_join_parts_leaves_them_as_they_are(scattered, monkeypatch):
    before = parts(scattered)
    monkeypatch.setattr(store_module, "write_named", failing(errno.ENOSPC))
    Store(scattered).compact()
    assert parts(scattered) == before


def test_a_folder_that_another_process_took_while_parts_were_joined_keeps_its_parts(scattered):
    def taken() -> None:
        if list(scattered.rglob(".*.tmp")):  # the whole is written, and has no name yet
            raise ipvit.InputError("taken")

    before = {path: path.read_bytes() for path in parts(scattered)}
    with pytest.raises(ipvit.InputError, match="taken"):
        Store(scattered, guard=taken).compact()
    assert {path: path.read_bytes() for path in parts(scattered)} == before
    assert not list(scattered.rglob(".*.tmp"))


def test_a_damaged_part_is_not_joined_and_not_deleted(scattered):
    victim = parts(scattered)[3]
    lost = pl.read_parquet(victim).height
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    Store(scattered).compact()
    assert victim.exists() and len(parts(scattered)) == 2
    assert run(scattered).manifest.measured_in_this_call == lost
    assert len(parts(scattered)) == 1 and victim.with_suffix(".damaged").exists()


def test_half_written_files_of_a_killed_run_are_cleared_away(scattered):
    left = parts(scattered)[0].with_name(".part-0123456789abcdef.parquet.77-ab.tmp")
    left.write_bytes(b"half")
    others = [scattered / name / "net" / ".file.77-ab.tmp" for name in ("features", "patches", "probes", "examples")]
    others += [scattered / f".{name}.77-ab.tmp" for name in ("study.yaml", "study.2.yaml", "manifest.json")]
    report = scattered / ".report.html.78-ab.tmp"  # another process may be writing it
    report.touch()
    for other in others:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(b"half")
    run(scattered)
    assert not left.exists() and not any(other.exists() for other in others)
    assert report.exists()


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
    def write(path, *_):
        raise OSError(number, os.strerror(number), str(path))

    return write


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_ends_the_run_and_keeps_what_was_written(tmp_path, monkeypatch, number):
    write, calls = store_module.write_atomic, []

    def failing_later(path, data):
        calls.extend([path] if path.suffix == ".parquet" else [])
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
    assert again.manifest.measured_in_this_call == 30 * 7 - 3 * 4 * 7
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


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ESTALE, errno.EACCES])
def test_a_rename_that_is_refused_for_a_moment_is_tried_again(tmp_path, monkeypatch, number):
    replace, refused = Path.replace, []

    def busy(self, target):
        if len(refused) < 2:
            refused.append(self)
            raise OSError(number, os.strerror(number))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    files.write_atomic(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content" and len(refused) == 2
    assert names(tmp_path) == ["file"]


def test_a_file_that_is_called_by_its_content(tmp_path):
    folder = tmp_path / "new"
    written = files.write_named(folder, lambda digest: f"part-{digest[:8]}", lambda file: file.write(b"photo"))
    assert written == folder / "part-55c64d0f" and written.read_bytes() == b"photo"
    assert names(folder) == ["part-55c64d0f"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_told_as_such_whatever_the_writer_makes_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "open", lambda *_: open("/dev/full", "wb", buffering=0))  # noqa: PTH123, SIM115
    frame = pl.DataFrame({"number": range(10)})
    with pytest.raises(OSError, match="No space left") as raised:  # polars says ComputeError
        files.write_named(tmp_path, str, lambda file: write_pieces(file, iter([frame]), frame.schema))
    assert raised.value.errno == errno.ENOSPC and names(tmp_path) == []


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


def test_a_network_drive_that_refuses_every_rename_ends_the_run_and_the_next_one_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_WAITS", ())
    replace, done = Path.replace, []

    def stale(self, target):
        if "part-" in str(target) and sum(done) >= 3:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self))
        done.append("part-" in str(target))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stale)
        with pytest.raises(OSError, match="Stale file handle; what was written before is kept"):
            run(tmp_path / "drive", flush_seconds=0)
    kept = Store(tmp_path / "drive").records("occlusion").height
    again = run(tmp_path / "drive")
    assert 0 < kept < 30 * 7 and again.manifest.measured_in_this_call == 30 * 7 - kept
    assert again.records("occlusion").equals(run(tmp_path / "fresh").records("occlusion"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize("room", [1, 2_000, 5_000])
def test_files_that_the_system_lets_grow_no_further_end_the_run_and_lose_nothing(tmp_path, room):
    """A real limit of the operating system, not an injected error: writing stops in the middle of a file."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises((OSError, ipvit.InputError)):
            run(tmp_path / "full", flush_seconds=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "full").rglob("*.tmp"))
    again = run(tmp_path / "full")
    assert again.records("occlusion").equals(run(tmp_path / "fresh").records("occlusion"))
    assert not again.manifest.damaged


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path, monkeypatch):
    """Whoever runs the tests may be allowed everything, so the refusal is injected where the folder is probed."""
    write = Path.write_bytes

    def read_only(self, data):
        if self.name.startswith(".probe"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", read_only)
    with pytest.raises(ipvit.InputError, match="cannot write to the output folder .*: Read-only file system") as raised:
        run(tmp_path)
    assert "\n" not in str(raised.value)


def flipped(data: bytes) -> bytes:
    """One bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES = {
    "one bit in the middle": flipped,
    "the first byte": lambda data: bytes([data[0] ^ 128]) + data[1:],
    "cut in half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "empty": lambda data: b"",
    "zeros, as after a power cut": lambda data: bytes(len(data)),
    "longer than it was": lambda data: data + b"\0",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_any_damage_to_a_part_is_noticed_and_measured_again(scattered, damage):
    before = Store(scattered).records("occlusion")
    for victim in (parts(scattered)[2], parts(scattered)[5]):
        victim.write_bytes(damage(victim.read_bytes()))
    left = Store(scattered)
    lost = before.height - left.records("occlusion").height
    assert len(left.damaged) == 2 and lost > 0
    assert any("2 damaged part files were left out" in note for note in ipvit.Run(scattered).notes["occlusion"])
    again = run(scattered)
    assert again.manifest.measured_in_this_call == lost and len(again.manifest.damaged) == 2
    assert Store(scattered).records("occlusion").equals(before)
    assert len(list(scattered.glob("records/*/*/*.damaged"))) == 2, "put aside, not deleted"
    assert run(scattered).manifest.measured_in_this_call == 0


@pytest.mark.parametrize("hours", [[0, -48, 24, -1], [10**6, -(10**7), 3, 0]])
def test_a_clock_that_is_set_back_and_forward_does_not_matter(tmp_path, monkeypatch, hours):
    """The wall clock jumps with every part; a part must neither be lost nor be taken for an older one."""
    import time

    real, jumps = time.time, itertools.cycle(hours)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + 3600 * next(jumps))
        write = store_module.write_atomic

        def stamped(path, data):
            write(path, data)
            stamp = max(0.0, real() + 3600 * next(jumps))
            os.utime(path, (stamp, stamp))

        patch.setattr(store_module, "write_atomic", stamped)
        with pytest.raises(KeyboardInterrupt):
            stop_after_parts(3, lambda: run(tmp_path / "jumps", flush_seconds=0))
        assert 0 < Store(tmp_path / "jumps").records("occlusion").height < 30 * 7
        run(tmp_path / "jumps", flush_seconds=0)
    run(tmp_path / "fresh")
    assert Store(tmp_path / "jumps").records("occlusion").equals(Store(tmp_path / "fresh").records("occlusion"))


def stop_after_parts(count: int, work) -> None:
    """Interrupt the thread that measures once it has handed over so many batches."""
    add, added = Writer.add, []

    def add_and_count(self, *measured):
        add(self, *measured)
        added.append(self)
        if len(added) == count:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as own:
        own.setattr(Writer, "add", add_and_count)
        work()


def test_a_refused_run_leaves_no_folder(tmp_path):
    with pytest.raises(ipvit.InputError, match="more cells than"):
        ipvit.run(small_occlusion(grid="224x224"), models=tiny_model(), data=photos(), out=tmp_path / "a" / "b")
    with pytest.raises(ipvit.InputError, match="not available|no kind of device"):
        run(tmp_path / "a" / "b", device="nonsense")
    assert not (tmp_path / "a").exists()


def test_a_refused_fresh_start_leaves_the_earlier_run_where_it_is(tmp_path):
    run(tmp_path / "run")
    with pytest.raises(ipvit.InputError, match="more cells than"):
        ipvit.run(small_occlusion(grid="224x224"), models=tiny_model(), data=photos(), out=tmp_path / "run", fresh=True)
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
    from ipvit.core import lock

    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    assert run(tmp_path).manifest.notes == ("this file system has no locks: never start two runs on one folder",)
