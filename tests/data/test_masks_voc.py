"""Data with masks: two folders, and PASCAL VOC 2012."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import ipvit
from helpers.image_trees import SQUARE, write_pair, write_voc
from ipvit.cli import main
from ipvit.core.preprocessing import View
from ipvit.data.dataset import UnreadableImageError
from ipvit.data.loader import read_batches


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(SQUARE * 255),
        Image.fromarray(SQUARE),
        Image.fromarray(SQUARE * 255).convert("1"),
        Image.fromarray(SQUARE.astype(np.uint16) * 7),
        Image.fromarray((SQUARE * 200 + 20).astype(np.uint8)),
        Image.merge("RGB", [Image.fromarray(SQUARE * 0), Image.fromarray(SQUARE * 90), Image.fromarray(SQUARE * 0)]),
    ],
    ids=["black and white", "numbers", "one bit", "sixteen bit", "grey", "colour"],
)
def test_every_usual_kind_of_mask_says_the_same(tmp_path, mask):
    data = write_pair(tmp_path, mask)
    assert data.has_masks
    assert np.array_equal(data.read_mask(0).numpy(), SQUARE)


def test_a_palette_counts_by_its_numbers_not_its_colours(tmp_path):
    mask = Image.fromarray(SQUARE).convert("P")
    mask.putpalette([255, 255, 255, 0, 0, 0] + [0] * 762)
    assert np.array_equal(write_pair(tmp_path, mask).read_mask(0).numpy(), SQUARE)


def test_a_mask_of_another_size_is_scaled_to_its_image(tmp_path):
    large = Image.fromarray(SQUARE.repeat(3, axis=0).repeat(3, axis=1) * 255)
    assert np.array_equal(write_pair(tmp_path, large).read_mask(0).numpy(), SQUARE)


def test_images_in_class_folders_keep_their_labels(tmp_path):
    data = write_pair(tmp_path, Image.fromarray(SQUARE), stem="cat/a")
    assert data.classes == ("cat",)
    assert data.read_mask(0).sum() == SQUARE.sum()


def test_a_missing_mask_or_folder_is_named(tmp_path):
    write_pair(tmp_path, Image.fromarray(SQUARE), stem="bird_1")
    (tmp_path / "masks" / "bird_1.png").rename(tmp_path / "masks" / "bird-1.png")
    with pytest.raises(ipvit.InputError, match=r"'bird_1.jpg' has no mask .* Did you mean .*bird-1.png"):
        ipvit.load_dataset(f"masks:{tmp_path / 'images'},{tmp_path / 'masks'}")
    with pytest.raises(ipvit.InputError, match="no folder of masks"):
        ipvit.load_dataset(f"masks:{tmp_path / 'images'},{tmp_path / 'nowhere'}")
    with pytest.raises(ipvit.InputError, match="IMAGES,MASKS"):
        ipvit.load_dataset(f"masks:{tmp_path / 'images'}")


def test_an_unreadable_mask_leaves_its_image_out(tmp_path):
    data = write_pair(tmp_path, Image.fromarray(SQUARE))
    (tmp_path / "masks" / "a.png").write_bytes(b"not a picture")
    (batch,) = read_batches(data, [np.array([0])], [View((12, 12))], workers=0, masks=True)
    assert len(batch.indices) == 0
    assert "a.png" in batch.unreadable[0][1]


def test_voc_is_found_at_its_root_and_above(tmp_path):
    write_voc(tmp_path)
    for place in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / "VOC2012"):
        assert list(ipvit.load_dataset(f"voc2012:{place}").ids) == ["2007_1", "2007_2"]
    assert list(ipvit.load_dataset(f"voc2012:{tmp_path}", split="train").ids) == ["2007_2"]


def test_voc_numbers_classes_and_instances_and_keeps_void(tmp_path):
    data = ipvit.load_dataset(f"voc2012:{write_voc(tmp_path)}")
    classes, instances = data.read_mask(0)
    assert classes.unique().tolist() == [0, 1, 3, 255]
    assert instances.unique().tolist() == [0, 1, 2, 3, 255]
    assert (classes == 255).sum() == 100 - 64


def test_the_loader_keeps_numbers_whole_when_it_resizes(tmp_path):
    data = ipvit.load_dataset(f"voc2012:{write_voc(tmp_path)}")
    view = View((40, 40), crop_pct=1.0, crop_mode="squash")
    (batch,) = read_batches(data, [np.arange(2)], [view], workers=0, masks=True)
    assert batch.masks[view].shape == (2, 2, 40, 40)
    assert batch.masks[view][:, 0].unique().tolist() == [0, 1, 3, 255]
    expected = np.asarray(Image.fromarray(data.read_mask(0)[0].numpy()).resize((40, 40), Image.Resampling.NEAREST))
    assert np.array_equal(batch.masks[view][0, 0].numpy(), expected)


def test_in_other_data_255_is_foreground_and_not_void(tmp_path):
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[:, 2:4] = 255
    data = ipvit.MemoryDataset(torch.zeros(1, 3, 8, 8), masks=mask)
    view = View((8, 8), crop_pct=1.0)
    (batch,) = read_batches(data, [np.array([0])], [view], workers=0, masks=True)
    assert torch.equal(batch.masks[view][0, 0] == 254, mask[0] == 255)


def test_what_is_not_voc_is_refused_in_one_line(tmp_path):
    with pytest.raises(ipvit.InputError, match="is not VOC 2012"):
        ipvit.load_dataset(f"voc2012:{tmp_path}")
    write_voc(tmp_path)
    with pytest.raises(ipvit.InputError, match="no split 'test'"):
        ipvit.load_dataset(f"voc2012:{tmp_path}", split="test")
    (tmp_path / "VOCdevkit/VOC2012/SegmentationObject/2007_2.png").unlink()
    with pytest.raises(ipvit.InputError, match="not complete"):
        ipvit.load_dataset(f"voc2012:{tmp_path}")


def channels(*planes: np.ndarray) -> Image.Image:
    return Image.merge({2: "LA", 4: "RGBA"}[len(planes)], [Image.fromarray(plane.astype(np.uint8)) for plane in planes])


NOTHING = SQUARE * 0
WHITE = NOTHING + 255


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (channels(NOTHING, NOTHING, NOTHING, SQUARE * 255), "only in its alpha channel"),
        (channels(WHITE, WHITE, WHITE, SQUARE * 255), "only in its alpha channel"),
        (channels(WHITE, SQUARE * 255), "only in its alpha channel"),
        (channels(SQUARE * 255, (1 - SQUARE) * 255), "another one in its alpha channel"),
        (
            Image.fromarray((SQUARE * 15 + np.eye(*SQUARE.shape, dtype=np.uint8) * 200).clip(0, 255)),
            "numbers of classes",
        ),
        (Image.fromarray(np.arange(SQUARE.size, dtype=np.float32).reshape(SQUARE.shape) + 1000), "not read"),
    ],
    ids=["RGBA of nothing", "RGBA of white", "grey and alpha", "another", "numbers and a mark", "range"],
)
def test_a_mask_that_does_not_say_one_thing_is_refused(tmp_path, mask, words):
    if words == "not read":
        mask = mask.resize((64, 48), Image.Resampling.BILINEAR)
        words = "more than 256 different values"
    data = write_pair(tmp_path, mask, suffix="tif" if mask.mode == "F" else "png")
    with pytest.raises(UnreadableImageError, match=words):
        data.read_mask(0)


@pytest.mark.parametrize(
    "mask",
    [
        channels(SQUARE * 255, SQUARE * 255, SQUARE * 255, WHITE),
        channels(SQUARE * 255, SQUARE * 255, SQUARE * 255, SQUARE * 255),
        channels(SQUARE * 255, NOTHING),
        Image.merge("RGB", [Image.fromarray((SQUARE * 200 + 20).astype(np.uint8))] * 3),
    ],
    ids=["opaque", "the same in alpha", "transparent all over", "grey as colours"],
)
def test_alpha_that_says_nothing_else_and_grey_colours_are_read(tmp_path, mask):
    assert np.array_equal(write_pair(tmp_path, mask).read_mask(0).numpy(), SQUARE)


def test_colours_of_a_jpeg_mask_are_not_taken_for_object_where_they_are_nearly_black(tmp_path):
    near = np.stack([SQUARE * 240, SQUARE * 235, SQUARE * 240], axis=2)
    near[::2, ::2] += 3
    data = write_pair(tmp_path, Image.fromarray(near.astype(np.uint8)).resize((160, 120), 0), suffix="jpg")
    assert abs(int(data.read_mask(0).sum()) - int(SQUARE.sum())) <= 4


def test_two_masks_of_one_image_are_refused(tmp_path):
    write_pair(tmp_path, Image.fromarray(SQUARE * 255))
    Image.fromarray(NOTHING).save(tmp_path / "masks" / "a.bmp")
    with pytest.raises(ipvit.InputError, match=r"'a.jpg' has several masks in .*: a.png, a.bmp; keep one"):
        ipvit.load_dataset(f"masks:{tmp_path / 'images'},{tmp_path / 'masks'}")


def test_a_mask_of_other_proportions_is_refused(tmp_path):
    data = write_pair(tmp_path, Image.fromarray(SQUARE.T.copy() * 255))
    with pytest.raises(UnreadableImageError, match=r"mask is 12x16 and the picture 16x12"):
        data.read_mask(0)
    turned = ipvit.MemoryDataset(torch.rand(1, 3, 8, 16), masks=torch.ones(1, 16, 8, dtype=torch.uint8))
    (batch,) = read_batches(turned, [np.array([0])], [View((8, 8))], workers=0, masks=True)
    assert "other proportions" in batch.unreadable[0][1]


def test_masks_without_object_and_with_nothing_else_are_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for stem, mask in (("a", SQUARE), ("b", NOTHING), ("c", NOTHING + 1), ("d", NOTHING + 1)):
        write_pair(tmp_path, Image.fromarray(mask * 255), stem=stem)
        pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{stem}.jpg")
    command = ["segment", "-m", "demo:deit_micro", "-d", "masks:images,masks", "--out", "run", "--workers", "0"]
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "1 image is without any object by their masks in masks:images,masks, for example 'b.jpg'" in shown
    assert "2 images are object all over by their masks in masks:images,masks, for example 'c.jpg'" in shown


def test_a_comma_in_the_path_of_a_folder_is_part_of_it(tmp_path):
    for name in ("a,b/images", "a,b/masks"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("L", (8, 8), 255).save(tmp_path / name / "1.png")
    data = ipvit.load_dataset(f"masks:{tmp_path}/a,b/images,{tmp_path}/a,b/masks")
    assert len(data) == 1
    assert data.read_mask(0).min() == 1
    with pytest.raises(ipvit.InputError, match="none of its commas divides two folders"):
        ipvit.load_dataset(f"masks:{tmp_path}/a,b/images,{tmp_path}/a,b/none")
