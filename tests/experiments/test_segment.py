"""Segmentation by attention, held against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ipvit
from ipvit.experiments.segment.measurement import head_masks
from ipvit.metrics import jaccard

OURS = {"workers": 0, "progress": False}


def pixel_loop(mask: np.ndarray, region: np.ndarray, void: np.ndarray | None = None) -> float:
    both = either = 0
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if void is not None and void[y, x]:
                continue
            both += bool(mask[y, x] and region[y, x])
            either += bool(mask[y, x] or region[y, x])
    return both / either if either else float("nan")


def test_the_jaccard_index_is_that_of_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        mask, region, void = (rng.random((3, 9, 7)) < share).astype(bool)
        found = jaccard(*(torch.from_numpy(a) for a in (mask, region)))
        assert found.item() == pytest.approx(pixel_loop(mask, region))
        found = jaccard(*(torch.from_numpy(a) for a in (mask, region, void)))
        assert found.item() == pytest.approx(pixel_loop(mask, region, void), nan_ok=True)


def test_many_masks_meet_many_regions_at_once():
    masks, regions = torch.rand(5, 1, 6, 6) < 0.5, torch.rand(1, 3, 6, 6) < 0.5
    found = jaccard(masks, regions)
    assert found.shape == (5, 3)
    assert found[4, 2].item() == pytest.approx(pixel_loop(masks[4, 0].numpy(), regions[0, 2].numpy()))


def test_nothing_against_nothing_has_no_jaccard_index():
    empty = torch.zeros(4, 4, dtype=torch.bool)
    assert jaccard(empty, empty).isnan()
    assert jaccard(empty, ~empty).item() == 0
    with pytest.raises(ValueError, match="bool"):
        jaccard(empty.float(), empty)


def ringed() -> torch.Tensor:
    """An object of 8 pixels a side that is surrounded by 2 pixels of void, in 32."""
    numbers = torch.zeros(1, 32, 32, dtype=torch.uint8)
    numbers[:, 6:18, 6:18] = 255
    numbers[:, 8:16, 8:16] = 1
    return numbers


def test_a_mask_that_spills_into_void_is_still_perfect():
    numbers = ringed()[0]
    spilled = torch.zeros(32, 32, dtype=torch.bool)
    spilled[6:18, 6:18] = True
    assert jaccard(spilled, numbers == 1, numbers == 255).item() == 1.0
    assert jaccard(spilled, numbers == 1).item() == pytest.approx(64 / 144)


def test_a_mask_is_the_fewest_patches_that_hold_the_threshold():
    attention = torch.tensor([[[[0.5, 0.3], [0.15, 0.05]], [[0.1, 0.1], [0.1, 0.7]]]])
    masks = head_masks(attention, 0.9)
    assert masks["0"][0].tolist() == [[True, True], [True, False]]
    assert head_masks(attention, 0.6)["1"][0].tolist() == [[False, False], [False, True]]
    assert head_masks(attention, 0.6)["mean"][0].tolist() == [[True, False], [False, True]]


class VoidData(ipvit.MemoryDataset):
    """Data with classes, instances and void, as VOC has them."""

    void = 255

    def read_mask(self, index: int) -> torch.Tensor:
        assert self._masks is not None
        classes = self._masks[index].clone()
        instances = classes.clone()
        instances[:, 16:] = torch.where(classes[:, 16:] == 1, 2, classes[:, 16:])  # right of the middle: another one
        return torch.stack([classes, instances])


def vit(label: str = "vit", **options: object) -> ipvit.Model:
    extra = "".join(f"&{key}={value}" for key, value in options.items())
    name = f"deit_tiny_patch16_224?img_size=32&patch_size=4&depth=2&num_classes=0{extra}"
    return ipvit.load_model(name, pretrained=False, label=label)


def regions(n: int) -> torch.Tensor:
    numbers = torch.zeros(n, 32, 32, dtype=torch.uint8)
    for i in range(n):
        numbers[i, 3 + i : 17 + i, 5:22] = 255
        numbers[i, 4 + i : 16 + i, 6:21] = 1
        numbers[i, 20:30, 2 : 8 + i] = 7
    return numbers


@pytest.mark.parametrize("protocol", ["ours", "authors"])
def test_every_number_is_that_of_loops_over_images_heads_classes_and_pixels(tmp_path, protocol):
    torch.manual_seed(0)
    images = (torch.rand(5, 3, 32, 32) * 255).to(torch.uint8)
    data, model = VoidData(images, masks=regions(5)), vit()
    run = ipvit.run(ipvit.Segment(protocol=protocol), models=model, data=data, out=tmp_path, batch_size=2, **OURS)
    records = {(row["image"], row["head"]): row for row in run.records("segment").to_dicts()}
    with torch.inference_mode():
        attention = model.attention(images.float() / 255, [1])[1][:, :, 0, 1:].double().numpy()
    for i, name in enumerate(data.ids):
        for plane, column in enumerate(("jaccard", "jaccard_instance")):
            numbers = data.read_mask(i)[plane].numpy()
            void = numbers == 255 if protocol == "ours" else None
            objects = [number for number in np.unique(numbers) if number not in (0, 255)]
            assert len(objects) == (2, 3)[plane]
            per_head = []
            for weights in attention[i]:
                order = np.argsort(weights, kind="stable")
                keep = np.zeros(64, bool)
                keep[order[np.cumsum(weights[order]) / weights.sum() > 1 - 0.9]] = True  # as the authors write it
                mask = np.kron(keep.reshape(8, 8), np.ones((4, 4), bool))
                per_head.append([pixel_loop(mask, numbers == number, void) for number in objects])
            for head, values in enumerate(per_head):
                assert records[name, str(head)][column] == pytest.approx(np.mean(values), abs=1e-6)
            best = np.mean(np.max(per_head, axis=0))
            assert records[name, "best"][column] == pytest.approx(best, abs=1e-6)
            everything = np.mean([pixel_loop(np.ones((32, 32), bool), numbers == n, void) for n in objects])
            assert records[name, "everything"][column] == pytest.approx(everything, abs=1e-6)
    table = run.tables["segment"].to_dicts()
    oracle = next(row for row in table if "oracle" in row["mask"])
    assert oracle["jaccard"] == pytest.approx(100 * np.mean([records[name, "best"]["jaccard"] for name in data.ids]))


def test_more_thresholds_are_measured_in_the_same_pass_and_only_what_is_new(tmp_path):
    data = ipvit.MemoryDataset(torch.rand(3, 3, 32, 32), masks=(regions(3) == 1).to(torch.uint8) * 255)
    model = vit()
    calls = []
    attention = model.prefix_attention
    model.prefix_attention = lambda images, block: calls.append(len(images)) or attention(images, block)
    few = ipvit.run(ipvit.Segment(thresholds=(0.9,)), models=model, data=data, out=tmp_path, **OURS)
    per_threshold = few.records("segment").height
    calls.clear()
    many = ipvit.run(ipvit.Segment(thresholds=(0.5, 0.7, 0.9)), models=model, data=data, out=tmp_path, **OURS)
    # all images once for the two new thresholds; the pictures for the report are of what was measured
    assert calls == [3]
    assert many.records("segment").height == per_threshold + 2 * 3 * 5
    assert "jaccard_instance" not in many.tables["segment"].columns
    assert set(many.figures) == {"segment", "segment-heads", "segment-threshold"}


def test_another_block_is_another_measurement(tmp_path):
    data, model = ipvit.MemoryDataset(torch.rand(3, 3, 32, 32), masks=regions(3) == 1), vit()
    ipvit.run(ipvit.Segment(), models=model, data=data, out=tmp_path, **OURS)
    both = ipvit.run(ipvit.Segment(block=0), models=model, data=data, out=tmp_path, everything=True, **OURS)
    assert set(both.records("segment").filter(head="mean")["block"]) == {0, 1}
    assert both.tables["segment"].filter(mask="mean of heads").height == 2
    assert both.report().exists()


def test_the_chosen_head_is_never_chosen_on_the_images_it_is_measured_on(tmp_path):
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = ipvit.MemoryDataset(images, masks=(regions(12).repeat(2, 1, 1)[:16] == 1))
    run = ipvit.run(ipvit.Segment(), models=vit(), data=data, out=tmp_path, **OURS)
    rows = {row["mask"]: row for row in run.tables["segment"].to_dicts()}
    heads = run.tables["segment-heads"]["jaccard"]
    chosen, oracle = rows["chosen head"], rows["best head (oracle)"]
    assert chosen["n_images"] == 16
    assert chosen["jaccard"] <= oracle["jaccard"]
    assert oracle["jaccard"] >= heads.max()


def test_a_distilled_network_is_read_at_both_its_tokens(tmp_path):
    name = "deit_tiny_distilled_patch16_224?img_size=32&patch_size=4&depth=2&num_classes=0"
    model = ipvit.load_model(name, pretrained=False, label="distilled")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = ipvit.MemoryDataset(images, masks=regions(2) == 1)
    run = ipvit.run(ipvit.Segment(), models=model, data=data, out=tmp_path, **OURS)
    assert set(run.tables["segment"]["token"]) == {"class", "distillation", ""}
    records = run.records("segment").filter(head="0")
    assert (
        records.filter(token="class")["jaccard"].to_list() != records.filter(token="distillation")["jaccard"].to_list()
    )


def test_an_image_without_an_object_is_left_out(tmp_path):
    masks = regions(3) == 1
    masks[1] = False
    data = ipvit.MemoryDataset(torch.rand(3, 3, 32, 32), masks=masks)
    run = ipvit.run(ipvit.Segment(), models=vit(), data=data, out=tmp_path, **OURS)
    assert set(run.tables["segment"]["n_images"]) == {2}


def test_a_network_whose_attention_is_never_finite_does_not_hide_the_others(tmp_path):
    broken, data = vit("broken"), ipvit.MemoryDataset(torch.rand(3, 3, 32, 32), masks=regions(3) == 1)
    torch.nn.init.constant_(broken.backbone.blocks[0].attn.qkv.weight, float("nan"))
    run = ipvit.run(ipvit.Segment(), models=[broken, vit()], data=data, out=tmp_path, **OURS)
    named = "vit (random weights)"
    assert run.tables["segment"]["model"].unique(maintain_order=True).to_list() == [named, "no network"]
    assert set(run.tables["segment-heads"]["model"]) == {named}
    assert any("results rest on attention that was not finite" in note for note in run.notes["segment"])
    answers = run.analyses["segment"].answer(run.tables_of("segment"))
    assert list(answers) == [named] and answers[named].startswith(f"{named}, class: at 90 % of the attention, ")


def test_whole_pictures_are_seen_whatever_their_proportions(tmp_path):
    wide = torch.zeros(1, 3, 32, 64)
    mask = torch.zeros(1, 32, 64, dtype=torch.uint8)
    mask[:, :, :8] = 1  # a crop of the middle would lose it
    run = ipvit.run(ipvit.Segment(), models=vit(), data=ipvit.MemoryDataset(wide, masks=mask), out=tmp_path, **OURS)
    everything = run.records("segment").filter(head="everything")["jaccard"][0]
    assert everything == pytest.approx(8 / 64)


def test_it_says_what_it_cannot_segment_with(tmp_path):
    data = ipvit.MemoryDataset(torch.rand(1, 3, 32, 32), masks=regions(1))
    pooled = vit(class_token=False, global_pool="avg")
    with pytest.raises(ipvit.InputError, match="no class token"):
        ipvit.run(ipvit.Segment(), models=pooled, data=data, out=tmp_path / "a", **OURS)
    with pytest.raises(ipvit.InputError, match="blocks 0 to 1, not 5"):
        ipvit.run(ipvit.Segment(block=5), models=vit(), data=data, out=tmp_path / "b", **OURS)


@pytest.mark.slow
def test_saliency_attention_beats_chance_everything_and_the_centre(real, tmp_path):
    name = f"vit_small_patch14_dinov2?img_size=224@{real / 'dinov2_vits14_saliency.safetensors'}"
    trained = ipvit.load_model(name, label="saliency")
    chance = ipvit.load_model("vit_small_patch14_dinov2?img_size=224&num_classes=0", pretrained=False, label="random")
    data = f"masks:{real / 'masked/images'},{real / 'masked/masks'}"
    run = ipvit.run(ipvit.Segment(), models=[trained, chance], data=data, out=tmp_path, limit=40, progress=False)
    rows = {(row["model"], row["mask"]): row for row in run.tables["segment"].to_dicts()}
    chosen = rows["saliency", "chosen head"]
    rivals = [
        rows["random (random weights)", "best head (oracle)"],
        rows["no network", "everything foreground"],
        rows["no network", "centre box"],
    ]
    assert all(chosen["jaccard_low"] > rival["jaccard_high"] for rival in rivals)
