"""Feature drop against forward passes written out by hand, and shared prefixes against unshared ones."""

import numpy as np
import polars as pl
import pytest
import torch
from timm.models.resnet import ResNet

import ipvit
from helpers.plain_loops import (
    agrees,
    answer,
    bound,
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
    vit_by_hand,
    working_folder,
)
from ipvit.perturb.seeding import keys, random_words

RATES = (0.25, 0.5, 1.0)


def lost(image_id: str, block: int, rate: float, run: int, places: int, owner: str | None = None) -> list[int]:
    """The tokens or positions that an image loses, from Python's own integers."""
    key = key_of(owner or image_id, 0, "feature-drop", block, rate, run)
    return order_of(key, places)[: parts_of(rate, places)]


def resnet_by_hand(network: ResNet, pixels: torch.Tensor, block: int, places: list[int]) -> torch.Tensor:
    """Run a ResNet stage by stage; positions of the map that enters one stage, or the pooling, are zero."""
    x = network.maxpool(network.act1(network.bn1(network.conv1(pixels[None]))))
    stages = [network.layer1, network.layer2, network.layer3, network.layer4, lambda x: x]
    for number, stage in enumerate(stages):
        if number == block:
            for place in places:
                x[:, :, place // x.shape[3], place % x.shape[3]] = 0
        x = stage(x)
    return network.fc(x.mean(dim=(2, 3)))[0]


def test_a_transformer_loses_whole_tokens_and_never_the_class_token(tmp_path):
    model, data = quiet_vit(), photos(5)
    records = measured(ipvit.FeatureDrop(blocks=(0, 1, 2), rates=RATES, runs=2), model, data, tmp_path)
    assert records.height == 5 * (1 + 3 * 3 * 2)
    for row in records.iter_rows(named=True):
        image = pixels_of(data, row["image"])
        if row["block"] == -1:
            agrees(row, answer(model, image))
            continue
        zeroed = row["block"], lost(row["image"], row["block"], row["rate"], row["run"], 16)
        assert len(zeroed[1]) == int(16 * row["rate"])
        agrees(row, vit_by_hand(model.backbone, normalised(model, image), zeroed=zeroed)["logits"])


def test_a_convolutional_network_loses_positions_before_each_stage_and_its_pooling(tmp_path):
    model, data = tiny_resnet(), photos(4, 64)
    records = measured(ipvit.FeatureDrop(rates=RATES), model, data, tmp_path)
    assert sorted(records["block"].unique()) == [-1, 0, 1, 2, 3, 4]
    sides = {0: 16, 1: 16, 2: 8, 3: 4, 4: 2}
    for row in records.iter_rows(named=True):
        image, block = pixels_of(data, row["image"]), row["block"]
        if block == -1:
            agrees(row, answer(model, image))
            continue
        places = lost(row["image"], block, row["rate"], row["run"], sides[block] ** 2)
        with torch.no_grad():
            agrees(row, resnet_by_hand(model.backbone, normalised(model, image), block, places))


def test_the_defaults_are_the_blocks_of_the_papers_table(tmp_path):
    model = quiet_vit(depth=12)
    blocks = {(c.block, c.rate) for c in bound(ipvit.FeatureDrop(), model).conditions(model)}
    assert blocks == {(-1, 0.0)} | {(block, rate) for block in (0, 2, 4, 6, 8, 10) for rate in (0.25, 0.5, 0.75)}


@pytest.mark.parametrize("network", [quiet_vit, tiny_resnet])
def test_a_rate_that_loses_nothing_is_the_clean_network(tmp_path, network):
    model = network()
    data = photos(4, model.image_size)
    records = measured(ipvit.FeatureDrop(blocks=(0, 1, 2), rates=(0.001,)), model, data, tmp_path)
    for image_id in data.ids:
        mine = records.filter(pl.col("image") == image_id)
        assert mine["prediction"].n_unique() == 1
        assert np.ptp(mine["confidence"].to_numpy()) < 1e-5


@pytest.mark.parametrize("network", [quiet_vit, tiny_resnet])
def test_what_shares_its_prefix_equals_what_does_not(tmp_path, network):
    model = network()
    data = photos(4, model.image_size)
    together = measured(ipvit.FeatureDrop(blocks=(0, 2), rates=RATES, runs=2), model, data, tmp_path / "together")
    for block in (0, 2):
        for rate in RATES:
            experiment = ipvit.FeatureDrop(blocks=(block,), rates=(rate,), runs=2)
            alone = measured(experiment, network(), data, tmp_path / f"{block}-{rate}")
            both = together.join(alone, on=["condition", "image"], how="inner")
            assert both.height == 4 * 3
            assert both["prediction"].equals(both["prediction_right"].rename("prediction"))
            assert np.allclose(both["confidence"], both["confidence_right"], atol=1e-6)


@pytest.mark.parametrize("network", [quiet_vit, tiny_resnet])
def test_neither_batch_size_nor_an_interrupted_run_changes_a_record(tmp_path, network):
    data = photos(7, network().image_size)
    same_for_any_batch_size(lambda: ipvit.FeatureDrop(rates=(0.25, 0.75), runs=2), network, data, tmp_path)


def test_the_authors_protocol_shares_one_mask_and_stands_apart_in_the_table(tmp_path):
    model, data = quiet_vit(), photos(4)
    ours, authors = (ipvit.FeatureDrop(blocks=(1,), rates=(0.5,), protocol=name) for name in ("ours", "authors"))
    for row in measured(authors, model, data, tmp_path).filter(pl.col("block") == 1).iter_rows(named=True):
        places = lost(row["image"], 1, 0.5, 0, 16, owner="images 0")
        by_hand = vit_by_hand(model.backbone, normalised(model, pixels_of(data, row["image"])), zeroed=(1, places))
        agrees(row, by_hand["logits"])
    run = ipvit.run(ours, models=model, data=data, out=tmp_path, workers=0, progress=False, everything=True)
    table = run.tables["feature-drop"]
    assert table["mask_scope"].to_list() == ["", "batch (authors)", "image"]
    assert table["n_images"].to_list() == [4, 4, 4] and table["n_runs"].to_list() == [1, 1, 1]
    rows = run.records("feature-drop").rows(named=True)
    for row in table.iter_rows(named=True):
        mine = [r["correct"] for r in rows if (r["block"], r["mask_scope"]) == (row["block"], row["mask_scope"])]
        assert row["top1"] == pytest.approx(100 * np.mean(mine))
    drawn = run.figures["feature-drop"].to_json()
    assert "vit, mask per image" in drawn and "vit, mask per batch (authors)" in drawn


def test_the_authors_count_the_class_token_among_the_tokens_of_which_a_share_is_lost(tmp_path):
    model, data = quiet_vit(), photos(2)
    drop = ipvit.FeatureDrop(blocks=(1,), rates=(0.3, 1.0), protocol="authors")
    records = measured(drop, model, data, tmp_path).filter(pl.col("block") == 1)
    for row in records.iter_rows(named=True):
        order = order_of(key_of("images 0", 0, "feature-drop", 1, row["rate"], 0), 16)
        places = order[: int(row["rate"] * 17)]  # of 16 patches and the class token: 5, not int(0.3 * 16) = 4
        by_hand = vit_by_hand(model.backbone, normalised(model, pixels_of(data, row["image"])), zeroed=(1, places))
        agrees(row, by_hand["logits"])


def test_a_transformer_without_class_token_is_none_of_the_authors_cnns(tmp_path):
    model, data = quiet_vit(class_token=False, global_pool="avg"), photos(2)
    drop = ipvit.FeatureDrop(blocks=(1,), rates=(0.3,), protocol="authors")
    for row in measured(drop, model, data, tmp_path).filter(pl.col("block") == 1).iter_rows(named=True):
        network, x = model.backbone, normalised(model, pixels_of(data, row["image"]))[None]
        lost_ones = order_of(key_of("images 0", 0, "feature-drop", 1, 0.3, 0), 16)[: int(0.3 * 16)]
        with torch.no_grad():
            x = network.blocks[0](network.patch_embed(x) + network.pos_embed)
            x[:, lost_ones] = 0
            for block in network.blocks[1:]:
                x = block(x)
            agrees(row, network.forward_head(network.norm(x))[0])


def test_in_a_convolutional_network_the_authors_lose_every_position_with_a_probability(tmp_path):
    model, data = tiny_resnet(), photos(2, 64)
    drop = ipvit.FeatureDrop(blocks=(1,), rates=(0.3,), protocol="authors")
    for row in measured(drop, model, data, tmp_path).filter(pl.col("block") == 1).iter_rows(named=True):
        key = keys(["images 0"], 0, "feature-drop", 1, 0.3, 0)
        places = np.flatnonzero(random_words(key, 256)[0] < 0.3 * 2.0**64).tolist()
        with torch.no_grad():
            agrees(row, resnet_by_hand(model.backbone, normalised(model, pixels_of(data, row["image"])), 1, places))


def test_python_the_command_line_and_a_study_measure_the_same(tmp_path, monkeypatch):
    working_folder(tmp_path, monkeypatch)
    parameters = {"blocks": [0, 2], "rates": [0.25, 0.5], "runs": 2, "protocol": "authors"}
    records = same_from_everywhere("feature-drop", parameters, "nets.py:vit")
    assert records.height == 8 * 9 and set(records["mask_scope"]) == {"", "batch (authors)"}


@pytest.mark.parametrize("block", [3, -1])
def test_a_block_that_is_not_there_is_refused(tmp_path, block):
    with pytest.raises(ipvit.InputError, match=f"vit has blocks 0 to 2, not {block}"):
        measured(ipvit.FeatureDrop(blocks=(block,)), quiet_vit(), photos(2), tmp_path)
