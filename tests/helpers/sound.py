"""A sound experiment, of which broken ones are made, and what catches them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import ipvit
from helpers.plain_loops import photos
from helpers.tiny import tiny_model
from ipvit.perturb import keys
from ipvit.testing import ContractError, check_experiment


@dataclasses.dataclass(frozen=True)
class Noise(ipvit.Condition):
    amount: float


class Sound(ipvit.Experiment):
    """Noise from keys: nothing is wrong with it."""

    name = "sound"
    title = "Sound"
    amounts: tuple[float, ...] = (0.0, 0.5)

    def conditions(self, model):
        return [Noise(amount) for amount in self.amounts]

    def measure(self, model, batch):
        drawn = [np.random.default_rng(int(key)).random(batch.images.shape[1:]) for key in self.keys(batch)]
        noise = torch.from_numpy(np.stack(drawn)).to(batch.images)
        for condition in batch.conditions:
            images = batch.images.lerp(noise, getattr(condition, "amount", 0.5))
            yield ipvit.Records(condition, self.columns(model, batch, images))

    def keys(self, batch):
        return keys(batch.ids, batch.seed, self.name)

    def columns(self, model, batch, images):
        return ipvit.classify(model, images, batch.labels)

    def analysis(self):
        return ipvit.Analysis.of(self, {"amount": ipvit.Column(level=True)}, clean={"amount": 0.0})


def models():
    return [tiny_model(0, name="one"), tiny_model(1, name="other")]


def broken(experiment, words: str, **options: Any) -> None:
    """Check that an experiment is caught."""
    with pytest.raises(ContractError, match=words) as caught:
        check_experiment(experiment, **({"models": models(), "data": photos(6, 16)} | options))
    assert isinstance(caught.value, AssertionError)
