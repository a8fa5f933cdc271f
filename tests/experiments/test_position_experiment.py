"""The image in a corner against Pillow's reduction, and the pixels counted."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

import ipvit
from helpers.plain_loops import (
    agrees,
    answer,
    bound,
    loud,
    measured,
    photos,
    pixels_of,
    quiet_vit,
    same_for_any_batch_size,
    same_from_everywhere,
    seen_by,
    working_folder,
)

CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right", "centre")


def shrunk(image: np.ndarray, tall: int, wide: int) -> np.ndarray:
    """Pillow's antialiased bilinear reduction, channel by channel, in floating point."""
    size, how = (wide, tall), Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(channel, "F").resize(size, how)) for channel in image])


@pytest.mark.parametrize(("size", "scale"), [(32, 0.5), (56, 128 / 224), ((32, 64), 0.3)])
def test_the_shrunk_image_lies_in_its_corner_and_all_else_is_black(tmp_path, size, scale):
    experiment = ipvit.Position(corners=CORNERS, scale=scale)
    model, data = loud(size), photos(3, size)
    records = measured(experiment, model, data, tmp_path)
    assert records.height == 3 * 6
    for row, picture in seen_by(model, records, experiment, data):
        image = pixels_of(data, row["image"])
        agrees(row, answer(model, picture))
        if row["place"] == "whole image":
            assert np.array_equal(picture, image) and row["scale"] == 1
            continue
        _, height, width = image.shape
        tall, wide = round(height * scale), round(width * scale)
        top = {"top": 0, "bottom": height - tall, "centre": (height - tall) // 2}[row["place"].split("-")[0]]
        left = {"left": 0, "right": width - wide, "centre": (width - wide) // 2}[row["place"].split("-")[-1]]
        inside = picture[:, top : top + tall, left : left + wide]
        assert np.allclose(inside, shrunk(image, tall, wide), atol=1e-4)
        assert (inside > 0).all() and (picture > 0).sum() == inside.size


def test_the_papers_scale_is_128_of_224_pixels():
    experiment = ipvit.Position()
    model = loud(224)
    shown = bound(experiment, model).examples(model, batch_of_white())
    (picture,) = [e for e in shown if e.caption == "bottom-right"]
    lit = (picture.image.numpy() > 0).all(axis=0)
    assert lit.sum() == 128 * 128 and lit[96:, 96:].all()


def batch_of_white():
    import torch

    from ipvit.experiments.base import Batch

    return Batch(torch.ones(1, 3, 224, 224), torch.zeros(1, dtype=torch.long), ("white",), np.zeros(1, int), (), 0)


def test_scales_stand_apart_in_the_table(tmp_path):
    model, data = quiet_vit(), photos(6)
    measured(ipvit.Position(corners=("centre",), scale=0.5), model, data, tmp_path)
    experiment = ipvit.Position(corners=("centre",), scale=0.75)
    run = ipvit.run(experiment, models=model, data=data, out=tmp_path, workers=0, progress=False, everything=True)
    rows = run.records("position")
    for row in run.tables["position"].iter_rows(named=True):
        mine = rows.filter((pl.col("place") == row["place"]) & (pl.col("scale") == row["scale"]))
        assert row["n_images"] == mine.height == 6
        assert row["top1"] == pytest.approx(100 * mine["correct"].mean())
    assert run.tables["position"]["scale"].to_list() == [1.0, 0.5, 0.75]
    drawn = run.figures["position"].to_json()
    assert all(f'"{place}"' in drawn for place in ("whole image", "centre, 0.5", "centre, 0.75"))


def test_neither_batch_size_nor_an_interrupted_run_changes_a_record(tmp_path):
    same_for_any_batch_size(lambda: ipvit.Position(corners=CORNERS), quiet_vit, photos(7), tmp_path)


def test_python_the_command_line_and_a_study_measure_the_same(tmp_path, monkeypatch):
    working_folder(tmp_path, monkeypatch)
    records = same_from_everywhere("position", {"corners": ["top-left", "centre"], "scale": 0.5})
    assert records.height == 8 * 3


def test_a_scale_that_leaves_nothing_is_refused(tmp_path):
    with pytest.raises(ipvit.InputError, match="a scale of 0.01 leaves nothing of vit's input"):
        measured(ipvit.Position(scale=0.01), quiet_vit(), photos(2), tmp_path)
