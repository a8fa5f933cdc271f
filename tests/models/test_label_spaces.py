"""The 16 entry-level categories and the way from many classes to few."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ipvit.errors import InputError
from ipvit.models.label_spaces import CategoryMap, entry_level_synsets, imagenet_classes

COUNTS = {
    "airplane": 1,
    "bear": 4,
    "bicycle": 2,
    "bird": 49,
    "boat": 5,
    "bottle": 7,
    "car": 3,
    "cat": 6,
    "chair": 4,
    "clock": 3,
    "dog": 109,
    "elephant": 2,
    "keyboard": 2,
    "knife": 1,
    "oven": 1,
    "truck": 8,
}


def test_there_are_sixteen_categories_of_207_classes_in_the_order_of_the_alphabet() -> None:
    synsets = entry_level_synsets()
    assert {name: len(members) for name, members in synsets.items()} == COUNTS
    assert list(synsets) == sorted(COUNTS)
    members = [member for group in synsets.values() for member in group]
    assert len(members) == len(set(members)) == 207


@pytest.mark.parametrize(
    ("category", "synset", "name"),
    [
        ("airplane", "n02690373", "airliner"),
        ("bear", "n02134084", "ice bear"),
        ("bicycle", "n03792782", "mountain bike"),
        ("bird", "n02056570", "king penguin"),
        ("boat", "n03662601", "lifeboat"),
        ("cat", "n02123045", "tabby"),
        ("clock", "n04548280", "wall clock"),
        ("dog", "n02085782", "Japanese spaniel"),
        ("dog", "n02113978", "Mexican hairless"),
        ("elephant", "n02504458", "African elephant"),
        ("keyboard", "n04505470", "typewriter keyboard"),
        ("knife", "n03041632", "cleaver"),
        ("oven", "n04111531", "rotisserie"),
        ("truck", "n03417042", "garbage truck"),
    ],
)
def test_known_classes_are_in_their_category(category: str, synset: str, name: str) -> None:
    from timm.data import ImageNetInfo

    assert synset in entry_level_synsets()[category]
    assert name.lower() in ImageNetInfo().label_name_to_description(synset).lower()


def test_the_share_of_a_category_is_the_mean_over_its_classes() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(1000), size=3)
    found = CategoryMap.for_classes(imagenet_classes())(torch.tensor(probabilities))
    assert found.shape == (3, 16)
    np.testing.assert_allclose(found[:, 0], probabilities[:, 404])
    np.testing.assert_allclose(found[:, 1], probabilities[:, 294:298].mean(axis=1))
    np.testing.assert_allclose(found[:, 13], probabilities[:, 499])
    dogs = [index for index in range(152, 269) if index not in (192, 204, 227, 242, 251, 258, 260, 264)]
    np.testing.assert_allclose(found[:, 10], probabilities[:, dogs].mean(axis=1))


def test_the_order_of_a_networks_outputs_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(1000)
    probabilities = torch.softmax(torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)), dim=-1)
    usual = CategoryMap.for_classes(imagenet_classes())(probabilities)
    shuffled = CategoryMap.for_classes([imagenet_classes()[i] for i in order])(probabilities[:, order])
    torch.testing.assert_close(shuffled, usual)


def test_networks_that_lack_classes_are_refused() -> None:
    with pytest.raises(InputError, match=r"lack 207 of the classes .* n02690373.*the model's are c0, c1"):
        CategoryMap.for_classes([f"c{i}" for i in range(1000)])
    with pytest.raises(InputError, match="lack 1 of the classes"):
        CategoryMap.for_classes([name for name in imagenet_classes() if name != "n03041632"])
    with pytest.raises(InputError, match="does not say what its outputs are"):
        CategoryMap.for_classes(None)
    with pytest.raises(InputError, match="same name"):
        CategoryMap.for_classes([*imagenet_classes(), "n03041632"])


def test_what_is_not_probabilities_of_that_network_is_refused() -> None:
    mapping = CategoryMap.for_classes(imagenet_classes())
    with pytest.raises(InputError, match="999 outputs where the categories are of 1000"):
        mapping(torch.full((1, 999), 1 / 999))
    with pytest.raises(InputError, match="softmax"):
        mapping(torch.randn(1, 1000))
    with pytest.raises(InputError, match="softmax"):
        mapping(torch.rand(1, 1000))
