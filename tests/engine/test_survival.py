"""A run whose folder is taken away, is not its own, or whose user is out of patience: nothing untrue is said."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import ClassVar

import pytest

import ipvit
from helpers.crashes import STUDY, wait_for
from helpers.files import contents
from helpers.forks import Python
from helpers.small_runs import CLASSES, Picky, photos, small_occlusion
from helpers.tiny import tiny_model, write_images
from ipvit.cli import main
from ipvit.core.lock import FolderLock
from ipvit.core.signals import ENDING, uninterrupted
from ipvit.data import MemoryDataset
from ipvit.engine.manifest import read_manifest
from ipvit.engine.store import Store


def run(experiment, out, **options):
    settings = {"workers": 0, "progress": False, "batch_size": 8, "flush_seconds": 0} | options
    return ipvit.run(experiment, models=[tiny_model()], data=photos(), out=out, **settings)


# --- the folder is taken away ----------------------------------------------------------------------------------------


class Meddling(Picky):
    """Does something to the run folder with its third batch, once the first two are written."""

    name: ClassVar[str] = "meddling"
    folder: str = ""
    how: str = "delete"

    def measure(self, model, batch):
        folder = Path(self.folder)
        if "photo 16" in batch.ids and self.how != "nothing":
            deadline = time.monotonic() + 60
            while len(list(folder.glob("records/*/*/part-*.parquet"))) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            if self.how == "delete":
                shutil.rmtree(folder)
            elif self.how == "move":
                folder.rename(folder.with_name("moved"))
            elif self.how == "replace":
                folder.rename(folder.with_name("moved"))
                folder.mkdir()
                (folder / ".lock").touch()
            elif self.how == "one part":
                next(folder.glob("records/*/*/part-*.parquet")).unlink()
            elif self.how == "damage":
                next(folder.glob("records/*/*/part-*.parquet")).write_bytes(b"")
        yield from super().measure(model, batch)


@pytest.mark.parametrize("how", ["delete", "move", "replace"])
def test_a_run_whose_folder_is_taken_away_stops_and_writes_nothing_where_it_was(tmp_path, how):
    out = tmp_path / "run"
    with pytest.raises(OSError, match="was deleted or replaced while the run went on") as raised:
        run(Meddling(folder=str(out), how=how), out)
    assert "\n" not in str(raised.value)
    left = [str(path.relative_to(out)) for path in out.rglob("*")] if out.exists() else []
    assert left == ([".lock"] if how == "replace" else [])
    if how != "delete":
        assert (tmp_path / "moved" / "manifest.json").exists()


@pytest.mark.parametrize("how", ["one part", "damage"])
def test_what_is_on_the_disk_is_counted_before_done_is_said(tmp_path, how):
    with pytest.raises(OSError, match=r"40 of 150 results are no longer in .*; run the same command again"):
        run(Meddling(folder=str(tmp_path), how=how), tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest is not None and manifest.status == "interrupted"
    again = run(Picky(), tmp_path / "other")
    whole = run(Meddling(folder=str(tmp_path), how="nothing"), tmp_path)
    assert whole.manifest.status == "done" and whole.manifest.measured_in_this_call == 40
    assert whole.records("meddling").height == again.records("picky").height == 150


def test_the_command_line_says_that_the_folder_is_gone_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", per_class=6)
    (tmp_path / "own.py").write_text(
        "import shutil, torch, ipvit\n"
        "from helpers.tiny import tiny_model\n\n"
        "def make():\n"
        "    model = tiny_model()\n"
        "    model.backbone.register_forward_hook(lambda *_: shutil.rmtree('out', ignore_errors=True))\n"
        "    return model\n"
    )
    code = main(["accuracy", "-m", "own.py:make", "-d", "images", "--out", "out", "--workers", "0"])
    said = capsys.readouterr().err
    assert code == 1 and said.count("\n") == 1 and "was deleted or replaced" in said
    assert not (tmp_path / "out").exists()


def test_a_condition_under_which_nothing_is_measured_is_a_failure(tmp_path):
    class Lazy(Picky):
        name: ClassVar[str] = "lazy"

        def measure(self, model, batch):
            yield from list(super().measure(model, batch))[: 1 if len(batch.conditions) > 1 else None]

    manifest = run(Lazy(), tmp_path).manifest
    assert manifest.status == "done" and manifest.measured_in_this_call == 150, "one by one they are measured"

    class Idle(Picky):
        name: ClassVar[str] = "idle"

        def measure(self, model, batch):
            yield from (record for record in super().measure(model, batch) if record.condition.number != 2)

    (failure,) = run(Idle(), tmp_path).manifest.failures
    assert failure.condition == "number=2" and "nothing was measured" in failure.error


# --- a worker process is killed --------------------------------------------------------------------------------------


class Deadly(MemoryDataset):
    """Kills the process that reads one of the images, so many times."""

    marks: Path
    times = 1

    def read(self, index):
        if index == 17 and (count := len(list(self.marks.glob("killed-*")))) < self.times:
            (self.marks / f"killed-{count}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


def test_a_killed_worker_is_replaced_once_and_then_told_of_with_the_way_on(tmp_path, monkeypatch):
    plain = run(small_occlusion(), tmp_path / "plain").records("occlusion")
    data = Deadly(photos()._images, photos().labels, CLASSES, ids=photos().ids)
    data.marks, data.fingerprint = tmp_path, photos().fingerprint
    options = {"models": tiny_model(), "workers": 1, "progress": False, "batch_size": 8, "flush_seconds": 0}
    once = ipvit.run(small_occlusion(), data=data, out=tmp_path / "once", **options)
    assert once.records("occlusion").equals(plain) and once.manifest.status == "done"
    assert [note for note in once.manifest.notes if "died (" in note and note.endswith("was replaced")]
    Deadly.times = 3
    with pytest.raises(OSError, match=r"died \(.*most likely the memory was full.*the same command goes on from there"):
        ipvit.run(small_occlusion(), data=data, out=tmp_path / "twice", **options)
    manifest = read_manifest(tmp_path / "twice")
    assert manifest is not None and manifest.status == "interrupted" and not manifest.failures
    Deadly.times = 1
    again = ipvit.run(small_occlusion(), data=data, out=tmp_path / "twice", **options)
    assert again.records("occlusion").equals(plain) and 0 < again.manifest.measured_in_this_call < 30 * 7


# --- the folder is somebody else's -----------------------------------------------------------------------------------

FOREIGN = {
    "a thesis": {"thesis.txt": "mine"},
    "a report of one's own": {"report.html": "<p>mine</p>", "tables/a.csv": "1"},
    "a study of one's own": {"study.yaml": "models: []"},
    "another program's manifest": {"manifest.json": '{"name": "my web page"}'},
    "music": {"records/abba.mp3": "la"},
    "shards of something": {"shards/glass.txt": "sharp"},
    "a folder": {"photos/a.jpg": ""},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_that_holds_something_else_is_refused_before_anything_is_written(tmp_path, monkeypatch, name, capsys):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", per_class=1)
    (tmp_path / "own.py").write_text("from helpers.tiny import tiny_model\n\ndef make():\n    return tiny_model()\n")
    (tmp_path / "s.yaml").write_text("models: [own.py:make]\ndata: images\nexperiments: [accuracy]\nworkers: 0\n")
    for place, text in FOREIGN[name].items():
        (tmp_path / "out" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / place).write_text(text)
    before = contents(tmp_path / "out")
    for command in (["run", "s.yaml"], ["run", "s.yaml", "--fresh"], ["check", "s.yaml"]):
        capsys.readouterr()
        code = main([*command, "--out", "out"])
        assert (code, contents(tmp_path / "out")) == (2, before)
        assert "is not the folder of a run; give a new or an empty folder as --out" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out", "own.py", "s.yaml"]


def test_shards_are_not_joined_into_somebody_elses_folder(tmp_path):
    for shard in ("1/2", "2/2"):
        run(small_occlusion(), tmp_path / "run", shard=shard)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.html").write_text("mine")
    shards = [str(path) for path in sorted((tmp_path / "run" / "shards").iterdir())]
    assert main(["merge", *shards, "--out", str(tmp_path / "mine")]) == 2
    assert contents(tmp_path / "mine") == {"report.html": b"mine"}
    assert main(["merge", str(tmp_path / "run")]) == 0, "a folder of shards is a run's"


def test_a_run_goes_on_in_its_own_folder_whatever_was_lost_of_it(tmp_path):
    whole = run(small_occlusion(), tmp_path).records("occlusion")
    for lost in (["manifest.json"], ["study.yaml"], ["manifest.json", "study.yaml"]):
        for name in lost:
            (tmp_path / name).unlink(missing_ok=True)
        assert run(small_occlusion(), tmp_path).records("occlusion").equals(whole)


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch):
    """Whoever runs the tests may be allowed everything, so what the system says is injected."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ipvit.InputError, match=f"{tmp_path.name}' may not be written to"):
        run(small_occlusion(), tmp_path / "run")
    assert not list(tmp_path.iterdir())


