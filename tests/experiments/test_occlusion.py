"""Occlusion on a grid: every record against a plain loop over single images."""

import itertools
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from timm.layers import set_fused_attn
from torch import nn

import ipvit
from helpers.plain_loops import (
    CLASSES,
    agrees,
    answer,
    key_of,
    loud,
    measured,
    normalised,
    order_of,
    parts_of,
    photos,
    pixels_of,
    quiet_vit,
    salience,
    same_for_any_batch_size,
    same_from_everywhere,
    seen_by,
    share_changed,
    tiny_vit,
    vit_by_hand,
    wrapped,
)
from helpers.salient_patches import attention_of, least_salient
from helpers.tiny import PatchNet
from ipvit.cli import main
from ipvit.data.dataset import MemoryDataset
from ipvit.data.subset import select


def without_cells(image: np.ndarray, cells, grid: tuple[int, int], offset=(0, 0)) -> np.ndarray:
    """Blacken cells, one after the other; what an offset moves out of the image is cut off."""
    occluded = image.copy()
    tops, lefts = (borders(pixels, cells) for pixels, cells in zip(image.shape[1:], grid, strict=True))
    for cell in cells:
        row, column = divmod(cell, grid[1])
        top, bottom = (border + offset[0] for border in tops[row : row + 2])
        left, right = (border + offset[1] for border in lefts[column : column + 2])
        occluded[:, top:bottom, left:right] = 0
    return occluded


def borders(pixels: int, cells: int) -> list[int]:
    """Where cells begin: at the nearest pixel, at the later one of two."""
    return [math.floor(Fraction(i * pixels, cells) + Fraction(1, 2)) for i in range(cells + 1)]


GRIDS = [
    (32, "4x4", (0, 0)),
    (112, "16x16", (0, 0)),
    ((32, 64), "4x8", (0, 0)),
    (112, "7x7", (0, 0)),
    (32, "32x32", (0, 0)),
    (32, "4x4", (3, 5)),
    (112, "7x7", (8, 8)),
    ((32, 64), "4x8", (0, 63)),
    (64, "14x14", (0, 0)),
    (64, "14x14", (3, 5)),
    ((30, 47), "7x13", (0, 0)),
]


@pytest.mark.parametrize(("size", "grid", "offset"), GRIDS)
def test_random_patches_are_black_in_the_very_places_of_a_plain_loop(tmp_path, size, grid, offset):
    levels = (0.0, 0.1, 0.3, 0.5, 0.9, 1.0)
    experiment = ipvit.Occlusion(levels=levels, runs=2, grid=grid, offset=offset)
    model, data = loud(size), photos(3, size)
    rows, columns = map(int, grid.split("x"))
    records = measured(experiment, model, data, tmp_path)
    assert records.height == 3 * (1 + 2 * 5)
    for row, picture in seen_by(model, records, experiment, data):
        level, image = row["information_loss"], pixels_of(data, row["image"])
        order = order_of(key_of(row["image"], 0, "occlusion", "random", grid, row["run"], level), rows * columns)
        dropped = order[: parts_of(level, rows * columns)]
        expected = without_cells(image, dropped, (rows, columns), offset)
        assert np.array_equal(picture, expected)
        assert row["dropped"] == pytest.approx(share_changed(image, expected), abs=1e-6)
        if offset == (0, 0) and image.shape[1] % rows == image.shape[2] % columns == 0:
            assert share_changed(image, picture) * rows * columns == pytest.approx(len(dropped))
        agrees(row, answer(model, expected))


def test_at_level_0_every_mode_and_fill_shows_the_clean_image(tmp_path, nets):
    data = photos(3, masks=np.ones((3, 32, 32), np.uint8))
    for fill in ("black", "mean", "noise", "blur", "other"):
        model = loud()
        experiment = ipvit.Occlusion(
            modes=("random", "salient", "non_salient", "block", "object"),
            levels=(0,),
            grid="4x4",
            fill=fill,
            offset=(2, 2),
            salience=f"{nets}:salience",
        )
        for row, picture in seen_by(model, measured(experiment, model, data, tmp_path / fill), experiment, data):
            assert np.array_equal(picture, pixels_of(data, row["image"])) and row["dropped"] == 0


def test_nested_levels_and_shared_masks_use_the_words_they_should(tmp_path):
    data = photos(3)
    for options, owner in (
        ({"nested": True}, lambda image: image),
        ({"mask_scope": "batch"}, lambda _: "images 0"),
        ({"protocol": "authors"}, lambda _: "images 0"),
    ):
        model = loud()
        experiment = ipvit.Occlusion(levels=(0.25, 0.5), runs=2, grid="4x4", **options)
        out = tmp_path / next(iter(options))
        for row, picture in seen_by(model, measured(experiment, model, data, out), experiment, data):
            level = None if "nested" in options else row["information_loss"]
            key = key_of(owner(row["image"]), 0, "occlusion", "random", "4x4", row["run"], level)
            order = order_of(key, 16)[: int(16 * row["information_loss"])]
            assert np.array_equal(picture, without_cells(pixels_of(data, row["image"]), order, (4, 4)))


