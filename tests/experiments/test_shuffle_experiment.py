"""Patch shuffle against a plain loop, and what a network without positions must not notice."""

import numpy as np
import polars as pl
import pytest

import ipvit
from helpers.plain_loops import (
    agrees,
    answer,
    key_of,
    loud,
    measured,
    order_of,
    photos,
    pixels_of,
    quiet_vit,
    same_for_any_batch_size,
    same_from_everywhere,
    seen_by,
    tiny_resnet,
    tiny_vit,
    working_folder,
    wrapped,
)


def shuffled(image: np.ndarray, order: list[int], rows: int, columns: int) -> np.ndarray:
    """Fill one place after the other with the cell that comes there."""
    tall, wide = image.shape[1] // rows, image.shape[2] // columns
    result = np.zeros_like(image)
    for place, cell in enumerate(order):
        (y, x), (v, u) = divmod(place, columns), divmod(cell, columns)
        result[:, y * tall : (y + 1) * tall, x * wide : (x + 1) * wide] = image[
            :, v * tall : (v + 1) * tall, u * wide : (u + 1) * wide
        ]
    return result


@pytest.mark.parametrize(
    ("size", "grids"),
    [(32, ("2x2", "2x4", "4x2", "4x4", "8x8", "32x32")), (112, ("7x7", "14x14", "16x16")), ((32, 64), ("4x8", "2x2"))],
)
def test_every_picture_and_answer_is_that_of_a_plain_loop(tmp_path, size, grids):
    experiment = ipvit.Shuffle(grids=grids, runs=2)
    model, data = loud(size), photos(3, size)
    records = measured(experiment, model, data, tmp_path)
    assert records.height == 3 * (1 + 2 * len(grids))
    for row, picture in seen_by(model, records, experiment, data):
        image = pixels_of(data, row["image"])
        rows, columns = map(int, row["grid"].split("x"))
        assert row["cells"] == rows * columns
        if row["grid"] != "1x1":
            key = key_of(row["image"], 0, "shuffle", row["grid"], row["run"])
            image = shuffled(image, order_of(key, rows * columns), rows, columns)
        assert np.array_equal(picture, image)
        assert np.array_equal(np.sort(picture, axis=None), np.sort(pixels_of(data, row["image"]), axis=None))
        agrees(row, answer(model, image))


def test_a_network_without_positions_notices_only_shuffles_that_cut_its_patches(tmp_path):
    """Whole patches: its own 4x4 grid, and blocks of them. Cells of 8x4 or 4x4 pixels cut them."""
    experiment = ipvit.Shuffle(grids=("2x2", "2x4", "4x2", "4x4", "4x8", "8x8"), runs=3)
    models = [wrapped(tiny_vit(pos_embed="none"), name="no positions"), wrapped(tiny_vit(), name="positions")]
    records = measured(experiment, models, photos(6), tmp_path)
    clean = records.filter(pl.col("grid") == "1x1").select("model", "image", pl.col("confidence").alias("clean"))
    moved = records.join(clean, on=["model", "image"]).with_columns((pl.col("confidence") - pl.col("clean")).abs())
    most = {key: group["confidence"].max() for key, group in moved.group_by("model", "grid")}
    for grid in ("2x2", "2x4", "4x2", "4x4"):
        assert most["no positions", grid] < 1e-5 < 1e-3 < most["positions", grid]
    for grid in ("4x8", "8x8"):
        assert most["no positions", grid] > 1e-3 and most["positions", grid] > 1e-3


@pytest.mark.slow
def test_the_papers_network_without_positions_notices_what_the_paper_says(tmp_path):
    """DeiT-T at 224 pixels with random weights: 196 and 4 cells keep patches whole, 8, 16, 64 and 256 cut them."""
    import timm

    network = timm.create_model("deit_tiny_patch16_224", pos_embed="none", num_classes=4, depth=4).eval()
    experiment = ipvit.Shuffle(grids=("2x2", "2x4", "4x4", "8x8", "14x14", "16x16"))
    records = measured(experiment, wrapped(network, 224), photos(3, 224), tmp_path)
    for _, mine in records.group_by("image"):
        clean = mine.filter(pl.col("grid") == "1x1")["confidence"][0]
        off = {row["grid"]: abs(row["confidence"] - clean) for row in mine.iter_rows(named=True)}
        whole = max(off["2x2"], off["14x14"])
        assert whole < 1e-5 and all(off[grid] > 10 * whole for grid in ("2x4", "4x4", "8x8", "16x16"))


@pytest.mark.parametrize("network", [quiet_vit, tiny_resnet])
def test_neither_batch_size_nor_an_interrupted_run_changes_a_record(tmp_path, network):
    data = photos(7, network().image_size)
    same_for_any_batch_size(lambda: ipvit.Shuffle(grids=("2x2", "8x8"), runs=2), network, data, tmp_path)


def test_the_unshuffled_image_comes_by_itself_and_once(tmp_path):
    records = measured(ipvit.Shuffle(grids=("1x1", "2x2", "2x2")), quiet_vit(), photos(2), tmp_path)
    assert sorted(records["grid"]) == ["1x1", "1x1", "2x2", "2x2"]


def test_two_grids_of_equally_many_cells_have_places_of_their_own_in_the_figure(tmp_path):
    experiment = ipvit.Shuffle(grids=("2x4", "4x2", "2x2"))
    run = ipvit.run(experiment, models=quiet_vit(), data=photos(2), out=tmp_path, workers=0, progress=False)
    assert run.tables["shuffle"]["cells"].to_list() == [1, 4, 8, 8]
    drawn = run.figures["shuffle"].to_json()
    assert all(f'"{place}"' in drawn for place in ("1", "4", "8 (2x4)", "8 (4x2)"))


def test_python_the_command_line_and_a_study_measure_the_same(tmp_path, monkeypatch):
    working_folder(tmp_path, monkeypatch)
    assert same_from_everywhere("shuffle", {"grids": ["2x2", "4x8"], "runs": 2}).height == 8 * 5


def test_a_grid_that_does_not_divide_the_image_is_refused(tmp_path):
    with pytest.raises(ipvit.InputError, match="5x5 does not divide an image of 32x32 pixels; 4x4 would"):
        measured(ipvit.Shuffle(grids=("2x2", "5x5")), quiet_vit(), photos(2), tmp_path)
