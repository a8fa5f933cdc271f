"""An experiment of a study can be for some of its models only, and can bring its own images."""

from __future__ import annotations

import pytest

from ipvit.api import run_study
from ipvit.core.run_config import RunConfig
from ipvit.engine.study import DataEntry, Study, make_study
from ipvit.errors import InputError

STUDY = {
    "models": ["demo:deit_micro", {"name": "demo:resnet_micro", "label": "CNN"}],
    "data": "demo:trifeature",
    "limit": 8,
    "workers": 0,
}


def quiet(content: dict) -> Study:
    return make_study(content).with_options(RunConfig(progress=False))


def test_an_experiment_is_run_on_the_models_it_names_and_the_others_on_all(tmp_path):
    experiments = {"shuffle": {"grids": ["2x2"], "models": ["CNN"]}, "position": {}}
    run = run_study(quiet(STUDY | {"experiments": experiments}), tmp_path)
    assert set(run.tables["shuffle"]["model"]) == {"CNN"}
    assert set(run.tables["position"]["model"]) == {"demo:deit_micro", "CNN"}
    assert "CNN" in (tmp_path / "study.yaml").read_text()


def test_a_model_can_be_named_as_it_is_loaded(tmp_path):
    experiments = {"shuffle": {"grids": ["2x2"], "models": ["demo:resnet_micro"]}}
    run = run_study(quiet(STUDY | {"experiments": experiments}), tmp_path)
    assert set(run.tables["shuffle"]["model"]) == {"CNN"}


def test_a_model_the_study_does_not_have_is_named():
    experiments = {"shuffle": {"models": ["demo:resnet_mikro"]}}
    with pytest.raises(InputError, match=r"shuffle: no model of the study is called.*Did you mean 'demo:resnet_micro'"):
        make_study(STUDY | {"experiments": experiments})


def test_shape_bias_can_be_measured_on_stimuli_beside_the_studys_images(tmp_path):
    experiments = {"shape-bias": {"stimuli": "demo:trifeature/cue-conflict"}, "shuffle": {"grids": ["2x2"]}}
    run = run_study(quiet(STUDY | {"experiments": experiments}), tmp_path)
    assert run.tables["shape-bias"]["n_images"].to_list() == [8, 8]
    assert set(run.records("shape-bias")["image"].cast(str)).isdisjoint(run.records("shuffle")["image"].cast(str))
    again = run_study(quiet(STUDY | {"experiments": experiments}), tmp_path)
    assert again.tables["shape-bias"].equals(run.tables["shape-bias"])


def test_the_data_of_a_study_are_opened_with_every_key_that_is_given(monkeypatch):
    keys = {name: name for name in DataEntry.model_fields if name not in ("decoder", "labels", "subset")}
    entry = DataEntry(**keys, decoder="pil", labels="real", subset="robustbench")
    monkeypatch.setattr("ipvit.data.loading.load_dataset", lambda name, **options: {"name": name} | options)
    assert entry.open() == entry.model_dump()
