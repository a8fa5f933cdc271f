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
    "MemoryDataset": "ipvit.data.dataset",
    "Experiment": "ipvit.experiments.base",
    "InputError": "ipvit.errors",
    "Accuracy": "ipvit.experiments.accuracy",
    "Occlusion": "ipvit.experiments.occlusion",
    "FeatureDrop": "ipvit.experiments.feature_drop",
    "Correlation": "ipvit.experiments.correlation",
    "Attention": "ipvit.experiments.attention",
    "ShapeBias": "ipvit.experiments.shape_bias",
    "TokenSimilarity": "ipvit.experiments.token_similarity",
    "Segment": "ipvit.experiments.segment",
    "Shuffle": "ipvit.experiments.shuffle",
    "Position": "ipvit.experiments.position",
    "Probe": "ipvit.experiments.probe",
    "FewShot": "ipvit.experiments.fewshot",
    "Corruptions": "ipvit.experiments.corruptions",
    "Attack": "ipvit.experiments.attack",
    "train": "ipvit.training",
}

_ROOMS = ("data", "engine", "experiments", "metrics", "models", "perturb", "report", "training")

__all__ = [*_WHERE, *_ROOMS]

if TYPE_CHECKING:
    from ipvit import data, engine, experiments, metrics, models, perturb, report, training
    from ipvit.api import run
    from ipvit.data import load_dataset
    from ipvit.data.dataset import MemoryDataset
    from ipvit.errors import InputError
    from ipvit.experiments.accuracy import Accuracy
    from ipvit.experiments.attack import Attack
    from ipvit.experiments.attention import Attention
    from ipvit.experiments.base import Experiment
    from ipvit.experiments.correlation import Correlation
    from ipvit.experiments.corruptions import Corruptions
    from ipvit.experiments.feature_drop import FeatureDrop
    from ipvit.experiments.fewshot import FewShot
    from ipvit.experiments.occlusion import Occlusion
    from ipvit.experiments.position import Position
    from ipvit.experiments.probe import Probe
    from ipvit.experiments.segment import Segment
    from ipvit.experiments.shape_bias import ShapeBias
    from ipvit.experiments.shuffle import Shuffle
    from ipvit.experiments.token_similarity import TokenSimilarity
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
