"""Nothing is written through a link that lies in an output folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

import ipvit
from helpers.command_line import complaint, measure_in
from helpers.files import contents
from helpers.plain_loops import coloured, photos, tiny_vit, wrapped
from helpers.training import tiny_recipe
from ipvit.cli import main
from ipvit.core import links
from ipvit.core.files import write_atomic
from ipvit.errors import InputError
from ipvit.experiments.occlusion.analysis import OcclusionAnalysis

STUDY = {
    "models": "net.py:make",
    "data": "images",
    "experiments": [{"occlusion": {"grid": "4x4", "levels": [0.5], "runs": 1, "modes": ["random"]}}],
    "workers": 0,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return measure_in(tmp_path_factory.mktemp("links"), yaml.safe_dump(STUDY), "run")


@pytest.fixture
def there(finished, tmp_path, monkeypatch) -> Path:
    """A finished run, and beside it something of somebody else's."""
    shutil.copytree(finished, tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "letter").write_text("dear")
    return tmp_path / "desk"


def linked(place: Path, target: Path) -> None:
    """Put a link in the place of a file or folder, to a copy of it elsewhere."""
    if place.is_dir():
        shutil.move(place, target / "folder")
        place.symlink_to(target / "folder")
    else:
        place.unlink(missing_ok=True)
        place.symlink_to(target / "letter")


IN_A_RUN = [".lock", "tables", "figures", "report.html", "manifest.json", "study.yaml", "records", "records/occlusion"]
IN_A_RUN += ["records/occlusion/analysis.json", "records/occlusion/*", "records/occlusion/*/part-*", "examples"]
IN_A_RUN += ["tables/occlusion.csv", "examples/occlusion", "examples/occlusion/*/captions.json"]


@pytest.mark.parametrize("name", IN_A_RUN)
def test_a_run_a_report_and_a_merge_write_through_no_link(there, capsys, monkeypatch, name):
    monkeypatch.setattr(OcclusionAnalysis, "figures", lambda self, tables: {})  # they take long and look at no folder
    place = next(
        path for path in sorted(Path("run").glob(name)) if path.is_dir() or "*" not in name[-2:] or path.suffix
    )
    is_file = not place.is_dir()
    theirs = there.parent / "theirs"
    linked(place, theirs)
    before = contents(theirs)
    more = yaml.safe_dump(STUDY | {"experiments": [{"occlusion": {"levels": [0.5, 0.9], "grid": "4x4", "runs": 1}}]})
    (there / "more.yaml").write_text(more)
    for arguments in (["run", "more.yaml", "--out", "run"], ["report", "run"], ["merge", "run"]):
        assert main(arguments) in (0, 2)
        assert contents(theirs) == before, arguments
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if name == ".lock" or not is_file:
        assert f"'{place}' is a link, and nothing is written through a link" in said


def test_a_link_is_found_before_anything_is_measured(there, capsys):
    linked(Path("run/tables"), there.parent / "theirs")
    assert main(["check", "study.yaml", "--out", "run"]) == 2
    assert "'run/tables' is a link" in complaint(capsys)


def test_a_link_that_is_the_output_folder_itself_is_what_the_user_asked_for(there):
    Path("elsewhere").mkdir()
    Path("link").symlink_to("elsewhere")
    assert main(["run", "study.yaml", "--out", "link"]) == 0
    assert Path("elsewhere/report.html").is_file()


def test_the_folder_of_a_shard_is_no_link(there, capsys):
    Path("parts").mkdir()
    Path("parts/shards").symlink_to(there.parent / "theirs")
    assert main(["run", "study.yaml", "--out", "parts", "--shard", "1/2"]) == 2
    assert "'parts/shards' is a link" in complaint(capsys)
    assert [*(there.parent / "theirs").iterdir()] == [there.parent / "theirs" / "letter"]


def test_what_a_link_in_a_shard_leads_to_is_not_copied(there, capsys):
    for number in ("1/2", "2/2"):
        assert main(["run", "study.yaml", "--out", "parts", "--shard", number]) == 0
    Path("parts/shards/1-of-2/patches").mkdir()
    Path("parts/shards/1-of-2/patches/x.png").symlink_to(there.parent / "theirs" / "letter")
    assert main(["merge", "parts", "--out", "whole"]) == 2
    assert "x.png' is a link" in complaint(capsys) and not Path("whole").exists()


