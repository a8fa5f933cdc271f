"""APGD, FAB and Square beside torchattacks', on the bundled networks and on a real one: as many images hold out."""

import os
from pathlib import Path

import pytest
import torch

import ipvit
from ipvit.data.decode import apply_view
from ipvit.data.labels import map_classes
from ipvit.data.subset import subset_indices
from ipvit.perturb.attack import apgd, clean_pass, fab_t, is_right, square
from ipvit.perturb.budget import Budget
from ipvit.perturb.seeding import keys

torchattacks = pytest.importorskip("torchattacks", reason="pip install torchattacks: the oracle of these tests")
REAL = Path(os.environ.get("IPVIT_REAL", "/nowhere"))

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("name", ["demo:deit_micro", "demo:resnet_micro"])
@pytest.mark.parametrize(("norm", "size"), [("linf", 3 / 255), ("l2", 0.4)])
def test_apgd_leaves_as_many_images_right_as_torchattacks(name, norm, size):
    model, images, labels, key = right_images(name, "demo:trifeature", 32)
    ours = held(model, apgd(model, images, labels, Budget(norm, size), key, steps=20).images, labels)
    torch.manual_seed(0)
    oracle = torchattacks.APGD(model, norm=norm.replace("l", "L", 1), eps=size, steps=20)
    theirs = held(model, oracle(images, labels), labels)
    assert abs(ours - theirs) <= 1 and 0 < ours < len(images)


def test_fab_and_square_leave_as_many_images_right_as_torchattacks():
    model, images, labels, key = right_images("demo:resnet_micro", "demo:trifeature", 16)
    size = 4 / 255
    budget = Budget("linf", size)
    ours = held(model, fab_t(model, images, labels, budget, key, steps=15, targets=3).images, labels)
    torch.manual_seed(0)
    oracle = torchattacks.FAB(model, norm="Linf", eps=size, steps=15, n_restarts=1, n_classes=4)
    theirs = held(model, oracle(images, labels), labels)
    assert abs(ours - theirs) <= 2
    ours = held(model, square(model, images, labels, Budget("linf", 12 / 255), key, queries=150).images, labels)
    oracle = torchattacks.Square(model, norm="Linf", eps=12 / 255, n_queries=150, n_restarts=1, loss="margin")
    theirs = held(model, oracle(images, labels), labels)
    assert abs(ours - theirs) <= 3 and ours < len(images)


@pytest.mark.skipif(not REAL.is_dir(), reason="IPVIT_REAL is not set")
def test_on_a_real_network_apgd_leaves_as_many_photos_right_as_torchattacks():
    name = f"tf_efficientnet_lite0@{REAL / 'efficientnet_lite0.safetensors'}"
    model, images, labels, key = right_images(name, str(REAL / "imagenet-sample"), 6)
    size = 0.25 / 255
    ours = held(model, apgd(model, images, labels, Budget("linf", size), key, steps=5).images, labels)
    torch.manual_seed(0)
    theirs = held(model, torchattacks.APGD(model, norm="Linf", eps=size, steps=5)(images, labels), labels)
    assert abs(ours - theirs) <= 1
