"""The cue-conflict images in their folder layout."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ipvit
from helpers.image_trees import CONFLICTS, write_cue_conflict
from ipvit.cli import main


def test_shape_is_the_folder_and_texture_the_last_word_of_the_file(tmp_path):
    data = ipvit.load_dataset(f"cue-conflict:{write_cue_conflict(tmp_path)}")
    assert data.classes == ("cat", "elephant", "knife")
    shapes = [data.classes[i] for i in data.fields["shape"]]
    textures = [data.classes[i] for i in data.fields["texture"]]
    assert dict(zip(data.ids, zip(shapes, textures, strict=True), strict=True)) == {
        "cat/cat1-elephant3.png": ("cat", "elephant"),
        "cat/cat2-cat1.png": ("cat", "cat"),
        "elephant/elephant10-knife2.png": ("elephant", "knife"),
        "elephant/elephant7-cat9.png": ("elephant", "cat"),
    }
    assert list(data.labels) == list(data.fields["shape"])
    assert list(data.fields["conflict"]) == [True, False, True, True]


def test_the_benchmarks_own_folder_is_found_from_above(tmp_path):
    write_cue_conflict(tmp_path / "stimuli" / "style-transfer-preprocessed-512")
    for place in (tmp_path, tmp_path / "stimuli"):
        assert len(ipvit.load_dataset(f"cue-conflict:{place}")) == 4


@pytest.mark.parametrize("name", ["cat/dog1-cat1.png", "cat/photo.png", "cat/cat1-dog1-car1.png"])
def test_a_file_with_another_kind_of_name_is_pointed_out(tmp_path, name):
    write_cue_conflict(tmp_path, (*CONFLICTS, name))
    with pytest.raises(ipvit.InputError, match="is no cue-conflict image"):
        ipvit.load_dataset(f"cue-conflict:{tmp_path}")


def test_a_renamed_texture_is_other_data(tmp_path):
    before = ipvit.load_dataset(f"cue-conflict:{write_cue_conflict(tmp_path)}").fingerprint
    (tmp_path / CONFLICTS[0]).rename(tmp_path / "cat/cat1-knife3.png")
    assert ipvit.load_dataset(f"cue-conflict:{tmp_path}").fingerprint != before


class Keeper(torch.nn.Module):
    """A network that keeps what it was given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.clone()
        return torch.zeros(len(x), 3)


def test_the_network_sees_the_224_pixels_as_they_are(tmp_path):
    data = ipvit.load_dataset(f"cue-conflict:{write_cue_conflict(tmp_path / 'data')}")
    keeper = Keeper()
    model = ipvit.wrap(
        keeper, mean=(0, 0, 0), std=(1, 1, 1), size=224, crop_pct=0.875, classes=["cat", "elephant", "knife"]
    )
    ipvit.run(ipvit.ShapeBias(), models=model, data=data, out=tmp_path / "out", workers=0, progress=False)
    for row in range(4):
        assert torch.equal((keeper.seen[row] * 255).round().byte(), data.read(row))


def test_another_input_size_sees_the_whole_picture(tmp_path):
    data = ipvit.load_dataset(f"cue-conflict:{write_cue_conflict(tmp_path / 'data')}")
    keeper = Keeper()
    model = ipvit.wrap(
        keeper, mean=(0, 0, 0), std=(1, 1, 1), size=112, crop_pct=0.5, classes=["cat", "elephant", "knife"]
    )
    ipvit.run(ipvit.ShapeBias(), models=model, data=data, out=tmp_path / "out", workers=0, progress=False)
    assert keeper.seen.shape[-2:] == (112, 112)
    corners = torch.stack([data.read(i)[:, :2, :2].float().mean() for i in range(4)])
    assert torch.allclose(keeper.seen[:, :, 0, 0].mean(dim=1) * 255, corners, atol=40)


def test_names_of_classes_may_have_digits_hyphens_and_spaces(tmp_path):
    names = ["n02123045/n02123045_3-n01443537_12", "n01443537/n01443537_1-n02123045", "t-shirt/t-shirt4-ice cream_2"]
    for name in (*names, "ice cream/ice cream-t-shirt7"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    data = ipvit.load_dataset(f"cue-conflict:{tmp_path}")
    assert data.classes is not None
    pairs = {
        (data.classes[shape], data.classes[texture])
        for shape, texture in zip(data.fields["shape"], data.fields["texture"], strict=True)
    }
    assert pairs == {
        ("n02123045", "n01443537"),
        ("n01443537", "n02123045"),
        ("t-shirt", "ice cream"),
        ("ice cream", "t-shirt"),
    }


# --- made from one's own classes -------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    """Three classes of four pictures, each class in a colour of its own."""
    root = tmp_path / "photos"
    for number, name in enumerate(("n02123045", "red fox", "owl")):
        for index in range(4):
            (root / name).mkdir(parents=True, exist_ok=True)
            pixels = np.full((40, 40, 3), 60, np.uint8)
            pixels[10:30, 10:30, number] = 180 + 10 * index
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def stylize(source, out, *more):
    return main(["stylize", str(source), "--out", str(out), "--cue-conflict", "--size", "32", "--workers", "0", *more])


def test_every_image_gets_the_texture_of_another_class_and_shape_bias_can_read_it(photos, tmp_path):
    assert stylize(photos, tmp_path / "conflict") == 0
    data = ipvit.load_dataset(f"cue-conflict:{tmp_path / 'conflict'}")
    assert len(data) == 12
    assert data.classes == ("n02123045", "owl", "red fox")
    assert data.fields["conflict"].all()
    assert sorted(np.bincount(data.fields["shape"])) == [4, 4, 4]

    model = ipvit.wrap(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)), size=32, classes=data.classes, name="net"
    )
    run = ipvit.run(ipvit.ShapeBias(), models=[model], data=data, out=tmp_path / "run")
    assert run.tables["shape-bias"]["n_images"].to_list() == [12]


def test_the_choice_of_textures_does_not_depend_on_when_it_is_made(photos, tmp_path):
    assert stylize(photos, tmp_path / "once") == 0
    for limit in ("5", "12"):
        assert stylize(photos, tmp_path / "twice", "--limit", limit) == 0
    once, twice = (sorted(p.relative_to(r) for p in r.rglob("*.png")) for r in (tmp_path / "once", tmp_path / "twice"))
    assert once == twice
    for path in once:
        assert (tmp_path / "once" / path).read_bytes() == (tmp_path / "twice" / path).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [("one class", "two classes or more"), ("no classes", "use class folders"), ("other styles", "is none of")],
)
def test_images_that_cannot_conflict_are_refused(photos, tmp_path, capsys, change, message):
    more = []
    if change == "one class":
        for name in ("owl", "red fox"):
            shutil.rmtree(photos / name)
    elif change == "no classes":
        photos = photos / "owl"
    else:
        shutil.copytree(photos, tmp_path / "styles")
        (tmp_path / "styles" / "owl").rename(tmp_path / "styles" / "eagle")
        more = ["--style", str(tmp_path / "styles")]
    assert stylize(photos, tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err


def test_copies_in_other_textures_and_conflicts_do_not_share_a_folder(photos, tmp_path, capsys):
    def plain(out):
        return main(["stylize", str(photos), "--out", str(out), "--size", "32", "--workers", "0"])

    assert plain(tmp_path / "plain") == 0
    assert stylize(photos, tmp_path / "plain") == 2
    assert stylize(photos, tmp_path / "conflict") == 0
    assert plain(tmp_path / "conflict") == 2
    assert capsys.readouterr().err.count("was made with another styles") == 2
