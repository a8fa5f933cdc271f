"""``check_experiment``: does an experiment keep what a run, a study file and a report rely on?"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ipvit.analysis.base import Analysis
from ipvit.api import bind_context
from ipvit.core.run_config import RunConfig
from ipvit.core.text.validation_messages import validated
from ipvit.data.dataset import Dataset
from ipvit.engine.study import DataEntry, ExperimentEntry, ModelEntry, study_text
from ipvit.errors import InputError
from ipvit.experiments.base import Condition, Experiment, Measurement, Requirements
from ipvit.experiments.registry import checked_class
from ipvit.models.capabilities import CAPABILITIES
from ipvit.models.model import Model
from ipvit.testing.contract import ContractError, no_error, randomness_untouched, require, seeded
from ipvit.testing.measuring import check_measuring
from ipvit.testing.runs import check_other_runs, check_whole_run
from ipvit.testing.samples import sample_data, sample_models, sample_vit
from ipvit.testing.subject import Subject
from ipvit.testing.tables import check_tables

_CELL = (str, int, float, bool, type(None))
"""What a field of a condition may hold: it is the value of a column."""


def check_experiment(
    experiment: Experiment | type[Experiment],
    *,
    models: Model | Sequence[Model] | None = None,
    data: Dataset | None = None,
    rounding: float = 1e-4,
) -> None:
    """Hold an experiment to what ipvit relies on.

    It is run several times in a temporary folder. What is looked at: parameters and study files, ``bind``, the
    conditions, one batch measured by itself, records (one for each image and condition, whatever the batch, the order
    and the other images), going on with a run, what ``requirements`` states, tables, their files, figures, sentences.

    Args:
        experiment: with the parameters that are tried; a class is tried with its defaults.
        models: networks that it is measured on, two or more to compare; by default a tiny transformer and a tiny
            convolutional network of 32 pixels, with random weights.
        data: images, all of which are measured several times; by default twelve of four classes, with masks.
        rounding: how far a measured number may be off in another batch: so much, or this share of it where it is
            above 1.

    Raises:
        ContractError: a promise is not kept; the message says which.
    """
    made = _instance(experiment)
    _check_parameters(made)
    _check_statements(made)
    with seeded(0), tempfile.TemporaryDirectory() as folder:
        images = sample_data() if data is None else data
        subject = Subject(made, _models(made, models), images, rounding, Path(folder))
        _check_bind(subject)
        check_measuring(subject)
        whole = check_whole_run(subject)
        check_tables(subject, whole)
        check_other_runs(subject, whole)


def _instance(experiment: Experiment | type[Experiment]) -> Experiment:
    """Return the experiment with its defaults where a class was given."""
    kind = experiment if isinstance(experiment, type) else type(experiment)
    try:
        checked_class(kind, kind.__name__)
    except InputError as error:
        raise ContractError(str(error)) from None
    for name, field in kind.model_fields.items():
        require(
            not field.is_required(),
            f"{kind.__name__}: the parameter {name!r} has no default; every parameter needs one, since run folders are "
            "read without the study's values",
        )
    if isinstance(experiment, Experiment):
        return experiment
    with no_error(f"{kind.__name__}()"):
        return kind()


def _models(experiment: Experiment, models: Model | Sequence[Model] | None) -> tuple[Model, ...]:
    """Return the models to measure: of the samples two that can do what is required."""
    if isinstance(models, Model):
        return (models,)
    if models is not None:
        return tuple(models)
    found = sample_models()
    able = [model for model in found if all(map(model.can, experiment.requirements.capabilities))]
    return tuple(found if len(able) > 1 else [*found, sample_vit(1)])


def _check_parameters(experiment: Experiment) -> None:
    """Parameters cannot be changed, are hashable, and come back from a study file as they were."""
    kind, name = type(experiment), type(experiment).__name__
    require(kind.model_config.get("frozen"), f"{name} is not frozen; leave model_config as ipvit.Experiment has it")
    require(
        kind.model_config.get("extra") == "forbid",
        f"{name} takes parameters that it does not have; leave model_config as ipvit.Experiment has it",
    )
    with no_error(f"hash({name}(...)), for which every parameter must be hashable, a tuple and no list,"):
        hash(experiment)
    with no_error(f"{name}: writing the parameters into a study file"):
        text = study_text(
            [ModelEntry(name="model")],
            DataEntry(name="data"),
            [(ExperimentEntry(name=experiment.name), experiment)],
            RunConfig(),
        )
    (written,) = yaml.safe_load(text)["experiments"]
    with no_error(f"{name}: reading the parameters from a study file"):
        read = validated(kind, written[experiment.name] or {}, name)
    changed = [field for field in kind.model_fields if getattr(read, field) != getattr(experiment, field)]
    require(
        not changed,
        f"{name}: the parameter {', '.join(changed)} comes back from a study file as another value; YAML must be able "
        "to hold it",
    )


def _check_statements(experiment: Experiment) -> None:
    """What it states of itself: requirements and analysis."""
    name = type(experiment).__name__
    with no_error(f"{name}.requirements"):
        needs = experiment.requirements
    require(isinstance(needs, Requirements), f"{name}.requirements is no ipvit.Requirements but {type(needs).__name__}")
    unknown = sorted((needs.capabilities | needs.optional) - CAPABILITIES)
    require(
        not unknown,
        f"{name}.requirements names {', '.join(unknown)}, which no model offers; known: "
        f"{', '.join(sorted(CAPABILITIES))}",
    )
    with no_error(f"{name}.analysis()"):
        analysis, again = experiment.analysis(), experiment.analysis()
    require(isinstance(analysis, Analysis), f"{name}.analysis() is no ipvit.Analysis but {type(analysis).__name__}")
    require(
        analysis.name == experiment.name,
        f"{name}.analysis() is called {analysis.name!r} and the experiment {experiment.name!r}; make it by Analysis.of",
    )
    require(analysis == again, f"{name}.analysis() is another one each time; it must follow from the parameters")


def _check_bind(subject: Subject) -> None:
    """``bind`` returns a measurement and leaves the experiment as it is; its conditions are sound."""
    experiment, name = subject.experiment, subject.name
    able = subject.able
    require(able, f"{name} requires what no model offers; give models that can do it")
    before = _content(experiment)
    with no_error(f"{name}.bind"), randomness_untouched(f"{name}.bind"), subject.accepted():
        measurement = experiment.bind(able, subject.data, bind_context())
    require(isinstance(measurement, Measurement), f"{name}.bind returns {type(measurement).__name__}, no Measurement")
    for model in able:
        _check_conditions(subject, measurement, model)
    again = experiment.bind(able, subject.data, bind_context())
    for model in able:
        keys, keys_again = ([c.key for c in bound.conditions(model)] for bound in (measurement, again))
        require(keys == keys_again, f"{name}: bound a second time it has other conditions on {model.name}")
    require(
        _content(experiment) == before,
        f"{name}.bind changes the experiment; what a run keeps belongs to the measurement that it returns",
    )


def _check_conditions(subject: Subject, measurement: Measurement, model: Model) -> None:
    doing = f"{subject.name}: conditions(model) on {model.name}"
    with no_error(doing), randomness_untouched(doing):
        conditions, again = list(measurement.conditions(model)), list(measurement.conditions(model))
    require(conditions, f"{doing} is empty; return one condition at least")
    for condition in conditions:
        require(
            isinstance(condition, Condition) and type(condition).__dataclass_params__.frozen,  # pyright: ignore[reportAttributeAccessIssue]
            f"{doing} holds {condition!r}, which is no frozen dataclass that extends ipvit.Condition",
        )
        for field, value in vars_of(condition).items():
            require(
                isinstance(value, _CELL),
                f"{doing}: the field {field!r} of {type(condition).__name__} is of type {type(value).__name__}; it "
                "becomes a column, so it must be a text, a number, true or false, or None",
            )
    seen: dict[str, Condition] = {}
    for condition in conditions:
        require(
            condition.key not in seen,
            f"{doing} holds {condition!r} twice; the fields of a condition must tell it from all others",
        )
        seen[condition.key] = condition
    require(
        [one.key for one in conditions] == [one.key for one in again],
        f"{doing} gives other conditions on the second call; they must follow from the parameters and the model",
    )


def vars_of(condition: Condition) -> dict[str, Any]:
    """Return the fields of a condition by name."""
    return {field.name: getattr(condition, field.name) for field in dataclasses.fields(condition)}


def _content(experiment: Experiment) -> tuple[str, ...]:
    """Return all that an experiment holds, as text, without values that follow from the rest."""
    kind = type(experiment)
    cached = {name for name in dir(kind) if isinstance(getattr(kind, name, None), functools.cached_property)}
    kept = {name: value for name, value in vars(experiment).items() if name not in cached}
    return (repr(kept), repr(experiment.__pydantic_private__))
