"""Images and labels in memory: what is no picture and no label is refused, with what was seen."""

import numpy as np
import pytest
import torch

import ipvit
from ipvit.data.dataset import BaseDataset, MemoryDataset
from ipvit.errors import InputError


def pixels(low: float, high: float) -> torch.Tensor:
    return torch.linspace(low, high, 2 * 3 * 4 * 4).view(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (pixels(0, 255), ["0 to 255", "divide by 255"]),
        (pixels(-2.1, 2.6), ["-2.1 to 2.6", "normalised"]),
        (pixels(-1, 1), ["-1 to 1", "normalised"]),
        (pixels(0, 4095), ["0 to 4095", "scale"]),
        (torch.full((2, 3, 4, 4), float("nan")), ["NaN"]),
        (torch.full((2, 3, 4, 4), 300), ["int64", "300"]),
        (torch.ones(2, 3, 4, 4, dtype=torch.bool), ["bool"]),
        (torch.zeros(2, 1, 4, 4), ["(N, 3, H, W)"]),
    ],
)
def test_pixels_on_another_scale_are_refused_with_the_range_and_the_cause(images: torch.Tensor, words: list[str]):
    with pytest.raises(InputError) as refused:
        ipvit.MemoryDataset(images, [0, 1])
    assert all(word in str(refused.value) for word in words)
    assert "\n" not in str(refused.value)


def test_what_an_interpolation_overshoots_by_is_no_other_scale():
    data = ipvit.MemoryDataset(pixels(-1e-4, 1 + 1e-4), [0, 1])
    assert data.read(0).min() == 0
    assert data.read(1).max() == 255


def test_whole_numbers_up_to_255_are_grey_levels():
    data = ipvit.MemoryDataset(torch.full((1, 3, 2, 2), 200, dtype=torch.int64))
    assert data.read(0).dtype == torch.uint8
    assert data.read(0).unique().tolist() == [200]


@pytest.mark.parametrize("labels", [[1, 3], [-2, 0], [0.5, 1], ["cat", "dog"]])
def test_labels_that_are_no_positions_of_classes_are_refused(labels: list):
    with pytest.raises(InputError, match="label"):
        ipvit.MemoryDataset(pixels(0, 1), labels, ["a", "b"])


def test_labels_that_count_from_one_are_named_as_that():
    with pytest.raises(InputError, match="label 2.*count from 1"):
        ipvit.MemoryDataset(pixels(0, 1), [1, 2], ["a", "b"])


def test_a_data_set_of_ones_own_with_labels_out_of_range_is_refused():
    class Own(BaseDataset):
        def read(self, index: int) -> torch.Tensor:
            return torch.zeros(3, 4, 4, dtype=torch.uint8)

    with pytest.raises(InputError, match="label 5"):
        ipvit.load_dataset(Own("own", np.array([0, 5]), ["a", "b"]))


def test_other_columns_and_classes_of_images_in_memory_are_other_data():
    pixels, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), [0, 1, 0, 1]

    def of(classes=("a", "b"), **fields) -> str:
        return MemoryDataset(pixels, labels, classes, fields=fields).fingerprint

    texture = np.array([0, 1, 1, 0])
    assert of() == of() and len({of(), of(("b", "a")), of(texture=texture), of(texture=1 - texture)}) == 4


@pytest.mark.parametrize(
    "masks", [np.full((4, 8, 8), 0.9), np.full((4, 8, 8), 256), np.zeros((3, 8, 8)), -np.ones((4, 8, 8))]
)
def test_masks_that_would_be_cut_are_refused(masks):
    with pytest.raises(InputError, match="masks must be"):
        MemoryDataset(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), masks=masks)


class Grey(BaseDataset):
    def read(self, index):
        return torch.zeros(3, 8, 8, dtype=torch.uint8)


def test_fields_and_labels_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="the field 'shape' has 3 values for 4 images"):
        MemoryDataset(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), fields={"shape": np.arange(3)})
    with pytest.raises(InputError, match="labels must be whole numbers; 0.9 is none"):
        Grey("x", labels=np.array([0.9]))
