"""Several conditions of a small batch in one pass: the same decisions in fewer passes, none above the batch size."""

import dataclasses

import numpy as np
import pytest

import ipvit
from helpers.plain_loops import measured
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.experiments.base import Batch, Experiment
from ipvit.models.model import Model

DISCRETE = ["image", "condition", "label", "prediction", "correct", "correct5"]
EXPERIMENTS: list[Experiment] = [
    small_occlusion(),
    small_occlusion(mask_scope="batch"),
    ipvit.Shuffle(grids=("1x1", "2x2", "4x4"), runs=2),
    ipvit.Position(),
    ipvit.Corruptions(corruptions=("contrast", "fog"), severities=(1, 3)),
]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many images each pass takes."""
    seen: list[int] = []
    forward = Model.forward
    monkeypatch.setattr(Model, "forward", lambda self, images: seen.append(len(images)) or forward(self, images))
    return seen


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: f"{one.name}")
def test_decisions_are_those_of_one_condition_at_a_time(experiment, tmp_path):
    model, data = tiny_model(), photos()
    apart = measured(experiment, model, data, tmp_path / "apart", limit=5)
    joined = measured(experiment, model, data, tmp_path / "joined", limit=5, join_conditions=True)
    assert apart.columns == joined.columns and len(apart) == len(joined)
    assert apart.select(DISCRETE).equals(joined.select(DISCRETE))
    assert np.allclose(apart["confidence"], joined["confidence"], atol=1e-6)


def test_passes_are_as_few_as_the_batch_size_allows(tmp_path, passes):
    options = {"limit": 5, "batch_size": 16}
    measured(small_occlusion(), tiny_model(), photos(), tmp_path / "apart", **options)
    apart = [n for n in passes if n == 5]
    passes.clear()
    measured(small_occlusion(), tiny_model(), photos(), tmp_path / "joined", join_conditions=True, **options)
    joined = [n for n in passes if n not in (1, 2)]  # those look whether the network is in order
    assert apart == [5] * 7 and joined == [15, 15, 5]


def test_a_full_batch_is_not_joined(tmp_path, passes):
    measured(small_occlusion(), tiny_model(), photos(), tmp_path, batch_size=10, join_conditions=True)
    assert {n for n in passes if n > 2} == {10}


def test_the_part_of_a_batch_that_did_not_fit_has_room_in_proportion():
    images = ipvit.load_dataset("demo:trifeature").read(0)[None].float().expand(8, -1, -1, -1)
    batch = Batch(images, images[:, 0, 0, 0].long(), tuple("abcdefgh"), np.arange(8), (), 0, room=64)
    assert batch.part(0, 4).room == 32 and batch.part(0, 4).part(0, 2).room == 16
    assert dataclasses.replace(batch, room=0).part(0, 4).room == 0
