"""Somebody's results are read without running anything of theirs; what a study file names is told before it runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import ipvit
from helpers.analysis import BAR
from helpers.command_line import complaint, measure_in
from ipvit.cli import main

PLANTED = """
from pathlib import Path
import numpy as np
import ipvit

Path({marker!r}).touch()

class HalfAnalysis(ipvit.Analysis):
    def tables(self, reductions):
        table = super().tables(reductions)[self.name]
        return {{self.name: table.with_columns(table["top1"] / 2)}}

    def summary(self, tables):
        return ["Only the code says this."]

class Half(ipvit.Experiment):
    name = "half"
    title = "Half of it"

    def conditions(self, model):
        return [ipvit.Condition()]

    def measure(self, model, batch):
        for condition in batch.conditions:
            yield ipvit.Records(condition, ipvit.classify(model, batch.images, batch.labels))

    def analysis(self):
        return HalfAnalysis.of(self)

def specks(image, severity, random):
    return image

def grey(images):
    return images
"""

STUDY = """
models: net.py:make
data: images
experiments:
  - planted.py:Half
  - corruptions: {corruptions: ["planted.py:specks"], severities: [1]}
  - occlusion: {grid: 4x4, levels: [0.5], runs: 1, modes: [random]}
workers: 0
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """A folder in which a colleague has measured with code of their own; the marker says that it ran."""
    root = tmp_path_factory.mktemp("given")
    (root / "planted.py").write_text(PLANTED.format(marker=str(root / "ran")))
    measure_in(root, STUDY, "results")
    # the study of the folder names the code by its whole path, so that any working folder would find it
    study = (root / "results" / "study.yaml").read_text()
    (root / "results" / "study.yaml").write_text(study.replace("planted.py:", f"{root / 'planted.py'}:"))
    (root / "ran").unlink()
    return root


@pytest.fixture
def there(given, monkeypatch) -> Path:
    monkeypatch.chdir(given)
    return given


@pytest.mark.parametrize("arguments", [["report"], ["report", "--json"], ["compare"], ["compare", "--with", "timm"]])
def test_reading_somebodys_results_runs_nothing_of_theirs(there, capsys, arguments):
    code = main([arguments[0], "results", *arguments[1:]])
    assert code == (2 if "timm" in arguments else 0), "timm has no results of net.py"
    said = capsys.readouterr()
    assert not (there / "ran").exists() and "planted.py" not in said.err
    if arguments == ["report"]:
        assert "as of its last run" in " ".join(said.out.split()) and "Only the code says this." in said.out
        assert "as of its last run" in (there / "results" / "report.html").read_text()
    if arguments == ["report", "--json"]:
        found = json.loads(said.out)
        assert "as of its last run" in found["notes"]["half"][0] and found["tables"]["half"][0]["top1"] is not None


@pytest.mark.slow
def test_results_of_somebody_are_joined_without_running_anything_of_theirs(there, capsys):
    for number in ("1/2", "2/2"):
        assert main(["run", "study.yaml", "--out", "parts", "--shard", number]) == 0
    (there / "ran").unlink()
    capsys.readouterr()
    assert main(["merge", "parts"]) == 0
    assert not (there / "ran").exists()
    assert "Half of it" in (there / "parts" / "report.html").read_text(), "what is known of its columns is joined too"
    assert "as of its last run" in (there / "parts" / "report.html").read_text()


def test_the_tables_of_somebodys_experiment_are_those_that_its_code_made(there):
    run = ipvit.Run("results")
    whole = run.records("half").group_by("model").agg(pl.col("correct").mean() * 100)
    assert run.tables["half"]["top1"].item() == pytest.approx(whole["correct"].item() / 2)
    assert run.records("half").height == 4 and not (there / "ran").exists()


def test_a_folder_of_records_that_is_called_as_a_file_of_code_is_imported_by_nobody(there, tmp_path, monkeypatch):
    shutil.copytree("results", tmp_path / "copy")
    (tmp_path / "copy" / "records" / "half").rename(tmp_path / "copy" / "records" / "planted.py:Half")
    assert main(["report", str(tmp_path / "copy")]) == 0
    assert not (there / "ran").exists()


@pytest.mark.parametrize("command", ["run", "check"])
def test_the_study_of_a_run_folder_is_not_run_where_it_names_code(there, capsys, command):
    assert main([command, "results/study.yaml"]) == 2
    assert "lies in a run folder and names code" in complaint(capsys)
    (there / "link.yaml").unlink(missing_ok=True)
    (there / "link.yaml").symlink_to("results/study.yaml")
    assert main([command, "link.yaml"]) == 2
    assert not (there / "ran").exists()


