"""Every command and every piece of Python in the README and the docs works as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from helpers.shift_trees import write_all
from helpers.zero_shot import gemma_tokenizer, open_clip_folder, siglip_folder
from ipvit.cli import main, make_app
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.experiments.registry import BUILT_IN, experiment_class

SQUARES = """
import torch
import ipvit

def make(first=0):
    data = ipvit.load_dataset("demo:trifeature")
    rows = range(first, first + 12)
    return ipvit.MemoryDataset(torch.stack([data.read(i) for i in rows]), data.labels[rows], data.classes)

def others():
    return make(12)
"""
"""A handful of drawn images, to train on for a moment."""

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
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
    "pip install": "continuous integration does it",
    "sphinx-build": "likewise, warnings being errors",
    "pytest": "this is it",
    "python3 -m venv": "continuous integration does it",
    "source .venv": "likewise",
    "ruff ": "likewise",
    "basedpyright": "likewise",
    "lint-imports": "likewise",
    "python -m build": "likewise",
    "twine check": "likewise",
    "pre-commit install": "it changes the repository",
    "git ": "likewise",
    "twine upload": "it publishes",
    "torchrun": "several processes are tested in test_distributed.py; what follows -m ipvit is parsed here",
    "accelerate launch": "likewise",
}
"""What is not executed, and why; everything else is, in small."""


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
        make_app().parse_args(
            shlex.split(line.partition("-m ipvit ")[2], comments=True), exit_on_error=False, print_error=False
        )


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


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_page_of_an_experiment_names_every_option(name):
    page = (ROOT / "docs" / "experiments" / f"{name}.md").read_text("utf-8")
    missing = [field for field in experiment_class(name).model_fields if f"`{field}`" not in page]
    assert not missing, f"docs/experiments/{name}.md does not say what {', '.join(missing)} is"


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_experiment_has_a_page_with_all_parts(name):
    page = (ROOT / "docs" / "experiments" / f"{name}.md").read_text("utf-8").lower()
    for part in ("ipvit " + name, "read", "depart from the authors", "measured"):
        assert part in page, f"docs/experiments/{name}.md says nothing of: {part}"
    assert re.search(r"section|appendix|figure|table", page.splitlines()[0]), "the heading names its place in the paper"


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
        for language in ("yaml", "python", "text"):
            for block in blocks(page, language):
                first = re.match(r"# (\S+\.(?:yaml|py|txt))\n", block)
                if first and not (tmp_path / first[1]).exists():
                    (tmp_path / first[1]).write_text(block)
    smaller_study(tmp_path / "study.yaml")
    (tmp_path / "squares.py").write_text(SQUARES)
    torch.manual_seed(0)
    save_file(timm.create_model("tf_efficientnet_lite0").half().state_dict(), tmp_path / WEIGHTS)
    save_file(timm.create_model("resnet18", num_classes=3).state_dict(), tmp_path / "finetuned.safetensors")
    return tmp_path


WEIGHTS = "efficientnet_lite0.safetensors"
"""A file of the user's that the pages speak of; here with random weights."""

SMALLER = {
    "--limit": "8",
    "--train-limit": "60",
    "--count": "3",
    "--runs": "1",
    "--patch-steps": "2",
    "--patch-images": "8",
    "--epochs": "1",
}
SMALLER_NETWORKS = {"deit_small_patch16_224": "deit_tiny_patch16_224", "resnet50": "resnet18"}
"""Of the same families; with random weights they are as good."""

LARGE = ("deit_", "torchvision:", "tf_")
"""Networks of 224 pixels: of these, two images are enough to see that a command works."""

NEEDS = {"probe": "40", "fewshot": "200", "shift": "60"}
"""So many images do these need to have enough of each class."""

FIRST = {
    "reproduce": ["ipvit position -m demo:deit_micro -d demo:trifeature --out runs/demo"],
    "scale": ["ipvit run study.yaml --out runs/study --shard 1/2"],
    "paper-figures": ["ipvit run study.yaml --out runs/study"],
}
"""What a page takes for granted."""


