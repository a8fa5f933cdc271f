"""Every command and every piece of Python in the README and the docs works as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from ipvit.cli import main, make_app
from ipvit.data.trifeature import Trifeature

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SYNSETS = ("n01440764", "n01443537", "n02123045")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), flags=re.M | re.S)


def lines(page: Path) -> list[str]:
    """The commands of a page, continued lines joined, ``a && b`` taken apart, comments taken off."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    parts = [part.strip() for line in text.splitlines() for part in line.split("&&")]
    return [" ".join(shlex.split(part, comments=True)) and part for part in parts if part and part[0] != "#"]


def arguments(line: str) -> list[str]:
    return shlex.split(line, comments=True)[1:]


COMMANDS = [(page, line) for page in PAGES for line in lines(page)]
OURS = [(page, line) for page, line in COMMANDS if line.startswith("ipvit ")]
OTHERS = [(page, line) for page, line in COMMANDS if not line.startswith("ipvit ")]

SHOWN_ONLY = {
    "pip install": "done by continuous integration",
    "pytest": "this is it",
    "torchrun": "several processes have tests of their own; the command after -m ipvit is parsed",
    "accelerate launch": "likewise",
}


@pytest.mark.parametrize(("page", "line"), OURS, ids=[f"{page.stem}: {line[:70]}" for page, line in OURS])
def test_every_command_has_the_options_it_is_shown_with(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokens = arguments(line)
    if ".py:" in tokens[0]:
        return  # an experiment in a file: run below
    app = make_app()
    _, bound, *_ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    assert bound is not None


@pytest.mark.parametrize(("page", "line"), OTHERS, ids=[f"{page.stem}: {line[:70]}" for page, line in OTHERS])
def test_every_other_line_is_one_we_know(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = [start for start in SHOWN_ONLY if line.startswith(start)]
    assert known, f"{page}: what is {line!r}?"
    if "-m ipvit " in line:
        make_app().parse_args(shlex.split(line.partition("-m ipvit ")[2]), exit_on_error=False, print_error=False)


def test_shell_blocks_hold_commands_only():
    for page in PAGES:
        for line in lines(page):
            assert not line.startswith("$"), f"{page}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_yaml_in_the_docs_is_a_study_or_a_recipe_that_is_accepted(page):
    from ipvit.engine.study import make_study
    from ipvit.training.recipe import Recipe

    for block in blocks(page, "yaml"):
        content = yaml.safe_load(block)
        if "experiments" in content:
            make_study(content)
        elif "model" in content:
            Recipe.model_validate(content)


# --- executed --------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A folder with what the examples speak of, in small: a bit of ImageNet, the studies and the files shown."""
    monkeypatch.chdir(tmp_path)
    data = Trifeature(n=12, size=64)
    for index in range(12):
        folder = tmp_path / "imagenet" / "val" / SYNSETS[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.read(index).permute(1, 2, 0).numpy()).save(folder / f"{index}.JPEG")
    for name in ("photos", "imagenet-sample"):
        shutil.copytree(tmp_path / "imagenet" / "val", tmp_path / name)
    for page in PAGES:
        for language in ("yaml", "python"):
            for block in blocks(page, language):
                first = re.match(r"# (\S+\.(?:yaml|py))\n", block)
                if first and not (tmp_path / first[1]).exists():
                    (tmp_path / first[1]).write_text(block)
    return tmp_path


RUNNABLE = [
    (page, line)
    for page, line in OURS
    if all(name.startswith("demo:") for name in re.findall(r"(?:-m|--model|-d|--data) (\S+)", line))
    and arguments(line)[0] not in ("play", "train", "demo", "run", "check", "compare", "report", "merge", "reproduce")
    and "PATH" not in line
    and "@probe:" not in line  # of a head that the line before it would fit
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), RUNNABLE, ids=[f"{page.stem}: {line[:70]}" for page, line in RUNNABLE])
def test_commands_on_bundled_networks_run_as_they_are_shown(page, line, desk, capsys):
    tokens = arguments(line)
    if "--limit" in tokens:
        tokens[tokens.index("--limit") + 1] = "8"
    if tokens[0] in ("probe", "fewshot", "attack"):
        pytest.skip("minutes on its data; these experiments' own tests run their commands on less")
    code = main(tokens)
    assert code == 0, capsys.readouterr().err


@pytest.mark.slow
def test_the_first_real_measurement_runs_as_it_is_shown_but_for_the_weights(desk, capsys):
    """The chain of the getting-started page, with random weights and two images."""
    content = yaml.safe_load((desk / "study.yaml").read_text())
    names = [model if isinstance(model, dict) else {"name": model} for model in content["models"]]
    content["models"] = [model | {"pretrained": False} for model in names]
    content |= {"limit": 2, "workers": 0, "experiments": {"shuffle": {"grids": ["2x2"]}, "position": {}}}
    (desk / "study.yaml").write_text(yaml.safe_dump(content))
    page = ROOT / "docs" / "getting-started.md"
    shown = [arguments(line) for line in lines(page) if line.startswith("ipvit ") and "demo" not in line]
    assert [tokens[0] for tokens in shown] == ["occlusion", "check", "run", "compare", "doctor", "doctor"][: len(shown)]
    for tokens in shown:
        if tokens[0] == "occlusion":
            tokens[tokens.index("--limit") + 1] = "2"
            tokens += ["--no-pretrained", "--levels", "0", "--levels", "0.5", "--runs", "1", "--workers", "0"]
        assert main(tokens) == 0, f"{tokens}: {capsys.readouterr().err}"


@pytest.mark.slow
def test_pieces_of_python_run(desk):
    for page in PAGES:
        for block in blocks(page, "python"):
            if "my_" in block or re.match(r"# \S+\.py\n", block) or "(module" in block or "..." in block:
                continue  # speaks of something of yours
            if page.name == "data.md":
                continue
            command = [sys.executable, "-c", block]
            done = subprocess.run(command, check=False, cwd=desk, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{page.name}:\n{block}\n{done.stderr[-2000:]}"
