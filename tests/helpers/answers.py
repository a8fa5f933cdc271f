"""A network of eight answers, and data of two of them: with one output a class, several, or several right labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import ipvit
from helpers.plain_loops import photos, tiny_vit, wrapped
from ipvit.data.dataset import MemoryDataset

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen")
OF_DATA = ("fox", "bee")
COLUMNS = [5, 1]

EXPERIMENTS = [
    ipvit.Accuracy(),
    ipvit.Occlusion(levels=(0.0, 0.5), runs=2, grid="4x4"),
    ipvit.Occlusion(levels=(0.5,), runs=1, grid="4x4", removal="tokens"),
    ipvit.Shuffle(grids=("2x2",)),
    ipvit.Position(),
    ipvit.FeatureDrop(blocks=(1,), rates=(0.5,)),
    ipvit.Attack(attacks=("fgsm", "pgd"), epsilons=(2.0,), steps=2),
    ipvit.Corruptions(corruptions=("brightness",)),
    ipvit.Probe(blocks=(1, 2)),
]


def network(seed: int = 0):
    return tiny_vit(seed=seed, num_classes=len(NAMES))


def whole() -> ipvit.Model:
    return wrapped(network(), classes=NAMES, name="vit")


def of_two() -> ipvit.Model:
    """The same network without the other outputs."""
    inner = network()
    head = nn.Linear(inner.head.in_features, 2)
    head.weight.data, head.bias.data = inner.head.weight.data[COLUMNS], inner.head.bias.data[COLUMNS]
    inner.head, inner.num_classes = head, 2
    return wrapped(inner, classes=OF_DATA, name="vit")


def two_classes(n: int = 6) -> MemoryDataset:
    pixels = photos(n)
    return MemoryDataset(
        torch.stack([pixels.read(i) for i in range(n)]), np.arange(n) % 2, OF_DATA, ids=list(pixels.ids), name="two"
    )


def several(rule: str) -> MemoryDataset:
    data = two_classes()
    data.classes, data.aliases = ("pet", "wild"), (rule.format("cat, dog"), rule.format("fox,elk,gnu"))
    data.fingerprint += rule
    return data


PETS, WILD = [2, 3], [5, 4, 6]


def with_sets() -> MemoryDataset:
    data = two_classes()
    data.classes, data.aliases = NAMES, None
    data.label_sets = [(0, 3), (5,), (), (1, 2, 7), (4,), (6, 0)]
    data.labels = np.array([sets[0] if sets else -1 for sets in data.label_sets])
    return data
