"""Fills of the user's own: what they are given, what of it is used, how they are known and shown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import ipvit
from helpers.command_line import complaint
from helpers.plain_loops import (
    agrees,
    answer,
    key_of,
    loud,
    measured,
    order_of,
    photos,
    pixels_of,
    plain,
    quiet_vit,
    same_for_any_batch_size,
    same_from_everywhere,
    seen_by,
    working_folder,
)
from ipvit.cli import main
from ipvit.core.plugins import own_function

FILLS = """
import numpy as np
import torch

def grain(images, mask, key):
    assert mask.dtype == torch.bool and mask.shape == (len(images), 1, *images.shape[2:])
    noise = np.stack([np.random.default_rng(int(k)).random(images.shape[1:], dtype=np.float32) for k in key])
    images.zero_()  # what it does to what it is given concerns nobody else
    mask.zero_()
    return torch.from_numpy(noise).to(images)

def outside(images, mask, key):
    return torch.where(mask, float("nan"), 0.25).expand_as(images)

def small(images, mask, key):
    return images.mean(dim=(2, 3))

def nan(images, mask, key):
    return images * float("nan")

def bright(images, mask, key):
    return images * 0 + 2

def broken(images, mask, key):
    return missing
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with the fills in own.py."""
    working_folder(tmp_path, monkeypatch)
    (tmp_path / "own.py").write_text(FILLS)
    return tmp_path


def occlusion(name: str, **options) -> ipvit.Occlusion:
    return ipvit.Occlusion(**{"levels": (0.0, 0.5), "runs": 2, "grid": "4x4", "fill": f"own.py:{name}"} | options)


def run(experiment, models, data, out="out", **options) -> ipvit.Run:
    return ipvit.run(experiment, models=models, data=data, out=out, workers=0, progress=False, **options)


def test_dropped_pixels_are_those_of_the_function_and_the_others_stay(folder):
    experiment = occlusion("grain", levels=(0.0, 0.25, 1.0))
    model, data = loud(), photos(4)
    for row, picture in seen_by(model, measured(experiment, model, data, folder / "out"), experiment, data):
        image, level = pixels_of(data, row["image"]), row["information_loss"]
        key = key_of(row["image"], 0, "occlusion", "random", "4x4", row["run"], level)
        expected = image.copy()
        noise = np.random.default_rng(key).random((3, 32, 32), dtype=np.float32)
        for cell in order_of(key, 16)[: int(16 * level)]:
            top, left = cell // 4 * 8, cell % 4 * 8
            expected[:, top : top + 8, left : left + 8] = noise[:, top : top + 8, left : left + 8]
        assert np.array_equal(picture, expected)
        agrees(row, answer(model, expected))


def test_kept_pixels_are_put_back_whatever_the_function_makes_of_them(folder):
    model, data = loud(), photos(3)
    experiment = occlusion("outside", modes=("block",), runs=1)
    for row, picture in seen_by(model, measured(experiment, model, data, folder / "out"), experiment, data):
        image = pixels_of(data, row["image"])
        assert np.isin(picture[picture != image], [0.25]).all()
        assert ((picture == image).all(axis=0).mean() == pytest.approx(1 - row["dropped"])) and row["fill"] != "outside"


def test_neither_the_batch_nor_an_interrupted_run_changes_a_record(folder):
    make = lambda: occlusion("grain", mask_scope="batch")  # noqa: E731
    same_for_any_batch_size(make, plain, photos(7), folder)


def test_python_the_command_line_and_a_study_measure_the_same(folder):
    parameters = {"levels": [0.0, 0.5], "runs": 1, "grid": "4x4", "fill": "own.py:grain"}
    records = same_from_everywhere("occlusion", parameters)
    name = own_function("fill", "own.py:grain").name
    assert set(records["fill"]) == {name}
    assert name in Path("cli/report.html").read_text()


def test_an_edited_file_is_another_fill_and_measured_anew(folder):
    data = photos(4)
    run(occlusion("grain"), plain(), data)
    assert run(occlusion("grain"), plain(), data).manifest.measured_in_this_call == 0
    assert run(occlusion("grain"), plain(), photos(4), limit=4).manifest.measured_in_this_call == 0
    (folder / "own.py").write_text(FILLS + "# another version\n")
    again = run(occlusion("grain"), plain(), data)
    assert again.manifest.measured_in_this_call == 4 * 3
    assert again.records("occlusion")["fill"].n_unique() == 1
    (folder / "own.py").unlink()
    assert ipvit.Run("out", everything=True).tables["occlusion"]["fill"].n_unique() == 2


def test_table_figure_and_sentences_name_it(folder):
    done = run(occlusion("grain"), plain(), photos(8))
    name = own_function("fill", "own.py:grain").name
    assert done.tables["occlusion"]["fill"].to_list() == [name, name]
    assert f"net, {name}" in done.figures["occlusion-random"].to_json()
    assert all(name in text for text in done.summary_of("occlusion"))
    assert len(done.pictures("occlusion")["net"]) == 2
    known = run(occlusion("grain", fill="mean"), plain(), photos(8), out="known")
    assert "fill" not in known.tables["occlusion"].columns


WRONG = [
    ("small", r"own.py:small must return a tensor of floating-point numbers \(3, 3, 32, 32\), not float32 \(3, 3\)"),
    ("nan", "own.py:nan returned pixels that are not finite, for 'photo 0'"),
    ("bright", r"own.py:bright must return pixels from 0 to 1, not 2 as for 'photo 0'"),
    ("broken", r"own.py:\d+: NameError: name 'missing' is not defined"),
]


@pytest.mark.parametrize(("name", "words"), WRONG, ids=[name for name, _ in WRONG])
def test_what_cannot_be_shown_fails_that_condition_in_one_line_and_the_rest_goes_on(folder, name, words):
    done = run(occlusion(name), plain(), photos(3))
    (failure,) = done.manifest.failures
    assert re.search(words, failure.error) and "\n" not in failure.error
    assert failure.condition == "information_loss=0.5 run=0; information_loss=0.5 run=1"
    records = done.records("occlusion")
    assert records.height == 3 and set(records["information_loss"]) == {0.0}


def test_the_command_line_ends_with_1_where_a_fill_fails(folder, capsys):
    command = ["occlusion", "-m", "nets.py:net", "-d", "images", "--out", "out", "--workers", "0", "--grid", "4x4"]
    assert main([*command, "--levels", "0", "0.5", "--fill", "own.py:broken"]) == 1
    assert "NameError: name 'missing' is not defined" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        ("nowhere.py:grain", "there is no file 'nowhere.py'"),
        ("own.py:grian", "own.py has no function 'grian'"),
        ("blurr", "unknown fill 'blurr'; known: black, mean, noise, blur, other, or FILE.py:FUNCTION. Did you mean"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_is_measured(folder, capsys, fill, words):
    command = ["occlusion", "-m", "nets.py:net", "-d", "images", "--out", "out", "--workers", "0", "--grid", "4x4"]
    assert main([*command, "--fill", fill]) == 2
    assert words in complaint(capsys)
    assert not (folder / "out" / "records").exists()


def test_without_tokens_there_is_nothing_to_fill(folder):
    records = measured(occlusion("broken", removal="tokens"), quiet_vit(), photos(3), folder / "out")
    assert set(records["fill"]) == {""} and records.filter(pl.col("information_loss") > 0).height == 6
