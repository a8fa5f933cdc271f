"""What a user brings in a file of their own: a corruption, an adapter, a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from torch import nn

import ipvit
from helpers.plain_loops import photos, plain, quiet_vit, tiny_vit, wrapped
from ipvit.data.corruption import OwnCorruption
from ipvit.errors import InputError
from ipvit.models.adapters import Adapter
from ipvit.perturb import keys
from ipvit.perturb.corruptions import jpeg85
from ipvit.perturb.corruptions.arrays import random_state

SPECKS = """
import numpy as np

def specks(image, severity, random):
    image[random.randint(image.shape[0]), :] = 0
    return np.minimum(image, 255 - 20 * severity).astype(np.uint8)

def grey(image, severity, random):
    return image.mean(axis=2)

missing = 3
"""

STARS = """
import numpy as np
import torch
import ipvit

def make():
    return ipvit.MemoryDataset(np.zeros((3, 3, 8, 8), np.uint8), [0, 1, 0], ["a", "b"], name="stars")

def wrong():
    return [1, 2, 3]

class Rows(ipvit.BaseDataset):
    labels = [0, 1, 1]
    classes = ("a", "b")
    bright = 9

    def read(self, index):
        return torch.full((3, 8, 8), self.bright * index, dtype=torch.uint8)

class Many(Rows):
    labels = [0] * 257

class Unlabelled(ipvit.BaseDataset):
    def read(self, index):
        raise NotImplementedError

class Unread(ipvit.BaseDataset):
    labels = [0]

def twice():
    return Rows(ids=["x", "x", "y"])
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "specks.py").write_text(SPECKS)
    (tmp_path / "stars.py").write_text(STARS)
    return tmp_path


def run_on(names: tuple[str, ...], out: str, **options: object) -> pl.DataFrame:
    experiment = ipvit.Corruptions(corruptions=names, severities=(1, 4), jpeg=bool(options.pop("jpeg", True)))
    run = ipvit.run(experiment, models=plain(), data=photos(3), out=out, progress=False, **{"workers": 0, **options})  # pyright: ignore[reportArgumentType]
    return run.records("corruptions").filter(pl.col("corruption") != "clean").sort("corruption", "severity", "image")


# --- a corruption --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jpeg", [True, False])
def test_a_function_of_yours_is_measured_like_the_corruptions_that_are_there(folder, jpeg):
    model, data = plain(), photos(3)
    records = run_on(("specks.py:specks",), "out", jpeg=jpeg, seed=5)
    assert records.height == 3 * 2
    for row in records.iter_rows(named=True):
        image = data.read(list(data.ids).index(row["image"])).permute(1, 2, 0).numpy().copy()
        random = random_state(keys([row["image"]], "corruptions", 5)[0], "specks", row["severity"])
        image[random.randint(32), :] = 0
        made = np.minimum(image, 255 - 20 * row["severity"]).astype(np.uint8)
        made = jpeg85(made) if jpeg else made
        with torch.inference_mode():
            pixels = torch.from_numpy(made.copy()).permute(2, 0, 1)[None].float() / 255
            assert row["confidence"] == pytest.approx(model(pixels).softmax(1).max().item(), abs=1e-5)


def test_it_is_the_same_in_worker_processes_and_in_any_batch(folder):
    here = run_on(("specks.py:specks", "fog"), "a")
    there = run_on(("specks.py:specks", "fog"), "b", workers=2, batch_size=2)
    assert here.select("corruption", "severity", "image", "prediction").equals(
        there.select("corruption", "severity", "image", "prediction")
    )
    assert np.allclose(here["confidence"], there["confidence"], atol=1e-6)


def test_an_edited_function_is_another_corruption_and_measured_anew(folder):
    run_on(("specks.py:specks",), "out")
    (folder / "specks.py").write_text(SPECKS.replace("20 * severity", "40 * severity"))
    run_on(("specks.py:specks",), "out")
    names = ipvit.Run("out", everything=True).records("corruptions").filter(pl.col("corruption") != "clean")
    names = names["corruption"].unique().to_list()
    assert len(names) == 2 and all(name.startswith("specks-") for name in names)


def test_own_corruptions_come_last_in_tables_and_count_for_no_mce(folder):
    experiment = ipvit.Corruptions(corruptions=("specks.py:specks", "fog"), severities=(1,))
    assert experiment.corruptions == ("fog", "specks.py:specks")
    run = ipvit.run(experiment, models=plain(), data=photos(3), out="out", workers=0, progress=False)
    names = run.tables["corruptions"]["corruption"].unique(maintain_order=True).to_list()
    assert names[:2] == ["clean", "fog"] and names[2].startswith("specks-")
    assert set(run.tables["corruptions-family"]["family"]) == {"weather", "own"}
    overall = run.tables["corruptions-mce"].row(0, named=True)
    assert overall["n_corruptions"] == 1 and overall["mce"] is None
    assert {"corruptions", "corruptions-family", "corruptions-ce"} <= set(run.figures)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing.py:specks", "no file 'nothing.py'"),
        ("specks.py:nothing", "no function"),
        ("specks.py:missing", "no fu"),
    ],
)
def test_a_function_that_is_not_there_is_told_before_anything_runs(folder, name, words):
    with pytest.raises(InputError, match=words):
        run_on((name,), "out")
    assert not Path("out").exists()


def test_a_function_that_returns_something_else_is_told_by_name(folder):
    own = OwnCorruption.at("specks.py:grey", 2)
    with pytest.raises(InputError, match=r"specks.py:grey must return uint8 \(8, 8, 3\), not float64 \(8, 8\)"):
        own(torch.zeros(3, 8, 8, dtype=torch.uint8), "photo", 0)


