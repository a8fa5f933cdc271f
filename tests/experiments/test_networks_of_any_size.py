"""Networks of different input sizes in one study: what each gets, what its rows say, and what is compared."""

import numpy as np
import polars as pl
import pytest
import torch

import ipvit
from helpers.plain_loops import loud, measured, photos, pixels_of, quiet_vit, seen_by, wrapped
from helpers.tiny import PatchNet
from ipvit.errors import DownloadError
from ipvit.experiments.correlation.experiment import CorrelationCondition
from ipvit.experiments.occlusion.experiment import OcclusionCondition
from ipvit.experiments.occlusion.salience import Salience
from ipvit.experiments.shuffle.experiment import PAPER_GRIDS, ShuffleCondition


def run(experiment, models, tmp_path, data=None):
    return ipvit.run(experiment, models=models, data=data or photos(2, 64), out=tmp_path, workers=0, progress=False)


def grids_of(size: int, tmp_path, experiment=None) -> list[tuple[str, str | None]]:
    records = measured(experiment or ipvit.Shuffle(), loud(size), photos(1, size), tmp_path)
    others = records["instead_of"] if "instead_of" in records.columns else [None] * records.height
    return sorted(zip(records["grid"], others, strict=True), key=lambda pair: (len(pair[0]), pair[0]))


def test_what_was_measured_where_grids_divide_is_found_again():
    """The keys of conditions as they stand in the records of earlier runs."""
    occlusion = OcclusionCondition("random", 0.5, 0, "14x14", "0,0", "black", "pixels", False, "image", "")
    assert occlusion.key == "c357610837648719"
    assert ShuffleCondition("14x14", 196, 0).key == "047c1197734988a2"
    assert CorrelationCondition(0.5, 0, "14x14", 11, "class", True).key == "cbda147f8f472783"


def test_networks_of_different_sizes_share_a_study_and_each_is_measured_as_if_alone(tmp_path):
    def models():
        return [loud(size, name=f"net {size}") for size in (56, 64, 75)]

    experiment = ipvit.Occlusion(levels=(0.5,), runs=1)
    data = photos(3, 64)
    together = measured(experiment, models(), data, tmp_path / "together")
    assert set(together["grid"]) == {"14x14"}
    columns = ["image", "condition", "prediction", "dropped"]
    for model in models():
        alone = measured(experiment, model, data, tmp_path / model.name).select(columns).sort("image")
        assert together.filter(pl.col("model") == model.name).select(columns).sort("image").equals(alone)


def test_the_size_of_cells_that_differ_is_told_and_that_they_cut_patches(tmp_path):
    notes = run(ipvit.Occlusion(levels=(0.5,), runs=1, grid="5x5"), [quiet_vit(), loud(50)], tmp_path).manifest.notes
    assert notes == (
        "occlusion: cells of the grid 5x5 are 6 or 7 pixels high and wide on vit, and cut its patches; "
        "4x4 drops whole ones",
    )


def test_of_masks_those_cells_are_salient_that_hold_most_of_the_object(tmp_path):
    masks = np.zeros((2, 64, 64), np.uint8)
    masks[:, 14:32, 14:37] = 255  # in a grid of 7 rows: from the second to the fourth; borders 0 9 18 27 37 46 55 64
    data, model = photos(2, 64, masks=masks), loud(64)
    experiment = ipvit.Occlusion(modes=("salient",), levels=(0.5,), grid="7x7", salience="masks")
    # rows hold 4, 9 and 5 of the mask's 18 pixels, columns 4, 9 and 10 of its 23: the two largest hold 171 of 414
    sizes = {(row, column): a * b for row, a in ((1, 4), (2, 9), (3, 5)) for column, b in ((1, 4), (2, 9), (3, 10))}
    order, held, dropped = sorted(sizes, key=lambda cell: -sizes[cell]), 0, []
    while held < 0.5 * 18 * 23:
        dropped.append(order[len(dropped)])
        held += sizes[dropped[-1]]
    borders = [0, 9, 18, 27, 37, 46, 55, 64]
    for row, picture in seen_by(model, measured(experiment, model, data, tmp_path), experiment, data):
        expected = pixels_of(data, row["image"]).copy()
        for i, j in dropped:
            expected[:, borders[i] : borders[i + 1], borders[j] : borders[j + 1]] = 0
        assert np.array_equal(picture, expected)


