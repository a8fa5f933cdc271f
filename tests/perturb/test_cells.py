"""The cells of a grid that needs not divide the image, against plain loops over cells."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipvit.perturb.cells import cell_borders, cell_size, cell_sums, nearest_dividing, pixel_mask
from ipvit.perturb.patchdrop import patchdrop, random_keep
from ipvit.perturb.seeding import keys

shapes = st.integers(1, 40).flatmap(lambda pixels: st.tuples(st.just(pixels), st.integers(1, pixels)))


def borders(pixels: int, cells: int) -> list[int]:
    """Where cells begin, in exact fractions: rounded to the nearest pixel, halves up."""
    return [floor(Fraction(i * pixels, cells) + Fraction(1, 2)) for i in range(cells + 1)]


@given(shapes)
@settings(deadline=None)
def test_every_cell_has_a_pixel_and_no_two_cells_differ_by_more_than_one(shape):
    found = cell_borders(*shape)
    assert found.tolist() == borders(*shape)
    sizes = np.diff(found)
    assert found[0] == 0 and found[-1] == shape[0] and sizes.min() >= 1 and sizes.max() - sizes.min() <= 1


@given(shapes, shapes, st.integers(0, 100))
@settings(deadline=None, max_examples=60)
def test_dropped_cells_are_those_between_the_rounded_borders(down, across, seed):
    keep = random_keep(keys(["a", "b"], seed), (down[1], across[1]), down[1] * across[1] // 2)
    images = torch.rand(2, 3, down[0], across[0]) + 0.1
    expected = images.clone()
    tops, lefts = borders(*down), borders(*across)
    for image in range(2):
        for row in range(down[1]):
            for column in range(across[1]):
                if not keep[image, row, column]:
                    expected[image, :, tops[row] : tops[row + 1], lefts[column] : lefts[column + 1]] = 0
    assert torch.equal(patchdrop(images, keep), expected)


@pytest.mark.parametrize(("size", "grid"), [((224, 224), (14, 14)), ((224, 224), (224, 224)), ((32, 64), (4, 8))])
def test_where_the_grid_divides_the_masks_are_the_enlarged_cells_bit_for_bit(size, grid):
    keep = random_keep(keys(["a", "b", "c"], 0), grid, grid[0] * grid[1] // 3)
    blown_up = np.kron(keep, np.ones((size[0] // grid[0], size[1] // grid[1]), dtype=bool))
    assert np.array_equal(pixel_mask(torch.from_numpy(keep), size)[:, 0].numpy(), blown_up)


def test_a_grid_of_more_cells_than_pixels_is_refused_with_one_that_fits():
    with pytest.raises(ValueError, match=r"224x224 has more cells than an image of 64x64 .*; 64x64 would fit"):
        patchdrop(torch.rand(1, 3, 64, 64), torch.ones(1, 224, 224, dtype=torch.bool))


def test_sums_over_cells_are_those_of_a_plain_loop():
    values = torch.rand(2, 11, 9, dtype=torch.float64)
    found = cell_sums(values, (3, 4))
    tops, lefts = borders(11, 3), borders(9, 4)
    for row in range(3):
        for column in range(4):
            inside = values[:, tops[row] : tops[row + 1], lefts[column] : lefts[column + 1]]
            assert torch.allclose(found[:, row, column], inside.sum(dim=(1, 2)))
    assert torch.allclose(found.sum(dim=(1, 2)), values.sum(dim=(1, 2)))


def test_cells_of_one_size_need_a_grid_that_divides():
    assert cell_size((240, 480), (15, 16)) == (16, 30)
    with pytest.raises(ValueError, match="14x14 does not divide an image of 64x64 pixels; 16x16 would"):
        cell_size((64, 64), (14, 14))
    assert [nearest_dividing((n, n), (14, 14))[0] for n in (224, 240, 256, 300, 384)] == [14, 15, 16, 15, 12]
