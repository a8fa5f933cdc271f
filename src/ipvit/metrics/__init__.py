"""Pure functions from tensors and arrays to numbers: accuracy, intervals, paired comparisons."""

from ipvit.metrics.accuracy import topk_correct
from ipvit.metrics.correlation import correlation, cosine
from ipvit.metrics.intervals import accuracy_interval, mean_interval, wilson
from ipvit.metrics.paired import McNemar, Paired, mcnemar, paired_bootstrap

__all__ = [
    "McNemar",
    "Paired",
    "accuracy_interval",
    "correlation",
    "cosine",
    "mcnemar",
    "mean_interval",
    "paired_bootstrap",
    "topk_correct",
    "wilson",
]