def test_the_papers_grids_give_way_to_the_nearest_that_divides_in_rows_that_say_so(tmp_path):
    assert grids_of(112, tmp_path / "112") == [("1x1", None), *((g, None) for g in PAPER_GRIDS)]
    assert grids_of(60, tmp_path / "60") == [
        ("1x1", None),
        ("2x2", None),
        ("2x4", None),
        ("4x4", None),
        ("4x6", "4x8"),
        ("6x6", "8x8"),
        ("15x15", "14x14, 16x16"),
    ]
    assert grids_of(64, tmp_path / "64")[-2:] == [("8x8", None), ("16x16", None)], "16x16 is measured once, as itself"
    far = grids_of(65, tmp_path / "65")
    assert far == [("1x1", None), ("5x5", "4x4"), ("13x13", "14x14, 16x16")], "nothing stands for 2x2 and 8x8"


def test_what_a_network_is_measured_with_does_not_depend_on_the_others_and_equal_cells_are_compared(tmp_path):
    def models():
        torch.manual_seed(0)
        return [wrapped(PatchNet(), size, name=f"net {size}") for size in (112, 60)]

    found = run(ipvit.Shuffle(), models(), tmp_path / "together")
    for model in models():
        alone = run(ipvit.Shuffle(), [model], tmp_path / model.name).tables["shuffle"]
        mine = found.tables["shuffle"].filter(pl.col("model") == model.name)
        assert mine["grid"].to_list() == alone["grid"].to_list() and mine["top1"].to_list() == alone["top1"].to_list()
    assert set(found.differences["shuffle"]["cells"]) == {1, 4, 8, 16}
    assert found.tables["shuffle"].columns[:4] == ["model", "grid", "instead_of", "cells"]
    assert found.manifest.notes == (
        "shuffle: net 60 with 60x60 pixels, which not every grid divides: 4x6 cells instead of 4x8; "
        "6x6 cells instead of 8x8; 15x15 cells instead of 14x14, 16x16",
    )


def test_grids_that_a_user_chose_are_kept_or_refused(tmp_path):
    with pytest.raises(ipvit.InputError, match="14x14 does not divide an image of 60x60 pixels; 15x15 would"):
        run(ipvit.Shuffle(grids=("14x14",)), loud(60), tmp_path)
    with pytest.raises(ipvit.InputError, match="none of the paper's grids, nor one near them, divides net's input"):
        run(ipvit.Shuffle(), loud(37), tmp_path)


def test_without_the_weights_that_tell_salience_the_message_says_what_can_be_taken_instead(tmp_path, monkeypatch):
    def unreachable(self):
        raise DownloadError("cannot download https://example.org/dino.pth (no network); save it by hand as 'dino.pth'")

    monkeypatch.setattr(Salience, "prepare", unreachable)
    vit = ipvit.load_model("demo:deit_micro")
    experiment = ipvit.Occlusion(modes=("salient",), levels=(0.5,), runs=1)
    with pytest.raises(ipvit.InputError) as raised:
        ipvit.run(experiment, models=[vit], data="demo:trifeature", out=tmp_path / "a", limit=2, progress=False)
    assert str(raised.value) == (
        "occlusion: paper:dino_vits16 says which patches are salient, and its weights are not here: cannot download "
        "https://example.org/dino.pth (no network); save it by hand as 'dino.pth'; or give "
        "--salience paper:dino_vits16@FILE or --salience masks (the data's own) or "
        "--salience demo:deit_micro (of this study)"
    )
    with pytest.raises(ipvit.InputError, match=r"or give --salience paper:dino_vits16@FILE$"):
        run(experiment, loud(64), tmp_path / "b")
