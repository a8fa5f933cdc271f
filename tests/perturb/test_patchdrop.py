"""PatchDrop against a plain loop and against its invariants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipvit.perturb import fill_content, gaussian_blur, keys, n_dropped, patchdrop, random_keep
from ipvit.perturb.patchdrop import bernoulli_keep

grids = st.tuples(st.integers(1, 8), st.integers(1, 8))


def plain_patchdrop(image: np.ndarray, keep: np.ndarray, fill: float) -> np.ndarray:
    """One image (3, H, W), one mask: set the pixels of every dropped cell, cell by cell."""
    out = image.copy()
    tall, wide = image.shape[1] // keep.shape[0], image.shape[2] // keep.shape[1]
    for row in range(keep.shape[0]):
        for column in range(keep.shape[1]):
            if not keep[row, column]:
                for channel in range(3):
                    out[channel, row * tall : (row + 1) * tall, column * wide : (column + 1) * wide] = fill
    return out


@given(
    grid=grids, cell=st.integers(1, 5), n=st.integers(0, 64), seed=st.integers(0, 100), fill=st.sampled_from([0, 0.5])
)
@settings(deadline=None, max_examples=40)
def test_equals_a_plain_loop_over_cells(grid, cell, n, seed, fill):
    keep = random_keep(keys(["a", "b"], seed), grid, min(n, grid[0] * grid[1]))
    images = torch.rand(2, 3, grid[0] * cell, grid[1] * cell)
    dropped = patchdrop(images, keep, fill)
    for i in range(2):
        assert np.array_equal(dropped[i].numpy(), plain_patchdrop(images[i].numpy(), keep[i], fill))


@given(grid=grids, share=st.floats(0, 1), ids=st.lists(st.text(), min_size=1, max_size=4, unique=True))
@settings(deadline=None)
def test_exactly_the_asked_number_of_cells_is_dropped_in_every_image(grid, share, ids):
    n = n_dropped(share, grid[0] * grid[1])
    keep = random_keep(keys(ids, 0), grid, n)
    assert (~keep).sum(axis=(1, 2)).tolist() == [n] * len(ids)


def test_the_papers_levels_round_down_as_its_code_does():
    assert [n_dropped(k / 10, 196) for k in range(10)] == [0, 19, 39, 58, 78, 98, 117, 137, 156, 176]
    assert [n_dropped(k / 10, 64) for k in range(10)] == [0, 6, 12, 19, 25, 32, 38, 44, 51, 57]
    assert n_dropped(0.3, 10) == 3


def test_with_the_same_key_a_higher_level_drops_the_same_cells_and_more():
    key = keys([str(i) for i in range(20)], "run 0")
    previous = random_keep(key, (7, 7), 0)
    for n in range(1, 50):
        current = random_keep(key, (7, 7), n)
        assert not (current & ~previous).any()
        previous = current


def test_the_mask_of_an_image_does_not_depend_on_its_neighbours():
    alone = random_keep(keys(["x"], 3, 1), (14, 14), 98)
    among = random_keep(keys(["a", "x", "b"], 3, 1), (14, 14), 98)
    assert np.array_equal(alone[0], among[1])
    assert not np.array_equal(among[0], among[1])


def test_every_cell_is_dropped_equally_often():
    keep = random_keep(keys([str(i) for i in range(4000)], 0), (4, 4), 4)
    share = (~keep).mean(axis=0)
    assert np.all(abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000))


def test_keys_differ_by_seed_run_and_image_and_are_stable():
    assert len({int(k) for seed in range(3) for run in range(3) for k in keys(["a", "b"], seed, run)}) == 18
    assert keys(["n01440764/x.JPEG"], 0, "occlusion", 1)[0] == np.uint64(9102419905720058671)


def test_nothing_dropped_leaves_the_image_as_it_is():
    images = torch.rand(2, 3, 14, 14)
    assert torch.equal(patchdrop(images, random_keep(keys(["a", "b"]), (14, 14), 0)), images)


def test_fills_are_what_they_are_called():
    images = torch.rand(2, 3, 16, 16)
    key = keys(["a", "b"], 0)
    keep = random_keep(key, (4, 4), 8)
    mean = patchdrop(images, keep, fill_content(images, "mean", key))
    hidden = ~np.kron(keep[0], np.ones((4, 4), dtype=bool))
    assert torch.allclose(mean[0][:, torch.from_numpy(hidden)], images[0].mean(dim=(1, 2))[:, None].expand(3, 128))
    noise = fill_content(images, "noise", key)
    assert torch.equal(noise[1], fill_content(images[1:], "noise", key[1:])[0])
    assert noise.min() >= 0 and noise.max() <= 1 and abs(noise.mean() - 0.5) < 0.05
    assert fill_content(images, "black", key) == 0
    with pytest.raises(ValueError, match="unknown fill"):
        fill_content(images, "white", key)


def test_blur_equals_a_direct_convolution_and_keeps_constants():
    from scipy.ndimage import gaussian_filter

    image = torch.rand(1, 3, 24, 24)
    reference = np.stack([gaussian_filter(c, 2.0, mode="nearest", truncate=3.0) for c in image[0].numpy()])
    assert np.allclose(gaussian_blur(image, 2.0)[0].numpy(), reference, atol=1e-5)
    assert torch.allclose(gaussian_blur(torch.full((1, 3, 8, 8), 0.4), 1.5), torch.tensor(0.4))


def test_cells_that_are_dropped_with_a_probability_are_nested_and_their_share_is_the_rate():
    key = keys([f"image {i}" for i in range(200)], 0)
    kept = [bernoulli_keep(key, (14, 14), rate) for rate in (0.0, 0.25, 0.75, 1.0)]
    assert kept[0].all() and not kept[3].any() and not (kept[2] & ~kept[1]).any()
    assert (~kept[1]).mean() == pytest.approx(0.25, abs=0.01)  # 39,200 cells: five standard errors
    assert len({int(mask.sum()) for mask in kept[1]}) > 10
    with pytest.raises(ValueError, match="probability"):
        bernoulli_keep(key, (2, 2), 1.5)
