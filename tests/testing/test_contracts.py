"""What ipvit brings keeps the contracts that it holds plug-ins to."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ipvit
import ipvit.testing
from helpers import image_trees, published_trees
from helpers.adapter_networks import FACTORIES, make
from helpers.shards import web_shards
from helpers.small_experiments import SMALL
from helpers.tiny import write_images
from ipvit.data import published
from ipvit.data.subset import Subset
from ipvit.experiments.registry import BUILT_IN, make_experiment
from ipvit.perturb.attack import fgsm, pgd, random_starts
from ipvit.perturb.budget import LEVELS
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA, corrupt
from ipvit.perturb.distance import random_noise
from ipvit.perturb.patchdrop import fill_content
from ipvit.testing import (
    check_adapter,
    check_attack,
    check_corruption,
    check_dataset,
    check_experiment,
    check_fill,
)
from ipvit.testing.samples import sample_cnn, sample_data, sample_models, sample_vit

OTHERWISE: list[tuple[str, dict[str, Any]]] = [
    ("occlusion", {"grid": "4x4", "levels": (0, 0.5), "modes": ("salient", "block"), "salience": "masks"}),
    ("occlusion", {"grid": "4x4", "levels": (0, 0.5), "removal": "tokens", "nested": True, "runs": 2}),
    ("occlusion", {"grid": "4x4", "levels": (0, 0.5), "protocol": "authors", "fill": "noise"}),
    ("feature-drop", {"rates": (0.5,), "protocol": "authors"}),
    ("attention", {"levels": (0,), "corners": ("top-left",)}),
    ("segment", {"protocol": "authors", "thresholds": (0.6, 0.9)}),
    ("attack", {"attacks": ("patch",), "patch_areas": (0.2,), "patch_images": 4, "patch_steps": 2, "patch_batch": 2}),
    (
        "attack",
        {
            "attacks": ("cells", "vote"),
            "cells": (2,),
            "cell_steps": 2,
            "cell_grid": "4x4",
            "epsilons": (4,),
            "apgd_steps": 2,
            "draws": 2,
            "votes": 2,
        },
    ),
]
"""Other ways through the same experiments."""


def test_every_experiment_is_held_to_the_contract():
    assert SMALL.keys() == BUILT_IN.keys()


QUICK = ("accuracy", "occlusion", "shuffle", "shape-bias")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in SMALL])
def test_our_experiments_keep_it(name):
    few = None if name == "fewshot" else sample_data(9)  # an episode takes several images of three classes
    assert check_experiment(make_experiment(name, SMALL[name]), data=few) is None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameters"), OTHERWISE, ids=[name for name, _ in OTHERWISE])
def test_our_experiments_keep_it_in_other_ways_too(name, parameters):
    check_experiment(make_experiment(name, parameters))


def test_a_class_stands_for_its_defaults_and_other_models_and_data_may_be_given():
    check_experiment(ipvit.Accuracy, models=[sample_cnn()], data=sample_data(6))


@pytest.mark.slow
@pytest.mark.parametrize("name", FACTORIES)
def test_our_adapters_keep_it(name):
    assert check_adapter(*make(name)) is None


@pytest.mark.parametrize("model", sample_models(), ids=lambda model: model.name)
def test_a_model_stands_for_its_adapter(model):
    check_adapter(model)


def test_an_adapter_alone_needs_images():
    with pytest.raises(ValueError, match="an adapter does not know the size of its images"):
        check_adapter(sample_vit().adapter)
    with pytest.raises(ValueError, match="two images or more"):
        check_adapter(sample_vit(), torch.rand(1, 3, 32, 32))


# --- data ------------------------------------------------------------------------------------------------------------


def folder(root: Path) -> Any:
    return ipvit.load_dataset(write_images(root / "images", per_class=2))


def packed(root: Path) -> Any:
    with tarfile.open(root / "images.tar", "w") as tar:
        tar.add(write_images(root / "images", per_class=2), "images")
    return ipvit.load_dataset(root / "images.tar")


def of_timm(root: Path) -> Any:
    write_images(root / "images", per_class=2)
    return ipvit.load_dataset("torch/image_folder", root=root, split="images")


def shards(root: Path) -> Any:
    pytest.importorskip("webdataset")
    split = web_shards(root / "shards")
    return ipvit.load_dataset("wds/grey", root=root / "shards", split=split)


def damaged(root: Path) -> Any:
    write_images(root / "images", per_class=2)
    (root / "images" / "c0" / "000.jpg").write_bytes(b"not an image")
    return ipvit.load_dataset(root / "images")


def masked(root: Path) -> Any:
    square = np.zeros((12, 16), np.uint8)
    square[3:9, 4:12] = 255
    return image_trees.write_pair(root, Image.fromarray(square))


KINDS: dict[str, Callable[[Path], Any]] = {
    "drawn": lambda _: ipvit.load_dataset("demo:trifeature"),
    "drawn conflicts": lambda _: ipvit.load_dataset("demo:trifeature/cue-conflict"),
    "memory": lambda _: sample_data(),
    "memory without labels": lambda _: ipvit.MemoryDataset(torch.zeros(3, 3, 8, 8, dtype=torch.uint8)),
    "some of a set": lambda _: Subset(sample_data(), np.array([1, 4, 7])),
    "folder": folder,
    "a damaged file": damaged,
    "tar": packed,
    "timm": of_timm,
    "shards": shards,
    "masks": masked,
    "voc2012": lambda root: ipvit.load_dataset(f"voc2012:{image_trees.write_voc(root)}"),
    "imagenet-c": lambda root: ipvit.load_dataset(f"imagenet-c:{image_trees.write_imagenet_c(root)}"),
    "cue-conflict": lambda root: ipvit.load_dataset(f"cue-conflict:{image_trees.write_cue_conflict(root, size=32)}"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_our_data_sets_keep_it(kind, tmp_path):
    assert check_dataset(KINDS[kind](tmp_path)) is None


@pytest.mark.parametrize(
    ("name", "tree"), published_trees.CASES, ids=[f"{name}-{tree.__name__}" for name, tree in published_trees.CASES]
)
def test_published_sets_keep_it(name, tree, tmp_path):
    tree(tmp_path)
    for split in published.SETS[name].splits:
        check_dataset(ipvit.load_dataset(f"{name}:{tmp_path}/{split}"))


# --- functions -------------------------------------------------------------------------------------------------------


def by_fgsm(model, images, labels, budget, key):
    return fgsm(model, images, labels, LEVELS * budget.size).images


def by_pgd(model, images, labels, budget, key):
    starts = random_starts(key, tuple(images.shape[1:]))
    return pgd(model, images, labels, LEVELS * budget.size, starts=lambda _: starts).images


def by_noise(model, images, labels, budget, key):
    return random_noise(images, budget, key)


def uphill(model, images, labels, budget, key):
    climbed = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(climbed), labels), climbed)
    length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
    return (images + budget.size * gradient / length).clamp(0, 1)


@pytest.mark.parametrize("attack", [by_fgsm, by_pgd, by_noise])
def test_our_attacks_keep_it(attack):
    assert check_attack(attack) is None


@pytest.mark.parametrize(("norm", "size"), [("l2", 0.5), ("l1", 12.0)])
def test_other_budgets_are_checked_in_their_norm(norm, size):
    check_attack(by_noise, norm=norm, size=size)
    if norm == "l2":
        check_attack(uphill, norm=norm, size=size)


@pytest.mark.parametrize("fill", ["black", "mean", "noise", "blur"])
def test_our_fills_keep_it(fill):
    def ours(images, mask, key):
        return torch.as_tensor(fill_content(images, fill, key)).expand_as(images)

    assert check_fill(ours) is None


@pytest.mark.parametrize("name", [*CORRUPTIONS, *EXTRA])
def test_our_corruptions_keep_it(name):
    assert (
        check_corruption(lambda image, severity, random: corrupt(image, name, severity, random.randint(2**31))) is None
    )


def test_the_checks_need_no_test_framework():
    files = sorted(Path(ipvit.testing.__path__[0]).glob("*.py"))
    assert len(files) > 5
    assert [path.name for path in files if "import pytest" in path.read_text("utf-8")] == []


def test_the_checks_leave_the_global_random_state_as_it_was():
    def states():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before = states()
    check_experiment(ipvit.Accuracy(), models=sample_cnn(), data=sample_data(4))
    check_adapter(sample_cnn())
    check_dataset(sample_data())
    check_attack(by_fgsm)
    check_fill(lambda images, mask, key: images)
    check_corruption(lambda image, severity, random: image)
    assert states() == before