# --- an adapter ----------------------------------------------------------------------------------------------------


class Upside(Adapter):
    """Says that it can do nothing."""

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset({"logits"})


def test_an_adapter_that_is_given_goes_before_the_one_for_the_class():
    theirs = ipvit.wrap(tiny_vit(), size=32, adapter=Upside)
    assert "attention" in wrapped(tiny_vit()).capabilities
    assert theirs.capabilities == {"logits"} and isinstance(theirs.adapter, Upside)
    theirs.backbone = nn.Flatten()
    assert isinstance(theirs.adapter, Upside) and theirs.adapter.network is theirs.backbone


def test_what_reads_a_network_is_part_of_its_identity():
    plain_one, theirs = ipvit.wrap(tiny_vit(), size=32), ipvit.wrap(tiny_vit(), size=32, adapter=Upside)
    assert plain_one.digest != theirs.digest
    assert theirs.digest == ipvit.wrap(tiny_vit(), size=32, adapter=Upside).digest


# --- a data set ----------------------------------------------------------------------------------------------------


def test_a_data_set_is_made_by_a_function_of_yours(folder):
    data = ipvit.load_dataset("stars.py:make")
    assert data.name == "stars" and len(data) == 3 and data.classes == ("a", "b")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stars.py:nothing", "has no function 'nothing'"),
        ("stars.py:wrong", r"returned list, which is no ipvit.data.Dataset: it lacks name, ids"),
        ("nowhere.py:make", "no file 'nowhere.py'"),
        ("stars.py:Unlabelled", "returned Unlabelled, which is no ipvit.data.Dataset: it lacks ids, labels$"),
        ("stars.py:Unread", "abstract method '?read"),
        ("stars.py:twice", "3 labels and 2 different ids for 3 images"),
    ],
)
def test_what_is_no_data_set_is_refused_in_one_line(folder, name, words):
    with pytest.raises(InputError, match=words):
        ipvit.load_dataset(name)


def test_a_class_that_reads_and_states_its_labels_is_a_data_set(folder):
    data = ipvit.load_dataset("stars.py:Rows")
    assert data.name == "Rows" and list(data.ids) == ["00000000", "00000001", "00000002"] and len(data) == 3
    assert (data.aliases, dict(data.fields), data.has_masks, data.void, data.sequential) == (
        None,
        {},
        False,
        None,
        False,
    )
    assert data.decoder == "fast" and data.choose(2) is None and ipvit.load_dataset(data) is data
    with pytest.raises(InputError, match="Rows has no foreground masks"):
        data.read_mask(0)
    model = ipvit.wrap(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), size=8, classes=("a", "b"), name="net")
    run = ipvit.run(ipvit.Accuracy(), models=model, data=data, out="rows", workers=0, progress=False)
    assert run.records("accuracy").height == 3


def test_the_default_fingerprint_changes_with_pixels_labels_and_ids_and_is_for_small_sets(folder):
    kind = type(ipvit.load_dataset("stars.py:Rows"))
    first = kind().fingerprint
    brighter = kind()
    brighter.bright = 10
    others = [kind(labels=[0, 1, 0]), kind(ids=["x", "y", "z"]), kind(classes=["a", "c"]), kind("other"), brighter]
    assert kind().fingerprint == first
    assert len({first, *(data.fingerprint for data in others)}) == 6
    many = ipvit.load_dataset("stars.py:Many")
    with pytest.raises(InputError, match="Many has 257 images and no fingerprint: set self.fingerprint"):
        _ = many.fingerprint
    many.fingerprint = "stated"
    assert many.fingerprint == "stated"


def test_what_python_is_given_as_data_is_told_what_it_lacks():
    with pytest.raises(InputError, match="the data is of type dict, which is no .*: it lacks name, ids"):
        ipvit.run(ipvit.Accuracy(), models="demo:deit_micro", data={}, out="never")  # pyright: ignore[reportArgumentType]


# --- attention of the image in a corner ----------------------------------------------------------------------------


def test_attention_to_the_image_in_a_corner_is_that_of_the_picture_pasted_by_hand(folder):
    model, data = quiet_vit(), photos(2)
    experiment = ipvit.Attention(levels=(0,), blocks=(2,), corners=("bottom-left",), scale=0.5)
    run = ipvit.run(experiment, models=model, data=data, out="out", workers=0, progress=False)
    records = run.records("attention")
    for row in records.filter(pl.col("place") == "bottom-left").iter_rows(named=True):
        picture = data.read(list(data.ids).index(row["image"])).permute(1, 2, 0).numpy()
        canvas = np.zeros((32, 32, 3), np.float32)
        small = Image.fromarray(picture).resize((16, 16), Image.Resampling.BILINEAR)
        canvas[16:, :16] = np.asarray(small, np.float32) / 255
        with torch.inference_mode():
            maps = model.attention(torch.from_numpy(canvas).permute(2, 0, 1)[None], [2])[2]
        seen = maps[0, row["head"], 0, 1:].numpy()
        assert np.frombuffer(row["map"], np.float16) == pytest.approx(seen, abs=0.03)  # PIL rounds to whole grey levels
        assert row["inside"] == pytest.approx(seen.reshape(4, 4)[2:, :2].sum() / seen.sum(), abs=0.03)
    table = run.tables["attention"]
    assert set(table["place"]) == {"whole image", "bottom-left"} and set(table["scale"]) == {1.0, 0.5}
    assert table.filter(pl.col("place") == "whole image")["inside"].null_count() == 1
    assert any("of the attention of vit's block 2 falls on it" in line for line in run.summary_of("attention"))
    assert "attention-vit-bottom-left-50" in run.figures and "attention-vit-0" in run.figures
