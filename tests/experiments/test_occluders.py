"""Occlusion beside the grid: blocks, bounding boxes, and what dropped pixels become, against plain loops."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import ipvit
from helpers.plain_loops import (
    CLASSES,
    agrees,
    answer,
    key_of,
    loud,
    measured,
    order_of,
    photos,
    pixels_of,
    random_words_of,
    seen_by,
    share_changed,
)
from ipvit.data.dataset import MemoryDataset

LEVELS = (0.0, 0.1, 0.25, 0.5, 0.9, 1.0)


@pytest.mark.parametrize("size", [32, (32, 64)])
def test_a_block_is_one_rectangle_of_the_images_shape_wholly_inside_it(tmp_path, size):
    experiment = ipvit.Occlusion(modes=("block",), levels=LEVELS, runs=2)
    model, data = loud(size), photos(4, size)
    for row, picture in seen_by(model, measured(experiment, model, data, tmp_path), experiment, data):
        image, level = pixels_of(data, row["image"]), row["information_loss"]
        _, height, width = image.shape
        tall, wide = round(height * math.sqrt(level)), round(width * math.sqrt(level))
        y, x = random_words_of(key_of(row["image"], 0, "occlusion", "block", "", row["run"], level), 2)
        top, left = y * (height - tall + 1) >> 64, x * (width - wide + 1) >> 64
        expected = image.copy()
        expected[:, top : top + tall, left : left + wide] = 0
        assert np.array_equal(picture, expected)
        assert row["dropped"] == pytest.approx(share_changed(image, picture), abs=1e-6)
        assert row["dropped"] == pytest.approx(level, abs=0.04)
        agrees(row, answer(model, expected))


def test_nested_blocks_lie_inside_one_another(tmp_path):
    experiment = ipvit.Occlusion(modes=("block",), levels=LEVELS, runs=1, nested=True)
    model, data = loud(), photos(4)
    black: dict[str, list[np.ndarray]] = {}
    for row, picture in seen_by(model, measured(experiment, model, data, tmp_path), experiment, data):
        black.setdefault(row["image"], []).append((picture == 0).all(axis=0))
    for smaller, larger in itertools.chain.from_iterable(map(itertools.pairwise, black.values())):
        assert not (smaller & ~larger).any() and smaller.sum() < larger.sum()


def box_by_hand(mask: np.ndarray, level: float) -> tuple[int, int, int, int]:
    """The object's bounding box, each side shrunk to the root of the level around the middle."""
    ys, xs = np.nonzero(mask)
    if not len(ys):
        return 0, 0, 0, 0
    sides = []
    for places in (ys, xs):
        first, after = places.min(), places.max() + 1
        long = round((after - first) * math.sqrt(level))
        start = math.floor((first + after - long) / 2)
        sides.append((start, start + long))
    return sides[0][0], sides[0][1], sides[1][0], sides[1][1]


def test_an_objects_box_is_hidden_from_its_middle_outwards(tmp_path):
    masks = np.zeros((4, 32, 32), np.uint8)
    masks[0, 3:14, 5:29] = 255
    masks[1, 0:32, 31:32] = 1
    masks[2, 7, 7] = masks[2, 20, 11] = 1
    experiment = ipvit.Occlusion(modes=("object",), levels=LEVELS)
    model, data = loud(), photos(4, masks=masks)
    shares = {}
    for row, picture in seen_by(model, measured(experiment, model, data, tmp_path), experiment, data):
        image, number = pixels_of(data, row["image"]), list(data.ids).index(row["image"])
        top, bottom, left, right = box_by_hand(masks[number], row["information_loss"])
        expected = image.copy()
        expected[:, top:bottom, left:right] = 0
        assert np.array_equal(picture, expected)
        assert row["dropped"] == pytest.approx(share_changed(image, picture), abs=1e-6)
        shares[number, row["information_loss"]] = row["dropped"]
        agrees(row, answer(model, expected))
    assert shares[0, 1.0] == pytest.approx(11 * 24 / 1024) and shares[3, 1.0] == 0, "no object, nothing to hide"


