"""The pictures of README and documentation are what today's commands draw."""

from __future__ import annotations

import importlib.util
import re

import pytest

from helpers.paths import TESTS
from ipvit.analysis.looks import COLOURS

ROOT = TESTS.parent
IMAGES = ROOT / "docs" / "images"
DRAWN = sorted(IMAGES.glob("*.svg"))


def colours(svg: str) -> list[str]:
    """Return the colours of models in a drawing, in the order of today's palette."""
    used = set(re.findall(r"#[0-9A-F]{6}\b", svg))
    return [colour for colour in COLOURS if colour in used]


@pytest.mark.parametrize("path", DRAWN, ids=[path.stem for path in DRAWN])
def test_a_picture_has_the_first_colours_of_todays_palette(path):
    found = colours(path.read_text())
    assert found == list(COLOURS[: len(found)]), f"{path.name} is drawn in former colours: docs/figures/experiments.py"


def numbers_and_words(svg: str) -> tuple[list[float], list[str]]:
    """Return where things are in a drawing, and what is written in it."""
    places = [float(number) for path in re.findall(r' d="([^"]*)"', svg) for number in re.findall(r"-?\d+\.?\d*", path)]
    return places, re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["position", "token-similarity", "shuffle"])
def test_a_picture_is_what_is_drawn_today(name, tmp_path, monkeypatch):
    location = ROOT / "docs" / "figures" / "experiments.py"
    spec = importlib.util.spec_from_file_location("figures_of_experiments", location)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    drawn = tmp_path / "images"
    drawn.mkdir()
    monkeypatch.setattr(module, "IMAGES", drawn)
    module.main(tmp_path, [name])
    for path in drawn.iterdir():
        places, words = numbers_and_words(path.read_text())
        shown, said = numbers_and_words((IMAGES / path.name).read_text())
        assert words == said, f"docs/images/{path.name} says something else than today's: docs/figures/experiments.py"
        assert places == pytest.approx(shown, abs=1), f"docs/images/{path.name} is not what is drawn today"
