"""What ``ipvit stylize --cue-conflict`` writes is what is read as cue conflicts, whatever classes are called."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ipvit
from ipvit.cli import main

NAMES = ["n02123045", "red-fox 2", "cat", "cat-1", "a b", "7", "tabby_3"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        (tmp_path / "images" / name).mkdir(parents=True)
        for place in range(3):
            pixels = np.random.default_rng(10 * number + place).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{place}.png")
    return tmp_path / "images"


def conflicts(images: Path, out: Path, *more: str) -> None:
    command = ["stylize", str(images), "--cue-conflict", "--size", "32", "--resize", "32", "--workers", "0"]
    assert main([*command, "--out", str(out), "--json", *more]) == 0


@pytest.mark.parametrize("limit", ["3", "12", "21"])
def test_a_copy_of_any_length_is_read_with_its_shapes_and_textures(images, tmp_path, limit):
    conflicts(images, tmp_path / "out", "--limit", limit)
    data = ipvit.load_dataset(f"cue-conflict:{tmp_path / 'out'}")
    assert len(data) == int(limit)
    assert set(data.classes) <= set(NAMES)
    for index, path in enumerate(data.ids):
        shape, texture = (data.classes[int(data.fields[cue][index])] for cue in ("shape", "texture"))
        assert path.startswith(f"{shape}/{shape}_")
        assert f"-{texture}_" in path
        assert shape != texture


def test_a_copy_without_its_manifest_is_read_by_the_classes_that_are_stated(images, tmp_path):
    (images / "classes.txt").write_text("".join(f"{name}\tthe {name}\n" for name in NAMES))
    conflicts(images, tmp_path / "out", "--limit", "4")
    whole = ipvit.load_dataset(f"cue-conflict:{tmp_path / 'out'}")
    assert whole.aliases == tuple(f"the {name}" for name in whole.classes)
    (tmp_path / "out" / "stylize.json").unlink()
    alone = ipvit.load_dataset(f"cue-conflict:{tmp_path / 'out'}")
    assert alone.classes == whole.classes
    assert alone.fields["texture"].tolist() == whole.fields["texture"].tolist()


def test_an_interrupted_copy_says_what_its_images_are_already(images, tmp_path):
    conflicts(images, tmp_path / "out", "--limit", "5")
    manifest = json.loads((tmp_path / "out" / "stylize.json").read_text())
    assert len(manifest["cues"]) == 3 * len(NAMES)
    (tmp_path / "out" / "stylize.json").write_text(json.dumps({**manifest, "status": "unfinished"}))
    assert len(ipvit.load_dataset(f"cue-conflict:{tmp_path / 'out'}")) == 5
    (tmp_path / "out" / "stylize.json").write_text("{")
    with pytest.raises(ipvit.InputError, match="is damaged"):
        ipvit.load_dataset(f"cue-conflict:{tmp_path / 'out'}")


@pytest.mark.parametrize("named", [True, False], ids=["names of outputs", "numbers of outputs"])
def test_the_copy_is_measured_with_the_second_names_that_it_states(images, tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    outputs = [f"out{number}" for number in range(9)]
    shown = {name: 8 - place for place, name in enumerate(NAMES)}
    lines = (f"{name}\t{outputs[number] if named else number}\n" for name, number in shown.items())
    (images / "classes.txt").write_text("".join(lines))
    conflicts(images, tmp_path / "out")

    class Net(torch.nn.Module):
        def forward(self, x):
            return torch.arange(9.0).expand(len(x), 9)  # the last output always wins

    model = ipvit.wrap(Net(), size=32, classes=outputs if named else None, name="last")
    data = ipvit.load_dataset("cue-conflict:out")
    done = ipvit.run(ipvit.ShapeBias(), models=model, data=data, out="run", workers=0, progress=False)
    assert set(done.records("shape-bias")["decision"]) == {NAMES[0]}
