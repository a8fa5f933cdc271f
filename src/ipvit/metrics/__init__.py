"""Pure functions from tensors and arrays to numbers: accuracy, intervals, paired comparisons."""

from ipvit.metrics.accuracy import topk_correct
from ipvit.metrics.bootstrap import corrected_interval, resampled_means
from ipvit.metrics.calibration import (
    brier,
    brier_scores,
    confidence_auroc,
    ece,
    ece_debiased,
    nll,
    overconfidence,
    reliability_bins,
    risk_coverage,
)
from ipvit.metrics.calibration_intervals import Estimated, auroc_estimate, ece_estimate, mean_estimate
from ipvit.metrics.correlation import correlation, cosine
from ipvit.metrics.intervals import (
    accuracy_interval,
    clustered_interval,
    clustered_mean_interval,
    episode_interval,
    mean_interval,
    wilson,
)
from ipvit.metrics.jaccard import jaccard
from ipvit.metrics.mce import corruption_error, mce, mean_error, relative_mce
from ipvit.metrics.paired import (
    McNemar,
    Paired,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_means,
    paired_proportions,
    sign_flip_test,
)
from ipvit.metrics.permutation import GroupDifference, permutation_difference
from ipvit.metrics.power import detectable_mean, detectable_proportion, mcnemar_power
from ipvit.metrics.ranking import kendall_tau, ranks_from_best
from ipvit.metrics.retained import (
    Pair,
    Retained,
    Tested,
    drop_difference,
    retained_accuracy,
    retained_difference,
    retained_of_other_images,
)
from ipvit.metrics.shape_bias import CueDecisions, shape_bias, shape_bias_by_category

__all__ = [
    "CueDecisions",
    "Estimated",
    "GroupDifference",
    "McNemar",
    "Pair",
    "Paired",
    "Retained",
    "Tested",
    "accuracy_interval",
    "auroc_estimate",
    "brier",
    "brier_scores",
    "clustered_interval",
    "clustered_mean_interval",
    "confidence_auroc",
    "corrected_interval",
    "correlation",
    "corruption_error",
    "cosine",
    "detectable_mean",
    "detectable_proportion",
    "drop_difference",
    "ece",
    "ece_debiased",
    "ece_estimate",
    "episode_interval",
    "holm",
    "jaccard",
    "kendall_tau",
    "mce",
    "mcnemar",
    "mcnemar_power",
    "mean_error",
    "mean_estimate",
    "mean_interval",
    "nll",
    "overconfidence",
    "paired_bootstrap",
    "paired_means",
    "paired_proportions",
    "permutation_difference",
    "ranks_from_best",
    "relative_mce",
    "reliability_bins",
    "resampled_means",
    "retained_accuracy",
    "retained_difference",
    "retained_of_other_images",
    "risk_coverage",
    "shape_bias",
    "shape_bias_by_category",
    "sign_flip_test",
    "topk_correct",
    "wilson",
]
