"""Measure what a vision backbone really relies on.

>>> import ipvit
>>> run = ipvit.run(ipvit.Occlusion(), models=["deit_small_patch16_224"], data="imagenet/val")  # doctest: +SKIP

Everything is imported when first used, so that ``import ipvit`` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvit.experiments.registry import classes as _classes
from ipvit.lazy import lazy_names as _lazy_names

__version__ = "0.1.0"

_PACKAGES = (
    "analysis",
    "data",
    "engine",
    "experiments",
    "metrics",
    "models",
    "perturb",
    "report",
    "testing",
    "training",
)

_WHERE = {
    "run": "ipvit.api",
    "Run": "ipvit.results",
    "RunCollection": "ipvit.run_collection",
    "diff": "ipvit.verdicts.difference",
    "families": "ipvit.verdicts.families",
    "bundle": "ipvit.verdicts.bundle",
    "load_model": "ipvit.networks",
    "load_checkpoint": "ipvit.models.loading",
    "Model": "ipvit.models.model",
    "wrap": "ipvit.models.model",
    "load_dataset": "ipvit.data.loading",
    "BaseDataset": "ipvit.data.dataset",
    "MemoryDataset": "ipvit.data.dataset",
    "Experiment": "ipvit.experiments.base",
    "Measurement": "ipvit.experiments.base",
    "Requirements": "ipvit.experiments.base",
    "Condition": "ipvit.experiments.base",
    "Batch": "ipvit.experiments.base",
    "Records": "ipvit.experiments.base",
    "ExampleImage": "ipvit.experiments.base",
    "classify": "ipvit.experiments.scoring",
    "score_logits": "ipvit.experiments.scoring",
    "Analysis": "ipvit.analysis.base",
    "Column": "ipvit.analysis.columns",
    "InputError": "ipvit.errors",
    **_classes(),
    "train": "ipvit.training.start",
}

__all__ = [*_WHERE, *_PACKAGES]
__getattr__, __dir__ = _lazy_names(__name__, _WHERE)

if TYPE_CHECKING:
    from ipvit import analysis, data, engine, experiments, metrics, models, perturb, report, testing, training
    from ipvit.analysis.base import Analysis
    from ipvit.analysis.columns import Column
    from ipvit.api import run
    from ipvit.data.dataset import BaseDataset, MemoryDataset
    from ipvit.data.loading import load_dataset
    from ipvit.errors import InputError
    from ipvit.experiments.accuracy.experiment import Accuracy
    from ipvit.experiments.attack.experiment import Attack
    from ipvit.experiments.attention.experiment import Attention
    from ipvit.experiments.base import Batch, Condition, ExampleImage, Experiment, Measurement, Records, Requirements
    from ipvit.experiments.correlation.experiment import Correlation
    from ipvit.experiments.corruptions.experiment import Corruptions
    from ipvit.experiments.feature_drop.experiment import FeatureDrop
    from ipvit.experiments.fewshot.experiment import FewShot
    from ipvit.experiments.occlusion.experiment import Occlusion
    from ipvit.experiments.position.experiment import Position
    from ipvit.experiments.probe.experiment import Probe
    from ipvit.experiments.scoring import classify, score_logits
    from ipvit.experiments.segment.experiment import Segment
    from ipvit.experiments.shape_bias.experiment import ShapeBias
    from ipvit.experiments.shift.experiment import Shift
    from ipvit.experiments.shuffle.experiment import Shuffle
    from ipvit.experiments.stability.experiment import Stability
    from ipvit.experiments.token_similarity.experiment import TokenSimilarity
    from ipvit.models.loading import load_checkpoint
    from ipvit.models.model import Model, wrap
    from ipvit.networks import load_model
    from ipvit.results import Run
    from ipvit.run_collection import RunCollection
    from ipvit.training.start import train
    from ipvit.verdicts.bundle import bundle
    from ipvit.verdicts.difference import diff
    from ipvit.verdicts.families import families
