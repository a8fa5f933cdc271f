"""Correlation of representations against scipy, on features computed by hand."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import pearsonr

import ipvit
from helpers.plain_loops import (
    key_of,
    measured,
    normalised,
    order_of,
    parts_of,
    photos,
    pixels_of,
    plain,
    quiet_vit,
    same_for_any_batch_size,
    same_from_everywhere,
    tiny_resnet,
    tiny_vit,
    vit_by_hand,
    working_folder,
    wrapped,
)
from ipvit.data.dataset import MemoryDataset

LEVELS = (0.25, 0.5, 0.75)


def occluded(image: np.ndarray, image_id: str, level: float, run: int, side: int) -> np.ndarray:
    """The image under the mask that the occlusion experiment uses too."""
    order = order_of(key_of(image_id, 0, "occlusion", "random", f"{side}x{side}", run, level), side * side)
    copy, cell = image.copy(), image.shape[1] // side
    for place in order[: parts_of(level, side * side)]:
        top, left = place // side * cell, place % side * cell
        copy[:, top : top + cell, left : left + cell] = 0
    return copy


def test_class_tokens_correlate_as_scipy_says_after_every_block(tmp_path):
    model, data = quiet_vit(), photos(4)
    experiment = ipvit.Correlation(levels=LEVELS, runs=2, grid="4x4", blocks=(0, -1))
    records = measured(experiment, model, data, tmp_path)
    assert records.height == 4 * 3 * 2 * 2 and set(records["block"]) == {0, 2} and set(records["feature"]) == {"class"}
    for row in records.iter_rows(named=True):
        image = pixels_of(data, row["image"])
        pair = [image, occluded(image, row["image"], row["information_loss"], row["run"], 4)]
        u, v = (vit_by_hand(model.backbone, normalised(model, x))["tokens"][row["block"]] for x in pair)
        assert row["correlation"] == pytest.approx(pearsonr(u.double(), v.double()).statistic, abs=1e-5)
        assert row["superclass"] == "" and row["label"] == int(row["image"][-1]) % 4


def test_a_network_without_class_token_is_read_before_its_classifier(tmp_path):
    model, data = tiny_resnet(), photos(4, 64)
    network = model.backbone

    def pooled(pixels: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            x = network.maxpool(network.act1(network.bn1(network.conv1(normalised(model, pixels)[None]))))
            for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
                x = stage(x)
            return x[0].mean(dim=(1, 2)).double()

    records = measured(ipvit.Correlation(levels=LEVELS, grid="8x8"), model, data, tmp_path)
    assert set(records["feature"]) == {"pooled"}
    for row in records.iter_rows(named=True):
        image = pixels_of(data, row["image"])
        other = occluded(image, row["image"], row["information_loss"], row["run"], 8)
        expected = pearsonr(pooled(image), pooled(other)).statistic
        assert row["correlation"] == pytest.approx(expected, abs=1e-5)


def test_the_table_holds_mean_and_spread_over_images_as_table_1(tmp_path):
    experiment = ipvit.Correlation(levels=LEVELS, runs=2, grid="4x4")
    run = ipvit.run(experiment, models=quiet_vit(), data=photos(6), out=tmp_path, workers=0, progress=False)
    rows = run.records("correlation").rows(named=True)
    for row in run.tables["correlation"].iter_rows(named=True):
        values = [r["correlation"] for r in rows if r["information_loss"] == row["information_loss"]]
        assert row["correlation"] == pytest.approx(np.mean(values), abs=1e-6)
        assert row["correlation_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
        assert row["n_images"] == 6 and row["n_runs"] == 2


def at_half(run: ipvit.Run) -> dict[tuple[str, str], float]:
    """The mean correlation at each network's last block, by network and feature."""
    records = run.records("correlation").filter(pl.col("block") == pl.col("block").max().over("model"))
    groups = records.filter(information_loss=0.5).group_by("model", "feature").agg(pl.col("correlation").mean())
    return {(model, feature): value for model, feature, value in groups.iter_rows()}


def test_networks_are_compared_only_where_the_same_was_read(tmp_path):
    models = [wrapped(tiny_vit(img_size=64), 64, name="vit"), tiny_resnet()]
    quiet = {"data": photos(4, 64), "out": tmp_path, "workers": 0}
    experiment = ipvit.Correlation(levels=(0.25, 0.5), grid="4x4", blocks=(0, -1))
    run = ipvit.run(experiment, models=models, progress=False, **quiet)
    assert set(run.records("correlation")["feature"]) == {"class", "pooled"}
    assert "correlation" not in run.differences, "a class token beside pooled features"
    means = at_half(run)
    answers = run.analyses["correlation"].answer(run.tables_of("correlation"))
    assert list(answers) == ["vit", "resnet"]
    assert f"the clean ones at {means['vit', 'class']:.2f} [" in answers["vit"]
    lead = run.lead_of("correlation")
    assert f"class tokens vit {means['vit', 'class']:.2f}" in lead
    assert f"pooled features resnet {means['resnet', 'pooled']:.2f}" in lead
    assert "are not compared" in run.summary_of("correlation")[-1]
    (asked,) = run.profile.columns
    assert asked.ranked.ranks == {} and "measured otherwise" in run.profile.notes[0]

    run = ipvit.run(
        experiment.model_copy(update={"feature": "pooled"}), models=models, progress=False, everything=True, **quiet
    )
    means = at_half(run)
    (found,) = run.differences["correlation"].filter(information_loss=0.5)["difference"]
    assert found == pytest.approx(means["vit", "pooled"] - means["resnet", "pooled"], abs=1e-6)
    assert "vit (feature class): with" in run.analyses["correlation"].answer(run.tables_of("correlation"))["vit"]


