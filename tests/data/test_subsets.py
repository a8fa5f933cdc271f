"""RobustBench's choice of ImageNet's validation images."""

import numpy as np
import pytest
import torch

import ipvit
from helpers.command_line import complaint
from ipvit.cli import main
from ipvit.data.dataset import MemoryDataset
from ipvit.data.published.subsets import is_robustbench, robustbench_numbers
from ipvit.data.recognition import published_set
from ipvit.errors import InputError


def validation_images(numbers) -> MemoryDataset:
    ids = [f"n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in numbers]
    pixels = torch.zeros(len(ids), 3, 1, 1, dtype=torch.uint8)
    return MemoryDataset(pixels, np.zeros(len(ids), dtype=np.int64), ["n01440764"], ids=ids)


def test_the_choice_is_that_of_robustbench():
    """Lines of its list: the first three, and one that is not there."""
    numbers = robustbench_numbers()
    assert len(numbers) == 5000 and {15253, 20685, 39611} <= numbers and 1 not in numbers


def test_of_all_images_the_chosen_are_taken_and_are_data_of_their_own():
    whole = validation_images(range(1, 50_001))
    chosen = ipvit.load_dataset(whole, subset="robustbench")
    assert len(chosen) == 5000 and is_robustbench(chosen.ids) and not is_robustbench(whole.ids)
    assert chosen.fingerprint != whole.fingerprint and chosen.name.endswith("subset robustbench")
    assert published_set(chosen) == ("imagenet", 50_000)
    assert chosen.ids[0] in whole.ids and chosen.read(0).shape == (3, 1, 1)


def test_images_that_lack_some_are_refused():
    with pytest.raises(InputError, match=r"lacks 4,9\d\d of the 5,000 images of the subset robustbench, such as"):
        ipvit.load_dataset(validation_images(range(1, 200)), subset="robustbench")
    with pytest.raises(InputError, match="unknown subset 'robustbnch'; known: robustbench"):
        ipvit.load_dataset("demo:trifeature", subset="robustbnch")


def test_the_command_line_says_what_the_choice_is_of(capsys, tmp_path):
    command = ["accuracy", "-m", "demo:deit_micro", "-d", "demo:trifeature", "--subset", "robustbench"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    text = complaint(capsys)
    assert "it is a choice of ImageNet's validation images, under their own names" in text
