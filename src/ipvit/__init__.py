"""Measure what a vision backbone really relies on.

>>> import ipvit
>>> run = ipvit.run(ipvit.Occlusion(), models=["deit_small_patch16_224"], data="imagenet/val")  # doctest: +SKIP

Everything is imported when first used, so that ``import ipvit`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "run": "ipvit.api",
    "Run": "ipvit.results",
    "Runs": "ipvit.several_runs",
    "load_model": "ipvit.models.loading",
    "load_checkpoint": "ipvit.models.loading",
    "Model": "ipvit.models.model",
    "wrap": "ipvit.models.model",
    "load_dataset": "ipvit.data",
    "BaseDataset": "ipvit.data.dataset",
    "MemoryDataset": "ipvit.data.dataset",
    "Experiment": "ipvit.experiments.base",
    "InputError": "ipvit.errors",
    "Accuracy": "ipvit.experiments.accuracy.experiment",
    "Occlusion": "ipvit.experiments.occlusion.experiment",
    "FeatureDrop": "ipvit.experiments.feature_drop.experiment",
    "Correlation": "ipvit.experiments.correlation.experiment",
    "Attention": "ipvit.experiments.attention.experiment",
    "ShapeBias": "ipvit.experiments.shape_bias.experiment",
    "TokenSimilarity": "ipvit.experiments.token_similarity.experiment",
    "Segment": "ipvit.experiments.segment.experiment",
    "Shuffle": "ipvit.experiments.shuffle.experiment",
    "Position": "ipvit.experiments.position.experiment",
    "Probe": "ipvit.experiments.probe.experiment",
    "FewShot": "ipvit.experiments.fewshot.experiment",
    "Corruptions": "ipvit.experiments.corruptions.experiment",
    "Attack": "ipvit.experiments.attack.experiment",
    "train": "ipvit.training",
}

_ROOMS = ("data", "engine", "experiments", "metrics", "models", "perturb", "report", "training")

__all__ = [*_WHERE, *_ROOMS]

if TYPE_CHECKING:
    from ipvit import data, engine, experiments, metrics, models, perturb, report, training
    from ipvit.api import run
    from ipvit.data import load_dataset
    from ipvit.data.dataset import BaseDataset, MemoryDataset
    from ipvit.errors import InputError
    from ipvit.experiments.accuracy.experiment import Accuracy
    from ipvit.experiments.attack.experiment import Attack
    from ipvit.experiments.attention.experiment import Attention
    from ipvit.experiments.base import Experiment
    from ipvit.experiments.correlation.experiment import Correlation
    from ipvit.experiments.corruptions.experiment import Corruptions
    from ipvit.experiments.feature_drop.experiment import FeatureDrop
    from ipvit.experiments.fewshot.experiment import FewShot
    from ipvit.experiments.occlusion.experiment import Occlusion
    from ipvit.experiments.position.experiment import Position
    from ipvit.experiments.probe.experiment import Probe
    from ipvit.experiments.segment.experiment import Segment
    from ipvit.experiments.shape_bias.experiment import ShapeBias
    from ipvit.experiments.shuffle.experiment import Shuffle
    from ipvit.experiments.token_similarity.experiment import TokenSimilarity
    from ipvit.models.loading import load_checkpoint, load_model
    from ipvit.models.model import Model, wrap
    from ipvit.results import Run
    from ipvit.several_runs import Runs
    from ipvit.training import train


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"ipvit.{name}")
    else:
        raise AttributeError(f"module 'ipvit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
