"""What all commands that copy a data set in another form share: which images a limit takes, and where files go."""

from __future__ import annotations

from pathlib import Path

import pytest

import ipvit
from helpers.tiny import tiny_model, write_images
from ipvit.cli import main
from ipvit.data.subset import subset_indices

COPY = {
    "stylize": ["--style", "demo:textures", "--size", "32"],
    "corrupt": ["--corruptions", "fog", "--severities", "2", "--size", "32"],
}
"""The commands, with the least they can be asked for."""


def copied(command: str, source: str, out: Path, *more: str) -> set[str]:
    """Make a copy and return the stems of the images that are in it."""
    assert main([command, source, "--out", str(out), "--workers", "0", *COPY[command], *more]) == 0
    folder = out / "fog" / "2" if command == "corrupt" else out
    return {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.*") if path.suffix != ".html"} - {
        "stylize",
        ".lock",
    }


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", per_class=5, classes=3, size=(40, 50))
    return tmp_path


@pytest.mark.parametrize("command", COPY)
def test_a_limit_takes_the_randomly_chosen_images_that_a_run_takes(here, command):
    found = copied(command, "images", here / "out", "--limit", "6")
    data = ipvit.load_dataset("images")
    first_six = {Path(name).with_suffix("").as_posix() for name in list(data.ids)[:6]}
    run = ipvit.run(ipvit.Accuracy(), models=tiny_model(), data=data, out="run", limit=6, workers=0, progress=False)
    measured = {Path(name).with_suffix("").as_posix() for name in run.records("accuracy")["image"].to_list()}
    assert found == measured and len(found) == 6 and found != first_six
    assert copied(command, "images", here / "other", "--limit", "6", "--seed", "4") == found
    assert copied(command, "images", here / "out", "--limit", "9") > found


@pytest.mark.parametrize("command", COPY)
def test_a_limit_counts_photos_where_the_data_has_several_versions_of_each(here, command):
    for name in ("fog", "snow"):
        for severity in ("1", "3"):
            write_images(here / "c" / name / severity, per_class=3, classes=2, size=(32, 32))
    data = ipvit.load_dataset("imagenet-c:c")
    found = copied(command, "imagenet-c:c", here / "out", "--limit", "2")
    ids = [Path(data.ids[index]).with_suffix("") for index in subset_indices(data, 2)]
    assert found == {f"{name.parts[2]}/{'-'.join(name.parts)}" for name in ids}
    assert len(found) == 2 * 4 and len({name.parts[2:] for name in ids}) == 2
