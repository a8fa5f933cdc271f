"""Pure functions from tensors and arrays to numbers: accuracy, intervals, paired comparisons."""

from ipvit.metrics.accuracy import topk_correct
from ipvit.metrics.correlation import correlation, cosine
from ipvit.metrics.intervals import accuracy_interval, mean_interval, wilson
from ipvit.metrics.jaccard import jaccard
from ipvit.metrics.paired import McNemar, Paired, mcnemar, paired_bootstrap
from ipvit.metrics.shape_bias import CueDecisions, shape_bias, shape_bias_by_category

__all__ = [
    "CueDecisions",
    "McNemar",
    "Paired",
    "accuracy_interval",
    "correlation",
    "cosine",
    "jaccard",
    "mcnemar",
    "mean_interval",
    "paired_bootstrap",
    "shape_bias",
    "shape_bias_by_category",
    "topk_correct",
    "wilson",
]
