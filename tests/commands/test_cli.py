"""The command line as a user types it: what is printed, what is written, and the exit codes."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from ipvit.cli import COMMANDS, EXPERIMENTS, main
from ipvit.errors import InputError
from ipvit.experiments.registry import BUILT_IN


def occlude(*more: str) -> int:
    arguments = [
        "occlusion",
        "--model",
        "net.py:make",
        "--data",
        "images",
        "--grid",
        "4x4",
        "--runs",
        "2",
        "--out",
        "out",
    ]
    return main([*arguments, "--workers", "0", *more])


def last_line(capsys) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


def test_an_experiment_prints_its_table_and_fills_the_run_folder(here, capsys):
    assert occlude("--levels", "0", "0.5") == 0
    printed = capsys.readouterr().out
    assert "net.py:make" in printed and "report: out/report.html" in printed
    for path in ("study.yaml", "manifest.json", "report.html", "tables/occlusion.csv", "tables/occlusion.json"):
        assert (here / "out" / path).stat().st_size > 0
    assert (here / "out" / "figures" / "occlusion-random.svg").read_text().startswith("<svg")
    assert list((here / "out" / "records" / "occlusion").glob("*/part-*.parquet"))


def test_json_goes_to_standard_output_alone(here, capsys):
    assert occlude("--levels", "0", "0.5", "--json", "--limit", "8") == 0
    content = json.loads(capsys.readouterr().out)
    rows = content["tables"]["occlusion"]
    assert [row["information_loss"] for row in rows] == [0, 0.5]
    assert content["limited"] is True and rows[0]["n_images"] == 8


def test_the_resolved_study_in_the_folder_can_be_run_again(here, capsys):
    assert occlude("--levels", "0", "0.5") == 0
    first = (here / "out" / "tables" / "occlusion.csv").read_text()
    assert main(["run", "out/study.yaml", "--out", "again", "--workers", "0"]) == 0
    assert (here / "again" / "tables" / "occlusion.csv").read_text() == first


def test_a_study_file_runs_with_several_models_and_continues(here, capsys):
    study = {
        "models": ["net.py:make", {"name": "net.py:make?seed=1", "label": "other"}],
        "data": "images",
        "experiments": {"occlusion": {"grid": "4x4", "levels": [0, 0.5], "runs": 1}},
        "workers": 0,
    }
    (here / "study.yaml").write_text(yaml.safe_dump(study))
    assert main(["run", "study.yaml"]) == 0
    study["experiments"]["occlusion"]["runs"] = 2
    (here / "study.yaml").write_text(yaml.safe_dump(study))
    assert main(["run", "study.yaml"]) == 0
    manifest = json.loads((here / "runs" / "study" / "manifest.json").read_text())
    assert manifest["measured_in_this_call"] == 20 * 2
    assert (here / "runs" / "study" / "study.1.yaml").exists(), "the earlier study is kept"
    (here / "study.yaml").write_text(yaml.safe_dump(study | {"workers": 1, "batch_size": 3}))
    assert main(["run", "study.yaml"]) == 0
    assert not (here / "runs" / "study" / "study.2.yaml").exists(), "how it is computed makes no other study"
    assert "other" in capsys.readouterr().out


def test_an_experiment_in_the_users_own_file_is_a_command(here, capsys):
    (here / "mine.py").write_text(
        "from typing import ClassVar\n"
        "from ipvit.experiments.occlusion.experiment import Occlusion\n"
        "class Mine(Occlusion):\n"
        '    """Mine."""\n'
        '    name: ClassVar[str] = "mine"\n'
        "    extra: int = 3\n"
        '    """A parameter of my own."""\n'
    )
    arguments = ["mine.py:Mine", "--model", "net.py:make", "--data", "images", "--grid", "4x4", "--extra", "5"]
    assert main([*arguments, "--levels", "0", "--out", "out", "--workers", "0"]) == 0
    assert (here / "out" / "tables" / "mine.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["oclusion"], "Did you mean"),
        (["occlusion", "--data", "images"], "--model"),
        (["occlusion", "--model", "net.py:make"], "--data"),
        (["occlusion", "--model", "net.py:make", "--data", "image"], "Did you mean 'images'"),
        (["occlusion", "--model", "net.py:mak", "--data", "images"], "has no function 'mak'"),
        (["occlusion", "--model", "resnet5O", "--data", "images"], "Did you mean 'resnet50'"),
        (["occlusion", "--model", "net.py:make", "--data", "images", "--grid", "99"], "99x99 has more cells"),
        (["occlusion", "--model", "net.py:make", "--data", "images", "--grid", "7q"], "14x14, not '7q'"),
        (["occlusion", "--model", "net.py:make", "--data", "images", "--levels", "2"], "a share from 0 to 1"),
        (["occlusion", "--model", "net.py:make", "--data", "images", "--modes", "rnd"], "random"),
        (["occlusion", "--model", "net.py:make", "--data", "images", "--limit", "0"], "limit"),
        (["occlusion", "--model", "net.py:make", "--data", "images", "--limit", "many"], "many"),
        (["occlusion", "--model", "net.py:make", "--data", "images", "--device", "tpu"], "device"),
        (["occlusion", "--model", "net.py:make", "--data", "images", "--precision", "fp8"], "precision"),
        (["run", "nowhere.yaml"], "cannot read the study"),
        (["report", "images"], "is not a run folder"),
        (["models", "zzz*"], "no model matches"),
    ],
)
def test_wrong_input_is_one_clear_line_and_exit_code_2(here, capsys, arguments, words):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1 and captured.err.startswith("ipvit: ")
    assert captured.out == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models: [net.py:make]\ndata: images\nexperiments: [occlusion]\nsed: 1", "Did you mean 'seed'"),
        ("models: [net.py:make]\ndata: images\nexperiments: {occlusion: {level: [0]}}", "Did you mean 'levels'"),
        ("models: [net.py:make]\ndata: images\nexperiments: [oclusion]", "Did you mean 'occlusion'"),
        ("models: []\ndata: images\nexperiments: [occlusion]", "models"),
        ("data: images\nexperiments: [occlusion]", "models"),
        ("models: [a\n", "line"),
        ("- a\n- b", "a study is a mapping"),
        ("", "a study is a mapping"),
    ],
)
def test_a_wrong_study_names_the_file_and_the_key(here, capsys, text, words):
    (here / "s.yaml").write_text(text)
    assert main(["run", "s.yaml"]) == 2
    line = last_line(capsys)
    assert "s.yaml" in line and words in line


def test_weights_that_are_a_web_page_or_do_not_fit_are_refused(here, capsys):
    (here / "page.pth").write_text("<!DOCTYPE html><html>404</html>")
    assert main(["occlusion", "--model", "resnet10t@page.pth", "--data", "images"]) == 2
    assert "is a web page" in last_line(capsys)
    save_file({"conv1.weight": torch.zeros(3)}, here / "few.safetensors")
    assert main(["occlusion", "--model", "resnet10t@few.safetensors", "--data", "images"]) == 2
    assert "missing: conv1.0.weight" in last_line(capsys)


def test_a_failing_network_ends_with_exit_code_1_and_keeps_the_rest(here, capsys):
    assert occlude("--levels", "0", "--model", "net.py:broken") == 1
    captured = capsys.readouterr()
    assert "broken on purpose" in captured.err and "net.py:make" in captured.out


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self/mounts").exists(), reason="root may write anywhere")
def test_an_output_folder_that_cannot_be_written_is_refused(here, capsys):
    (here / "file").write_text("in the way")
    assert main(["occlusion", "--model", "net.py:make", "--data", "images", "--grid", "4x4", "--out", "file/run"]) == 2
    assert "cannot write to the output folder 'file/run'" in last_line(capsys)


def test_a_full_disk_is_one_line_and_keeps_what_was_written(here, capsys, monkeypatch):
    import errno

    from ipvit.engine import store

    def full(path, data):
        if path.suffix == ".parquet":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return plain(path, data)

    plain = store.write_atomic
    monkeypatch.setattr(store, "write_atomic", full)
    assert occlude("--levels", "0") == 1
    assert "No space left on device" in last_line(capsys)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert occlude("--levels", "0") == 0


def test_every_built_in_experiment_has_its_command():
    assert set(EXPERIMENTS) == set(BUILT_IN)
    assert not set(EXPERIMENTS) & set(COMMANDS)


def test_help_and_import_load_nothing_heavy():
    heavy = "{'torch', 'timm', 'scipy', 'polars', 'altair', 'pydantic'}"
    for code in ("import ipvit", "from ipvit.cli import main; main(['--help'])"):
        check = f"{code}\nimport sys\nassert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


@pytest.mark.parametrize("command", ["models", "datasets", "experiments"])
def test_listing_commands_print_for_people_and_for_programs(command, capsys):
    assert main([command]) == 0
    assert capsys.readouterr().out
    assert main([command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_demo_measures_both_bundled_networks(here, capsys):
    assert main(["demo", "--limit", "40"]) == 0
    printed = capsys.readouterr().out
    assert "demo:deit_micro" in printed and "demo:resnet_micro" in printed
    assert (here / "ipvit-demo" / "report.html").exists()


def test_a_warning_of_another_library_is_one_line_that_says_whose_it_is(monkeypatch):
    from ipvit import cli

    told = []
    place = "/venv/lib/python3.11/site-packages/timm/models/_factory.py"

    def app(*_: object, **__: object) -> int:
        told.append(warnings.formatwarning("an old\n  name:\n use a new one", UserWarning, place, 9))
        told.append(warnings.formatwarning("old", UserWarning, "/home/me/net.py", 3))
        return 0

    before = warnings.formatwarning
    monkeypatch.setattr(cli, "make_app", lambda: app)
    assert cli.main([]) == 0
    assert told == [
        "ipvit: warning of timm: an old name: use a new one\n",
        "ipvit: warning of /home/me/net.py, line 3: old\n",
    ]
    assert warnings.formatwarning is before


def test_a_message_of_several_lines_is_one():
    assert str(InputError("timm says:\n   Could not\n\n run it\n")) == "timm says: Could not run it"
