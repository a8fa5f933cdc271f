"""Small recipes, and trainings that die."""

from __future__ import annotations

import pytest

from ipvit.training.loop import Loop
from ipvit.training.recipe import Recipe

KWARGS = {"img_size": 32, "embed_dim": 16, "depth": 2, "num_heads": 2}
"""Two narrow blocks."""
DINO = {"kind": "dino", "out_dim": 32, "hidden_dim": 24, "bottleneck_dim": 8, "local_views": 2, "local_size": 16}
"""Small heads, and two small views beside the large ones."""


def plain_recipe(**changes) -> Recipe:
    """Two blocks without any regularisation on the small images of ``small_sets``."""
    return Recipe.model_validate(
        {
            "model": {"name": "deit_micro", "kwargs": KWARGS},
            "data": {"train": "demo:trifeature/natural-train", "val": "demo:trifeature", "size": 32},
            "epochs": 2,
            "batch_size": 8,
        }
        | changes
    )


def dino_recipe(**changes) -> Recipe:
    """A network of two blocks that learns from itself."""
    model = {"name": "deit_micro", "kwargs": KWARGS | {"dynamic_img_size": True}}
    return plain_recipe(**({"model": model, "objective": DINO} | changes))


def tiny_recipe(**changes) -> Recipe:
    """Two blocks with drop-path, dropout and all that a recipe may add."""
    model = {"name": "deit_micro", "kwargs": KWARGS | {"drop_path_rate": 0.2, "proj_drop_rate": 0.1}}
    more = {"warmup_epochs": 1, "label_smoothing": 0.1, "augment": {"pad": 2, "hflip": 0.5}, "ema": {"decay": 0.9}}
    return plain_recipe(**({"model": model, "epochs": 3} | more | changes))


def die_at(epoch: int, update: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop die before that update of that epoch, both counted from 0."""
    plain = Loop._update

    def dying(self, batches, number, step):
        if step == epoch * self.steps + update:
            raise KeyboardInterrupt
        return plain(self, batches, number, step)

    monkeypatch.setattr(Loop, "_update", dying)