def in_small(line: str, folder: Path) -> list[str]:
    """Return the arguments of a command with less to do: fewer images, steps and networks, random weights."""
    line = in_smaller_networks(line)
    line = line.replace("$SLURM_ARRAY_TASK_ID/40", "2/2").replace("/data/", f"{folder}/data/")
    line = line.replace("open_clip:ViT-B-32/laion2b_s34b_b79k", "open_clip:tiny-clip")
    line = line.replace("transformers:google/siglip2-base-patch16-224", "transformers:tiny-siglip")
    if "tiny-clip" in line and not Path("tiny-clip").exists():
        open_clip_folder(folder / "tiny-clip")
    if "tiny-siglip" in line:
        siglip_folder(folder / "tiny-siglip", gemma_tokenizer)
    line = line.replace("--prompts openai80", "--prompts 'art of the {}'")  # 80,000 texts for 1,000 classes
    line = line.replace("doctor MODEL", f"doctor tf_efficientnet_lite0@{WEIGHTS}")
    tokens = []
    for token in arguments(line):  # a shell would put the files there
        found = sorted(str(path) for path in Path().glob(token)) if "*" in token else []
        tokens += found or [token]
    for option, value in SMALLER.items():
        if option in tokens:
            tokens[tokens.index(option) + 1] = value
    if tokens[0] == "doctor" and "--limit" in tokens:  # it tries a dozen ways to prepare each image
        tokens[tokens.index("--limit") + 1] = "2"
    large = any(token.startswith(LARGE) for token in tokens)
    if tokens[0] in BUILT_IN or ".py:" in tokens[0]:
        if "--limit" in tokens:
            del tokens[(place := tokens.index("--limit")) : place + 2]
        limit = "2" if large else NEEDS.get(tokens[0], "8")
        tokens = [*tokens, "--workers", "0", "--limit", limit]
        if {"deit_tiny_patch16_224", "resnet18.a1_in1k"} & set(tokens):
            tokens.append("--no-pretrained")
    if tokens[0] == "occlusion" and large:
        tokens += ["--levels", "0", "0.5", "--runs", "1"]
    if tokens[0] == "corruptions" and large and "--corruptions" not in tokens:
        tokens += ["--corruptions", "fog", "contrast"]
    if tokens[0] == "demo":
        tokens += ["--limit", "8", "--workers", "0"]
    if tokens[0] == "train" and tokens[1].startswith(("resnet_micro", "dino_micro")):
        recipe = yaml.safe_load((ROOT / "src" / "ipvit" / "training" / "recipes" / f"{tokens[1]}.yaml").read_text())
        recipe |= {"epochs": 1, "warmup_epochs": 0, "batch_size": 4}
        recipe["data"] |= {"train": "squares.py:make", "val": "squares.py:others"}
        (folder / f"{tokens[1]}.yaml").write_text(yaml.safe_dump(recipe))
        tokens[1] += ".yaml"
    return tokens


def in_smaller_networks(text: str) -> str:
    for large, small in SMALLER_NETWORKS.items():
        text = text.replace(large, small)
    return text


def smaller_study(path: Path) -> None:
    """Let the study of the pages have two images, two experiments and random weights."""
    content = yaml.safe_load(in_smaller_networks(path.read_text()))
    names = [model if isinstance(model, dict) else {"name": model} for model in content["models"]]
    content["models"] = [model | {"pretrained": False} for model in names]
    content |= {"limit": 2, "workers": 0, "experiments": {"shuffle": {"grids": ["2x2"]}, "position": {}}}
    path.write_text(yaml.safe_dump(content))