# --- the user is out of patience -------------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c_interrupts():
    """A shell that starts the tests in the background has it ignored."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_signals_wait_until_something_short_is_done_and_then_interrupt():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            before = signal.getsignal(number)
            assert before not in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
            os.kill(os.getpid(), number)
        done.append("whole")
    assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
@pytest.mark.parametrize("first", ENDING)
def test_a_second_ctrl_c_leaves_a_true_manifest_and_what_was_measured(tmp_path, first):
    """The second one comes while the run ends: as fast as a finger, and as fast as a program can."""
    (tmp_path / "study.py").write_text(
        STUDY.replace("if __name__", "from ipvit.core.signals import interrupt_by_signals\n\nif __name__", 1).replace(
            "    model = ipvit.wrap", "    interrupt_by_signals()\n    model = ipvit.wrap", 1
        )
    )
    images, out = write_images(tmp_path / "images", per_class=12), tmp_path / "out"
    process = Python([tmp_path / "study.py", images, out, 0.05])
    wait_for(lambda: list(out.glob("records/*/*/part-*")), process)
    process.send_signal(first)
    for _ in range(200):
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGINT)
        time.sleep(0.005)
    process.communicate(timeout=60)
    manifest = read_manifest(out)
    assert process.returncode != 0 and manifest is not None and manifest.status == "interrupted"
    assert len(Store(out).records("occlusion")) > 0
    with FolderLock(out):
        assert not list(out.rglob("*.tmp"))
