"""The options of a run are written once: study file, command line and Python take the same ones, checked alike."""

import dataclasses
import inspect

import pytest
import yaml
from cyclopts import Parameter

import ipvit
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.commands.options import NOT_OFFERED, RunOptions
from ipvit.core.run_config import OF_ONE_CALL, RunConfig
from ipvit.core.shard import Shard
from ipvit.core.text.validation_messages import validated
from ipvit.engine.study import make_study, read_study
from ipvit.errors import InputError
from ipvit.experiments.registry import make_experiment

STUDY = {"models": "demo:deit_micro", "data": "demo:trifeature", "experiments": "accuracy"}


def run(out, **options):
    settings = {"workers": 0, "progress": False} | options
    return ipvit.run(small_occlusion(), models=tiny_model(), data=photos(), out=out, **settings)


def test_the_signature_of_run_has_the_names_and_defaults_of_the_options():
    parameters = inspect.signature(ipvit.run).parameters.values()
    given = {p.name: p.default for p in parameters if p.name not in ("experiments", "models", "data", "out")}
    assert given.pop("prompts") is None and given.pop("class_names") is None, "of the models, not of the run"
    assert given == {name: field.default for name, field in RunConfig.model_fields.items()}


def test_run_hands_every_option_on(tmp_path, monkeypatch):
    given = {
        "seed": 3,
        "limit": 5,
        "batch_size": 2,
        "workers": 0,
        "device": "cpu",
        "precision": "bf16",
        "backend": "openvino",
        "compile": True,
        "strict": True,
        "shard": "2/3",
        "fresh": True,
        "progress": False,
        "flush_seconds": 1.5,
    }
    found = []

    def stop(experiments, models, data, out, settings, **_):
        found.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr("ipvit.api.execute", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, **given)
    assert found == [RunConfig(**given)] and found[0].model_fields_set == RunConfig.model_fields.keys()
    assert found[0].shard == Shard(1, 3)


def test_the_command_line_has_every_option_with_its_description_and_gives_the_study_no_default():
    fields = {field.name: field for field in dataclasses.fields(RunOptions)}
    assert fields.keys() - {"out", "json"} == RunConfig.model_fields.keys() - set(NOT_OFFERED)
    for name, field in RunConfig.model_fields.items():
        if name not in NOT_OFFERED:
            helps = [part.help for part in fields[name].type.__metadata__ if isinstance(part, Parameter) and part.help]
            default = "" if field.default is None else f" [default: {field.default}]"
            assert helps in ([field.description], [f"{field.description}{default}"]), name
            assert not fields[name].default, name


def test_every_option_is_described():
    assert all(field.description for field in RunConfig.model_fields.values())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"limit": 0}, "limit must be 1 or more, not 0"),
        ({"batch_size": -1}, "batch_size must be 1 or more, not -1"),
        ({"workers": "many"}, "workers must be a whole number, not 'many'"),
        ({"seed": 2**63}, "seed must be less than"),
        ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"precision": "fp8"}, "precision must be 'fp32', 'tf32', 'bf16' or 'fp16', not 'fp8'"),
        ({"backend": "onnx"}, "backend must be 'torch' or 'openvino', not 'onnx'"),
        ({"device": 1}, "device must be text, not 1"),
        ({"shard": "3/2"}, "a shard is NUMBER/COUNT from 1/8 to 8/8, not '3/2'"),
        ({"flush_seconds": -1}, "flush_seconds must be 0 or more, not -1"),
        ({"flush_seconds": float("nan")}, "flush_seconds must be 0 or more, not nan"),
        ({"strict": "maybe"}, "strict must be true or false, not 'maybe'"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_in_one_line_before_anything_is_written(tmp_path, given, words):
    with pytest.raises(ipvit.InputError, match=words) as caught:
        run(tmp_path / "out", **given)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(OF_ONE_CALL))
def test_what_belongs_to_one_call_is_not_read_from_a_study(tmp_path, name):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY | {name: True}))
    with pytest.raises(ipvit.InputError, match=rf"study\.yaml: '{name}' is given with each call"):
        read_study(tmp_path / "study.yaml")


def test_an_unknown_key_is_answered_with_the_keys_of_a_study():
    with pytest.raises(ipvit.InputError, match="there is no 'limt'. Did you mean 'limit'") as caught:
        make_study(STUDY | {"limt": 3})
    assert not any(name in str(caught.value) for name in OF_ONE_CALL)
    with pytest.raises(ipvit.InputError, match="there is no 'shards'"):
        make_study(STUDY | {"shards": "1/2"})


def test_options_that_are_given_replace_those_of_the_study_and_others_stay():
    study = make_study(STUDY | {"limit": 5, "seed": 4, "strict": True})
    found = study.with_options(RunOptions(limit=3, shard="1/2", json=True).config())
    assert (found.limit, found.seed, found.strict, found.effective_shard) == (3, 4, True, Shard(0, 2))
    assert not found.progress and study.limit == 5 and found.models == study.models
    assert study.with_options(RunOptions(seed=0).config()).seed == 0, "0 is given too"


def test_options_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        make_study(STUDY).seed = 1


def test_the_study_in_a_run_folder_has_what_the_run_was_given_and_can_be_read_again(tmp_path):
    run(tmp_path, limit=3, batch_size=2, fresh=True, shard=None)
    content = yaml.safe_load((tmp_path / "study.yaml").read_text())
    assert list(content)[:2] == ["models", "data"] and list(content)[-1] == "experiments"
    assert not OF_ONE_CALL & content.keys()
    assert (content["limit"], content["batch_size"], content["workers"], content["seed"]) == (3, 2, 0, 0)
    assert read_study(tmp_path / "study.yaml").limit == 3


@pytest.mark.parametrize("name", ["occlusion", "shuffle", "correlation", "feature-drop", "attack"])
def test_more_repetitions_than_fit_into_memory_are_refused_before_they_are_made(name):
    for runs in (10_001, 2_147_483_648, 10**30):
        with pytest.raises(InputError, match=f"{name}: runs must be a number from 1 to 10000"):
            make_experiment(name, {"runs": runs})
    assert make_experiment(name, {"runs": 10_000})


def test_more_processes_than_any_machine_has_are_refused():
    with pytest.raises(InputError, match="workers must be a number from 0 to 1024"):
        validated(RunConfig, {"workers": 2_147_483_648})