@pytest.mark.parametrize("command", ["stylize", "corrupt"])
@pytest.mark.parametrize("name", [".lock", "c0", "classes"])
def test_copies_are_written_through_no_link(there, capsys, command, name):
    theirs = there.parent / "theirs"
    out = there / "out"
    out.mkdir()
    place = {".lock": out / ".lock", "c0": out / "c0", "classes": out / "fog"}[name]
    place.symlink_to(theirs / "letter" if name == ".lock" else theirs)
    more = ["--corruptions", "fog", "--severities", "1"] if command == "corrupt" else []
    arguments = [command, "images", "--out", "out", "--size", "32", "--resize", "32", "--workers", "0", *more]
    assert main(arguments) == 2
    assert "is a link, and nothing is written through a link" in complaint(capsys)
    assert contents(theirs) == {"letter": b"dear"}


def test_a_training_writes_through_no_link(there, small_sets):
    theirs = there.parent / "theirs"
    ipvit.training.train(tiny_recipe(epochs=1, warmup_epochs=0), "out", device="cpu", progress=False)
    Path("out/state.pt").unlink()  # it begins anew
    for name in ("best.safetensors", "last.safetensors", "log.jsonl"):
        (theirs / name).write_text("theirs")
        Path("out", name).unlink()
        Path("out", name).symlink_to(theirs / name)
    before = contents(theirs)
    ipvit.training.train(tiny_recipe(epochs=1, warmup_epochs=0), "out", device="cpu", progress=False)
    assert contents(theirs) == before
    shutil.rmtree("out")
    Path("out").mkdir()
    Path("out/logs").symlink_to(theirs)
    with pytest.raises(InputError, match="'out/logs' is a link"):
        ipvit.training.train(tiny_recipe(epochs=1, warmup_epochs=0), "out", device="cpu", progress=False)


def test_features_are_written_through_no_link(there):
    def probed() -> None:
        experiment = ipvit.Probe(train=coloured(8, 1), blocks=(0,), last=(), heads=("lbfgs",), tokens=("class",))
        network = wrapped(tiny_vit())
        ipvit.run(experiment, models=network, data=photos(4), out="probed", workers=0, progress=False)

    probed()
    theirs = there.parent / "theirs"
    path = next(Path("probed/features").rglob("*.npy"))
    shutil.move(path, theirs / "letter")
    path.symlink_to(theirs / "letter")
    before = contents(theirs)
    with pytest.raises(InputError, match="npy' is a link"):
        probed()
    assert contents(theirs) == before


def test_a_lock_that_is_another_file_under_a_second_name_is_refused(there, capsys):
    letter = there.parent / "theirs" / "letter"
    Path("run/.lock").unlink()
    os.link(letter, "run/.lock")
    assert main(["run", "study.yaml", "--out", "run"]) == 2
    assert "is another file under a second name" in complaint(capsys) and letter.read_text() == "dear"


def test_a_file_takes_the_place_of_a_link_and_leaves_alone_what_that_led_to(tmp_path):
    (tmp_path / "theirs").write_text("dear")
    (tmp_path / "ours").symlink_to("theirs")
    write_atomic(tmp_path / "ours", b"new")
    assert (tmp_path / "theirs").read_text() == "dear" and not (tmp_path / "ours").is_symlink()


@pytest.mark.parametrize("system_refuses", [True, False])
def test_a_file_in_place_is_opened_through_no_link(tmp_path, monkeypatch, system_refuses):
    if not system_refuses:
        monkeypatch.setattr(links, "_NOFOLLOW", 0)
    (tmp_path / "theirs").write_text("dear")
    (tmp_path / "link").symlink_to("theirs")
    with pytest.raises(InputError, match="is a link"):
        links.open_in_place(tmp_path / "link", os.O_RDWR | os.O_CREAT)
    looked = iter([False, True])  # it was put there between two looks
    monkeypatch.setattr(links, "_is_link", lambda path: next(looked, True))
    with pytest.raises(InputError, match="is a link"):
        links.open_in_place(tmp_path / "link", os.O_RDWR | os.O_CREAT)
    monkeypatch.undo()
    os.close(links.open_in_place(tmp_path / "mine", os.O_RDWR | os.O_CREAT))
