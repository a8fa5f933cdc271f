"""The bundled networks that were trained on photos: they are what their files say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ipvit
from ipvit.models.io.checkpoint import read_metadata
from ipvit.models.loading import bundled_models
from ipvit.models.zoo.bundled import bundled_weights
from ipvit.training.recipe import Recipe, load_recipe

NAMES = bundled_models("tin50")


def file_of(name: str) -> Path:
    return bundled_weights("tin50", name.removeprefix("tin50:"))


def test_there_is_one_of_each_family_and_one_with_a_shape_token():
    assert NAMES == ["tin50:deit_micro", "tin50:deit_micro_shape", "tin50:resnet_micro"]
    assert sum(file_of(name).stat().st_size for name in NAMES) < 20_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_file_states_its_recipe_its_classes_and_what_was_measured(name):
    metadata = read_metadata(file_of(name))
    assert metadata is not None
    assert Recipe.model_validate(metadata["recipe"]) == load_recipe(name.replace(":", "_"))
    assert len(metadata["classes"]) == 50 and metadata["classes"][0] == "n01443537"
    assert metadata["measured"]["n"] == 1250 and metadata["measured"]["top1"] >= 50


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_for_its_classes_and_can_be_looked_into(name):
    model = ipvit.load_model(name)
    size = model.preprocessing.view.size
    with torch.no_grad():
        assert model(torch.rand(2, 3, *size)).shape == (2, 50)
    assert ("attention" in model.capabilities) == ("deit" in name)
    assert ("token_heads" in model.capabilities) == ("shape" in name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_is_as_accurate_on_the_photos_as_it_says(name, real, tmp_path):
    photos = ipvit.load_dataset(str(real / "tinyimagenet50" / "val.tar"))
    run = ipvit.run(ipvit.Accuracy(), models=[ipvit.load_model(name)], data=photos, out=tmp_path)
    metadata = read_metadata(file_of(name))
    assert metadata is not None
    shown = run.tables["accuracy"]["top1"].to_list()
    assert any(value == pytest.approx(metadata["measured"]["top1"], abs=0.5) for value in shown)
