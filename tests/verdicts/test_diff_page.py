"""The page of a comparison: its tables, and the images that flipped where the data are at hand."""

from __future__ import annotations

import re
import shutil

import pytest

import ipvit
from helpers.command_line import complaint
from ipvit.cli import main


@pytest.fixture
def runs(here):
    """Two checkpoints on a folder of images."""
    for name, model in (("v1", "net.py:make"), ("v2", "net.py:make?seed=3")):
        assert main(["accuracy", "-m", model, "-d", "images", "--workers", "0", "--out", name, "--quiet"]) == 0
    return here


def pictures(page: str) -> int:
    return len(re.findall(r'<img [^>]*src="data:image/png;base64,', page))


def test_the_page_shows_the_images_that_flipped(runs):
    assert main(["diff", "v1", "v2", "--page", "diff.html"]) == 0
    page = (runs / "diff.html").read_text()
    flips = ipvit.diff("v1", "v2").flips
    assert 0 < pictures(page) == flips.height
    assert all(image in page for image in flips["image"])
    assert "http:" not in page and "https:" not in page and "<script" not in page


def test_images_that_changed_since_are_not_shown(runs):
    shutil.copy(runs / "images" / "c0" / "000.jpg", runs / "images" / "c1" / "new.jpg")
    assert main(["diff", "v1", "v2", "--page", "diff.html"]) == 0
    page = (runs / "diff.html").read_text()
    assert pictures(page) == 0 and "No pictures: images holds other images than when it was measured" in page
    shutil.rmtree(runs / "images")
    assert main(["diff", "v1", "v2", "--page", "diff.html"]) == 0
    assert "No pictures: " in (runs / "diff.html").read_text()


def test_data_that_are_code_are_not_opened(runs):
    for name in ("v1", "v2"):
        study = runs / name / "study.yaml"
        study.write_text(study.read_text().replace("name: images", "name: evil.py:make"))
    (runs / "evil.py").write_text("raise SystemExit('run')")
    assert main(["diff", "v1", "v2", "--page", "diff.html"]) == 0
    assert "code that a run folder names is not run" in (runs / "diff.html").read_text()


def test_families_have_no_page(runs, capsys):
    groups = ["--group", "a=net.py:make", "--group", "b=net.py:make"]
    assert main(["diff", "v1", *groups, "--page", "diff.html"]) == 2
    assert "leave it out with --group" in complaint(capsys)
