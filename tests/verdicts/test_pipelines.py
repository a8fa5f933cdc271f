"""The scripts that the documentation shows for continuous integration run as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from helpers.paths import REPOSITORY
from ipvit.cli import main

PAGE = (REPOSITORY / "docs" / "verdicts.md").read_text("utf-8")
BLOCKS = {
    match[1]: match[0]
    for language in ("yaml", "text")
    for block in re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.M | re.S)
    if (match := re.match(r"# (\S+)\n.*", block, flags=re.S))
}


def scripts(name: str) -> list[str]:
    """Return the commands of a pipeline in their order."""
    content = yaml.safe_load(BLOCKS[name])
    if "jobs" in content:
        found = [step["run"] for job in content["jobs"].values() for step in job["steps"] if "run" in step]
    else:
        found = [line for job in content.values() for line in (*job["script"], *job.get("after_script", ()))]
    return [line for text in found for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A repository with the study, the gates, and the bundle of the last release."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("gate.yaml", "gates.txt"):
        (folder / name).write_text(BLOCKS[name])
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        here.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert main(["run", "gate.yaml", "--out", "runs/v1", "--quiet"]) == 0
        assert main(["bundle", "runs/v1", "--out", "reference.zip"]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [".github/workflows/backbone.yml", ".gitlab-ci.yml"])
@pytest.mark.parametrize(("model", "code"), [("demo:deit_micro", 0), ("demo:deit_micro_nopos", 3)])
def test_a_pipeline_passes_with_a_model_as_good_and_fails_with_a_worse_one(
    name, model, code, repository, tmp_path, monkeypatch
):
    for file in ("gate.yaml", "gates.txt", "reference.zip"):
        (tmp_path / file).write_bytes((repository / file).read_bytes())
    study = (tmp_path / "gate.yaml").read_text().replace("demo:deit_micro", model)
    (tmp_path / "gate.yaml").write_text(study)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    commands = scripts(name)
    assert commands[0] == "pip install ipvit"
    codes = [main(shlex.split(line)[1:]) for line in commands[1:]]
    assert codes == [code, 0]
    cases = ElementTree.parse(tmp_path / "junit.xml").getroot().findall("testsuite/testcase")
    assert len(cases) == 4 and (tmp_path / "new.zip").is_file()
    assert any(case.find("failure") is not None for case in cases) == (code == 3)