@pytest.mark.parametrize("place", ["results/near.py", "../near.py", "link.py", "~/near.py"])
def test_the_study_of_a_run_folder_reaches_code_of_the_working_folder_only(there, capsys, place):
    (there / "link.py").unlink(missing_ok=True)
    (there / "link.py").symlink_to("results/near.py")
    study = (there / "results" / "study.yaml").read_text()
    (there / "results" / "study.2.yaml").write_text(study.replace(str(there / "planted.py"), place))
    assert main(["run", "results/study.2.yaml"]) == 2
    assert f"names code, '{place}:Half'" in complaint(capsys)
    (there / "link.py").unlink()


def test_the_study_of_a_run_folder_is_run_again_with_code_of_the_working_folder(there, capsys):
    study = (there / "results" / "study.yaml").read_text()
    (there / "results" / "study.2.yaml").write_text(study.replace(str(there / "planted.py"), "missing.py"))
    assert main(["run", "results/study.2.yaml"]) == 2
    assert "there is no file 'missing.py'" in complaint(capsys), "it was looked for"


@pytest.mark.parametrize("command", ["run", "check"])
def test_code_that_a_study_names_is_told_before_it_runs(there, capsys, command):
    text = PLANTED.format(marker=str(there / "ran")) + "\nraise RuntimeError('it ran')\n"
    (there / "other.py").write_text(text)
    (there / "other.yaml").write_text(STUDY.replace("planted.py", "other.py"))
    assert main([command, "other.yaml", "--out", "never"]) == 2
    said = capsys.readouterr()
    told = "runs the code that other.yaml names: net.py:make, other.py:Half, other.py:specks\n"
    assert said.out == told and "it ran" in said.err
    (there / "ran").unlink()
    assert main([command, "other.yaml", "--out", "never", "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(told), "standard output is for JSON"
    (there / "ran").unlink()


@pytest.mark.slow
def test_modules_that_lie_beside_somebodys_results_are_not_imported(there):
    for name in ("yaml.py", "polars.py", "rich.py"):
        (there / "results" / name).write_text(f"open({str(there / 'ran')!r}, 'w').close()\n")
    there_and_back = subprocess.run(
        [sys.executable, "-m", "ipvit", "compare", "."],
        cwd=there / "results",
        capture_output=True,
        check=False,
    )
    assert there_and_back.returncode == 0, there_and_back.stderr
    assert not (there / "ran").exists()


# --- what is kept of the last run ------------------------------------------------------------------------------------


def test_figures_that_cannot_be_drawn_are_told_and_the_others_are_drawn(there, tmp_path, capsys):
    shutil.copytree("results", tmp_path / "copy")
    place = tmp_path / "copy" / "records" / "half" / "last-run.json"
    kept = json.loads(place.read_text())
    kept["figures"] = {
        "half": {**BAR, "$schema": "https://vega.github.io/schema/vega-lite/v6.json"},
        "half-url": BAR | {"data": {"url": "https://example.org/x.csv"}},
        "half-odd": {"mark": 3},
        "half-name": BAR | {"encoding": {"x": {"field": "a['", "type": "nominal"}}},
    }
    place.write_text(json.dumps(kept))
    run = ipvit.Run(tmp_path / "copy")
    assert [*run.figures_of("half")] == ["half"] and run.report().is_file()
    said = " ".join(run.notes["half"])
    assert "half-url of its last run is not drawn: it loads its data" in said and "half-odd" in said


@pytest.mark.parametrize("text", ["", "{}", "[]", "[" * 5000, '{"name": "other", "finished": "", "tables": {}}'])
def test_what_is_kept_of_the_last_run_and_damaged_is_left_out(there, tmp_path, text):
    shutil.copytree("results", tmp_path / "copy")
    (tmp_path / "copy" / "records" / "half" / "last-run.json").write_text(text)
    run = ipvit.Run(tmp_path / "copy")
    assert any("made without" in note for note in run.notes["half"]) and run.tables["half"].height == 1


def test_what_is_kept_of_one_experiment_speaks_of_no_other(there, tmp_path):
    shutil.copytree("results", tmp_path / "copy")
    records = tmp_path / "copy" / "records"
    kept = json.loads((records / "half" / "last-run.json").read_text())
    kept["tables"]["occlusion"] = kept["tables"]["half"]
    (records / "half" / "last-run.json").write_text(json.dumps(kept))
    assert ipvit.Run(tmp_path / "copy").tables["occlusion"].equals(ipvit.Run("results").tables["occlusion"])
    (records / "half" / "analysis.json").write_bytes((records / "occlusion" / "analysis.json").read_bytes())
    assert "half" not in ipvit.Run(tmp_path / "copy").analyses
