"""Salience masks, shuffles, offsets and corners against plain loops and their invariants."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ipvit.metrics import correlation, cosine
from ipvit.perturb import keys, non_salient_keep, random_keep, salient_keep, shrink_into, shuffle, shuffle_order
from ipvit.perturb.cells import pixel_mask
from ipvit.perturb.patchdrop import replace, shift

levels = st.integers(0, 10).map(lambda k: k / 10)


def salience(seed: int, n: int = 196) -> torch.Tensor:
    return torch.rand(3, n, generator=torch.Generator().manual_seed(seed)) ** 3


def fewest_patches_holding(values: np.ndarray, mass: float) -> set[int]:
    """Take the most salient patch, then the next, until their sum reaches the mass."""
    taken, total = [], 0.0
    for index in sorted(range(len(values)), key=lambda i: -values[i]):
        if total >= mass * values.sum():
            break
        taken.append(index)
        total += values[index]
    return set(taken)


@given(seed=st.integers(0, 50), mass=st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=60)
def test_salient_drops_the_fewest_patches_that_hold_the_mass(seed, mass):
    maps = salience(seed)
    keep = salient_keep(maps, mass)
    for values, kept in zip(maps.double().numpy(), keep.numpy(), strict=True):
        assert set(np.flatnonzero(~kept)) == fewest_patches_holding(values, mass)


@given(seed=st.integers(0, 50), mass=st.floats(0, 1))
@settings(deadline=None)
def test_salient_and_non_salient_at_the_other_mass_are_complements(seed, mass):
    maps = salience(seed).view(3, 14, 14)
    assert torch.equal(salient_keep(maps, mass), ~non_salient_keep(maps, 1 - mass))


def test_the_ends_keep_everything_and_nothing():
    maps = salience(0)
    for keep in (salient_keep, non_salient_keep):
        assert keep(maps, 0).all() and not keep(maps, 1).any()


def test_higher_levels_drop_the_same_patches_and_more():
    maps = salience(1)
    for keep in (salient_keep, non_salient_keep):
        masks = [keep(maps, k / 10) for k in range(11)]
        assert all(not (later & ~earlier).any() for earlier, later in itertools.pairwise(masks))


def test_impossible_salience_is_refused():
    with pytest.raises(ValueError, match="finite and not negative"):
        salient_keep(torch.tensor([[0.1, -0.2]]), 0.5)
    with pytest.raises(ValueError, match="finite"):
        salient_keep(torch.tensor([[0.1, float("nan")]]), 0.5)


def plain_shuffle(image: np.ndarray, order: np.ndarray, rows: int, columns: int) -> np.ndarray:
    out = np.empty_like(image)
    tall, wide = image.shape[1] // rows, image.shape[2] // columns
    for place in range(rows * columns):
        r, c = divmod(place, columns)
        fr, fc = divmod(int(order[place]), columns)
        out[:, r * tall : (r + 1) * tall, c * wide : (c + 1) * wide] = image[
            :, fr * tall : (fr + 1) * tall, fc * wide : (fc + 1) * wide
        ]
    return out


@given(grid=st.tuples(st.integers(1, 6), st.integers(1, 6)), cell=st.integers(1, 4), seed=st.integers(0, 20))
@settings(deadline=None)
def test_shuffle_equals_a_plain_loop_over_cells_and_can_be_undone(grid, cell, seed):
    images = torch.rand(2, 3, grid[0] * cell, grid[1] * cell)
    order = shuffle_order(keys(["a", "b"], seed), grid)
    moved = shuffle(images, order, grid)
    for i in range(2):
        assert np.array_equal(moved[i].numpy(), plain_shuffle(images[i].numpy(), order[i], *grid))
    assert torch.equal(shuffle(moved, np.argsort(order, axis=1), grid), images)


def test_every_order_is_a_permutation_and_every_image_has_its_own():
    order = shuffle_order(keys([str(i) for i in range(50)], 0), (4, 4))
    assert np.array_equal(np.sort(order, axis=1), np.tile(np.arange(16), (50, 1)))
    assert len({tuple(row) for row in order}) == 50


def test_an_offset_mask_spares_the_first_pixels_and_loses_the_last():
    keep = torch.from_numpy(random_keep(keys(["a"], 0), (4, 4), 8))
    mask = pixel_mask(keep, (16, 16))
    moved = shift(mask, (2, 3))
    for y in range(16):
        for x in range(16):
            expected = True if y < 2 or x < 3 else bool(mask[0, 0, y - 2, x - 3])
            assert bool(moved[0, 0, y, x]) == expected
    assert torch.equal(shift(mask, (0, 0)), mask)
    with pytest.raises(ValueError, match="leaves an image"):
        shift(mask, (16, 0))


def test_pixels_can_be_dropped_one_by_one():
    keep = random_keep(keys(["a", "b"], 0), (64, 64), 2048)
    images = torch.ones(2, 3, 64, 64)
    dropped = replace(images, pixel_mask(torch.from_numpy(keep), (64, 64)))
    assert dropped.sum(dim=(1, 2, 3)).tolist() == [3 * 2048] * 2


@pytest.mark.parametrize(
    ("corner", "rows", "columns"),
    [
        ("top-left", slice(0, 16), slice(0, 16)),
        ("top-right", slice(0, 16), slice(16, 32)),
        ("bottom-left", slice(16, 32), slice(0, 16)),
        ("bottom-right", slice(16, 32), slice(16, 32)),
        ("centre", slice(8, 24), slice(8, 24)),
    ],
)
def test_a_shrunk_image_stands_in_its_corner_of_a_black_canvas(corner, rows, columns):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    small = np.array(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR)).astype(int)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    canvas = shrink_into(image, (16, 16), corner)[0]
    assert abs((canvas[:, rows, columns] * 255).round().permute(1, 2, 0).numpy() - small).max() <= 1
    canvas[:, rows, columns] = 0
    assert canvas.sum() == 0


def test_correlation_and_cosine_equal_scipys():
    from scipy.spatial.distance import cosine as cosine_distance
    from scipy.stats import pearsonr

    u, v = torch.randn(5, 40), torch.randn(5, 40)
    for i in range(5):
        assert correlation(u, v)[i].item() == pytest.approx(pearsonr(u[i], v[i]).statistic, abs=1e-6)
        assert cosine(u, v)[i].item() == pytest.approx(1 - cosine_distance(u[i], v[i]), abs=1e-6)
    assert correlation(u, u).allclose(torch.ones(5)) and correlation(u, -3 * u + 2).allclose(-torch.ones(5))
    assert torch.isnan(correlation(torch.ones(1, 4), torch.rand(1, 4))).all()
    assert torch.isnan(cosine(torch.zeros(1, 4), torch.rand(1, 4))).all()
