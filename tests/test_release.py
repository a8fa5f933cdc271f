"""A release is cut by one command, and what stands beside the package agrees with it."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import ipvit

ROOT = Path(__file__).parents[1]
RELEASE = SimpleNamespace(**runpy.run_path(str(ROOT / ".ci" / "cut_release.py")))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CONDA_NAMES = {"torch": "pytorch", "opencv-python-headless": "py-opencv"}


@pytest.fixture
def checkout(tmp_path) -> Path:
    """The files that a release changes."""
    for file in ("CHANGELOG.md", "CITATION.cff", "src/ipvit/__init__.py", "packaging/conda/recipe.yaml"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def test_a_release_is_cut_once_and_then_lacks_nothing(checkout):
    assert any("no section '## 7.8.9" in fault for fault in RELEASE.missing(checkout, "7.8.9"))
    news = RELEASE.section((checkout / "CHANGELOG.md").read_text("utf-8"), "## Unreleased")
    RELEASE.cut(checkout, "7.8.9", "2030-01-02")
    assert RELEASE.missing(checkout, "7.8.9") == []
    changelog = (checkout / "CHANGELOG.md").read_text("utf-8")
    assert RELEASE.section(changelog, "## 7.8.9 (2030-01-02)").strip() == news.strip()
    assert not RELEASE.section(changelog, "## Unreleased").strip(), "the next changes have a place"
    assert yaml.safe_load((checkout / "CITATION.cff").read_text("utf-8"))["version"] == "7.8.9"
    for version, words in (("7.8.9", "already"), ("7.9.0", "nothing under"), ("v8", "X.Y.Z")):
        with pytest.raises(ValueError, match=words):
            RELEASE.cut(checkout, version, "2030-01-03")


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("CHANGELOG.md", "## 7.8.9 (2030-01-02)", "## 7.8.9", "no section"),
        ("CITATION.cff", "date-released: 2030-01-02", "date-released: 2029-12-31", "another date"),
        ("CITATION.cff", "version: 7.8.9", "version: 7.8.8", "another version"),
        ("src/ipvit/__init__.py", "7.8.9", "7.8.8", "another version"),
        ("packaging/conda/recipe.yaml", "7.8.9", "7.8.8", "another version"),
    ],
)
def test_a_version_that_is_half_written_is_told(checkout, file, old, new, words):
    RELEASE.cut(checkout, "7.8.9", "2030-01-02")
    path = checkout / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    assert [fault for fault in RELEASE.missing(checkout, "7.8.9") if words in fault]


def test_the_script_says_what_is_wrong_with_its_arguments():
    script = [sys.executable, str(ROOT / ".ci" / "cut_release.py")]
    for arguments, code, words in (([], 2, "Cut a release"), (["8"], 2, "X.Y.Z"), (["--check", "99.0.0"], 1, "99.0.0")):
        done = subprocess.run([*script, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr


def test_the_conda_recipe_requires_what_the_package_requires():
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text("utf-8"))
    wanted = {"python": PROJECT["requires-python"].removeprefix(">=")}
    for requirement in PROJECT["dependencies"]:
        name, version = requirement.split(">=")
        wanted[CONDA_NAMES.get(name, name)] = version
    found = dict(line.split(" >=") for line in recipe["requirements"]["run"])
    assert found.pop("py-opencv") == ".".join(wanted.pop("py-opencv").split(".")[:3]), (
        "the fourth number is the wheel's"
    )
    assert found == wanted
    assert recipe["context"]["version"] == ipvit.__version__
    assert recipe["build"]["python"]["entry_points"] == [f"ipvit = {PROJECT['scripts']['ipvit']}"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_a_workflow_names_scripts_steps_and_extras_that_exist(path):
    workflow = yaml.safe_load(path.read_text("utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    text = " ".join(step.get("run", "") for step in steps)
    for script in re.findall(r"\.ci/\w+", text):
        assert (ROOT / script).is_file()
    for extras in re.findall(r"\.\[([\w,]+)\]", text):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    needed = {job["needs"] for job in workflow["jobs"].values() if "needs" in job}
    assert needed <= set(workflow["jobs"])
    assert workflow["permissions"] == {"contents": "read"}, "what writes says so itself"


def test_forms_for_issues_are_read_by_the_platform():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text("utf-8"))
        if path.stem == "config":
            continue
        assert {"name", "description", "body"} <= set(form)
        ids = [field["id"] for field in form["body"]]
        assert len(set(ids)) == len(ids)
        assert all(field["type"] == "textarea" and field["attributes"]["label"] for field in form["body"])


def test_a_container_copies_files_that_are_there_and_installs_extras_that_exist():
    lines = (ROOT / "packaging" / "Containerfile").read_text("utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    kept = [
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[0] == "!"
    ]
    assert copied and set(copied) == set(kept)
    assert all((ROOT / name).exists() for name in copied)
    extras = next(line for line in lines if line.startswith("ARG EXTRAS=")).partition("=")[2]
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_every_network_and_table_that_ships_has_its_terms_on_the_page():
    page = (ROOT / "docs" / "licences.md").read_text("utf-8")
    package = ROOT / "src" / "ipvit"
    for pattern in ("models/published/*.csv*", "data/published/*.json", "analysis/*.json", "experiments/*/*.json"):
        for file in package.glob(pattern):
            name = str(file.relative_to(package))
            assert name in page or re.sub(r"timm-.*\.csv", "timm-*.csv", name) in page, f"nothing is said of {name}"
    demo = list((package / "models" / "zoo" / "weights").glob("*.safetensors"))
    assert len(demo) == 7 and "seven micro networks" in page
    for file in (package / "models" / "zoo" / "weights" / "tin50").glob("*.safetensors"):
        assert f"`tin50:{file.stem}`" in page