def test_images_are_grouped_by_the_superclass_of_their_label(tmp_path):
    """Two dogs, a bird, a sports car and a class that belongs to none of the twelve."""
    classes = ["n02085620", "n02113978", "n01530575", "n04285008", "n03788195"]
    expected = {"photo 0": "dog", "photo 1": "dog", "photo 2": "bird", "photo 3": "vehicle"}
    pixels = torch.stack([photos(5).read(i) for i in range(5)])
    data = MemoryDataset(pixels, range(5), classes, ids=photos(5).ids)
    model = wrapped(tiny_vit(num_classes=5), classes=classes)
    run = ipvit.run(
        ipvit.Correlation(levels=(0.5,), grid="4x4"), models=model, data=data, out=tmp_path, workers=0, progress=False
    )
    found = {row["image"]: row["superclass"] for row in run.records("correlation").iter_rows(named=True)}
    assert {name: group.lower() for name, group in found.items() if name in expected} == expected
    values = dict(run.records("correlation").select("image", "correlation").iter_rows())
    for row in run.tables["correlation-superclass"].iter_rows(named=True):
        mine = [values[image] for image, group in found.items() if group == row["superclass"]]
        assert row["n_images"] == len(mine) and row["correlation"] == pytest.approx(np.mean(mine), abs=1e-6)


def test_images_without_labels_correlate_too(tmp_path):
    pixels = torch.stack([photos(3).read(i) for i in range(3)])
    unlabelled = MemoryDataset(pixels, ids=photos(3).ids)
    experiment = ipvit.Correlation(levels=(0.5,), grid="4x4")
    one = measured(experiment, quiet_vit(), unlabelled, tmp_path / "a")
    two = measured(experiment, quiet_vit(), photos(3), tmp_path / "b")
    assert one["correlation"].equals(two["correlation"]) and set(one["label"]) == {-1}


def test_a_representation_that_is_all_the_same_has_no_correlation(tmp_path):
    network = tiny_vit()
    with torch.no_grad():
        network.norm.weight.zero_()
        network.norm.bias.fill_(1)
    records = measured(ipvit.Correlation(levels=(0.5,), grid="4x4"), wrapped(network), photos(3), tmp_path)
    assert all(math.isnan(value) for value in records["correlation"])


@pytest.mark.parametrize("network", [quiet_vit, tiny_resnet])
def test_neither_batch_size_nor_an_interrupted_run_changes_a_record(tmp_path, network):
    data = photos(7, network().image_size)
    same_for_any_batch_size(lambda: ipvit.Correlation(grid="4x4", runs=2, blocks=(0, -1)), network, data, tmp_path)


def test_python_the_command_line_and_a_study_measure_the_same(tmp_path, monkeypatch):
    working_folder(tmp_path, monkeypatch)
    parameters = {"levels": [0.25, 0.5], "grid": "4x4", "blocks": [0, 2], "feature": "mean_patch", "runs": 2}
    records = same_from_everywhere("correlation", parameters, "nets.py:vit")
    assert records.height == 8 * 2 * 2 * 2 and set(records["feature"]) == {"mean_patch"}


@pytest.mark.parametrize(
    ("parameters", "model", "words"),
    [
        ({"blocks": (3,)}, quiet_vit, "vit has blocks 0 to 2 .*, not 3"),
        ({"blocks": (-4,)}, quiet_vit, "not -4"),
        ({"grid": "33x5"}, quiet_vit, "33x5 has more cells than an image of 32x32 pixels has room for; 32x5 would"),
        ({"feature": "class"}, tiny_resnet, "resnet has no class token; use auto, mean_patch or pooled"),
        ({"feature": "distillation"}, quiet_vit, "vit has no distillation token"),
        ({}, plain, "needs the capability tokens, which net does not offer"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(tmp_path, parameters, model, words):
    network = model()
    with pytest.raises(ipvit.InputError, match=words) as raised:
        experiment = ipvit.Correlation(**{"grid": "4x4"} | parameters)
        measured(experiment, network, photos(2, network.image_size), tmp_path)
    assert "\n" not in str(raised.value) and not list(tmp_path.glob("records/**/*.parquet"))
