"""Small recipes."""

from __future__ import annotations

from ipvit.training.recipe import Recipe


def tiny_recipe(**changes) -> Recipe:
    """Two blocks with drop-path and dropout on the small images of ``small_sets``."""
    return Recipe.model_validate(
        {
            "model": {
                "name": "deit_micro",
                "kwargs": {
                    "img_size": 32,
                    "embed_dim": 16,
                    "depth": 2,
                    "num_heads": 2,
                    "drop_path_rate": 0.2,
                    "proj_drop_rate": 0.1,
                },
            },
            "data": {"train": "demo:trifeature/natural-train", "val": "demo:trifeature", "size": 32},
            "epochs": 3,
            "batch_size": 8,
            "warmup_epochs": 1,
            "label_smoothing": 0.1,
            "augment": {"pad": 2, "hflip": 0.5},
            "ema": {"decay": 0.9},
        }
        | changes
    )
