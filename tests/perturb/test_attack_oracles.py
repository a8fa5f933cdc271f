"""APGD, FAB and Square beside torchattacks', on the bundled networks and on a real one: as many images hold out."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

import ipvit
from ipvit.data.decode import apply_view
from ipvit.data.labels import map_classes
from ipvit.data.subset import subset_indices
from ipvit.perturb.attack import apgd, clean_pass, fab_t, is_right, square
from ipvit.perturb.attacks.square import _bump
from ipvit.perturb.budget import Budget
from ipvit.perturb.seeding import keys

torchattacks = pytest.importorskip("torchattacks", reason="pip install torchattacks: the oracle of these tests")
REAL = Path(os.environ.get("IPVIT_REAL", "/nowhere"))


def right_images(name: str, source: str, n: int):
    """A network, and images that it has right with their labels and keys."""
    model, data = ipvit.load_model(name), ipvit.load_dataset(source)
    model.eval().requires_grad_(False)
    outputs = map_classes(data.classes or (), data.aliases, model.classes, data_name=data.name, model_name=model.name)
    chosen = subset_indices(data, n)
    images = torch.stack([apply_view(data.read(int(i)), model.preprocessing.view) for i in chosen]).float() / 255
    labels = torch.from_numpy(outputs[data.labels[chosen]])
    right = is_right(clean_pass(model, images, labels, gradient=False).logits, labels)
    return model, images[right], labels[right], keys([str(int(i)) for i in chosen], 0)[right.numpy()]


def held(model, moved, labels) -> int:
    return int((model(moved).argmax(1) == labels).sum())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo:deit_micro", "demo:resnet_micro"])
@pytest.mark.parametrize(("norm", "size"), [("linf", 3 / 255), ("l2", 0.4)])
def test_apgd_leaves_as_many_images_right_as_torchattacks(name, norm, size):
    model, images, labels, key = right_images(name, "demo:trifeature", 32)
    ours = held(model, apgd(model, images, labels, Budget(norm, size), key, steps=20).images, labels)
    torch.manual_seed(0)
    oracle = torchattacks.APGD(model, norm=norm.replace("l", "L", 1), eps=size, steps=20)
    theirs = held(model, oracle(images, labels), labels)
    assert abs(ours - theirs) <= 1 and 0 < ours < len(images)


def tiny(n: int = 24):
    """A tiny random network, images with the labels that it gives them, and keys."""
    torch.manual_seed(1)
    layers = (nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 144, 6))
    network = nn.Sequential(*layers).eval().requires_grad_(False)
    with torch.no_grad():
        network[-1].weight.mul_(10)
    images = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    return network, images, network(images).argmax(1), keys([str(i) for i in range(n)], 0)


def bundled():
    return right_images("demo:resnet_micro", "demo:trifeature", 16)


def shares(ours, theirs, images, labels, network, norm: str, size: float) -> tuple[float, float]:
    """The shares of the images that hold out; what theirs moved too far, by a rounding error or more, is none of it."""
    far = (theirs - images).flatten(1)
    far = far.abs().amax(1) if norm == "linf" else far.norm(dim=1)
    assert (far <= size * 1.001).all()
    return tuple(held(network, moved, labels) / len(labels) for moved in (ours, theirs))


@pytest.mark.parametrize(("norm", "size"), [("linf", 8 / 255), ("l2", 0.6)])
def test_fab_on_a_tiny_network_leaves_as_many_right_as_torchattacks(norm, size):
    network, images, labels, key = tiny()
    ours = fab_t(network, images, labels, Budget(norm, size), key, steps=20, targets=5).images
    torch.manual_seed(0)
    oracle = torchattacks.FAB(network, norm=norm.replace("l", "L", 1), eps=size, steps=20, n_classes=6)
    one, other = shares(ours, oracle(images, labels), images, labels, network, norm, size)
    assert abs(one - other) <= 0.05 and 0.1 < one < 0.9


@pytest.mark.parametrize(("norm", "size"), [("linf", 30 / 255), ("l2", 3.0)])
def test_square_on_a_tiny_network_leaves_as_many_right_as_torchattacks(norm, size):
    network, images, labels, key = tiny(60)
    ours = square(network, images, labels, Budget(norm, size), key, queries=150).images
    oracle = torchattacks.Square(
        network, norm=norm.replace("l", "L", 1), eps=size, n_queries=150, loss="margin", resc_schedule=False
    )
    one, other = shares(ours, oracle(images, labels), images, labels, network, norm, size)
    assert abs(one - other) <= 0.12 and 0.1 < one < 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "size"), [("linf", 3 / 255), ("l2", 0.4)])
def test_fab_on_a_bundled_network_leaves_as_many_right_as_torchattacks(norm, size):
    network, images, labels, key = bundled()
    ours = fab_t(network, images, labels, Budget(norm, size), key, steps=15, targets=3).images
    torch.manual_seed(0)
    oracle = torchattacks.FAB(network, norm=norm.replace("l", "L", 1), eps=size, steps=15, n_classes=4)
    one, other = shares(ours, oracle(images, labels), images, labels, network, norm, size)
    assert one <= other + 0.07 and one < 1


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "size"), [("linf", 12 / 255), ("l2", 1.5)])
def test_square_on_a_bundled_network_leaves_as_many_right_as_torchattacks(norm, size):
    network, images, labels, key = bundled()
    ours = square(network, images, labels, Budget(norm, size), key, queries=150).images
    oracle = torchattacks.Square(
        network, norm=norm.replace("l", "L", 1), eps=size, n_queries=150, loss="margin", resc_schedule=False
    )
    one, other = shares(ours, oracle(images, labels), images, labels, network, norm, size)
    assert one <= other + 0.15 and one < 1


def test_the_pattern_of_square_in_l2_is_the_authors():
    network, *_ = tiny(1)
    oracle = torchattacks.Square(network, norm="L2")
    oracle.device = torch.device("cpu")
    for side in (2, 3, 4, 5, 7, 12, 31):
        theirs = oracle.eta(side)  # turned by a quarter at random
        assert any(torch.allclose(turned, _bump(side), atol=1e-6) for turned in (theirs, theirs.T))


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="IPVIT_REAL is not set")
def test_on_a_real_network_apgd_leaves_as_many_photos_right_as_torchattacks():
    name = f"tf_efficientnet_lite0@{REAL / 'efficientnet_lite0.safetensors'}"
    model, images, labels, key = right_images(name, str(REAL / "imagenet-sample"), 6)
    size = 0.25 / 255
    ours = held(model, apgd(model, images, labels, Budget("linf", size), key, steps=5).images, labels)
    torch.manual_seed(0)
    theirs = held(model, torchattacks.APGD(model, norm="Linf", eps=size, steps=5)(images, labels), labels)
    assert abs(ours - theirs) <= 1
