"""A run as one file: the same tables from it, nothing of it is run, and what it must not hold is refused."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

import ipvit
from helpers.command_line import complaint
from helpers.forks import python
from helpers.paths import KEPT
from helpers.small_runs import small_occlusion, told_by
from helpers.tiny import tiny_model
from ipvit.cli import main
from ipvit.verdicts.bundle import bundle


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> ipvit.Run:
    """Two networks on photos, with pictures of what they saw; the folder also holds what was not asked for."""
    out = tmp_path_factory.mktemp("bundled") / "v1"
    data = told_by(tiny_model())
    options = {"data": data, "out": out, "progress": False, "workers": 0}
    ipvit.run(ipvit.Shuffle(grids=("2x2",)), models=tiny_model(9, name="secret"), **options)
    return ipvit.run([ipvit.Accuracy(), small_occlusion()], models=[tiny_model(), tiny_model(3, name="two")], **options)


@pytest.fixture(scope="module")
def path(run) -> Path:
    return bundle(run, run.out.with_suffix(".zip"))


def test_a_bundle_gives_the_tables_of_its_folder(run, path):
    opened = ipvit.Run(path)
    assert set(opened.tables) == set(run.tables)
    for name, table in run.tables.items():
        assert opened.tables[name].equals(table), name
    for name, table in run.differences.items():
        assert opened.differences[name].equals(table), name
    assert opened.summary == run.summary and opened.profile.as_json() == run.profile.as_json()
    assert opened.records("accuracy").sort("model", "image").equals(run.records("accuracy").sort("model", "image"))


def test_a_bundle_holds_no_pictures_no_code_and_nothing_that_was_not_asked_for(run, path):
    assert any((run.out / "examples").rglob("*.png"))
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        assert {Path(name).suffix for name in names} <= {
            ".json",
            ".yaml",
            ".parquet",
            ".html",
            ".csv",
            ".md",
            ".tex",
            ".svg",
            ".pdf",
        }
        assert {"report.html", "manifest.json", "tables/occlusion.csv", "figures/occlusion-random.svg"} <= set(names)
        page = file.read("report.html").decode()
        assert "<table>" in page and "data:image/png" not in page and "data:image/webp" not in page
        assert not any("shuffle" in name for name in names)
        assert b"secret" not in file.read("manifest.json")


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["all-experiments", "several-studies"])
def test_an_old_run_folder_can_be_bundled(folder, tmp_path):
    old = ipvit.Run(KEPT / "runs" / folder)
    new = ipvit.Run(bundle(old, tmp_path / "old.zip"))
    for name, table in old.tables.items():
        assert new.tables[name].equals(table), name


@pytest.mark.slow
def test_every_command_opens_a_bundle_as_a_folder(run, path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(path.parent)
    assert main(["bundle", str(run.out)]) == 2
    assert "'v1.zip' is there already; give another --out" in complaint(capsys)
    for command in ("report", "compare", "profile"):
        answers = []
        for place in (str(run.out), "v1.zip"):
            assert main([command, place, "--json"]) == 0
            answers.append(json.loads(capsys.readouterr().out))
        for answer in answers:
            answer.pop("out", None)
            answer.pop("told", None)  # what else a folder holds is not in its bundle
            answer["notes"] = (
                [note for note in answer["notes"] if "folder" not in note] if command == "compare" else answer["notes"]
            )
        assert answers[0] == answers[1], command
    assert main(["diff", "v1.zip:tiny", "v1.zip:two", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == [{"model_a": "tiny", "model_b": "two"}]
    assert main(["report", "v1.zip", "--assert", "accuracy.n_images >= 30"]) == 0


def test_a_bundle_is_read_in_another_place_and_runs_nothing(path, tmp_path):
    """Neither a file that the study could name, nor another program."""
    shutil.copy(path, tmp_path / "given.zip")
    code = (
        "import sys, ipvit, ipvit.results\n"
        "def watch(event, arguments):\n"
        "    if event in ('subprocess.Popen', 'os.system', 'os.exec') or (\n"
        "        event == 'open' and str(arguments[0]).endswith('.py') and sys.argv[1] in str(arguments[0])):\n"
        "        raise SystemExit(f'{event} {arguments}')\n"
        "sys.addaudithook(watch)\n"
        "found = ipvit.diff('given.zip:tiny', 'given.zip:two')\n"
        "print(found.tables['accuracy'].height, list(ipvit.Run('given.zip').tables))"
    )
    done = python(["-c", code, tmp_path], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("1 ['accuracy', 'occlusion', 'occlusion-area']")


def changed(path: Path, target: Path, name: str, content: bytes, link: bool = False, listed: bool = False) -> Path:
    """Copy a bundle with another file in it, or with other content of one."""
    with zipfile.ZipFile(path) as read, zipfile.ZipFile(target, "w") as written:
        for info in read.infolist():
            if info.filename != name:
                data = read.read(info)
                if listed and info.filename == "bundle.json":
                    files = json.loads(data)
                    files["files"][name] = "0" * 64
                    data = json.dumps(files).encode()
                written.writestr(info.filename, data)
        info = zipfile.ZipInfo(name)
        info.external_attr = (0o120777 if link else 0o644) << 16
        written.writestr(info, content)
    return target


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("../outside.json", {}, "holds '../outside.json', which no bundle does"),
        ("/tmp/outside.json", {"listed": True}, "which no bundle does"),
        ("records/accuracy/run.py", {"listed": True}, "holds 'records/accuracy/run.py', which no bundle does"),
        ("examples/a.png", {"listed": True}, "which no bundle does"),
        ("study.yaml", {"link": True}, "as a link"),
        ("manifest.json", {}, "is damaged: 'manifest.json' is not what was written"),
    ],
)
def test_what_no_bundle_holds_is_refused(path, tmp_path, name, options, said, cache, capsys):
    bad = changed(path, tmp_path / "bad.zip", name, b"{}", **options)
    assert main(["report", str(bad)]) == 2
    assert said in complaint(capsys)
    assert not (tmp_path / "outside.json").exists() and not list(cache.rglob("*.json"))


def test_what_is_no_bundle_is_said(tmp_path, capsys):
    (tmp_path / "text.zip").write_text("no zip")
    shutil.make_archive(str(tmp_path / "plain"), "zip", KEPT / "runs" / "several-studies" / "tables")
    for name, said in (
        ("text", "is no bundle: File is not a zip file"),
        ("plain", "is no bundle: it has no bundle.json"),
    ):
        assert main(["diff", str(tmp_path / f"{name}.zip"), str(KEPT / "runs" / "several-studies")]) == 2
        assert said in complaint(capsys)
    assert main(["bundle", str(KEPT / "runs" / "several-studies"), "--out", str(tmp_path / "v1.tar")]) == 2
    assert "a bundle is a zip file: give" in complaint(capsys)
