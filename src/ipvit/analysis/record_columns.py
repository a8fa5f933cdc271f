"""Names of the columns that the records of every experiment have."""

from __future__ import annotations

RUN = "run"
"""Number of the repetition with other random masks."""

SHARED_MASK = "shared_mask"
"""Number of the mask that several images share; they are no independent trials."""

RESERVED = frozenset(
    {
        "image",
        "label",
        "condition",
        "model",
        "experiment",
        "version",
        "weights",
        "data",
        "seed",
        "precision",
        "labels",
        "answers",
    }
)
"""What identifies a row; a condition's field may not have one of these names."""

SCORES = frozenset({"prediction", "confidence", "label_probability", "correct", "correct5"})
"""Columns of a classification record, see :func:`ipvit.experiments.scoring.score_logits`."""