def test_a_shared_mask_holds_for_256_images_and_no_more(tmp_path):
    white = torch.full((258, 3, 8, 8), 255, dtype=torch.uint8)
    data = MemoryDataset(white, np.zeros(258, int), CLASSES)
    model = loud(8)
    measured(ipvit.Occlusion(levels=(0.5,), runs=1, grid="8x8", protocol="authors"), model, data, tmp_path)
    shown = torch.stack(model.backbone.seen)
    assert all(torch.equal(picture, shown[0]) for picture in shown[:256])
    assert torch.equal(shown[256], shown[257]) and not torch.equal(shown[255], shown[256])


# Salience.


@pytest.mark.parametrize(("head", "block"), [("1", -1), ("0", 0), ("mean", -1), ("rollout", -1)])
def test_salient_and_non_salient_patches_follow_attention_written_out_by_hand(tmp_path, nets, head, block):
    levels = (0.0, 0.2, 0.5, 0.9, 1.0)
    experiment = ipvit.Occlusion(
        modes=("salient", "non_salient"),
        levels=levels,
        grid="4x4",
        salience=f"{nets}:salience",
        salience_head=head,
        salience_block=block,
    )
    model, data, where = loud(), photos(4), salience()
    for row, picture in seen_by(model, measured(experiment, model, data, tmp_path / "out"), experiment, data):
        image, level = pixels_of(data, row["image"]), row["information_loss"]
        weights = attention_of(where.backbone, normalised(where, image), head, block)
        low = least_salient(weights, level if row["mode"] == "non_salient" else 1 - level)
        dropped = low if row["mode"] == "non_salient" else set(range(16)) - low
        dropped = {0.0: set(), 1.0: set(range(16))}.get(level, dropped)
        assert np.array_equal(picture, without_cells(image, dropped, (4, 4)))
        assert row["dropped"] == pytest.approx(len(dropped) / 16)
        agrees(row, answer(model, picture))


def test_attention_is_that_of_timm_with_fused_attention_off():
    set_fused_attn(False)
    try:
        network = tiny_vit()
    finally:
        set_fused_attn(True)
    found = []
    network.blocks[2].attn.attn_drop.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    image = torch.rand(3, 32, 32)
    logits = network(image[None])[0]
    by_hand = vit_by_hand(network, image)
    torch.testing.assert_close(found[0][0], by_hand["maps"][2], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits, by_hand["logits"], rtol=1e-4, atol=1e-5)


