"""The pictures and the outputs on the pages are what today's code makes."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from helpers.forks import python

DOCS = Path(__file__).parents[1] / "docs"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / "figures" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_pictures_of_perturbations_are_what_the_code_makes():
    drawn = script("perturbations")
    kept = {path.stem: np.asarray(Image.open(path)) for path in (DOCS / "images/perturbations").glob("*.jpg")}
    made = {name: drawn.as_bytes(image) for name, image in drawn.all_pictures()}
    assert made.keys() == kept.keys()
    for name, picture in made.items():
        difference = np.abs(blocks(picture) - blocks(kept[name])).max()
        assert difference < 16, f"{name} is not what is drawn today: run docs/figures/perturbations.py"


def blocks(picture: np.ndarray) -> np.ndarray:
    """The mean of every 16 x 16 pixels, in which what JPEG changes about fine noise is small."""
    return picture.reshape(14, 16, 14, 16, 3).astype(float).mean(axis=(1, 3))


OUTPUTS = script("outputs")


def without_numbers(text: str) -> str:
    """What a page says, but for numbers, whose last digit may depend on the machine, and for line breaks."""
    return " ".join(re.sub(r"[\d.]+", "#", text).split())


def test_every_output_on_a_page_is_made_by_the_script():
    shown = {
        name
        for page in DOCS.rglob("*.md")
        for name in re.findall(r"\{program-output\} ([\w-]+)", page.read_text("utf-8"))
    }
    assert shown <= OUTPUTS.COMMANDS.keys()
    assert {path.stem for path in (DOCS / "outputs").glob("*.txt")} == OUTPUTS.COMMANDS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTPUTS.COMMANDS)
def test_an_output_is_what_the_command_prints_today(name, monkeypatch):
    monkeypatch.setattr(OUTPUTS, "run", python)
    kept = (DOCS / "outputs" / f"{name}.txt").read_text("utf-8")
    assert without_numbers(OUTPUTS.output_of(name)) == without_numbers(kept), f"run docs/figures/outputs.py {name}"