def dropped_pixels(row: dict, size: int = 32) -> np.ndarray:
    """Where a random mask on a grid of 4x4 drops, as (H, W)."""
    key = key_of(row["image"], 0, "occlusion", "random", "4x4", row["run"], row["information_loss"])
    hole = np.zeros((size, size), bool)
    for cell in order_of(key, 16)[: int(16 * row["information_loss"])]:
        top, left = cell // 4 * size // 4, cell % 4 * size // 4
        hole[top : top + size // 4, left : left + size // 4] = True
    return hole


@pytest.mark.parametrize("fill", ["mean", "noise", "blur", "other"])
def test_dropped_pixels_become_what_they_should_and_the_others_stay(tmp_path, fill):
    experiment = ipvit.Occlusion(levels=(0.0, 0.25, 0.75, 1.0), runs=2, grid="4x4", fill=fill)
    model, data = loud(), photos(5)
    others: dict[tuple[str, int], set[str]] = {}
    for row, picture in seen_by(model, measured(experiment, model, data, tmp_path), experiment, data):
        image, hole = pixels_of(data, row["image"]), dropped_pixels(row)
        assert row["dropped"] == pytest.approx(hole.mean())
        assert np.array_equal(picture[:, ~hole], image[:, ~hole])
        agrees(row, answer(model, picture))
        if not hole.any():
            continue
        if fill == "mean":
            colour = image.reshape(3, -1).astype(np.float64).mean(axis=1)
            assert np.allclose(picture[:, hole], colour[:, None], atol=1e-5)
        elif fill == "noise":
            key = key_of(row["image"], 0, "occlusion", "random", "4x4", row["run"], row["information_loss"])
            noise = np.random.Generator(np.random.Philox(key=key)).random((3, 32, 32), dtype=np.float32)
            assert np.array_equal(picture[:, hole], noise[:, hole])
        elif fill == "blur":
            blurred = [gaussian_filter(c.astype(np.float64), 2.0, mode="nearest", truncate=3.0) for c in image]
            assert np.allclose(picture[:, hole], np.stack(blurred)[:, hole], atol=1e-5)
        else:
            same = [name for name in data.ids if np.array_equal(picture[:, hole], pixels_of(data, name)[:, hole])]
            assert len(same) == 1 and same[0] != row["image"]
            others.setdefault((row["image"], row["run"]), set()).update(same)
    assert all(len(names) == 1 for names in others.values()), "one other image for all levels of a run"
    assert len(set(map(tuple, others.values()))) > 1 or fill != "other"


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_other_image_is_the_same_for_any_batch_size_and_limit(tmp_path, batch_size):
    def pictures(out: str, **options) -> dict[tuple[str, int], bytes]:
        experiment = ipvit.Occlusion(levels=(0.5,), runs=2, grid="4x4", fill="other")
        model = loud()
        records = measured(experiment, model, photos(9), tmp_path / out, **options)
        size = options.get("batch_size", len(photos(9)))
        names = sorted(records["image"].unique(), key=list(photos(9).ids).index)
        asked = [(n, run) for at in range(0, len(names), size) for run in range(2) for n in names[at : at + size]]
        return {key: picture.numpy().tobytes() for key, picture in zip(asked, model.backbone.seen, strict=True)}

    whole = pictures("whole")
    assert pictures("parts", batch_size=batch_size) == whole
    some = pictures("some", batch_size=batch_size, limit=4)
    assert len(some) == 8 and some.items() <= whole.items()


def test_noise_is_every_images_own_even_where_the_mask_is_shared(tmp_path):
    grey = MemoryDataset(torch.full((4, 3, 32, 32), 127, dtype=torch.uint8), [0] * 4, CLASSES)
    experiment = ipvit.Occlusion(levels=(0.5,), runs=1, grid="4x4", fill="noise", mask_scope="batch")
    model = loud()
    measured(experiment, model, grey, tmp_path)
    holes = [(picture != 127 / 255).any(dim=0) for picture in model.backbone.seen]
    assert all(torch.equal(hole, holes[0]) for hole in holes)
    assert len({picture.numpy().tobytes() for picture in model.backbone.seen}) == 4
