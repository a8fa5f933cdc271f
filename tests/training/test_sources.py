"""What a recipe may train and validate on, and images that are in both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.training import tiny_recipe
from ipvit.data.copies import in_both
from ipvit.data.dataset import MemoryDataset
from ipvit.data.loading import load_dataset
from ipvit.data.subset import image_keys
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.errors import InputError
from ipvit.training import sources
from ipvit.training.config import DataConfig, SetConfig
from ipvit.training.sources import open_data, refuse_overlap
from ipvit.training.start import train


def pictures(n: int, first: int = 0) -> list[np.ndarray]:
    return [np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8) for number in range(first, first + n)]


def folder(root: Path, images: list[np.ndarray], name: str = "{}") -> Path:
    for number, image in enumerate(images):
        place = root / ("even" if number % 2 == 0 else "odd")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{name.format(number)}.png")
    return root


@pytest.mark.parametrize("part", ["train", "val"])
def test_what_a_studys_data_takes_a_recipe_takes(monkeypatch, part):
    asked = []

    def fake(name, **options):
        asked.append((name, options))
        return MemoryDataset(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [0, 1])

    monkeypatch.setattr(sources, "load_dataset", fake)
    open_data(SetConfig(name="hfds/a", root="/r", split="s", decoder="pil", classes="imagenet-1k"), 8, part)
    assert asked == [("hfds/a", {"root": "/r", "split": "s", "decoder": "pil", "classes": "imagenet-1k"})]


@pytest.mark.parametrize(
    ("name", "train_split", "val_split"),
    [
        ("hfds/owner/name", "train", "validation"),
        ("flowers102:flowers", "train", "val"),
        ("cub:birds", "train", "val"),
        ("imagenet:place", "train", "val"),
    ],
)
def test_each_set_gives_its_own_part_where_none_is_named(monkeypatch, name, train_split, val_split):
    asked = []
    one = MemoryDataset(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [0, 1])
    monkeypatch.setattr(sources, "load_dataset", lambda name, **options: asked.append(options["split"]) or one)
    open_data(name, 8, "train")
    open_data(name, 8, "val")
    assert asked == [train_split, val_split]


def test_a_set_is_called_by_name_split_and_number_of_images():
    data = DataConfig(train=SetConfig(name="hfds/a", split="train"), val="demo:trifeature")
    assert data.names == ("hfds/a (train)", "demo:trifeature")
    data = DataConfig(train=SetConfig(name="hfds/a", split="train", limit=4000), val=SetConfig(name="b", limit=9))
    assert data.names == ("hfds/a (train, 4,000 images)", "b (9 images)")


def test_a_part_of_a_set_is_the_one_that_a_limited_run_measures():
    part = open_data(SetConfig(name="demo:trifeature/natural-train", limit=200), 16, "train")
    whole = Trifeature("natural", "train", size=16)
    smallest = np.argsort(image_keys(whole.ids))[:200].tolist()
    assert part.ids == [whole.ids[row] for row in sorted(smallest)]
    assert all(torch.equal(part.read(k), whole.read(row)) for k, row in enumerate(sorted(smallest)[:3]))
    assert len(set(part.labels.tolist())) == 10, "not the first class folder alone"


def test_images_in_a_part_of_a_set_are_found_too():
    train_part = open_data(SetConfig(name="demo:trifeature/natural-train", limit=20), 16, "train")
    with pytest.raises(InputError, match="train and val are parts of the same images"):
        refuse_overlap(train_part, open_data("demo:trifeature/natural-train", 16, "val"))
    assert refuse_overlap(train_part, open_data("demo:trifeature", 16, "val")) == ""


def test_a_folder_is_not_its_own_validation_set(tmp_path):
    place = str(folder(tmp_path / "pictures", pictures(8)))
    data = {"train": place, "val": place, "size": 32}
    with pytest.raises(InputError, match=r"train and val are the same 8 images"):
        train(tiny_recipe(data=data), tmp_path / "out", device="cpu", progress=False)
    assert not (tmp_path / "out").exists()


def test_copies_under_other_names_are_found_by_their_content(tmp_path):
    shown = pictures(10)
    one = load_dataset(str(folder(tmp_path / "train", shown)))
    other = load_dataset(str(folder(tmp_path / "val", [*pictures(6, first=50), *shown[:2]], name="photo-{}")))
    with pytest.raises(InputError, match=r"2 of the 8 images of .*val are in .*train too, for example .*photo-"):
        refuse_overlap(one, other)
    apart = load_dataset(str(folder(tmp_path / "apart", pictures(6, first=50))))
    assert refuse_overlap(one, apart) == ""


def test_files_of_one_size_with_the_same_middle_are_copies_only_where_all_bytes_are_the_same(tmp_path):
    files, others = [], []
    for name, end in {"a": b"1", "b": b"2", "c": b"3"}.items():
        for folder_name, sized, last in (("train", files, end), ("val", others, b"2")):
            path = tmp_path / folder_name / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(bytes(200) + last)
            sized.append((path, 201))
    assert in_both(files[:1], others) == [] and in_both(files, others) == [0, 1, 2]
    others[0][0].write_bytes(bytes(201))
    assert in_both(files, others) == [1, 2]


def test_copies_are_found_by_their_pixels_where_they_are_no_files(tmp_path):
    shown = pictures(10)
    files = load_dataset(str(folder(tmp_path / "train", shown)))
    memory = MemoryDataset(
        np.stack([*shown[3:5], *pictures(3, first=70)]).transpose(0, 3, 1, 2), [0, 0, 0, 1, 1], ["even", "odd"]
    )
    with pytest.raises(InputError, match=r"2 of the 5 images of memory are in .*train too"):
        refuse_overlap(files, memory)


def test_a_few_copies_in_a_large_set_are_told_and_not_refused(tmp_path):
    shown = pictures(130)
    train_set = MemoryDataset(np.stack(shown[:30]).transpose(0, 3, 1, 2), np.zeros(30, int))
    val = MemoryDataset(np.stack(shown[29:]).transpose(0, 3, 1, 2), np.zeros(101, int))
    assert "1 of the 101 images" in refuse_overlap(train_set, val)


def test_the_procedural_sets_share_nothing():
    assert refuse_overlap(Trifeature("natural", "train"), Trifeature("natural", "val")) == ""
