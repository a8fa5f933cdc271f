"""Occlusion by taking tokens out of the network: every record against a forward pass written by hand."""

import pytest

import ipvit
from helpers.plain_loops import (
    agrees,
    answer,
    key_of,
    measured,
    normalised,
    order_of,
    parts_of,
    photos,
    pixels_of,
    quiet_vit,
    salience,
    same_for_any_batch_size,
    tiny_vit,
    vit_by_hand,
    wrapped,
)
from helpers.salient_patches import attention_of, least_salient
from ipvit.core.queued.readback import read_back
from ipvit.experiments.occlusion import measurement


@pytest.mark.parametrize("mode", ["random", "salient", "non_salient"])
def test_tokens_that_are_taken_out_never_enter_a_forward_pass_written_by_hand(tmp_path, nets, mode):
    levels = (0.0, 0.3, 0.6, 0.9)
    experiment = ipvit.Occlusion(
        modes=(mode,), levels=levels, runs=2, grid="4x4", removal="tokens", salience=f"{nets}:salience"
    )
    model, data, where = quiet_vit(), photos(5), salience()
    counts = set()
    for row in measured(experiment, model, data, tmp_path / "out").iter_rows(named=True):
        image, level = pixels_of(data, row["image"]), row["information_loss"]
        if mode == "random":
            order = order_of(key_of(row["image"], 0, "occlusion", "random", "4x4", row["run"], level), 16)
            kept = sorted(order[parts_of(level, 16) :])
        else:
            low = least_salient(
                attention_of(where.backbone, normalised(where, image), "1"), abs((mode == "salient") - level)
            )
            kept = sorted(low if mode == "salient" else set(range(16)) - low)
            kept = list(range(16)) if level == 0 else kept
        by_hand = vit_by_hand(model.backbone, normalised(model, image), only=kept)["logits"]
        agrees(row, by_hand)
        assert row["dropped"] == pytest.approx(1 - len(kept) / 16)
        if level == 0:
            agrees(row, answer(model, image))
        counts.add((level, len(kept)))
    assert mode == "random" or len(counts) > len(levels), "images lose unequally many patches"


def test_an_image_whose_every_token_would_go_keeps_its_least_salient_one(tmp_path, nets):
    experiment = ipvit.Occlusion(
        modes=("salient",), levels=(0.999,), grid="4x4", removal="tokens", salience=f"{nets}:salience"
    )
    model, data, where = quiet_vit(), photos(5), salience()
    for row in measured(experiment, model, data, tmp_path / "out").iter_rows(named=True):
        image = pixels_of(data, row["image"])
        weights = attention_of(where.backbone, normalised(where, image), "1")
        kept = least_salient(weights, 1 - 0.999) or {int(weights.argmin())}
        agrees(row, vit_by_hand(model.backbone, normalised(model, image), only=sorted(kept))["logits"])
        assert row["dropped"] == pytest.approx(1 - len(kept) / 16)


def test_masks_of_tokens_are_read_back_once_for_all_conditions_of_a_batch(tmp_path, nets, monkeypatch):
    """A GPU would be waited for each time."""
    reads = []
    monkeypatch.setattr(measurement, "read_back", lambda masks: reads.append(len(masks)) or read_back(masks))
    experiment = ipvit.Occlusion(
        modes=("random", "salient"), levels=(0, 0.5), runs=1, grid="4x4", removal="tokens", salience=f"{nets}:salience"
    )
    measured(experiment, quiet_vit(), photos(5), tmp_path / "out")
    assert reads == [4]


def test_tokens_can_be_taken_out_where_the_patches_do_not_fill_the_image(tmp_path):
    """35 pixels in patches of 8: the network itself leaves out the last three."""
    model = wrapped(tiny_vit(img_size=35), 35)
    data = photos(3, 35)
    experiment = ipvit.Occlusion(levels=(0.5,), runs=1, grid="4x4", removal="tokens")
    for row in measured(experiment, model, data, tmp_path).iter_rows(named=True):
        kept = sorted(order_of(key_of(row["image"], 0, "occlusion", "random", "4x4", 0, 0.5), 16)[8:])
        pixels = normalised(model, pixels_of(data, row["image"]))
        agrees(row, vit_by_hand(model.backbone, pixels, only=kept)["logits"])


def test_taking_tokens_out_does_not_depend_on_the_batch(tmp_path, nets):
    same_for_any_batch_size(
        lambda: ipvit.Occlusion(
            modes=("random", "salient"),
            levels=(0, 0.3, 0.8),
            runs=2,
            grid="4x4",
            removal="tokens",
            salience=f"{nets}:salience",
        ),
        quiet_vit,
        photos(7),
        tmp_path,
    )