WITH_COMMANDS = [page for page in PAGES if any(line.startswith("ipvit ") for line in lines(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=[page.stem for page in WITH_COMMANDS])
def test_the_commands_of_a_page_run_one_after_the_other(page, desk, capsys):
    """In small: with fewer images and steps, and with random weights where the page has published ones."""
    if page.stem == "shift":
        shutil.rmtree(desk / "imagenet")
        write_all(desk)
    for line in [*FIRST.get(page.stem, []), *lines(page)]:
        if not line.startswith("ipvit ") or line.startswith("ipvit play"):
            continue  # the playground runs until it is stopped: below
        tokens = in_small(line, desk)
        code = main(tokens)
        told = capsys.readouterr()
        fine = (0, 1) if tokens[0] == "doctor" else (0,)  # random weights are not right, and the doctor says so
        assert code in fine, f"{line}\nas {shlex.join(tokens)}: {code}\n{told.err[-2000:]}"


PLAY = [line for page in PAGES for line in lines(page) if line.startswith("ipvit play")]


@pytest.mark.slow
@pytest.mark.parametrize("line", PLAY, ids=PLAY)
def test_the_playground_starts_as_shown_and_answers(line, desk):
    tokens = arguments(line)
    if "--port" in tokens:
        tokens[tokens.index("--port") + 1] = "0"
    command = [sys.executable, "-m", "ipvit", *tokens, *([] if "--no-browser" in tokens else ["--no-browser"])]
    with subprocess.Popen(command, cwd=desk, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().removeprefix("playground: ").strip()
            assert b"<html" in urllib.request.urlopen(address, timeout=60).read().lower()
        finally:
            process.terminate()


CONSOLE = [
    (page, block)
    for page in PAGES
    for language in ("text", "console")
    for block in blocks(page, language)
    if re.match(r"\$ ipvit .*\nipvit: ", block)
]


@pytest.mark.parametrize(("page", "block"), CONSOLE, ids=[page.stem for page, _ in CONSOLE])
def test_messages_are_shown_word_for_word(page, block, desk, capsys):
    (desk / "data" / "VOCdevkit").mkdir(parents=True)
    command, _, shown = block.partition("\n")
    assert main(in_small(command.removeprefix("$ "), desk)) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert told.replace(f"{desk}/", "/") == " ".join(shown.split())


@pytest.mark.slow
def test_pieces_of_python_run(desk):
    for page in PAGES:
        for block in blocks(page, "python"):
            if "my_" in block or re.match(r"# \S+\.py\n", block) or "(module" in block or "..." in block:
                continue  # speaks of something of yours
            if page.name == "data.md":
                continue
            command = [sys.executable, "-c", block]  # new, as a reader's: nothing is imported that the page does not
            done = subprocess.run(command, check=False, cwd=desk, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{page.name}:\n{block}\n{done.stderr[-2000:]}"


RESULTS = [
    ROOT / "docs" / "measured.md",
    ROOT / "docs" / "performance.md",
    *sorted((ROOT / "docs" / "experiments").glob("*.md")),
]
NUMBERS_IN_A_ROW = 3


def measured_numbers(page: Path) -> set[tuple[str, ...]]:
    """Every three decimal numbers that stand close behind each other: what was measured, not a setting."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    found = list(re.finditer(r"(?<![\w.\-/])\d+\.\d+(?!\w)", text))
    rows = (found[i : i + NUMBERS_IN_A_ROW] for i in range(len(found) - NUMBERS_IN_A_ROW + 1))
    return {tuple(hit[0] for hit in row) for row in rows if row[-1].start() - row[0].start() < 120}


def test_what_was_measured_stands_on_one_page():
    others = [page for page in PAGES if page.name != "CHANGELOG.md"]
    where: dict[tuple[str, ...], list[str]] = {}
    for page in others:
        for numbers in measured_numbers(page):
            where.setdefault(numbers, []).append(page.name)
    results = {page.name for page in RESULTS}
    twice = {numbers: names for numbers, names in where.items() if len(names) > 1 and results & set(names)}
    assert not twice
