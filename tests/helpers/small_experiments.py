"""Settings of the experiments with which they are done in seconds."""

from __future__ import annotations

from typing import Any

from helpers.paths import TESTS

SMALL: dict[str, dict[str, Any]] = {
    "accuracy": {},
    "occlusion": {"grid": "4x4", "levels": (0, 0.5), "runs": 2, "modes": ("random", "object"), "fill": "other"},
    "feature-drop": {"rates": (0.5,)},
    "correlation": {"grid": "4x4", "levels": (0.5,)},
    "stability": {
        "grid": "4x4",
        "levels": (0.5,),
        "grids": ("2x2",),
        "corners": ("centre",),
        "corruptions": ("contrast",),
    },
    "attention": {"levels": (0, 0.5), "blocks": (0, 2)},
    "shape-bias": {},
    "token-similarity": {},
    "segment": {},
    "shuffle": {"grids": ("2x2", "4x4")},
    "position": {"corners": ("top-left",)},
    "probe": {"tokens": ("class",)},
    "fewshot": {"episodes": ("3-way-1-shot",), "queries": 1, "count": 6, "blocks": (1,), "classifiers": ("centroid",)},
    "corruptions": {"corruptions": ("shot_noise",), "severities": (1, 5)},
    "shift": {"sets": (f"{TESTS / 'helpers' / 'other_sample.py'}:make",)},
    "attack": {"epsilons": (4,), "steps": 2},
}
"""Every experiment with little to do."""
