"""A run folder is consistent after every call, and says what was there before."""

import json

import polars as pl
import pytest

import ipvit
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.core.outdated import mark_outdated
from ipvit.engine.manifest import read_manifest


def measured(out, *experiments, **options):
    options = {"models": tiny_model(), "data": photos(), "workers": 0, "progress": False} | options
    return ipvit.run(list(experiments) or small_occlusion(), out=out, **options)


def text(page):
    return " ".join(page.read_text().split())


def test_tables_are_written_with_every_run_and_a_page_that_is_there_is_written_anew(tmp_path):
    run = measured(tmp_path)
    assert not (tmp_path / "report.html").exists()
    assert pl.read_json(tmp_path / "tables" / "occlusion.json").height == run.tables["occlusion"].height
    run.report()
    second = measured(tmp_path, small_occlusion(levels=(0, 0.5)), limit=8)
    assert pl.read_json(tmp_path / "tables" / "occlusion.json")["n_images"].unique().to_list() == [8]
    assert "8 of 30 images used" in text(tmp_path / "report.html")
    assert second.manifest == ipvit.Run(tmp_path).manifest


def test_tables_and_figures_of_what_is_no_longer_in_the_study_are_put_aside(tmp_path):
    measured(tmp_path, small_occlusion(), ipvit.Shuffle(grids=("2x2",))).report()
    (tmp_path / "tables" / "mine.csv").write_text("a note of the user's")
    measured(tmp_path)
    for folder in ("tables", "figures"):
        assert not any(path.stem.startswith("shuffle") for path in (tmp_path / folder).glob("*.*"))
        assert any(path.stem.startswith("shuffle") for path in (tmp_path / folder / "earlier").iterdir())
    assert (tmp_path / "tables" / "mine.csv").is_file()
    assert "shuffle" not in text(tmp_path / "report.html").lower().split("earlier studies")[0].split("also holds")[0]


def test_what_a_call_leaves_behind_that_does_not_end_is_marked(tmp_path, monkeypatch):
    from ipvit.engine import run as engine

    measured(tmp_path).report()

    def stopped(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "sweep", stopped)
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, small_occlusion(runs=3))
    for folder in ("tables", "figures"):
        assert "of an earlier call" in (tmp_path / folder / "OUTDATED.txt").read_text()
    assert text(tmp_path / "report.html").count("<strong>Outdated.</strong>") == 1
    mark_outdated(tmp_path)
    assert text(tmp_path / "report.html").count("<strong>Outdated.</strong>") == 1, "and once is enough"
    ipvit.Run(tmp_path).report()
    assert not list(tmp_path.rglob("OUTDATED.txt")) and "Outdated" not in text(tmp_path / "report.html")


def test_a_new_folder_has_no_marks(tmp_path):
    measured(tmp_path)
    assert not list(tmp_path.rglob("OUTDATED.txt"))


def test_a_disk_that_takes_no_tables_does_not_lose_the_results(tmp_path, monkeypatch):
    measured(tmp_path)
    monkeypatch.setattr("ipvit.report.build.write_table", _full)
    run = measured(tmp_path, small_occlusion(runs=3))
    assert run.tables["occlusion"]["n_runs"].max() == 3
    assert "could not be written" in run.faults["tables", "files"]
    assert (tmp_path / "tables" / "OUTDATED.txt").is_file()


def _full(*_args):
    raise OSError(28, "No space left on device")


def test_an_earlier_study_is_named(tmp_path):
    measured(tmp_path)
    run = measured(tmp_path, small_occlusion(runs=3))
    assert "it is kept as study.1.yaml" in "".join(run.manifest.notes)
    assert run.told[-1] == "Earlier studies of this folder, which asked for something else: study.1.yaml."
    run.report()
    assert "study.1.yaml" in text(tmp_path / "report.html")
    assert measured(tmp_path, small_occlusion(runs=3)).manifest.notes == ()


def test_a_repeated_run_says_what_was_there(tmp_path, capfd):
    assert read_manifest(tmp_path) is None and measured(tmp_path).manifest.measured_before == ""
    measured(tmp_path, progress=True)
    assert f"ipvit: {tmp_path}: 7 of 7 conditions measured before, nothing to do" in capfd.readouterr().err
    run = measured(tmp_path, small_occlusion(runs=3))
    assert run.manifest.measured_before == "7 of 10 conditions measured before; 90 of 300 results to do"
    assert json.loads((tmp_path / "manifest.json").read_text())["measured_before"] == run.manifest.measured_before
