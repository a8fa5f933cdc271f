"""Attention maps and distances against softmax(q k) written out by hand."""

import json
import math

import numpy as np
import polars as pl
import pytest
import torch
from timm.models.deit import VisionTransformerDistilled

import ipvit
from helpers.adapter_networks import VIT
from helpers.plain_loops import (
    key_of,
    measured,
    normalised,
    order_of,
    parts_of,
    photos,
    pixels_of,
    quiet_vit,
    same_for_any_batch_size,
    same_from_everywhere,
    tiny_resnet,
    tiny_vit,
    vit_by_hand,
    working_folder,
    wrapped,
)
from ipvit.api import bind_context
from ipvit.data.dataset import MemoryDataset

LEVELS = (0.0, 0.3, 0.7)


def under_the_mask(image: np.ndarray, level: float, seed: int = 0) -> np.ndarray:
    """The image without the patches that every image of a level loses."""
    copy = image.copy()
    for place in order_of(key_of("every image", seed, "attention", level), 16)[: parts_of(level, 16)]:
        copy[:, place // 4 * 8 : place // 4 * 8 + 8, place % 4 * 8 : place % 4 * 8 + 8] = 0
    return copy


def distance_by_hand(attention: np.ndarray) -> float:
    """Pixels from each patch to those it looks at, one pair after the other."""
    total = 0.0
    for query in range(16):
        far = [math.dist((query // 4 * 8, query % 4 * 8), (k // 4 * 8, k % 4 * 8)) for k in range(16)]
        total += sum(w * d for w, d in zip(attention[query], far, strict=True)) / attention[query].sum()
    return total / 16


def test_maps_and_distances_of_every_head_are_those_written_by_hand(tmp_path):
    model, data = quiet_vit(), photos(3)
    records = measured(ipvit.Attention(levels=LEVELS, blocks=(0, 2)), model, data, tmp_path)
    assert records.height == 3 * len(LEVELS) * 2 * 3
    for row in records.iter_rows(named=True):
        image = under_the_mask(pixels_of(data, row["image"]), row["information_loss"])
        whole = vit_by_hand(model.backbone, normalised(model, image))["maps"][row["block"]][row["head"]].numpy()
        seen = np.frombuffer(row["map"], np.float16)
        assert row["rows"] == 4 and np.allclose(seen, whole[0, 1:], atol=1e-3)
        assert row["distance"] == pytest.approx(distance_by_hand(whole[1:, 1:]), rel=1e-4)


def test_the_tables_are_means_over_the_images(tmp_path):
    experiment = ipvit.Attention(levels=(0.0, 0.5), blocks=(1,))
    run = ipvit.run(experiment, models=quiet_vit(), data=photos(5), out=tmp_path, workers=0, progress=False)
    records = run.records("attention")
    for row in run.tables["attention-maps"].iter_rows(named=True):
        same = (pl.col("head") == row["head"]) & (pl.col("information_loss") == row["information_loss"])
        mine = records.filter(same)
        expected = np.mean([np.frombuffer(cell, np.float16).astype(float) for cell in mine["map"]], axis=0)
        assert mine.height == 5 and np.allclose(json.loads(row["map"]), expected, atol=1e-5)
    for row in run.tables["attention-heads"].iter_rows(named=True):
        same = (pl.col("head") == row["head"]) & (pl.col("information_loss") == row["information_loss"])
        assert row["distance"] == pytest.approx(records.filter(same)["distance"].mean(), rel=1e-5)
    for row in run.tables["attention"].iter_rows(named=True):
        mine = records.filter(pl.col("information_loss") == row["information_loss"])
        assert row["n_images"] == 5 and row["distance"] == pytest.approx(mine["distance"].mean(), rel=1e-5)


def test_a_network_that_is_not_measured_in_corners_keeps_its_rows_beside_one_that_is(tmp_path):
    models = [quiet_vit(), wrapped(tiny_vit(seed=1), name="other")]
    plain, placed = (ipvit.Attention(levels=(0.0,), blocks=(1,), corners=corners) for corners in ((), ("centre",)))
    quiet = {"data": photos(2), "out": tmp_path, "workers": 0, "progress": False, "everything": True}
    ipvit.run(placed, models=models[1], **quiet)
    run = ipvit.run(plain, models=models, **quiet)
    rows = run.tables["attention"].select("model", "place", "scale", "inside").rows()
    assert [row[:2] for row in rows] == [("vit", "whole image"), ("other", "centre"), ("other", "whole image")]
    assert [row[2] for row in rows] == [1.0, 128 / 224, 1.0] and [row[3] is None for row in rows] == [True, False, True]
    answers = run.analyses["attention"].answer(run.tables_of("attention"))
    assert list(answers) == ["vit", "other"] and "falls on it" in answers["other"] and "falls" not in answers["vit"]


def test_every_image_of_a_level_loses_the_same_patches(tmp_path):
    white = MemoryDataset(torch.full((3, 3, 32, 32), 255, dtype=torch.uint8))
    records = measured(ipvit.Attention(levels=(0.5,)), quiet_vit(), white, tmp_path)
    for _, group in records.group_by("block", "head"):
        assert len({np.frombuffer(cell, np.float16).round(3).tobytes() for cell in group["map"]}) == 1


def test_the_row_of_the_class_token_is_read_behind_other_prefix_tokens(tmp_path):
    """A distilled network has two tokens before the patches; its maps have 16 cells all the same."""
    torch.manual_seed(1)
    network = VisionTransformerDistilled(**VIT, num_classes=4).eval()
    model, data = wrapped(network, name="distilled"), photos(2)
    seen = []
    network.blocks[1].attn.fused_attn = False
    network.blocks[1].attn.attn_drop.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        plainly = {name: (model(torch.from_numpy(pixels_of(data, name))[None]), seen.pop())[1] for name in data.ids}
    records = measured(ipvit.Attention(levels=(0.0,), blocks=(1,)), model, data, tmp_path)
    for row in records.iter_rows(named=True):
        whole = plainly[row["image"]][0, row["head"]].numpy()
        assert np.allclose(np.frombuffer(row["map"], np.float16), whole[0, 2:], atol=1e-3)
        assert row["distance"] == pytest.approx(distance_by_hand(whole[2:, 2:]), rel=1e-4)


def test_the_defaults_are_the_blocks_of_figure_4():
    model = quiet_vit(depth=12)
    measurement = ipvit.Attention().bind([model], photos(1), bind_context())
    blocks = {condition.block for condition in measurement.conditions(model)}
    assert blocks == {0, 1, 5, 6, 10, 11}


def test_neither_batch_size_nor_an_interrupted_run_changes_a_record(tmp_path):
    same_for_any_batch_size(lambda: ipvit.Attention(levels=LEVELS), quiet_vit, photos(7), tmp_path)


def test_a_level_given_twice_is_measured_once(tmp_path):
    assert measured(ipvit.Attention(levels=(0.5, 0.5)), quiet_vit(), photos(2), tmp_path).height == 2 * 3 * 3


def test_python_the_command_line_and_a_study_measure_the_same(tmp_path, monkeypatch):
    working_folder(tmp_path, monkeypatch)
    records = same_from_everywhere("attention", {"levels": [0.0, 0.5], "blocks": [0, 2]}, "nets.py:vit")
    assert records.height == 8 * 2 * 2 * 3


@pytest.mark.parametrize(
    ("model", "parameters", "words"),
    [
        (quiet_vit, {"blocks": (3,)}, "vit has blocks 0 to 2, not 3"),
        (tiny_resnet, {}, "needs the capability attention, which resnet does not offer"),
        (lambda: wrapped(tiny_vit(class_token=False, global_pool="avg")), {}, "net has no class token"),
        (lambda: wrapped(tiny_vit(img_size=35), 35), {}, "4x4 does not divide an image of 35x35 pixels"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(tmp_path, model, parameters, words):
    network = model()
    with pytest.raises(ipvit.InputError, match=words):
        measured(ipvit.Attention(**parameters), network, photos(2, network.image_size), tmp_path)
    assert not list(tmp_path.glob("records/**/*.parquet"))


def test_the_clean_image_is_read_also_where_the_patches_do_not_fill_it(tmp_path):
    model, data = wrapped(tiny_vit(img_size=35), 35), photos(2, 35)
    for row in measured(ipvit.Attention(levels=(0.0,)), model, data, tmp_path).iter_rows(named=True):
        pixels = normalised(model, pixels_of(data, row["image"]))
        whole = vit_by_hand(model.backbone, pixels)["maps"][row["block"]][row["head"]].numpy()
        assert np.allclose(np.frombuffer(row["map"], np.float16), whole[0, 1:], atol=1e-3)


def test_a_scale_that_leaves_nothing_is_refused_where_images_are_shrunk(tmp_path):
    with pytest.raises(ipvit.InputError, match="attention: a scale of 0.01 leaves nothing of vit's input"):
        measured(ipvit.Attention(corners=("centre",), scale=0.01), quiet_vit(), photos(2), tmp_path / "refused")
    measured(ipvit.Attention(scale=0.01), quiet_vit(), photos(2), tmp_path / "not shrunk")