def test_salience_at_another_input_size_and_grid_is_averaged_onto_the_cells(tmp_path, nets):
    """The network for salience takes 48 pixels in 6x6 patches, the evaluated one 24 in 3x3 cells."""
    experiment = ipvit.Occlusion(
        modes=("salient",), levels=(0.3, 0.6), grid="3x3", salience=f"{nets}:salience?img_size=48"
    )
    model, data, where = loud(24), photos(3, 24), salience(img_size=48)
    for row, picture in seen_by(model, measured(experiment, model, data, tmp_path / "out"), experiment, data):
        image = pixels_of(data, row["image"])
        larger = nn.functional.interpolate(torch.from_numpy(image)[None], (48, 48), mode="bicubic", antialias=True)
        fine = attention_of(where.backbone, normalised(where, larger[0].clamp(0, 1)), "1").reshape(6, 6)
        weights = np.array([fine[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean() for r in range(3) for c in range(3)])
        dropped = set(range(9)) - least_salient(weights, 1 - row["information_loss"])
        assert np.array_equal(picture, without_cells(image, dropped, (3, 3)))


@pytest.mark.parametrize("masks", [False, True])
def test_salient_at_a_mass_and_non_salient_at_the_rest_are_complements(tmp_path, nets, masks):
    """Also where all patches are equal, as in a mask that is all foreground: then no rounding may tip the scales."""
    levels = tuple(k / 10 for k in range(11))
    size, grid, cells = ((32, 40), "4x5", 20) if masks else (32, "4x4", 16)
    everything = np.ones((3, 32, 40), np.uint8) if masks else None
    experiment = ipvit.Occlusion(
        modes=("salient", "non_salient"),
        levels=levels,
        grid=grid,
        salience="masks" if masks else f"{nets}:salience",
    )
    model, data = loud(size), photos(3, size, masks=everything)
    shown = {
        (row["mode"], round(10 * row["information_loss"]), row["image"]): picture
        for row, picture in seen_by(model, measured(experiment, model, data, tmp_path / "out"), experiment, data)
    }
    for image_id, k in itertools.product(data.ids, range(11)):
        image = pixels_of(data, image_id)
        salient, rest = shown["salient", k, image_id], shown["non_salient", 10 - k, image_id]
        assert np.array_equal(salient + rest, image)
        if masks:
            assert share_changed(image, salient) * cells == pytest.approx(2 * k)


def test_masks_as_salience_drop_the_object_before_the_background(tmp_path):
    masks = np.zeros((4, 32, 32), np.uint8)
    masks[:, 8:24, 8:20] = 255  # fills two cells, and half of the two to their right
    model, data = loud(), photos(4, masks=masks)
    experiment = ipvit.Occlusion(modes=("salient", "non_salient"), levels=(0.9,), grid="4x4", salience="masks")
    for row, picture in seen_by(model, measured(experiment, model, data, tmp_path), experiment, data):
        full, half = [5, 9], [6, 10]
        dropped = {*full, *half} if row["mode"] == "salient" else set(range(16)) - {9}  # 9 alone holds a third
        assert np.array_equal(picture, without_cells(pixels_of(data, row["image"]), dropped, (4, 4)))


def test_networks_that_crop_differently_get_salience_of_their_own_picture(tmp_path, nets):
    def experiment():
        return ipvit.Occlusion(modes=("salient",), levels=(0.3, 0.5), grid="4x4", salience=f"{nets}:salience")

    def models():
        return [loud(name="tight", crop_pct=0.5), loud(name="wide")]

    data = photos(4, 40)
    together = measured(experiment(), models(), data, tmp_path / "together")
    for model in models():
        alone = measured(experiment(), model, data, tmp_path / model.name)
        mine = together.filter(pl.col("model") == model.name)
        assert (
            mine.sort("condition", "image")
            .select("image", "dropped", "prediction")
            .equals(alone.sort("condition", "image").select("image", "dropped", "prediction"))
        )


def test_one_experiment_on_two_data_sets_looks_at_both(tmp_path, nets):
    experiment = ipvit.Occlusion(modes=("salient",), levels=(0.5,), grid="4x4", salience=f"{nets}:salience")
    measured(experiment, loud(), photos(3, seed=1), tmp_path / "out")
    model, data, where = loud(), photos(3, seed=2), salience()
    for row, picture in seen_by(model, measured(experiment, model, data, tmp_path / "out"), experiment, data):
        image = pixels_of(data, row["image"])
        weights = attention_of(where.backbone, normalised(where, image), "1")
        dropped = set(range(16)) - least_salient(weights, 0.5)
        assert np.array_equal(picture, without_cells(image, dropped, (4, 4)))


def test_the_authors_feed_salience_with_the_evaluated_networks_normalisation(tmp_path, nets):
    def run(protocol: str, half: bool):
        model = wrapped(PatchNet(), name="evaluated", **({"mean": (0.5,) * 3, "std": (0.5,) * 3} if half else {}))
        experiment = ipvit.Occlusion(
            modes=("salient",), levels=(0.1, 0.3, 0.5, 0.7), grid="4x4", salience=f"{nets}:salience", protocol=protocol
        )
        return measured(experiment, model, data, tmp_path / f"{protocol}-{half}")

    data, where = photos(6), salience()
    borrowed = run("authors", half=True)
    for row in borrowed.iter_rows(named=True):
        image = torch.from_numpy(pixels_of(data, row["image"]))
        weights = attention_of(where.backbone, (image - 0.5) / 0.5, "1")
        left = least_salient(weights, 1 - row["information_loss"])
        assert row["dropped"] == pytest.approx(1 - len(left) / 16)
    key = ["information_loss", "image"]
    assert not borrowed.sort(key)["dropped"].equals(run("ours", half=True).sort(key)["dropped"])
    same = run("authors", half=False).sort(key)["dropped"]
    assert same.equals(run("ours", half=False).sort(key)["dropped"]), "ImageNet's own numbers are nothing borrowed"


# What must not matter.


ALL_MODES = ("random", "salient", "non_salient", "block", "object")


@pytest.mark.parametrize("fill", ["black", "noise", "other"])
def test_neither_batch_size_nor_an_interrupted_run_changes_a_record(tmp_path, nets, fill):
    masks = np.zeros((7, 32, 32), np.uint8)
    masks[:, 4:20, 9:27] = 1
    same_for_any_batch_size(
        lambda: ipvit.Occlusion(
            modes=ALL_MODES, levels=(0, 0.3, 0.8), runs=2, grid="4x4", fill=fill, salience=f"{nets}:salience"
        ),
        lambda: [quiet_vit(), wrapped(PatchNet(), name="other")],
        photos(7, masks=masks),
        tmp_path,
    )


def test_a_setting_that_concerns_random_masks_only_does_not_measure_salient_ones_again(tmp_path, nets):
    def run(**options):
        experiment = ipvit.Occlusion(
            modes=("salient",), levels=(0.5,), grid="4x4", salience=f"{nets}:salience", **options
        )
        out = tmp_path / "out"
        return ipvit.run(experiment, models=quiet_vit(), data=photos(3), out=out, workers=0, progress=False)

    assert run().manifest.measured_in_this_call == 3
    assert run(mask_scope="batch", nested=True).manifest.measured_in_this_call == 0


def test_python_the_command_line_and_a_study_measure_the_same(nets):
    records = same_from_everywhere(
        "occlusion",
        {
            "modes": ["random", "salient"],
            "levels": [0.0, 0.5],
            "runs": 2,
            "grid": "4x4",
            "offset": [1, 2],
            "fill": "mean",
            "salience": "nets.py:salience",
            "salience_head": 2,
            "salience_block": 0,
        },
    )
    assert set(records["offset"]) == {"1,2"} and set(records["fill"]) == {"mean"} and records.height == 8 * (3 + 2)


def test_the_list_of_experiments_says_what_each_reproduces(capsys):
    assert main(["experiments", "--json"]) == 0
    listed = {row["name"]: row["reproduces"] for row in json.loads(capsys.readouterr().out)}
    expected = {
        "occlusion": "Figure 3",
        "feature-drop": "Tables 6 and 7",
        "correlation": "Table 1 and Figure 5",
        "attention": "Figures 4 and 26",
        "shuffle": "Figures 10 and 11",
        "position": "Table 8",
    }
    assert listed.items() >= expected.items()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"salience": "nets.py:net"}, "has no attention from a class token"),
        ({"salience": "nets.py:salience?class_token=false&global_pool=avg"}, "has no attention from a class token"),
        ({"salience": "nets.py:two_headed", "salience_head": "2"}, "two_headed has heads 0 to 1, no head 2"),
        ({"salience": "nets.py:salience", "salience_head": "best"}, "a head is a number, mean or rollout, not 'best'"),
        ({"salience": "nets.py:salience", "salience_block": 3}, "salience has 3 blocks, no block 3"),
        ({"salience": "nets.py:salience", "grid": "2x2", "removal": "tokens"}, "the network's own grid, 4x4 for vit"),
        ({"modes": ("block",), "removal": "tokens"}, "can be removed in the modes random, salient, non_salient"),
        ({"modes": ("random",), "removal": "tokens", "levels": (1.0,)}, "must stay below 1"),
        ({"modes": ("object",)}, "needs foreground masks, which memory does not have"),
        ({"salience": "masks"}, "needs foreground masks, which memory does not have"),
        ({"modes": ("random",), "offset": (32, 0)}, "an offset of 32 pixels leaves vit's input"),
        ({"modes": ("random",), "fill": "other"}, "fills with other images, but memory has 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_clear_line(tmp_path, nets, parameters, words):
    experiment = ipvit.Occlusion(**{"modes": ("salient",), "levels": (0.5,), "grid": "4x4"} | parameters)
    with pytest.raises(ipvit.InputError, match=words) as raised:
        ipvit.run(experiment, models=quiet_vit(), data=photos(1), out=tmp_path / "out", workers=0, progress=False)
    assert "\n" not in str(raised.value)
    assert not list(Path(tmp_path).glob("out/records/**/*.parquet"))


@pytest.mark.slow
def test_real_photos_lose_more_with_the_object_than_with_the_background(tmp_path, real):
    """At equal shares of the image, a network trained for salience finds the patches that matter."""
    where = f"vit_small_patch14_dinov2?img_size=224@{real / 'dinov2_vits14_saliency.safetensors'}"
    experiment = ipvit.Occlusion(
        modes=("salient", "non_salient"),
        levels=tuple(k / 10 for k in range(11)),
        grid="16x16",
        salience=where,
        salience_head="mean",
    )
    data = ipvit.load_dataset(str(real / "imagenet-sample"))
    assert len(select(data.ids, 40)) == 40
    model = f"tf_efficientnet_lite0@{real / 'efficientnet_lite0.safetensors'}"
    run = ipvit.run(experiment, models=model, data=data, out=tmp_path, limit=40, workers=0, progress=False)
    table = run.tables["occlusion"]
    curves = {mode: table.filter(pl.col("mode") == mode).sort("dropped") for mode in ("salient", "non_salient")}
    salient, rest = (
        np.interp([0.2, 0.3, 0.4, 0.5, 0.6], curve["dropped"].to_numpy(), curve["top1"].to_numpy())
        for curve in curves.values()
    )
    assert (salient <= rest).all() and salient.mean() < rest.mean() - 10
